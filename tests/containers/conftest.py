"""The compose file on stand-in images, or on those that IMAGES names; skipped without an engine."""

import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.container_system import System

IMAGES = os.environ.get("IMAGES", "standin")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="session")
def engine() -> str:
    """The version of the engine; without one, without compose or without images the test is skipped."""
    try:
        asked = subprocess.run(
            ("docker", "version", "--format", "{{.Server.Version}}"),
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no docker command: install Docker to run the tests of docker-compose.yml")
    if asked.returncode:
        pytest.skip(f"no Docker engine answers: {asked.stderr.strip()}")
    if subprocess.run(
        ("docker", "compose", "version"), capture_output=True, check=False
    ).returncode:
        pytest.skip("docker compose is missing: install the compose plugin, version 2")
    return asked.stdout.strip()


@pytest.fixture
def system(engine: str, tmp_path: Path) -> Iterator[System]:
    """A project of its own, with ports and secrets of its own; nothing of it is left."""
    image = "fraudstream-standin/kafka:4.2.1"
    look = ("docker", "image", "inspect", image)
    if IMAGES == "standin" and subprocess.run(look, capture_output=True, check=False).returncode:
        pytest.skip(f"engine {engine} has no {image}: `make images-standin`, or IMAGES=default")
    mlflow, prometheus, grafana = free_ports(3)
    made = System(
        f"fraudstream-test-{uuid.uuid4().hex[:8]}",
        IMAGES=IMAGES,
        SECRETS_DIR=tmp_path / "secrets",
        MLFLOW_PORT=mlflow,
        PROMETHEUS_PORT=prometheus,
        GRAFANA_PORT=grafana,
    )
    try:
        yield made
    finally:
        made.make("down", "ARGS=--volumes")
