"""The thread of the hot path: asked to end by a signal, failed, or held up by a server that is away."""

import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from fraudstream.clients.signals import END_S
from tests.processes import GUARDED, ONE_OR_BOTH, signal_until_gone

WORKER = """
import sys, threading
from fraudstream.core.errors import Fenced
from scorer import scoring as module

class HotPath:
    def __init__(self):
        self.under_way, self.stopping = threading.Event(), threading.Event()
    def stop(self):
        self.stopping.set()
    def run(self):
        print("begun", flush=True)
        {waits}
        {ends}
    def leave(self):
        pass

module.UNASKED_END_S = 1.0
scoring = module.Scoring(HotPath(), lambda: print("last", flush=True))
scoring.begin()
scoring.hot_path.under_way.wait()
{then}
scoring.finish()
sys.exit(scoring.exit_code)
"""


def begun(
    ends: str, waits: str = "self.stopping.wait()", then: str = ""
) -> "subprocess.Popen[bytes]":
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER.format(ends=ends, waits=waits, then=then)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # what is behind the first line stays for `ended`
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"begun\n"
    return worker


def ended(worker: "subprocess.Popen[bytes]", timeout_s: float = 60) -> tuple[int, str, str]:
    """Return the exit status, what was said, and what was complained of."""
    said, complained = worker.communicate(timeout=timeout_s)
    return worker.returncode, said.decode(), complained.decode()


@pytest.mark.parametrize("numbers", ONE_OR_BOTH)
def test_a_signal_ends_it_after_its_batch_however_often_it_comes(numbers: Sequence[int]) -> None:
    worker = begun("pass")
    signal_until_gone(worker, *numbers)
    assert ended(worker) == (0, "last\n", "")


def test_a_signal_that_finds_it_ending_by_itself_makes_no_success_of_that() -> None:
    assert ended(begun("pass", waits="pass", then="scoring.ask()"))[:2] == (1, "last\n")


def test_a_batch_that_does_not_end_is_not_waited_for() -> None:
    worker = begun("threading.Event().wait()")
    worker.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(END_S - 1.0)
    code, said, complained = ended(worker, timeout_s=4)
    assert (code, said) == (0, "")
    assert f"a server {GUARDED}" in complained


def test_what_is_committed_does_not_wait_for_faust_which_does_not_end() -> None:
    worker = begun("pass", then="threading.Event().wait()")
    worker.send_signal(signal.SIGTERM)
    code, said, complained = ended(worker, timeout_s=3.5)
    assert (code, said) == (0, "last\n")
    assert GUARDED not in complained


def test_a_failure_is_told_though_faust_does_not_end() -> None:
    worker = begun(
        "raise Fenced('another has its place')", waits="pass", then="threading.Event().wait()"
    )
    code, said, complained = ended(worker)
    assert (code, said) == (4, "")
    assert "Crashed reason=Fenced('another has its place')" in complained
    assert "it ends all the same" in complained


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ("raise Fenced('another has its place')", 4),
        ("raise KeyError('x')", 1),
        ("pass  # as asked by something beside it, which has failed", 1),
    ],
)
def test_what_ends_it_without_a_signal_tells_the_exit_status(ends: str, code: int) -> None:
    found = ended(begun(ends, waits="pass"))
    assert found[:2] == (code, "last\n" if "pass" in ends else "")
