"""How a service ends when it is asked to, in a process of its own: at once, or soon in any case."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from fraudstream.clients.signals import END_S
from tests.processes import ONE_OR_BOTH, signal_until_gone

WAITS = """
import threading
from fraudstream.clients.signals import until_signal
with until_signal():
    print("runs", flush=True)
    threading.Event().wait(30)
print("went on")
"""

HANGS = """
import threading
from confluent_kafka.admin import AdminClient
from fraudstream.clients.signals import until_signal
admin = AdminClient({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
with until_signal():
    threading.Timer(0.5, print, ["runs"], {"flush": True}).start()
    admin.list_topics(timeout=30)
"""
"""In librdkafka, which lets Python see no signal until it comes back; it says so once it is there."""


TOGETHER = """
import os, subprocess
from fraudstream.clients.signals import until_signal
with until_signal():
    subprocess.Popen(["sh", "-c", f"kill -TERM {os.getpid()}; kill -INT {os.getpid()}"])
    sum(range(60_000_000))
"""
"""In a call that lets Python see no signal for a second: then it sees both, the later one first."""


def test_signals_that_come_together_are_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "stopped\n")


def ended(program: str, *numbers: int, again: bool = False) -> tuple[int, float, str, str]:
    """Send signals to a program once it runs; return status, seconds that it took, and what it said.

    `again`: until the program is gone.
    """
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as made:
        assert made.stdout is not None
        assert made.stdout.readline() == "runs\n"
        asked_s = time.monotonic()
        if again:
            try:
                signal_until_gone(made, *numbers)
            finally:
                made.kill()
        else:
            for number in numbers:
                made.send_signal(number)
        said, complained = made.communicate(timeout=20)
        return made.returncode, time.monotonic() - asked_s, said, complained


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("numbers", ONE_OR_BOTH)
def test_a_block_ends_at_once_and_the_program_goes_on(
    numbers: Sequence[int], *, again: bool
) -> None:
    status, took_s, said, complained = ended(WAITS, *numbers, again=again)
    assert (status, said, complained) == (0, "went on\n", "stopped\n")
    assert took_s < 15


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_library_that_does_not_come_back_holds_the_process_up_for_five_seconds_at_most(
    number: int,
) -> None:
    status, took_s, _, complained = ended(HANGS, number)
    assert status == 0
    assert END_S < 5
    assert END_S - 0.5 < took_s < 20
    assert "did not let this service end in 4.5 s" in complained
