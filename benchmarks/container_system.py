"""docker-compose.yml as a system that is started, broken, counted and taken down by test and benchmark."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

REPOSITORY = Path(__file__).parents[1]
POLL_S = 0.25
CPU = "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || cat /sys/fs/cgroup/cpu.stat"
BALANCE = re.compile(
    r"([\d,]+) in = ([\d,]+) scored \+ ([\d,]+) dead letters \+ ([\d,]+) waiting; "
    r"lost ([\d,]+), duplicates ([\d,]+)"
)


class Balance(msgspec.Struct, frozen=True):
    """The ledger's count."""

    transactions: int
    scored: int
    dead_letters: int
    waiting: int
    lost: int
    duplicates: int


def balance_in(text: str) -> Balance | None:
    """Return the last balance that a ledger wrote, None if it wrote none."""
    found = BALANCE.findall(text)
    return Balance(*(int(number.replace(",", "")) for number in found[-1])) if found else None


def said(
    *command: str,
    timeout_s: float = 120,
    check: bool = True,
    variables: Mapping[str, str] | None = None,
) -> str:
    """Return what a command writes to standard output; it must succeed; `variables` are added to ours."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=REPOSITORY,
        env={**os.environ, **(variables or {})},
        check=False,
    )
    assert not check or done.returncode == 0, (
        f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    )
    return done.stdout


def until(reached: Callable[[], bool], *, timeout_s: float, what: str) -> float:
    """Ask until it is so; return the seconds it took."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(POLL_S)
    return time.monotonic() - began


class System:
    """One project of the compose file; `variables` go to make and to docker compose."""

    def __init__(self, project: str, **variables: object) -> None:
        self.project = project
        self._variables = {name: str(value) for name, value in variables.items()}
        self._standin = variables.get("IMAGES") == "standin"

    def make(self, *targets: str, timeout_s: float = 300) -> str:
        """Run recipes of the Makefile for this project."""
        given = (f"{name}={value}" for name, value in self._variables.items())
        # Without ARGS of its own it would get those of a make that runs the tests.
        fixed = ("ARGS=", f"PROJECT={self.project}")
        return said("make", *fixed, *given, *targets, timeout_s=timeout_s)

    def compose(self, *arguments: str, timeout_s: float = 120) -> str:
        """Run docker compose for this project, all profiles on."""
        files = ("--env-file", "deploy/standin/images.env") if self._standin else ()
        return said(
            *("docker", "compose", "--project-name", self.project, *files, "--profile", "*"),
            *arguments,
            timeout_s=timeout_s,
            variables=self._variables,
        )

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's containers, in the order of their numbers."""
        form = '{{.Label "com.docker.compose.container-number"}} {{.ID}}'
        label = f"label=com.docker.compose.service={service}"
        lines = self._list("ps", "--all", "--no-trunc", "--filter", label, "--format", form)
        return [line.split()[1] for line in sorted(lines)]

    def services(self) -> list[str]:
        """Return the services that have a running container."""
        return sorted(set(self._list("ps", "--format", '{{.Label "com.docker.compose.service"}}')))

    def left(self) -> list[str]:
        """Return everything of the project that the engine still has."""
        kinds = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
        return [line for kind in kinds for line in self._list(*kind, "--quiet")]

    def _list(self, *command: str) -> list[str]:
        label = f"label=com.docker.compose.project={self.project}"
        return said("docker", *command, "--filter", label).splitlines()

    def is_healthy(self, container: str) -> bool:
        """Return whether a container runs and its health check succeeds."""
        form = "{{.State.Running}} {{.State.Health.Status}}"
        return said("docker", "inspect", "--format", form, container).strip() == "true healthy"

    def started_at(self, container: str) -> str:
        """Return when a container was started last, as the engine says it."""
        return said("docker", "inspect", "--format", "{{.State.StartedAt}}", container).strip()

    def kill(self, container: str, *, timeout_s: float = 150) -> float:
        """`docker kill` a container; return after how many seconds it was healthy again, by itself."""
        before = self.started_at(container)
        began = time.monotonic()
        said("docker", "kill", container)
        until(
            lambda: self.started_at(container) != before and self.is_healthy(container),
            timeout_s=timeout_s,
            what=f"{container} healthy again",
        )
        return time.monotonic() - began

    def watched(self) -> Balance | None:
        """Return the last balance of the ledger service; it writes one a second."""
        return balance_in(self.compose("logs", "--no-log-prefix", "--tail", "3", "ledger"))

    def counted(self) -> Balance:
        """Return the ledger's count of the whole topics, made now."""
        ledger = self.containers("ledger")[0]
        found = balance_in(said("docker", "exec", ledger, "fraudstream", "ledger", check=False))
        assert found is not None, "the ledger says nothing"
        return found

    def settled(self, timeout_s: float = 120) -> Balance:
        """Return the count once nothing waits any more."""
        until(lambda: self.counted().waiting == 0, timeout_s=timeout_s, what="all scored")
        return self.counted()

    def cpu_s(self, service: str) -> float:
        """Return the CPU seconds of a service's containers so far, their health checks included."""
        return sum(
            _cpu_s(said("docker", "exec", each, "sh", "-c", CPU))
            for each in self.containers(service)
        )


def _cpu_s(text: str) -> float:
    found = re.search(r"usage_usec (\d+)", text)
    return int(found.group(1)) / 1e6 if found else int(text) / 1e9
