"""Starts containers again that `docker kill` has ended. `make up` starts it, it ends with the project.

An engine takes `docker kill` for a wish of its user and does not apply the restart policy, as for a crash.
Whoever wants a container to stay away says `docker stop` (or `docker compose stop`): that is heeded.
"""

import argparse
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SIGKILL = "9"
AGAIN_S = 1.0
ENGINE_AWAY_S = 600.0


class Killed:
    """Tells from the engine's events which deaths were those of `docker kill`."""

    def __init__(self) -> None:
        self._signals: dict[str, list[str]] = {}

    def heard(self, what: str, container: str, signal: str = "") -> bool:
        """Take an event; return whether the container has to be started.

        `docker stop` sends another signal first, SIGKILL only after its time of grace.
        """
        if what == "kill":
            self._signals.setdefault(container, []).append(signal)
        if what != "die":
            return False
        return self._signals.pop(container, []) == [SIGKILL]


def containers(project: str) -> list[str] | None:
    """Return the ids of the project's containers, running or not; None if no engine answers."""
    command = ("docker", "ps", "--all", "--quiet", "--filter", _label(project))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else None


def events(project: str) -> Iterator[tuple[str, str, str]]:
    """Yield what happens to containers, with their ids and signals, until the engine goes away."""
    kinds = (part for kind in ("kill", "die", "destroy") for part in ("--filter", f"event={kind}"))
    command = ("docker", "events", "--filter", _label(project), *kinds, "--format", "{{json .}}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as asked:
        assert asked.stdout is not None  # noqa: S101 - for the type checker
        try:
            for line in asked.stdout:
                event = json.loads(line)
                actor = event["Actor"]
                yield event["Action"], actor["ID"], actor["Attributes"].get("signal", "")
        finally:
            asked.kill()


def _label(project: str) -> str:
    return f"label=com.docker.compose.project={project}"


def keep(project: str) -> None:
    """Go on until the project has no container any more, or no engine answers for ten minutes."""
    killed = Killed()
    answered_s = time.monotonic()
    while time.monotonic() - answered_s < ENGINE_AWAY_S:
        left = containers(project)
        if left is not None:
            answered_s = time.monotonic()
            if not left:
                return
            if _followed(project, killed):
                return
        time.sleep(AGAIN_S)


def _followed(project: str, killed: Killed) -> bool:
    """Return True once the project is gone, False if the engine is."""
    for what, container, signal in events(project):
        if killed.heard(what, container, signal):
            subprocess.run(("docker", "start", container), capture_output=True, check=False)
        if what == "destroy" and containers(project) == []:
            return True
    return False


def main(arguments: Sequence[str]) -> None:
    """Keep a project; a second keeper of it ends at once."""
    parser = argparse.ArgumentParser(description="Start again what `docker kill` has ended.")
    parser.add_argument("--project", required=True)
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--detach", action="store_true")
    wanted = parser.parse_args(arguments)
    if wanted.detach and os.fork():
        return
    if wanted.detach:
        os.setsid()
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(quiet, stream)
    with wanted.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        keep(wanted.project)


if __name__ == "__main__":
    main(sys.argv[1:])
