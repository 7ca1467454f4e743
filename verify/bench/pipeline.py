"""How fast the whole product goes through a backlog, what each part of it costs, and the floor beside it."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
from redis import Redis

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.feature_set import NINE
from fraudstream.core.settings import Settings
from fraudstream.stack import child, embedded
from fraudstream.stack.addresses import with_addresses
from verify.bench import floor
from verify.bench.backlog import fill, send
from verify.bench.model import TREES, bench_model, serve
from verify.demo.children import Children
from verify.ledger import Log, count

Progress = Callable[[str], None]
LOOK_S = 0.1
STOP_S = 10.0
_pause = threading.Event()


class Rate(msgspec.Struct, frozen=True):
    """Transactions a second from the first commit that is seen to the last; CPU of the workers a transaction.

    Shares are of one core: 1.0 is a core that does nothing else.
    """

    transactions: int
    tx_per_s: int
    cpu_us_per_tx: float
    kafka_core_share: float
    redis_core_share: float


class PipelineBench(msgspec.Struct, frozen=True):
    """The report of `fraudstream bench pipeline`."""

    product: Rate
    two_workers: Rate
    floor: Rate
    ratio_to_floor: float
    lost: int
    duplicates: int
    alerts: int
    labels: int
    trees: int
    feature_set: str
    batch_max_records: int


@contextmanager
def own_stack() -> Iterator[Settings]:
    """Run servers of its own for the length of the block; nothing of them stays."""
    with tempfile.TemporaryDirectory(prefix="fraudstream-bench-") as folder:
        bare = Settings(state_dir=folder, environment="bench")
        try:
            embedded.up(bare)
            settings = with_addresses(bare)
            create_topics(settings.kafka_bootstrap, "bench", settings.partitions, timeout_ms=20_000)
            yield settings
        finally:
            embedded.down(bare, wipe=True)


def measure(backlog: int, progress: Progress) -> PipelineBench:
    """Score a backlog with one worker, another with two, and read the first with the floor.

    Raises:
        FraudstreamError: a server or a worker failed.
    """
    progress("starting servers")
    with own_stack() as settings:
        progress("filling the features of 5,000 cards, fitting a model")
        load, features = fill(settings)
        serve(settings, bench_model(features))
        progress("one worker: sending")
        labels = send(settings, load, backlog)
        progress("the floor: on a broker that is warm from then on")
        bare = _floor(settings)
        progress("one worker: scoring")
        one = _workers(settings, 1)
        progress("two workers: sending")
        labels += send(settings, load, backlog)
        progress("two workers: scoring")
        two = _workers(settings, 2)
        progress("counting")
        with Log(settings) as log:
            ledger = count(log, f"{settings.environment}.scorer")
            alerts = sum(1 for _ in log.records("alerts"))
    return PipelineBench(
        product=one,
        two_workers=two,
        floor=bare,
        ratio_to_floor=round(one.tx_per_s / bare.tx_per_s, 2),
        lost=ledger.lost + ledger.waiting,
        duplicates=ledger.duplicates,
        alerts=alerts,
        labels=labels,
        trees=TREES,
        feature_set=NINE.hash,
        batch_max_records=settings.batch_max_records,
    )


def _workers(settings: Settings, workers: int) -> Rate:
    with Children(settings, Path(settings.state_dir) / "logs", bars=False) as children:
        for number in range(workers):
            children.start(f"scorer-{number}", "scorer")
        return scorer_rate(settings, children.check)


def scorer_rate(settings: Settings, check: Callable[[], None]) -> Rate:
    """Return how fast the scorers that run go through what waits; `check` raises if one has died."""
    return _timed(settings, f"{settings.environment}.scorer", "scorer", check)


def _floor(settings: Settings) -> Rate:
    dies_with_us = [sys.executable, child.__file__, str(os.getpid())]
    arguments = [sys.executable, "-m", floor.__name__, msgspec.json.encode(settings).decode()]
    command = [*dies_with_us, *arguments]
    process = subprocess.Popen(command)  # noqa: S603 - our own command line
    try:
        return _timed(settings, floor.GROUP, floor.__name__, lambda: None)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(STOP_S)


def _timed(settings: Settings, group: str, name: str, check: Callable[[], None]) -> Rate:
    """Take the time and the CPU from the first commit of a group that is seen to the last."""
    with Log(settings) as log, Redis.from_url(settings.redis_url) as client:
        begin, total = log.lag(group)
        done = begin
        while done <= begin:
            done = _next(log, group, check)
        begun_s, before, first = monotonic_s(), _cpu_s(settings, client, name), done
        while done < total:
            done = _next(log, group, check)
        seconds = monotonic_s() - begun_s
        used = {each: at - before[each] for each, at in _cpu_s(settings, client, name).items()}
    n = done - first
    return Rate(
        transactions=n,
        tx_per_s=round(n / seconds),
        cpu_us_per_tx=round(used["worker"] / n * 1e6, 1),
        kafka_core_share=round(used["kafka"] / seconds, 2),
        redis_core_share=round(used["redis"] / seconds, 2),
    )


def _next(log: Log, group: str, check: Callable[[], None]) -> int:
    check()
    _pause.wait(LOOK_S)
    return log.lag(group)[0]


def _cpu_s(settings: Settings, client: Redis, worker: str) -> dict[str, float]:
    """Return the CPU seconds used so far by the workers, by Kafka and by Redis."""
    info = client.info("cpu")
    used = {"redis": float(info["used_cpu_user"]) + float(info["used_cpu_sys"])}
    for name, part in (("worker", worker), ("kafka", "kafka.Kafka")):
        found = [
            each.info["cpu_times"]
            for each in psutil.process_iter(["cmdline", "cpu_times"])
            if part in (line := " ".join(each.info["cmdline"] or ())) and settings.state_dir in line
        ]
        used[name] = sum(times.user + times.system for times in found)
    return used
