"""How fast the whole product goes through a backlog, and what each part of it costs."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.settings import Settings
from fraudstream.stack import embedded
from fraudstream.stack.addresses import with_addresses
from verify.bench.backlog import fill, send
from verify.bench.model import bench_model, serve
from verify.demo.children import Children
from verify.ledger import Log, count

Progress = Callable[[str], None]
BACKLOG = 300_000
LOOK_S = 0.05


class Rate(msgspec.Struct, frozen=True):
    """Transactions a second between the first and the last commit seen; CPU a transaction by process."""

    transactions: int
    tx_per_s: int
    cpu_us_per_tx: dict[str, float]
    core_share: dict[str, float]


@contextmanager
def own_stack() -> Iterator[Settings]:
    """Run servers of its own for the length of the block; nothing of them stays."""
    with tempfile.TemporaryDirectory(prefix="fraudstream-bench-") as folder:
        bare = Settings(state_dir=folder, environment="bench")
        try:
            embedded.up(bare)
            yield with_addresses(bare)
        finally:
            embedded.down(bare, wipe=True)


def measure(workers: int, backlog: int, progress: Progress) -> dict[str, object]:
    """Fill, send a backlog, score it with so many workers, count."""
    progress("starting servers")
    with own_stack() as settings:
        create_topics(
            settings.kafka_bootstrap, settings.environment, settings.partitions, timeout_ms=20_000
        )
        progress("filling the state")
        load, features = fill(settings)
        serve(settings, bench_model(features))
        progress("sending")
        send(settings, load, backlog)
        progress("scoring")
        rate = score(settings, workers)
        progress("counting")
        with Log(settings) as log:
            ledger = count(log, f"{settings.environment}.scorer")
    return {"product": rate, "lost": ledger.lost + ledger.waiting, "duplicates": ledger.duplicates}


def score(settings: Settings, workers: int) -> Rate:
    """Start workers, and take the time from the first commit seen to the last."""
    with Children(settings, Path(settings.state_dir) / "logs", bars=False) as children:
        for number in range(workers):
            children.start(f"scorer-{number}", "scorer")
        with Log(settings) as log:
            group = f"{settings.environment}.scorer"
            done, total = log.lag(group)
            while done <= 0:
                children.check()
                children.status("scorer-0", wait_s=LOOK_S)
                done, total = log.lag(group)
            begun_s, before, first = monotonic_s(), cpu_s(settings), done
            while done < total:
                children.check()
                children.status("scorer-0", wait_s=LOOK_S)
                done, _ = log.lag(group)
            seconds, after = monotonic_s() - begun_s, cpu_s(settings)
    n = done - first
    used = {name: after[name] - before.get(name, 0.0) for name in after}
    return Rate(
        n,
        round(n / seconds),
        {name: round(each / n * 1e6, 1) for name, each in used.items()},
        {name: round(each / seconds, 2) for name, each in used.items()},
    )


def cpu_s(settings: Settings) -> dict[str, float]:
    """Return the CPU seconds used so far by the processes of this stack, by name."""
    names = {"scorer": "scorer", "valkey-server": "redis", "kafka.Kafka": "kafka"}
    used: dict[str, float] = {}
    for process in psutil.process_iter(["cmdline", "cpu_times"]):
        line = " ".join(process.info["cmdline"] or ())
        name = next((name for part, name in names.items() if part in line), None)
        if name and settings.state_dir in line:
            times = process.info["cpu_times"]
            used[name] = used.get(name, 0.0) + times.user + times.system
    return used
