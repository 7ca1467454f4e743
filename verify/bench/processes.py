"""The benchmark's own processes: modules of this package that die with it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from fraudstream.core.errors import FraudstreamError
from fraudstream.core.settings import Settings
from fraudstream.stack import child

STOP_S = 10.0


def working_on(settings: Settings, part: str) -> list[psutil.Process]:
    """Return the processes on the state folder of these settings whose command line has `part`."""
    return [
        each
        for each in psutil.process_iter(["cmdline", "cpu_times", "memory_info"])
        if part in (line := " ".join(each.info["cmdline"] or ())) and settings.state_dir in line
    ]


@contextmanager
def started(module: str, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """Have a module run, at most for the length of the block; what it says is for `expect`."""
    dies_with_us = [sys.executable, child.__file__, str(os.getpid())]
    command = [*dies_with_us, sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(  # noqa: S603 - our own
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(STOP_S)


def expect(process: "subprocess.Popen[str]", word: str) -> None:
    """Wait for a line of a process.

    Raises:
        FraudstreamError: it says something else, or ends.
    """
    line = (process.stdout.readline() if process.stdout else "").strip()
    if line != word:
        raise FraudstreamError(f"a process of the benchmark said {line!r}, not {word!r}")


def tell(process: "subprocess.Popen[str]", line: str) -> None:
    """Write a line to a process."""
    if process.stdin is not None:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()


def finish(process: "subprocess.Popen[str]", *, wait_s: float) -> None:
    """Wait for a process to end.

    Raises:
        FraudstreamError: it did not end in time, or badly.
    """
    try:
        status = process.wait(wait_s)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    if status != 0:
        raise FraudstreamError(
            f"a process of the benchmark ended with status {status}: {process.args!r:.300}"
        )
