"""The compose file on stand-in images, or on those that IMAGES names; skipped without an engine."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.container_system import System
from tests.ports import free_port

IMAGES = os.environ.get("IMAGES", "standin")


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
    first = free_port(adjacent=3)
    made = System(
        f"fraudstream-test-{uuid.uuid4().hex[:8]}",
        IMAGES=IMAGES,
        SECRETS_DIR=tmp_path / "secrets",
        MLFLOW_PORT=first,
        PROMETHEUS_PORT=first + 1,
        GRAFANA_PORT=first + 2,
    )
    try:
        yield made
    finally:
        made.make("down", "ARGS=--volumes")
