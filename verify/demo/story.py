"""The main job, told as a story: history -> features -> training -> champion -> live scores and alerts."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.errors import FraudstreamError, Refused, SettingsError
from fraudstream.core.evaluation import average_precision
from fraudstream.core.settings import Settings, state_path
from fraudstream.stack import embedded
from fraudstream.stack.addresses import with_addresses
from producer.sources import Source, parse_time_ms, read_source
from verify.demo.children import Children
from verify.demo.observer import Observer
from verify.ledger import Ledger, Log

GENERATED_DAYS = 50
HANDBOOK_FROM, HANDBOOK_TO = "2018-07-01", "2018-08-12"
"""42 days, 402,000 transactions: five weeks of history warm the features up."""
WAIT_S = 120.0

Tell = Callable[[str], None]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the user chose: `data` None for the generator, `rate` of the live part in transactions/s."""

    data: Path | None
    seed: int
    rate: int
    live: int
    keep: bool


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the demo in numbers; `seconds` includes servers, history and training."""

    transactions: int
    scored: int
    dead_letters: int
    alerts: int
    lost: int
    duplicates: int
    frauds: int
    average_precision: float
    lift_over_chance: float
    model_versions: int
    swaps: int
    p50_ms: float
    p99_ms: float
    rate_per_s: float
    seconds: float
    history_rate_per_s: float
    live_transactions: int


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What the observer measured in the live part."""

    transactions: int
    frauds: int
    average_precision: float
    lift_over_chance: float
    alerts: int
    model_versions: int
    p50_ms: float
    p99_ms: float
    rate_per_s: float


def demo_settings(settings: Settings) -> Settings:
    """Return the settings of the demo: an environment and a state folder of its own."""
    folder = state_path(settings) / "demo"
    return msgspec.structs.replace(settings, environment="demo", state_dir=str(folder))


def run(
    settings: Settings, options: Options, tell: Tell, hold: Callable[[Summary], None]
) -> Summary:
    """Run the whole story and return its summary; `hold` is called before the servers go down.

    Raises:
        FraudstreamError: a part of it failed; the message says which and where its log is.
    """
    started = monotonic_s()
    folder = state_path(settings)
    with exclusive(folder), Children(settings, folder / "logs") as children:
        source_file = options.data or _generate(children, folder, options, tell)
        with _servers(settings, options, tell) as running:
            story = Story(running, children, options, tell)
            summary = story.tell_all(source_file, started)
            hold(summary)
    return summary


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder of the demo for this process alone.

    Raises:
        Refused: another demo runs there. SettingsError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "demo.lock").open("a+")
    except OSError as exc:
        raise SettingsError(
            f"state_dir {folder.parent} cannot be written ({exc.strerror}): choose another with "
            "FRAUDSTREAM_STATE_DIR"
        ) from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Refused(
                f"another demo is running in {folder}: wait for its end or stop it"
            ) from exc
        yield


def _generate(children: Children, folder: Path, options: Options, tell: Tell) -> Path:
    target = folder / f"generated-{options.seed}-{GENERATED_DAYS}.parquet"
    tell(f"generating {GENERATED_DAYS} days of transactions (seed {options.seed})")
    arguments = ("--seed", str(options.seed), "--days", str(GENERATED_DAYS))
    children.run("generate", "generate", "--out", str(target), "--force", *arguments)
    return target


@contextmanager
def _servers(settings: Settings, options: Options, tell: Tell) -> Iterator[Settings]:
    """Run the embedded stack, empty, for the length of the block; with --keep it stays."""
    owner = None if options.keep else os.getpid()
    embedded.down(settings, wipe=True)
    try:
        embedded.up(
            settings, owner_pid=owner, on_progress=lambda part, line: tell(f"{part}: {line}")
        )
        yield with_addresses(settings)
    finally:
        if not options.keep:
            embedded.down(settings, wipe=True)


