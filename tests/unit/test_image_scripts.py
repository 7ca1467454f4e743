"""The shell scripts of the images, run here with small programs in place of what they start."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from fraudstream.clients.service_web import served
from fraudstream.core.health import Health

DEPLOY = Path(__file__).parents[2] / "deploy"
Stub = Callable[[str, str], None]


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder that stands first on PATH."""
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


@pytest.fixture
def stub(programs: Path) -> Stub:
    """Writes a program of a name into that folder."""

    def write(name: str, body: str) -> None:
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)

    return write


def start(script: str, programs: Path, **variables: str) -> "subprocess.Popen[str]":
    path = f"{programs}:{os.environ['PATH']}"
    return subprocess.Popen(
        ["sh", str(DEPLOY / script)],
        env={"PATH": path, **variables},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("status", [0, 1, 4, 137])
def test_a_service_s_container_ends_as_its_service(status: int, stub: Stub, programs: Path) -> None:
    stub("fraudstream", f"exit {status}")
    with start("images/run.sh", programs, HOLD_REFUSED="1") as running:
        assert running.wait(10) == status


def test_a_refusal_keeps_the_container_until_it_is_stopped(stub: Stub, programs: Path) -> None:
    stub("fraudstream", "exit 3")
    with start("images/run.sh", programs, HOLD_REFUSED="1") as running:
        assert running.stderr is not None
        assert "needs a person" in running.stderr.readline()
        assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 3


def test_a_refusal_of_a_single_command_ends_it(stub: Stub, programs: Path) -> None:
    stub("fraudstream", "exit 3")
    with start("images/run.sh", programs) as running:
        assert running.wait(10) == 3


def test_sigterm_reaches_the_service_and_its_end_is_waited_for(stub: Stub, programs: Path) -> None:
    stub("fraudstream", "trap 'echo committed; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    with start("images/run.sh", programs) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 0
        assert running.stdout.read() == "committed\n"


@pytest.mark.parametrize(("state", "status"), [("ready", 0), ("rebuilding", 1)])
def test_the_health_check_says_what_readyz_says(state: str, status: int) -> None:
    health = Health(state)  # type: ignore[arg-type]
    with served(CollectorRegistry(), lambda: health, 0) as port:
        done = ready(port)
    assert done.returncode == status
    assert f'"state":"{state}"' in done.stdout


def test_the_health_check_of_nobody_fails_with_the_reason() -> None:
    done = ready(1)
    assert done.returncode == 1
    assert "does not answer" in done.stderr


def test_the_health_check_reads_other_pages_to_whoever_asks() -> None:
    metrics = CollectorRegistry()
    Counter("fraudstream_asked", "of this test", registry=metrics)
    with served(metrics, lambda: Health("waiting", "unreachable"), 0) as port:
        done = ready(port, "/metrics")
        assert done.returncode == 0
        assert "fraudstream_asked_total 0.0" in done.stdout.splitlines()
        assert ready(port, "/livez").returncode == 0
        assert ready(port, "/nowhere").returncode == 1
    assert f"/metrics at port {port} does not answer" in ready(port, "/metrics").stderr


def ready(port: int, *path: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-I", "-S", str(DEPLOY / "images/ready.py"), str(port), *path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_postgres_does_not_touch_a_volume_of_another_version(
    stub: Stub, programs: Path, tmp_path: Path
) -> None:
    stub("postgres", "echo 'postgres (PostgreSQL) 17.6'")
    stub("docker-entrypoint.sh", "echo started")
    (tmp_path / "secret").write_text("word")
    variables = {"POSTGRES_PASSWORD_FILE": str(tmp_path / "secret"), "PGDATA": str(tmp_path)}
    (tmp_path / "PG_VERSION").write_text("15\n")
    with start("postgres/start.sh", programs, **variables) as running:
        said = running.communicate(timeout=10)[1]
    assert "is of PostgreSQL 15, the image has 17" in said
    assert running.returncode == 1

    (tmp_path / "PG_VERSION").write_text("17\n")
    with start("postgres/start.sh", programs, **variables) as running:
        assert running.communicate(timeout=10)[0] == "started\n"


def test_postgres_without_its_secret_says_where_it_comes_from(
    programs: Path, tmp_path: Path
) -> None:
    secret = str(tmp_path / "secret")
    with start("postgres/start.sh", programs, POSTGRES_PASSWORD_FILE=secret) as running:
        said = running.communicate(timeout=10)[1]
    assert f"{secret} is missing or empty: `make up` makes it" in said
    assert running.returncode == 1
