"""The detached process under which the servers run; it ends them when its owner is gone or it is told to.

Started by `fraudstream.stack.embedded.up` with a `StackPlan` on standard input. Nothing survives it:

- told to end (SIGTERM), or the owner gone: SIGTERM to each server, SIGKILL after some seconds;
- killed itself (SIGKILL): its guard, a shell that waits on a pipe only the supervisor holds open, kills
  the whole process group; on Linux each server asked for SIGKILL besides (child.py).
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec

from fraudstream.clients.clock import monotonic_s
from fraudstream.stack import child
from fraudstream.stack.locks import acquire, pause
from fraudstream.stack.servers import ANSWERS
from fraudstream.stack.state import (
    Process,
    Server,
    ServerName,
    ServerPlan,
    StackPaths,
    StackState,
    identify,
    is_alive,
    log_tail,
    write_atomically,
)

TICK_S = 0.05
START_DEADLINE_S = 120.0
STOP_DEADLINE_S = 5.0
LOCK_WAIT_S = 2.0
MAX_RESTARTS = 5
GUARD = 'read -r _; kill -s KILL -- "-$1"'


class StackPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: the stack lives as long as `owner`, and `starter` until `wait_for` is ready."""

    root: str
    servers: tuple[ServerPlan, ...]
    wait_for: tuple[ServerName, ...]
    owner: Process | None
    starter: Process | None


class CannotStartError(Exception):
    """A server died before it answered, or never answered; the message is for the user."""


class RunningServer:
    """One server: its plan, the process of its present step, and a thread that waits until it answers."""

    def __init__(self, plan: ServerPlan, paths: StackPaths, lock: int) -> None:
        self.plan = plan
        self.paths = paths
        self.lock = lock
        self.restarts = 0
        self.ready = threading.Event()
        self.started_s = monotonic_s()
        self.steps = list(plan.steps)
        paths.log(plan.name).unlink(missing_ok=True)
        self.process = self._spawn()
        threading.Thread(target=self._wait_until_ready, daemon=True).start()

    def tick(self) -> None:
        """Go on to the next step when one is done, start a dead server anew.

        Raises:
            CannotStartError: it died before it answered, or does not answer in time.
        """
        code = self.process.poll()
        if code == 0 and len(self.steps) > 1:
            self.steps.pop(0)
            self.process = self._spawn()
        elif code is not None:
            self._died(code)
        elif not self.ready.is_set() and monotonic_s() - self.started_s > START_DEADLINE_S:
            raise CannotStartError(self._told(f"does not answer after {START_DEADLINE_S:.0f} s"))

    def stop(self, signal_number: int) -> None:
        """Send a signal unless it is gone."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)

    def seen(self) -> Server:
        """Return how it is now."""
        return Server(
            address=self.plan.address,
            port=self.plan.port,
            pid=self.process.pid,
            ready=self.ready.is_set(),
            restarts=self.restarts,
        )

    def _died(self, code: int) -> None:
        if not self.ready.is_set() or self.restarts >= MAX_RESTARTS:
            raise CannotStartError(self._told(f"ended with status {code}"))
        self.restarts += 1
        self.ready.clear()
        self.started_s = monotonic_s()
        self.process = self._spawn()
        threading.Thread(target=self._wait_until_ready, daemon=True).start()

    def _spawn(self) -> subprocess.Popen[bytes]:
        wrapper = (sys.executable, "-I", "-S", child.__file__, str(os.getpid()))
        with self.paths.log(self.plan.name).open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - commands come from servers.py
                (*wrapper, *self.steps[0]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self.lock,),
            )

    def _wait_until_ready(self) -> None:
        while not ANSWERS[self.plan.name](self.plan.port):
            pause(TICK_S)
        self.ready.set()

    def _told(self, what: str) -> str:
        log = self.paths.log(self.plan.name)
        return f"{self.plan.name} {what}; the end of {log}:{log_tail(self.paths, self.plan.name)}"


class Supervisor:
    """Starts the servers, keeps stack.json true, ends all of them."""

    def __init__(self, plan: StackPlan, lock: int) -> None:
        self.plan = plan
        self.paths = StackPaths(Path(plan.root))
        self.lock = lock
        self.me = identify(os.getpid()) or Process(os.getpid(), "")
        self.told_to_end = False
        self.starter = plan.starter
        """Watched until all it waits for is ready."""
        self.servers: dict[ServerName, RunningServer] = {}
        self.written: StackState | None = None

    def run(self) -> None:
        """Run until told to end or the owner is gone; leave stack.json only if the start failed."""
        guard = start_guard()
        error = ""
        try:
            for server in self.plan.servers:
                self.servers[server.name] = RunningServer(server, self.paths, self.lock)
            while not self.should_end():
                self.write_state()
                for running in self.servers.values():
                    running.tick()
                pause(TICK_S)
        except (CannotStartError, OSError) as exc:
            error = str(exc)
        self.stop_servers()
        if error:
            self.write_state(error)
        else:
            self.paths.state.unlink(missing_ok=True)
        guard.kill()
        guard.wait()

    def should_end(self) -> bool:
        """Return whether somebody said so, or the process for which the stack runs is gone."""
        if self.told_to_end or (self.plan.owner and not is_alive(self.plan.owner)):
            return True
        if all(self.servers[name].ready.is_set() for name in self.plan.wait_for):
            self.starter = None
        return self.starter is not None and not is_alive(self.starter)

    def write_state(self, error: str = "") -> None:
        """Write stack.json if it differs from what it says."""
        state = StackState(
            supervisor=self.me,
            servers={name: running.seen() for name, running in self.servers.items()},
            owner=self.plan.owner,
            error=error,
        )
        if state != self.written:
            write_atomically(self.paths.state, state)
            self.written = state

    def stop_servers(self) -> None:
        """End every server: SIGTERM, then SIGKILL for those that take too long."""
        deadline = monotonic_s() + STOP_DEADLINE_S
        for running in self.servers.values():
            running.stop(signal.SIGTERM)
        while monotonic_s() < deadline and self._alive():
            pause(TICK_S)
        for running in self._alive():
            running.stop(signal.SIGKILL)
        for running in self.servers.values():
            running.process.wait()

    def end(self, *_: object) -> None:
        """Handle SIGTERM: end with the next tick."""
        self.told_to_end = True

    def _alive(self) -> list[RunningServer]:
        return [running for running in self.servers.values() if running.process.poll() is None]


def start_guard() -> subprocess.Popen[bytes]:
    """Start the shell that kills the process group as soon as this process is gone."""
    return subprocess.Popen(  # noqa: S603 - a constant script
        ("/bin/sh", "-c", GUARD, "fraudstream-guard", str(os.getpid())), stdin=subprocess.PIPE
    )


def main() -> None:
    """Detach (the caller waits only for this), then run the plan given on standard input."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=StackPlan)
    lock = acquire(StackPaths(Path(plan.root)).lock, wait_s=LOCK_WAIT_S)
    if os.fork():
        os._exit(0)
    os.setsid()
    supervisor = Supervisor(plan, lock)
    signal.signal(signal.SIGTERM, supervisor.end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervisor.run()


if __name__ == "__main__":
    main()