class Story:
    """The steps of the demo in their order; each is a command that a user could give."""

    def __init__(
        self, settings: Settings, children: Children, options: Options, tell: Tell
    ) -> None:
        self._settings = settings
        self._children = children
        self._options = options
        self._tell = tell
        self._group = f"{settings.environment}.scorer"

    def tell_all(self, source_file: Path, started: float) -> Summary:
        """Run every step and return the summary."""
        source, cut = self._cut(source_file)
        history = source.stop - source.start - self._options.live
        s = self._settings
        timeout_ms = s.connect_timeout_ms
        create_topics(s.kafka_bootstrap, s.environment, s.partitions, timeout_ms=timeout_ms)
        self._children.start("scorer", "scorer")
        rate = self._replay_history(source_file, cut, history)
        self._train()
        live = self._go_live(source_file, cut, source)
        ledger = self._count()
        return Summary(
            transactions=ledger.transactions,
            scored=ledger.scored,
            dead_letters=ledger.dead_letters,
            alerts=live.alerts,
            lost=ledger.lost + ledger.waiting,
            duplicates=ledger.duplicates + ledger.unfounded,
            frauds=live.frauds,
            average_precision=live.average_precision,
            lift_over_chance=live.lift_over_chance,
            model_versions=live.model_versions,
            swaps=self._swaps(),
            p50_ms=live.p50_ms,
            p99_ms=live.p99_ms,
            rate_per_s=live.rate_per_s,
            seconds=round(monotonic_s() - started, 1),
            history_rate_per_s=rate,
            live_transactions=live.transactions,
        )

    def _cut(self, source_file: Path) -> tuple[Source, tuple[str, ...]]:
        """Return the source and the arguments that make `replay` send the same part of it."""
        source = read_source(source_file)
        cut: tuple[str, ...] = ()
        if source.identity.startswith("handbook"):
            cut = ("--from", HANDBOOK_FROM, "--to", HANDBOOK_TO)
            bounds = (
                parse_time_ms(text, field) for field, text in zip(cut[::2], cut[1::2], strict=True)
            )
            source = read_source(source_file, *bounds)
        if source.stop - source.start < 3 * self._options.live:
            raise SettingsError(
                f"{source_file} has {source.stop - source.start:,} transactions: the demo needs three "
                f"times the {self._options.live:,} of its live part; lower --live"
            )
        return source, cut

    def _replay_history(self, source_file: Path, cut: tuple[str, ...], history: int) -> float:
        """Send the history unpaced, wait until its features are logged; return transactions/s."""
        self._tell(
            f"replaying {history:,} past transactions unpaced; no model yet, features are logged"
        )
        began = monotonic_s()
        limit = ("--limit", str(history))
        self._children.run("history", "replay", str(source_file), *cut, "--unpaced", *limit)
        self._await_scored()
        rate = history / (monotonic_s() - began)
        self._tell(f"features of {history:,} transactions logged at {rate:,.0f}/s")
        return round(rate, 1)

    def _train(self) -> None:
        self._tell("training from the logged features and the labels known by now")
        self._children.run("train", "train", "--promote")

    def _go_live(self, source_file: Path, cut: tuple[str, ...], source: Source) -> Live:
        """Send the rest at a visible rate and watch what comes out."""
        o = self._options
        self._tell(
            f"replaying {o.live:,} live transactions at {o.rate}/s; alerts appear as they come"
        )
        observer = Observer(self._settings)
        began = monotonic_s()
        try:
            self._children.start("live", "replay", str(source_file), *cut, "--rate", str(o.rate))
            self._watch(observer)
            seconds = monotonic_s() - began
            self._await_seen(observer)
        finally:
            observer.stop()
        return self._judge(observer, source, seconds)

    def _watch(self, observer: Observer) -> None:
        """Tell of alerts, at most one a second, until the live replay has ended."""
        told = 0
        next_at = monotonic_s()
        while self._children.status("live") is None:
            self._children.check()
            alert = observer.latest_alert
            if alert is not None and observer.alerts > told and monotonic_s() >= next_at:
                told, next_at = observer.alerts, monotonic_s() + 1.0
                amount = f"{alert.amount_minor / 100:,.2f} {alert.currency}"
                self._tell(
                    f"alert {told}: {amount} at terminal {alert.terminal}, score {alert.score:.3f} "
                    f"({len(observer.seen):,} scored, p50 {observer.quantile_ms(0.5):.0f} ms)"
                )
        self._children.check()

    def _await_scored(self) -> None:
        with Log(self._settings) as log:
            deadline = monotonic_s() + WAIT_S
            best = -1
            done, total = log.lag(self._group)
            while done < total:
                self._children.check()
                if done > best:
                    best, deadline = done, monotonic_s() + WAIT_S
                if monotonic_s() > deadline:
                    raise FraudstreamError(
                        f"the scorer stands at {done:,} of {total:,} for {WAIT_S:.0f} s"
                    )
                done, total = log.lag(self._group)

    def _await_seen(self, observer: Observer) -> None:
        self._await_scored()
        deadline = monotonic_s() + 10.0
        while len(observer.seen) < self._options.live and monotonic_s() < deadline:
            observer.wait_for_more(0.1)

    def _judge(self, observer: Observer, source: Source, seconds: float) -> Live:
        """Hold the scores that were really served against the truth of the source."""
        rows = source.table.slice(source.stop - self._options.live, self._options.live)
        truth = np.asarray(rows["is_fraud"], dtype=bool)
        served = [observer.seen.get(name) for name in map(str, rows["transaction_id"].to_pylist())]
        scores = np.array([0.0 if s is None or s.score is None else s.score for s in served])
        quality = average_precision(truth, scores)
        return Live(
            transactions=sum(s is not None for s in served),
            frauds=int(truth.sum()),
            average_precision=round(quality, 4),
            lift_over_chance=round(quality / float(truth.mean()), 1),
            alerts=observer.alerts,
            model_versions=len(observer.versions()),
            p50_ms=observer.quantile_ms(0.5),
            p99_ms=observer.quantile_ms(0.99),
            rate_per_s=round(self._options.live / seconds, 1),
        )

    def _count(self) -> Ledger:
        self._tell("counting what came in against what came out, by position, with another client")
        report = state_path(self._settings) / "ledger.json"
        self._children.run("ledger", "ledger", "--json", str(report))
        return msgspec.json.decode(report.read_bytes(), type=Ledger)

    def _swaps(self) -> int:
        """Return how many swaps stand in the audit topic."""
        with Log(self._settings) as log:
            events = [msgspec.json.decode(r.value or b"") for r in log.records("audit")]
        return sum(event["event"] == "swap" for event in events)
