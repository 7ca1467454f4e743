"""How fast the whole product goes through a backlog, what each part of it costs, and the floor beside it."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fraudstream.clients.topic_admin import admin, create_topics
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.stack import embedded
from fraudstream.stack.addresses import with_addresses
from trainer.export import Exported
from verify.bench import floor
from verify.bench.aims import Aim, of_pipeline
from verify.bench.backlog import fill, send
from verify.bench.counted import Counted, ScoredLog, count_all, trees_of
from verify.bench.model import bench_model, serve
from verify.bench.processes import started
from verify.bench.rate import Rate, Watched, timed
from verify.bench.rivals import NAMES, Rival, Rivals
from verify.demo.children import Children
from verify.ledger import Ledger

Progress = Callable[[str], None]
TOPICS_MS = 20_000
FLOOR_TOPIC = "floor"


class PipelineBench(msgspec.Struct, frozen=True):
    """The report of `fraudstream bench pipeline`; `ratio`: how many times as fast as a peer one worker is.

    Peers that were left out are null. `redis_core_share` is that beside one worker.
    """

    product: Rate
    two_workers: Rate
    floor: Rate
    peers: dict[str, Rate | None]
    ratio: dict[str, float | None]
    ratio_to_floor: float
    redis_core_share: float
    lost: int
    duplicates: int
    alerts: int
    labels: int
    trees: int
    feature_set: str
    batch_max_records: int
    counted: Counted
    aims: list[Aim] = []


@contextmanager
def own_stack(partitions: int = Settings().partitions) -> Iterator[Settings]:
    """Run servers of its own for the length of the block; nothing of them stays."""
    with tempfile.TemporaryDirectory(prefix="fraudstream-bench-") as folder:
        bare = Settings(state_dir=folder, environment="bench", partitions=partitions)
        try:
            embedded.up(bare, owner_pid=os.getpid())
            settings = with_addresses(bare)
            create_topics(
                settings.kafka_bootstrap, "bench", settings.partitions, timeout_ms=TOPICS_MS
            )
            yield settings
        finally:
            embedded.down(bare, wipe=True)


def measure(backlog: int, progress: Progress, peers: Sequence[Rival]) -> PipelineBench:
    """Have one backlog read by the floor, scored by one worker, then by two, and by each of the peers.

    Raises:
        FraudstreamError: a server, a worker or a peer failed.
    """
    progress("starting servers")
    with own_stack() as settings:
        exported, labels = _prepare(settings, backlog, progress)
        part = backlog * 2 // 5
        progress("the floor: on a broker that is warm from then on")
        bare = _floor(settings, part)
        progress("one worker: scoring")
        one = _workers(settings, 1, part)
        progress("two workers: scoring the rest")
        two = _workers(settings, 2)
        ledger, counted, others = _counted(settings, Rivals(settings, exported, peers), progress)
    report = PipelineBench(
        product=one,
        two_workers=two,
        floor=bare,
        peers=others,
        ratio=ratios(one, others),
        ratio_to_floor=round(one.tx_per_s / bare.tx_per_s, 2),
        redis_core_share=one.redis_core_share,
        lost=ledger.lost + ledger.waiting,
        duplicates=ledger.duplicates,
        alerts=counted.alerts,
        labels=labels,
        trees=trees_of(exported),
        feature_set=", ".join(counted.feature_sets),
        batch_max_records=settings.batch_max_records,
        counted=counted,
    )
    return msgspec.structs.replace(report, aims=of_pipeline(report))


def _prepare(settings: Settings, backlog: int, progress: Progress) -> tuple[Exported, int]:
    """Fill the features, serve a model, send the backlog; return the model and how many labels went out."""
    progress("filling the features of 5,000 cards, fitting a model")
    load, features = fill(settings)
    exported = bench_model(features)
    progress("sending the backlog")
    with ThreadPoolExecutor(1) as beside:
        served = beside.submit(serve, settings, exported)
        labels = send(settings, load, backlog)
        served.result()
    return exported, labels


def ratios(product: Rate, peers: Mapping[str, Rate | None]) -> dict[str, float | None]:
    """Return how many times as fast as each peer the product is; None for one that was left out."""
    return {
        name: None if rate is None else round(product.tx_per_s / rate.tx_per_s, 2)
        for name, rate in peers.items()
    }


def _counted(
    settings: Settings, peers: Rivals, progress: Progress
) -> tuple[Ledger, Counted, dict[str, Rate | None]]:
    """Count while the peers start, then take the rate of each alone; return both counts and the rates."""
    rates: dict[str, Rate | None] = dict.fromkeys(NAMES)
    with ThreadPoolExecutor(1) as beside, peers:
        progress("counting")
        held = beside.submit(peers.hold)
        with ScoredLog(settings) as log:
            ledger, counted = count_all(log, f"{settings.environment}.scorer")
        held.result()
        for peer in peers.all:
            progress(f"peer: {peer.name}")
            rates[peer.name] = peers.measure(peer)
    return ledger, counted, rates


def _workers(settings: Settings, workers: int, least: int | None = None) -> Rate:
    """Take the rate of so many workers over `least` transactions, or to the end of the backlog."""
    with Children(settings, Path(settings.state_dir) / "logs", bars=False) as children:
        for number in range(workers):
            children.start(f"scorer-{number}", "scorer")
        who = Watched(f"{settings.environment}.scorer", "scorer", children.check)
        return timed(settings, who, lambda n, _: least is not None and n >= least)


def _floor(settings: Settings, least: int) -> Rate:
    """Take the rate of the floor; what it writes is no score, so that the ledger need not read it."""
    given = msgspec.json.encode(settings).decode()
    topic = topic_name(settings.environment, FLOOR_TOPIC)
    with admin(settings.kafka_bootstrap, timeout_ms=TOPICS_MS) as client:
        client.create_topics({topic: {"num_partitions": settings.partitions}})
    with started(floor.__name__, given, FLOOR_TOPIC):
        who = Watched(floor.GROUP, floor.__name__, lambda: None)
        return timed(settings, who, lambda n, _: n >= least)
