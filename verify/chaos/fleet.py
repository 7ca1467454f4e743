"""The workers of a chaos run as processes: started, armed, killed, frozen; all end with the run."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import (
    DependencyUnreachable,
    Fenced,
    FraudstreamError,
    KafkaUnreachable,
    RedisUnreachable,
    WritesRefused,
)
from fraudstream.core.settings import Settings, as_variables
from fraudstream.stack import child
from fraudstream.stack.locks import pause
from verify.chaos.points import ENDED_BY, KEPT

POLL_S = 0.01
LOOK_S = 0.1
END_S = 15.0
PLACE = re.compile(r'takes place ([^"]+)"')
KEPT_PLACES = re.compile(f"^{KEPT}(.*)$", re.MULTILINE)
OWNED = re.compile(r"(owns|gave up) partitions \[([0-9, ]*)\]")
KILLED = -signal.SIGKILL
STOPPED = frozenset({0, -signal.SIGTERM, 128 + signal.SIGTERM})
"""How a worker ends upon SIGTERM: as it does itself, or before it has a handler, or the command for it."""
ACCOUNTED = frozenset({DependencyUnreachable.exit_code, Fenced.exit_code})
EXPLAINING = (
    DependencyUnreachable,
    KafkaUnreachable,
    RedisUnreachable,
    WritesRefused,
    Fenced,
)
"""The errors that are no fault of the worker: a server was away, or its place was another's."""
NAMES = frozenset(each.__name__ for each in EXPLAINING)
SAYS_WHY = re.compile(rf"this worker ends at once|Crashed reason=({'|'.join(sorted(NAMES))})\(")
"""A guard's sentence, where a client of Kafka hangs or has lost its broker; Faust's."""
TOLD = re.compile(f"^{ENDED_BY}(\\w+)$", re.MULTILINE)
ALL_THE_SAME = "it ends all the same"
"""What a worker says that a server does not let end; why it was to end stands before."""


class End(msgspec.Struct, frozen=True):
    """The end of a worker: its log, its status (a signal's number is negative), what it said last.

    `by`: the class of the error that ended it, as it told; empty if it did not.
    """

    log: str
    status: int
    said: str
    by: str = ""

    @property
    def explained(self) -> bool:
        """Return whether the worker itself says why: a server was away too long, or it was fenced."""
        if self.status not in ACCOUNTED:
            return False
        return self.by in NAMES or SAYS_WHY.search(self.said) is not None


