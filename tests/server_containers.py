"""The servers of the tests in containers, by images and scripts of docker-compose.yml (STACK=containers).

Tests that kill, freeze or look into a server start one of their own as a process; those stay as they are.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from docker.errors import DockerException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from fraudstream.stack.embedded import Addresses
from fraudstream.stack.servers import kafka_answers, mlflow_answers, redis_answers
from tests.ports import free_port

REPOSITORY = Path(__file__).parents[1]
DEPLOY = REPOSITORY / "deploy"
STANDIN = os.environ.get("IMAGES", "standin") == "standin"
START_S = 90.0
PASSWORD = "only for the tests"  # noqa: S105


def image(service: str) -> str:
    """Return the image of a service of docker-compose.yml: its default, or the stand-in."""
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    variable, default = re.fullmatch(
        r"\$\{(\w+):-(.*)\}", compose["services"][service]["image"]
    ).groups()  # type: ignore[union-attr]
    lines = (DEPLOY / "standin/images.env").read_text().splitlines() if STANDIN else []
    return dict(line.split("=", 1) for line in lines if "_IMAGE=" in line).get(variable, default)


@contextmanager
def servers(folder: Path) -> Iterator[Addresses]:
    """Run Kafka, Valkey, PostgreSQL and MLflow in containers for the length of the block."""
    # Its image cannot be had where stand-ins are used; the containers end with the block.
    testcontainers_config.ryuk_disabled = STANDIN
    with ExitStack() as stack:
        network = stack.enter_context(_network())
        kafka = stack.enter_context(_kafka(folder, port := free_port()))
        redis = stack.enter_context(_redis())
        postgres = stack.enter_context(_postgres(folder, network))
        mlflow = stack.enter_context(_mlflow(folder, network))
        redis_port, mlflow_port = redis.get_exposed_port(6379), mlflow.get_exposed_port(5000)
        _await(lambda: kafka_answers(port), "Kafka", kafka)
        _await(lambda: redis_answers(redis_port), "Redis", redis)
        _await(lambda: mlflow_answers(mlflow_port), "MLflow", mlflow, postgres)
        yield Addresses(
            kafka_bootstrap=f"127.0.0.1:{port}",
            redis_url=f"redis://127.0.0.1:{redis_port}/0",
            mlflow_url=f"http://127.0.0.1:{mlflow_port}",
        )


def _network() -> Network:
    try:
        return Network()
    except DockerException as exc:
        pytest.exit(
            f"no Docker engine answers ({exc}): start it, or run `make test`, which needs none",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )


def _kafka(folder: Path, port: int) -> DockerContainer:
    """Return a Kafka that tells its clients the port at which it is published on this machine."""
    scripts = folder / "kafka"
    shutil.copytree(DEPLOY / "kafka", scripts)
    properties = scripts / "server.properties"
    text = properties.read_text().replace("1@kafka:9093", "1@localhost:9093")
    text = text.replace("PLAINTEXT://kafka:9092", f"PLAINTEXT://127.0.0.1:{port}")
    properties.write_text(text.replace("PLAINTEXT://:9092", f"PLAINTEXT://:{port}"))
    made = DockerContainer(image("kafka"), entrypoint=["bash", "/fraudstream/kafka/start.sh"])
    made.with_volume_mapping(str(scripts), "/fraudstream/kafka")
    return made.with_bind_ports(port, port).with_env("KAFKA_OPTS", "-XX:TieredStopAtLevel=1")


def _redis() -> DockerContainer:
    made = DockerContainer(image("redis"), entrypoint=["sh", "/fraudstream/redis/start.sh"])
    made.with_volume_mapping(str(DEPLOY / "redis"), "/fraudstream/redis")
    return made.with_exposed_ports(6379)


def _postgres(folder: Path, network: Network) -> DockerContainer:
    secret = folder / "postgres_password"
    secret.write_text(PASSWORD)
    start = ["sh", "/fraudstream/postgres/start.sh"]
    made = DockerContainer(image("postgres"), entrypoint=start, user="postgres")
    made.with_volume_mapping(str(DEPLOY / "postgres"), "/fraudstream/postgres")
    made.with_volume_mapping(str(secret), "/run/secrets/postgres_password")
    made.with_envs(
        POSTGRES_USER="mlflow",
        POSTGRES_DB="mlflow",
        POSTGRES_PASSWORD_FILE="/run/secrets/postgres_password",  # noqa: S106
        PGDATA="/var/lib/postgresql/data/pgdata",
    )
    return made.with_network(network).with_network_aliases("postgres")


def _mlflow(folder: Path, network: Network) -> DockerContainer:
    made = DockerContainer(image("mlflow")).with_network(network).with_exposed_ports(5000)
    made.with_volume_mapping(str(folder / "postgres_password"), "/run/secrets/postgres_password")
    hosts = "mlflow:*,localhost:*,127.0.0.1:*"
    return made.with_envs(POSTGRES_HOST="postgres", MLFLOW_SERVER_ALLOWED_HOSTS=hosts)


def _await(answers: Callable[[], bool], name: str, *containers: DockerContainer) -> None:
    deadline = time.monotonic() + START_S
    while not answers():
        if time.monotonic() > deadline:
            logs = [part.decode()[-2000:] for each in containers for part in each.get_logs()]
            pytest.fail(f"{name} did not answer within {START_S:.0f} s: {logs}")
        time.sleep(0.1)
