"""How long a scorer takes from its start to its first committed batch, with a champion and a backlog.

    .venv/bin/python -m benchmarks.scorer_start --rounds 5

Starts a stack of its own, trains a champion, then starts one worker again and again with transactions
waiting: after one that ended on SIGTERM, and after one that was killed. The moment of the first commit
is seen by polling the group's offsets from outside. Beside it the floor: a Python that imports the same
libraries and ends. Then the same beside another worker, the two of which have 2,000 transactions a second to
score, and what of it passes between the partitions' return and the first commit in one of them.
"""

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.topic_admin import create_topics
from fraudstream.core.settings import Settings
from fraudstream.stack import embedded
from fraudstream.stack.addresses import with_addresses
from producer.generator import make_parameters, source
from producer.pace import Unpaced
from producer.replay import ReplayPlan, replay_table
from producer.sources import Source
from verify.demo.children import Children
from verify.demo.progress import Broker
from verify.demo.scored import await_scored

FLOOR = "import faust, confluent_kafka, onnxruntime, redis, msgspec"
BACKLOG = 2_000
"""Transactions that wait at each start."""
HISTORY = 60_000
RATE = 2_000
"""Transactions a second that arrive while a worker is started beside another one."""
OWNED = re.compile(r"owns partitions (\[[\d, ]*\])")


def main() -> None:
    """Run the benchmark and print its figures as one JSON object."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(state_dir=folder, environment="bench", alerts_per_1000=20.0)
        try:
            embedded.up(settings)
            print(json.dumps(measure(with_addresses(settings), rounds), indent=2))
        finally:
            embedded.down(settings, wipe=True)


def measure(settings: Settings, rounds: int) -> dict[str, object]:
    """Return seconds from start to first commit: median and worst, by how the worker before ended."""
    create_topics(
        settings.kafka_bootstrap, settings.environment, settings.partitions, timeout_ms=20_000
    )
    stream = source(make_parameters({"days": 30, "seed": 1}))
    broker = Broker(settings)
    figures: dict[str, list[float]] = {"after_sigterm_s": [], "after_sigkill_s": []}
    with Children(settings, Path(settings.state_dir) / "logs", bars=False) as children:
        _train(settings, children, stream)
        position = HISTORY
        how = "after_sigterm_s"
        for number in range(2 * rounds):
            position += BACKLOG
            _send(settings, stream, position)
            figures[how].append(_seconds_to_commit(children, broker))
            ending = signal.SIGKILL if number % 2 == 0 else signal.SIGTERM
            how = "after_sigkill_s" if number % 2 == 0 else "after_sigterm_s"
            children.stop("scorer", ending)
        figures |= _beside_another(settings, children, broker, rounds)
    broker.close()
    figures["floor_imports_s"] = [_imports() for _ in range(rounds)]
    return {
        name: {
            "median": round(statistics.median(found), 2),
            "worst": round(max(found), 2),
            "all": [round(each, 2) for each in found],
        }
        for name, found in figures.items()
    }


def _train(settings: Settings, children: Children, stream: Source) -> None:
    children.start("scorer", "scorer")
    _send(settings, stream, HISTORY)
    await_scored(settings, children)
    children.run("train", "train", "--promote")
    children.stop("scorer")


def _send(settings: Settings, stream: Source, limit: int) -> None:
    replay_table(settings, stream, ReplayPlan(pace=Unpaced(), client="confluent", limit=limit))


def _seconds_to_commit(children: Children, broker: Broker) -> float:
    before = sum(broker.progress().committed.values())
    began = monotonic_s()
    children.start("scorer", "scorer")
    while sum(broker.progress().committed.values()) == before:
        children.status("scorer", wait_s=0.01)
        children.check()
    return monotonic_s() - began


def _beside_another(
    settings: Settings, children: Children, broker: Broker, rounds: int
) -> dict[str, list[float]]:
    """Kill one of two workers under load again and again, and start it again."""
    folder = Path(settings.state_dir) / "logs"
    for name in ("other", "scorer"):
        children.start(name, "scorer")
    for name in ("other", "scorer"):
        _until(children, partial(_owned, folder, name))
    generated = ("--generate", "days=200,seed=2", "--no-labels")
    children.start("replay", "replay", *generated, "--rate", str(RATE))
    _until(children, partial(_moved, broker, broker.progress().committed))
    starts = [_start_beside(children, broker, folder) for _ in range(2 * rounds)]
    return {
        "beside_another_s": [owned + first for owned, first in starts],
        "beside_another_from_owning_s": [first for _, first in starts],
    }


def _start_beside(children: Children, broker: Broker, folder: Path) -> tuple[float, float]:
    """Kill the worker; return seconds from its next start to its partitions, from there to a commit."""
    children.stop("scorer", signal.SIGKILL)
    mine = json.loads(_owned(folder, "scorer"))
    began = monotonic_s()
    children.start("scorer", "scorer")
    while not _owned(folder, "scorer"):  # what the killed one was about to commit is so by then
        before = broker.progress().committed
        children.status("scorer", wait_s=0.005)
        children.check()
    owned = monotonic_s()
    _until(children, partial(_moved, broker, {p: before[p] for p in mine}))
    return owned - began, monotonic_s() - owned


def _moved(broker: Broker, before: Mapping[int, int]) -> bool:
    """Tell whether a partition is committed further than it was."""
    now = broker.progress().committed
    return any(now[partition] > offset for partition, offset in before.items())


def _owned(folder: Path, name: str) -> str:
    """Return the partitions that a worker got last, as JSON; empty before the first."""
    found = OWNED.findall((folder / f"{name}.log").read_text())
    return found[-1] if found else ""


def _until(children: Children, reached: Callable[[], object]) -> None:
    while not reached():
        children.status("scorer", wait_s=0.005)
        children.check()


def _imports() -> float:
    began = monotonic_s()
    subprocess.run((sys.executable, "-c", FLOOR), check=True)
    return monotonic_s() - began


if __name__ == "__main__":
    main()