class Worker:
    """One process and its log."""

    def __init__(
        self, command: list[str], log: Path, *, settings: Settings, leaves: bool = False
    ) -> None:
        self.log = log
        self.leaves = leaves
        """Whether it gives its place up when it is stopped."""
        self.left = False
        """Whether it has done so."""
        self.frozen = False
        self.woken = False
        """Whether it was frozen: its session was over long before its end."""
        self.asked: frozenset[int] = frozenset()
        """The statuses with which it was asked to end: it was armed, killed or stopped."""
        self.noted = False
        """Whether its end was looked at."""
        self.started_s = monotonic_s()
        self.ended_s = inf
        """When its end was noticed; infinite before."""
        self._place: str | None = None
        with log.open("wb") as file:
            self.process = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=os.environ | as_variables(settings),  # noqa: TID251 - passed on
            )

    @property
    def alive(self) -> bool:
        """Return whether the process runs, frozen or not; note its end."""
        if self.process.poll() is None:
            return True
        self.ended_s = min(self.ended_s, monotonic_s())
        return False

    @property
    def killed(self) -> bool:
        """Return whether it has ended by SIGKILL, as `kill` and the fault points end it."""
        return not self.alive and self.process.returncode == KILLED

    @property
    def end(self) -> End:
        """Return how it has ended."""
        said = self.said()
        told = TOLD.search(said)
        lines = TOLD.sub("", said).strip().splitlines() or ["it said nothing"]
        last = lines[-1]
        if ALL_THE_SAME in last:
            last = next((line for line in reversed(lines) if "Crashed reason=" in line), last)
        by = "" if told is None else told[1]
        return End(self.log.name, self.process.returncode, last[:400], by)

    @property
    def ended_as_asked(self) -> bool:
        """Return whether its end is no surprise: who was woken or stopped may also say why it ends."""
        if self.process.returncode in self.asked:
            return True
        return (self.woken or self.asked >= STOPPED) and self.end.explained

    def arm(self, point: str, passings: int) -> None:
        """Have it die at the n-th passing of a point."""
        self.asked |= {KILLED}
        self._tell(f"{point} {passings}\n")

    def disarm(self) -> None:
        """Take back what was armed; it may pass the point before it hears of it."""
        self._tell("\n")

    def kill(self) -> None:
        """SIGKILL."""
        self.asked |= {KILLED}
        self.process.kill()
        self.process.wait()
        self.ended_s = min(self.ended_s, monotonic_s())

    def close(self) -> None:
        """Kill it if it runs, and let go of its input."""
        if self.alive:
            self.kill()
        assert self.process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen = True
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT; from now on it may find itself fenced."""
        self.frozen, self.woken = False, True
        self.process.send_signal(signal.SIGCONT)

    def tell_where(self) -> None:
        """Have it write into its log what each of its threads is doing."""
        self.process.send_signal(signal.SIGUSR1)

    def said(self) -> str:
        """Return all of its log."""
        return self.log.read_text(errors="replace")

    def place(self) -> str | None:
        """Return the name that it has in the group by its own log, None before it has one."""
        if self._place is None and (found := PLACE.search(self.said())):
            self._place = found[1]
        return self._place

    def kept(self) -> list[str]:
        """Return the names that the group counted when it looked for its own, by its own log."""
        found = KEPT_PLACES.search(self.said())
        return [] if found is None else found[1].split()

    def owned(self) -> set[int]:
        """Return the partitions that it owns by its own log."""
        found = OWNED.findall(self.said())
        if not found or found[-1][0] != "owns":
            return set()
        return {int(number) for number in found[-1][1].split(",") if number.strip()}

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None  # noqa: S101 - it was made with a pipe
        try:
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            return  # it has died meanwhile, which `alive` tells


class Times:
    """How long two workers or more ran, and had partitions, from the first look on."""

    def __init__(self) -> None:
        self._looked_s: float | None = None
        self._all_s = self.run_s = self.own_s = 0.0

    def look(self, able: list[Worker]) -> None:
        """Add the time since the last look to what is so now; their logs are read, so ten times a second."""
        now_s = monotonic_s()
        if self._looked_s is None:
            self._looked_s = now_s
        passed_s = now_s - self._looked_s
        if passed_s < LOOK_S:
            return
        self._looked_s = now_s
        self._all_s += passed_s
        if len(able) >= 2:
            self.run_s += passed_s
        if sum(bool(each.owned()) for each in able) >= 2:
            self.own_s += passed_s

    def share(self, seconds: float) -> float:
        """Return a part of all the time, 0 to 1."""
        return seconds / self._all_s if self._all_s else 0.0


class Fleet:
    """The workers of one environment; `wanted` is how many there should be."""

    def __init__(self, settings: Settings, logs: Path, sabotage: str | None) -> None:
        self._settings = settings
        self._logs = logs
        self._sabotage = sabotage
        self._started = 0
        self.workers: list[Worker] = []
        self.wanted = 0
        self.unplanned: list[End] = []
        """Ends that nobody asked for."""
        self._times = Times()

    def __enter__(self) -> Self:
        shutil.rmtree(self._logs, ignore_errors=True)
        self._logs.mkdir(parents=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in self.workers:
            each.close()

    @property
    def able(self) -> list[Worker]:
        """Return the workers that run and are not frozen."""
        return [each for each in self.workers if each.alive and not each.frozen]

    @property
    def two_or_more_run_share(self) -> float:
        """Return in which share of the time at least two workers ran, frozen ones left out."""
        return self._times.share(self._times.run_s)

    @property
    def two_or_more_own_share(self) -> float:
        """Return in which share of the time at least two that ran had partitions."""
        return self._times.share(self._times.own_s)

    def start(self) -> Worker:
        """Start one more worker; every second one leaves the group when it is stopped."""
        self._started += 1
        log = self._logs / f"worker-{self._started}.log"
        leaves = self._started % 2 == 0
        command = self._command(leaves=leaves)
        made = Worker(command, log, settings=self._settings, leaves=leaves)
        self.workers.append(made)
        return made

    def restarted(self, dead: Worker) -> bool:
        """Return whether a worker that died has come back: its place is held, or should be.

        One that was started since should hold it, unless it is excused.
        """
        others = [each for each in self.workers if each is not dead]
        held = any(
            each.place() == dead.place()
            for each in others
            if each.ended_s == inf and not each.frozen
        )
        since = [each for each in others if each.started_s >= dead.ended_s]
        return held or not all(self._excused(each, dead) for each in since)

    def _excused(self, new: Worker, dead: Worker) -> bool:
        """Return whether a worker rightly has another place than that of the dead.

        It has that of a third, which had ended without leaving less than a session before it was
        started, or was still counted by the group when it looked for a place.
        """
        place = new.place()
        if place in {None, dead.place()}:
            return False
        gone = [
            each
            for each in self.workers
            if each.ended_s <= new.started_s and not each.left and each.place() == place
        ]
        session_s = self._settings.session_timeout_ms / 1000
        recent = any(new.started_s - each.ended_s < session_s for each in gone if not each.woken)
        return recent or (bool(gone) and place in new.kept())

    def look(self) -> None:
        """Note who has ended, and start as many as are missing."""
        self._times.look(self.able)
        for each in self.workers:
            if not each.alive and not each.noted:
                each.noted = True
                if not each.ended_as_asked:
                    self.unplanned.append(each.end)
        for _ in range(self.wanted - len(self.able)):
            self.start()

    def stop(self, worker: Worker) -> None:
        """SIGTERM, upon which it leaves the group if it is one that leaves, and wait for the end.

        Raises:
            FraudstreamError: it does not come within 15 s.
        """
        worker.asked |= STOPPED
        worker.process.send_signal(signal.SIGTERM)
        self.await_end(worker, END_S, "SIGTERM")
        worker.left = worker.leaves

    def await_end(self, worker: Worker, seconds: float, why: str) -> None:
        """Wait until a worker is gone.

        Raises:
            FraudstreamError: it is not, after so long.
        """
        deadline = monotonic_s() + seconds
        while worker.alive:
            if monotonic_s() > deadline:
                raise FraudstreamError(f"{worker.log} goes on {seconds:.0f} s after {why}")
            pause(POLL_S)

    def _command(self, *, leaves: bool) -> list[str]:
        sabotage = ("--sabotage", self._sabotage) if self._sabotage else ()
        dies_with_us = (sys.executable, child.__file__, str(os.getpid()))
        module = ("-m", "verify.chaos.worker", *sabotage)
        leave = ("--leave",) if leaves else ()
        return [*dies_with_us, sys.executable, *module, "scorer", *leave]
