"""The compose file as a user runs it: up, replay, break, scale, count, down."""

import fcntl
import re
from pathlib import Path

import pytest

from benchmarks.container_system import System, said, until

TRANSACTIONS = 10_000
RATE = 500

pytestmark = pytest.mark.containers


def test_ten_thousand_transactions_are_scored_once_while_a_scorer_is_killed_and_others_join(
    system: System, tmp_path: Path
) -> None:
    system.make("up", "SCORERS=2")
    replay = system.compose(
        *("run", "--detach", "--no-deps", "producer", "replay", "--generate", "days=10"),
        *("--limit", str(TRANSACTIONS), "--rate", str(RATE)),
    ).split()[-1]
    until(lambda: scored(system) > 1_000, timeout_s=60, what="the first thousand scores")

    back_s = system.kill(system.containers("scorer")[0])
    assert back_s < 60

    system.make("up", "SCORERS=3")
    assert slots(system) == {"0", "1", "2"}
    seen = {"scorer": 3, "trainer": 1, "monitor": 1, "ledger": 1}
    until(lambda: scraped(system) == seen, timeout_s=60, what=f"Prometheus sees {seen}")

    assert said("docker", "wait", replay).strip() == "0", said("docker", "logs", replay)
    found = system.settled()
    assert (found.transactions, found.scored) == (TRANSACTIONS, TRANSACTIONS)
    assert (found.lost, found.duplicates, found.dead_letters) == (0, 0, 0)

    said("docker", "rm", replay)
    with pytest.raises(AssertionError) as failed:
        system.make("up", "PARTITIONS=16")
    assert re.search(
        r"topics-1 is Exited \(1\)[^;]*; it said:\n(.*\n)*?.*partitions", str(failed.value)
    )
    system.make("down", "ARGS=--volumes")
    assert system.left() == []
    until(lambda: keeper_ended(tmp_path, system), timeout_s=10, what="the keeper's end")


def scored(system: System) -> int:
    found = system.watched()
    return found.scored if found else 0


def scraped(system: System) -> dict[str, int]:
    """Return how many containers of each service Prometheus reaches."""
    (prometheus,) = system.containers("prometheus")
    query = ("query", "instant", "http://127.0.0.1:9090", "count by (job) (up == 1)")
    found = re.findall(
        r'\{job="(\w+)"\} => (\d+)', said("docker", "exec", prometheus, "promtool", *query)
    )
    return {job: int(count) for job, count in found}


def slots(system: System) -> set[str]:
    """Return the slots that running scorers hold, one for each of them."""
    scorers = system.containers("scorer")
    names = said("docker", "exec", scorers[0], "sh", "-c", "ls /state/slots").split()
    held = {
        name.split(".")[-2]
        for name in names
        if name.endswith(".lock")
        and said(
            *("docker", "exec", scorers[0], "python3", "-c", TRY_LOCK, f"/state/slots/{name}"),
        ).strip()
        == "held"
    }
    assert len(held) == len(scorers)
    return held


TRY_LOCK = """
import fcntl, sys
try:
    fcntl.flock(open(sys.argv[1], "a"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("held")
"""


def keeper_ended(tmp_path: Path, system: System) -> bool:
    with (tmp_path / "secrets" / f"keeper-{system.project}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
