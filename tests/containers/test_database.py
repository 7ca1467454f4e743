"""What MLflow's container says of a PostgreSQL that it cannot use; it goes on once it can."""

from pathlib import Path

import pytest

from benchmarks.container_system import System, said, until
from deploy.preflight import ready_secrets

pytestmark = pytest.mark.containers


def test_a_wrong_password_and_a_postgres_that_is_away_are_told_apart(
    system: System, tmp_path: Path
) -> None:
    ready_secrets(tmp_path / "secrets", [])
    secret = tmp_path / "secrets" / "postgres_password"
    system.compose("up", "--detach", "--wait", "--no-build", "postgres", "mlflow")
    (mlflow,) = system.containers("mlflow")
    right = secret.read_text()

    said("docker", "stop", mlflow)
    overwrite(secret, "another")
    said("docker", "start", mlflow)
    until(
        lambda: "refuses the password of .secrets/postgres_password" in logs(system),
        timeout_s=60,
        what="the refusal in the log",
    )

    said("docker", "stop", mlflow)
    overwrite(secret, right)
    system.compose("stop", "postgres")
    said("docker", "start", mlflow)
    until(
        lambda: "PostgreSQL at postgres does not answer" in logs(system),
        timeout_s=60,
        what="the absence in the log",
    )

    system.compose("start", "postgres")
    until(lambda: system.is_healthy(mlflow), timeout_s=90, what="MLflow healthy by itself")


def test_tables_of_another_mlflow_are_named_and_not_touched(system: System, tmp_path: Path) -> None:
    ready_secrets(tmp_path / "secrets", [])
    system.compose("up", "--detach", "--wait", "--no-build", "postgres", "mlflow")
    (mlflow,) = system.containers("mlflow")
    (was,) = sql(system, "SELECT version_num FROM alembic_version").split()

    sql(system, "UPDATE alembic_version SET version_num = 'older'")
    said("docker", "restart", mlflow)
    until(
        lambda: f"(revision older, this one needs {was})" in logs(system),
        timeout_s=60,
        what="the revisions in the log",
    )
    sql(system, f"UPDATE alembic_version SET version_num = '{was}'")  # noqa: S608
    until(lambda: system.is_healthy(mlflow), timeout_s=90, what="MLflow healthy by itself")


def test_tables_of_an_older_mlflow_are_upgraded_by_the_command_that_is_named(
    system: System, tmp_path: Path
) -> None:
    ready_secrets(tmp_path / "secrets", [])
    system.compose("up", "--detach", "--wait", "--no-build", "postgres")
    older = system.compose("run", "--rm", "--entrypoint", "python3", "mlflow", "-c", OLDER_TABLES)
    system.compose("up", "--detach", "--no-build", "mlflow")
    until(
        lambda: f"(revision {older.strip()}, this one needs" in logs(system),
        timeout_s=60,
        what="the revisions in the log",
    )
    system.compose("run", "--rm", "mlflow", "upgrade")
    (mlflow,) = system.containers("mlflow")
    until(lambda: system.is_healthy(mlflow), timeout_s=90, what="MLflow healthy by itself")


def test_a_postgres_that_goes_away_under_mlflow_is_answered_503_and_comes_back(
    system: System, tmp_path: Path
) -> None:
    ready_secrets(tmp_path / "secrets", [])
    system.compose("up", "--detach", "--wait", "--no-build", "postgres", "mlflow")
    (mlflow,) = system.containers("mlflow")
    began = system.started_at(mlflow)

    system.compose("stop", "postgres")
    until(lambda: not system.is_healthy(mlflow), timeout_s=90, what="MLflow not healthy")
    assert said("docker", "exec", mlflow, "python3", "-c", SEARCH).strip() == "503"

    system.compose("start", "postgres")
    until(lambda: system.is_healthy(mlflow), timeout_s=90, what="MLflow healthy by itself")
    assert system.started_at(mlflow) == began


SEARCH = """
import urllib.error, urllib.request
place = "http://127.0.0.1:5000/api/2.0/mlflow/registered-models/search?max_results=1"
try:
    print(urllib.request.urlopen(place, timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""

OLDER_TABLES = """
import os, pathlib
import sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base

os.environ["PGPASSWORD"] = pathlib.Path("/run/secrets/postgres_password").read_text().strip()
config = utils._get_alembic_config("")
scripts = ScriptDirectory.from_config(config)
(newest,) = scripts.get_heads()
older = scripts.get_revision(newest).down_revision
engine = sqlalchemy.create_engine("postgresql+psycopg://mlflow@postgres/mlflow")
Base.metadata.create_all(engine)
with engine.begin() as connection:
    config.attributes["connection"] = connection
    command.upgrade(config, older)
print(older)
"""
"""Makes the tables as the MLflow before the newest change of its tables had them, by MLflow's own steps."""


def sql(system: System, statement: str) -> str:
    (postgres,) = system.containers("postgres")
    options = ("--username=mlflow", "--quiet", "--tuples-only", "--command", statement)
    return said("docker", "exec", postgres, "psql", *options)


def overwrite(secret: Path, text: str) -> None:
    """Change the file in place: a container has this file, not its name."""
    secret.chmod(0o644)
    secret.write_text(text)
    secret.chmod(0o444)


def logs(system: System) -> str:
    return system.compose("logs", "--no-log-prefix", "mlflow")
