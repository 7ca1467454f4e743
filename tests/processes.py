"""Commands of the product as processes of a test: started, killed, waited for with a deadline."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec

from fraudstream.core.settings import Settings

PATIENCE = 3
"""Times as long as a state usually takes at most is waited for it: the machine may be slow and shared."""

ONE_OR_BOTH = [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGTERM, signal.SIGINT)]
"""What a process may be asked to end by."""
GUARDED = "did not let this worker end"
"""In the log of a worker whose guard has ended it, 4.5 s after SIGTERM."""
FAUST_LEFT = "Faust, which has not, is not waited for"
"""In the log of one whose guard has ended it 1.5 s after the hot path, since Faust had not."""


def command(settings: Settings, *arguments: str, changes: Sequence[str] = ()) -> list[str]:
    """Return the command line of the product with these settings, with `changes` made to it."""
    default = Settings()
    overrides = [
        part
        for name in settings.__struct_fields__
        if (value := getattr(settings, name)) != getattr(default, name)
        for part in ("--set", f"{name}={value}")
    ]
    module = ["tests.changed_command", *changes, "--"] if changes else ["fraudstream.cli"]
    return [sys.executable, "-m", *module, *overrides, *arguments]


def run(
    settings: Settings, *arguments: str, timeout_s: float = 60
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end and return what it said."""
    return subprocess.run(
        command(settings, *arguments),
        capture_output=True,
        text=True,
        timeout=timeout_s * PATIENCE,
        check=False,
    )


def signal_until_gone(process: "subprocess.Popen[Any]", *numbers: int) -> None:
    """Send each signal in turn, every few ms, until the process is gone, interpreter and all."""
    turn = cycle(numbers)

    def gone() -> bool:
        process.send_signal(next(turn))
        return process.poll() is not None

    wait_until(gone, timeout_s=20, what="gone")


def wait_until(reached: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    """Ask until it is so; what is waited for is named when it does not come."""
    deadline = time.monotonic() + timeout_s * PATIENCE
    while not reached():
        assert time.monotonic() < deadline, f"not within {timeout_s * PATIENCE} s: {what}"
        time.sleep(0.002)


class Worker:
    """One service's process, a scorer by default, and its log; `changes`: see tests/changed_command.py."""

    def __init__(
        self,
        settings: Settings,
        log: Path,
        *arguments: str,
        changes: Sequence[str] = (),
        service: Sequence[str] = ("scorer",),
    ) -> None:
        self.log = log
        line = command(settings, *service, *arguments, changes=changes)
        with log.open("ab") as file:
            self.process = subprocess.Popen(line, stdout=file, stderr=file)

    def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 15) -> int:
        """SIGTERM; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s * PATIENCE)

    def said(self) -> str:
        """Return everything in the log."""
        return self.log.read_text()


@contextmanager
def worker(
    settings: Settings,
    log: Path,
    *arguments: str,
    changes: Sequence[str] = (),
    service: Sequence[str] = ("scorer",),
) -> Iterator[Worker]:
    """Run a service, a scorer by default, for the length of the block."""
    made = Worker(settings, log, *arguments, changes=changes, service=service)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.kill()


def faster(settings: Settings, **changes: object) -> Settings:
    """Return the settings with changes."""
    return msgspec.structs.replace(settings, **changes)


def alive(pid: int) -> bool:
    """Return whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
