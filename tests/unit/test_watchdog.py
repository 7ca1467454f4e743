"""The watchdog of a worker's commits, in a process of its own: only what hangs is ended."""

import signal
import subprocess
import sys

import pytest

HANGS = """
import threading
from scorer.watchdog import Watchdog
dog = Watchdog(most_s=1.5)
dog.start()
dog.__enter__()
{then}
threading.Event().wait({wait_s})
print("went on")
"""

SLOWLY = "print('hangs', flush=True); [threading.Event().wait(0.03) for _ in range(5)]"
"""Within its time, unless the time counts in which the process is frozen."""


@pytest.mark.parametrize(
    ("then", "wait_s", "status", "said"),
    [
        ("", 30, 1, ""),
        (
            "[dog.__enter__() or threading.Event().wait(0.3) for _ in range(8)]; dog.__exit__()",
            0,
            0,
            "went on\n",
        ),
        ("dog.__exit__()", 2.5, 0, "went on\n"),
        ("dog.stop()", 2.5, 0, "went on\n"),
    ],
)
def test_only_a_commit_that_hangs_ends_the_process(
    then: str, wait_s: float, status: int, said: str
) -> None:
    program = HANGS.format(then=then, wait_s=wait_s)
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=40, check=False
    )
    assert (ended.returncode, ended.stdout) == (status, said)
    assert ("has not come back" in ended.stderr) == (status == 1)


def test_a_process_that_was_frozen_for_long_has_not_hung() -> None:
    program = HANGS.format(then=SLOWLY, wait_s=0.01)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as made:
        assert made.stdout is not None
        assert made.stdout.readline() == "hangs\n"
        made.send_signal(signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            made.wait(2.5)
        made.send_signal(signal.SIGCONT)
        assert made.communicate(timeout=40)[0] == "went on\n"
        assert made.returncode == 0
