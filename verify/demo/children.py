"""The demo's child processes: the product's own commands, started, watched and ended together."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.settings import Settings, as_variables
from fraudstream.stack import child

END_S = 6.0
"""A child gets so long to end on SIGTERM, all of them together, before it is killed."""


class ChildFailed(FraudstreamError):
    """A command of the demo ended before its time; carries the last lines that it wrote."""


class Children:
    """Starts `fraudstream` commands with exactly these settings; leaving the block ends them all.

    Each goes to a command as a variable, so that neither the user's fraudstream.toml nor FRAUDSTREAM_*
    counts, and no password stands on a command line.
    With `bars` the progress bar of a command that is run to its end goes to the terminal.
    """

    def __init__(self, settings: Settings, logs: Path, *, bars: bool) -> None:
        self._settings = settings
        self._environment = os.environ | as_variables(settings)  # noqa: TID251 - passed on
        self._bars = bars
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._unwatched: set[str] = set()

    def __enter__(self) -> "Children":
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def start(self, name: str, *arguments: str, watched: bool = True) -> None:
        """Start a command in the background; what it says goes into its log.

        `watched`: `check` raises if it dies. The end of another one, good or bad, is for `finished`.
        """
        if not watched:
            self._unwatched.add(name)
        with self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603 - our own command line
                self._command(arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    def run(self, name: str, *arguments: str) -> None:
        """Run a command to its end; its progress bar goes to the terminal, if there is one.

        Raises:
            ChildFailed: it ended with another status than 0, or a background child died meanwhile.
        """
        with self._log(name).open("wb") as log:
            errors = None if self._bars else log
            process = subprocess.Popen(  # noqa: S603 - our own command line
                self._command(arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
                env=self._environment,
            )
        self._running[name] = process
        while self.status(name) is None:
            self.check(but=name)
        if self._running.pop(name).returncode != 0:
            raise self.failure(name, arguments[0])

    def status(self, name: str, *, wait_s: float = 0.2) -> int | None:
        """Return the exit status of a child, None if it still runs after `wait_s`."""
        try:
            return self._running[name].wait(wait_s)
        except subprocess.TimeoutExpired:
            return None

    def finished(self, name: str) -> int | None:
        """Return the exit status of a child that has ended, and forget it; None while it runs."""
        status = self._running[name].poll()
        if status is not None:
            del self._running[name]
        return status

    def failure(self, name: str, arguments: str) -> "ChildFailed":
        """Return the error of a command that ended badly, with the last lines of its log."""
        return ChildFailed(f"`fraudstream {arguments}` failed: {self.last_lines(name)}")

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End one child and forget it; one that does not end in time is killed."""
        process = self._running.pop(name)
        process.send_signal(how)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def check(self, *, but: str = "") -> None:
        """Raise if a background child has died.

        Raises:
            ChildFailed: names it, with the last lines of its log.
        """
        for name, process in self._running.items():
            expected = name == but or name in self._unwatched
            if not expected and process.poll() not in (None, 0):
                raise ChildFailed(f"{name} ended early: {self.last_lines(name)}")

    def end(self) -> None:
        """Ask all to end, wait, and kill what is left."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = monotonic_s() + END_S
        for process in self._running.values():
            try:
                process.wait(max(deadline - monotonic_s(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        """Return a command line; environment and folder tell those who look for the process whose it is."""
        chosen = [
            f"{name}={getattr(self._settings, name)}" for name in ("environment", "state_dir")
        ]
        overrides = [part for choice in chosen for part in ("--set", choice)]
        dies_with_us = [sys.executable, child.__file__, str(os.getpid())]
        return [*dies_with_us, sys.executable, "-m", "fraudstream.cli", *overrides, *arguments]

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def last_lines(self, name: str) -> str:
        """Return the end of a child's log and where all of it is."""
        lines = self._log(name).read_text(errors="replace").strip().splitlines()
        return f"{' / '.join(lines[-3:]) or 'it said nothing'} (all of it: {self._log(name)})"
