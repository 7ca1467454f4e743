"""Where a chaos run plays: servers of its own, a stream whose terminals all workers share, three models."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from fraudstream.clients.clock import now_ms
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.errors import DependencyUnreachable, FraudstreamError
from fraudstream.core.feature_set import NINE
from fraudstream.core.model import CARD_METRICS, Contract, DataWindow, FloatArray, usual_values
from fraudstream.core.settings import Settings, state_path
from fraudstream.core.twin import Twin
from fraudstream.stack import embedded
from fraudstream.stack.addresses import with_addresses
from fraudstream.stack.locks import exclusive
from producer.generator import make_parameters, source
from producer.pace import AtRate
from producer.replay import Progress, ReplayPlan, replay_table
from producer.sources import Source, event_times, feedback, in_canonical_order, labels, records

DAYS = 14
PER_CUSTOMER_DAY = 1.7
TIE_MS = 15 * 60_000
"""Event times are rounded down to so much: many transactions of a terminal happen at the same time."""
VERSIONS = 3

Tell = Callable[[str], None]


def chaos_settings(settings: Settings) -> Settings:
    """Return the settings of a chaos run: the defaults, in a folder of its own below the user's.

    What the schedule, its waits and the oracle take for granted (8 partitions, a session of 6 s, the nine
    features) is so whatever the user has set.
    """
    return Settings(environment="chaos", state_dir=str(state_path(settings) / "chaos"))


@contextmanager
def servers(settings: Settings, tell: Tell) -> Iterator[Settings]:
    """Run an empty stack with its topics for the length of the block.

    Raises:
        FraudstreamError: a server does not start, or another chaos run has the folder.
    """
    folder = state_path(settings)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / "chaos.lock", wait_s=0):
        embedded.down(settings, wipe=True)
        try:
            embedded.up(
                settings,
                owner_pid=os.getpid(),
                on_progress=lambda name, what: tell(f"{name}: {what}"),
            )
            full = with_addresses(settings)
            timeout_ms = full.connect_timeout_ms
            create_topics(
                full.kafka_bootstrap, full.environment, full.partitions, timeout_ms=timeout_ms
            )
            yield full
        finally:
            embedded.down(settings, wipe=True)


def make_stream(rows: int, seed: int) -> Source:
    """Return a generated stream of about so many transactions over 14 days, many at the same time."""
    customers = max(200, round(rows / DAYS / PER_CUSTOMER_DAY))
    parameters = make_parameters(
        {"seed": seed, "customers": customers, "terminals": max(100, customers // 3), "days": DAYS}
    )
    made = source(parameters)
    times = event_times(made.table)
    place = made.table.schema.get_field_index("event_time_ms")
    field = made.table.schema.field(place)
    tied = made.table.set_column(place, field, pa.array(times - times % TIE_MS))
    table = in_canonical_order(tied)
    return Source(f"{made.identity}-tied", table, 0, table.num_rows)


def publish_versions(settings: Settings) -> list[str]:
    """Publish three different models in the run's registry; return their versions. None is promoted.

    Raises:
        DependencyUnreachable: MLflow does not answer.
    """
    from trainer.export import convert, golden_rows, seal  # noqa: PLC0415 - 2 s of import
    from trainer.fit import fit  # noqa: PLC0415
    from trainer.publish import publish  # noqa: PLC0415

    features, frauds = _training_rows()
    versions = []
    for number in range(VERSIONS):
        fitted = fit(features, frauds, seed=number, trees=40 + 20 * number)
        scores = fitted.probabilities(features).astype(np.float32)
        golden = golden_rows(features, scores)
        contract = _contract(features[~frauds], golden, float(np.quantile(scores, 0.99)))
        versions.append(publish(settings, seal(convert(fitted), contract), {}))
    return versions


def _training_rows() -> tuple[FloatArray, np.ndarray]:
    """Return features float32 [N, 9] of a small stream by the twin, and bool [N], which are frauds."""
    small = make_stream(8_000, seed=1).table
    twin = Twin()
    for answer in feedback(small, labels(small)):
        twin.label(answer)
    rows = records(small, 0, small.num_rows)
    found = [twin.apply(0, offset, row).features for offset, row in enumerate(rows)]
    return np.array(found, np.float32), np.asarray(small["is_fraud"])


def _contract(usual_rows: FloatArray, golden: FloatArray, threshold: float) -> Contract:
    usual, spread = usual_values(usual_rows)
    return Contract(
        feature_set=NINE.hash,
        features=NINE.features,
        threshold=min(max(threshold, 0.0), 1.0),
        golden_inputs=golden.tolist(),
        golden_outputs=[],
        usual=usual.tolist(),
        spread=spread.tolist(),
        window=DataWindow(**dict.fromkeys(DataWindow.__struct_fields__, 0)),
        metrics=dict.fromkeys(CARD_METRICS, 0.0),
        created_at_ms=now_ms(),
    )


def promote_version(settings: Settings, version: str) -> None:
    """Make a version champion, as the trainer does.

    Raises:
        FraudstreamError: a server does not answer, or the version fails a check.
    """
    from trainer.promote import Order, promote  # noqa: PLC0415 - its imports are not everybody's

    registry = ModelRegistry(settings.mlflow_url, connect_timeout_ms=settings.connect_timeout_ms)
    order = Order(version=version, actor="chaos", why="a chaos run", now_ms=now_ms())
    promote(settings, registry, order, feature_set=NINE)


class Sender:
    """Replays the stream in a thread, again and again, until `stop`; goes on once a broker is back."""

    def __init__(self, settings: Settings, stream: Source, rate: float) -> None:
        self._settings = settings
        self._stream = stream
        self._plan = ReplayPlan(pace=AtRate(rate), client="confluent", loop=True)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.position = 0
        self.failure: FraudstreamError | None = None

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def check(self) -> None:
        """Raise what ended the replay for good.

        Raises:
            FraudstreamError: Kafka refused a record, or the replay found something out of order.
        """
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """End after the present chunk, and wait until what was handed over is delivered."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                replay_table(
                    self._settings,
                    self._stream,
                    self._plan,
                    on_progress=self._note,
                    stop=self._stop,
                )
            except DependencyUnreachable:
                continue  # the replay goes on where the log ends
            except FraudstreamError as exc:
                self.failure = exc
                return

    def _note(self, progress: Progress) -> None:
        self.position = progress.position
