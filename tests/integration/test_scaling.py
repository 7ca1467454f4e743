"""Workers join and leave under load, one to four on eight partitions: nothing lost, nothing twice."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.settings import Settings
from producer.generator import make_parameters, source
from producer.pace import AtRate
from producer.replay import ReplayPlan, replay_table
from tests.processes import GUARDED, Worker, faster, wait_until
from verify.ledger import Log, count

STREAM = make_parameters({"seed": 5, "customers": 900, "terminals": 400, "days": 40})
RATE = 2_000
PARTITIONS = 8


class Fleet:
    """The workers of one environment, which share its partitions."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.started = 0
        self.workers: list[Worker] = []

    def scale(self, n: int) -> float:
        """Have n workers; return the seconds from the last start or end until each has its share."""
        while len(self.workers) < n:
            log = self.folder / f"worker-{self.started}.log"
            self.workers.append(Worker(self.settings, log, "--leave"))
            self.started += 1
        while len(self.workers) > n:
            leaving = self.workers.pop()
            assert leaving.stop() == 0, leaving.said()[-2_000:]
            assert "does not answer" not in leaving.said(), "it has given its place up itself"
            assert GUARDED not in leaving.said(), "SIGTERM: the batch is committed and it ends"
        begun = monotonic_s()
        wait_until(lambda: self.shares() == [PARTITIONS // n] * n, timeout_s=30, what=f"{n} share")
        return monotonic_s() - begun

    def shares(self) -> list[int]:
        """Return how many partitions each worker has, as it last said."""
        return [owned(each.said()) for each in self.workers]


def owned(said: str) -> int:
    """Return the number of partitions in the last line about them."""
    about = [line for line in said.splitlines() if "owns partitions" in line or "gave up" in line]
    if not about or "gave up" in about[-1]:
        return 0
    return about[-1].partition("[")[2].partition("]")[0].count(",") + 1


@pytest.mark.parametrize("partitions", [PARTITIONS])
def test_one_to_four_workers_and_back_under_load(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    settings, over = faster(topics, session_timeout_ms=30_000), threading.Event()
    fleet = Fleet(settings, tmp_path)
    with ThreadPoolExecutor(1) as sender:
        plan = ReplayPlan(pace=AtRate(RATE), client="confluent", loop=True)
        fleet.scale(1)
        sending = sender.submit(replay_table, settings, source(STREAM), plan, stop=over)
        try:
            took = {n: fleet.scale(n) for n in (2, 4, 1)}
            assert not sending.done(), f"all of it was under load: {took}"
        finally:
            over.set()
        stats = sending.result(180)
    total = stats.sent - stats.undelivered
    group = f"{topics.environment}.scorer"
    wait_until(lambda: log.lag(group) == (total, total), timeout_s=60, what="all scored")
    ledger = count(log, group)
    assert fleet.workers.pop().stop() == 0
    assert ledger.balanced, ledger
    assert ledger.scored == total
    assert took[1] < settings.session_timeout_ms / 2_000, "who leaves is not waited for"
