"""The watchdog of a worker's commits, in a process of its own: only what hangs is ended."""

import subprocess
import sys

import pytest

HANGS = """
import threading
from scorer.watchdog import Watchdog
dog = Watchdog(most_s=0.2)
dog.start()
dog.__enter__()
{then}
threading.Event().wait({wait_s})
print("went on")
"""


@pytest.mark.parametrize(
    ("then", "wait_s", "status", "said"),
    [("", 20, 1, ""), ("dog.__exit__()", 1, 0, "went on\n"), ("dog.stop()", 1, 0, "went on\n")],
)
def test_only_a_commit_that_hangs_ends_the_process(
    then: str, wait_s: float, status: int, said: str
) -> None:
    program = HANGS.format(then=then, wait_s=wait_s)
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=15, check=False
    )
    assert (ended.returncode, ended.stdout) == (status, said)
    assert ("has not come back" in ended.stderr) == (status == 1)
