"""Starts the MLflow server on PostgreSQL: the password from the secret, then one process.

What keeps PostgreSQL from being used is said in one sentence. Exit code 1: it is away, the restart policy
tries again. `docker compose run --rm mlflow upgrade` brings tables of an older MLflow up to date.
"""

import os
import sys
import time
from pathlib import Path

import psycopg
import uvicorn

SECRET = Path("/run/secrets/postgres_password")
HOST = os.environ.get("POSTGRES_HOST", "postgres")
WAIT_S = 20.0
RETRY_S = 0.5


def password() -> str:
    """Return the password of the secret."""
    try:
        text = SECRET.read_text(encoding="utf-8").strip()
    except OSError as exc:
        sys.exit(f"error: the secret {SECRET} cannot be read ({exc.strerror}): `make up` makes it")
    if not text:
        sys.exit(
            f"error: the secret {SECRET} is empty: remove the file on the host, then `make up`"
        )
    return text


def explained(error: str) -> str:
    """Return what a failed connection means and what to do."""
    if "password authentication failed" in error:
        return (
            "error: PostgreSQL refuses the password of .secrets/postgres_password: its volume was made "
            "with another one. Put that back, or set the new one with `docker compose exec postgres psql "
            "-U mlflow -c '\\password'`"
        )
    return (
        f"error: PostgreSQL at {HOST} does not answer ({error.strip().splitlines()[-1]}): see "
        "`docker compose logs postgres`; the server is tried again"
    )


def wait_for_postgres() -> None:
    """Return once PostgreSQL lets us in; a wrong password ends this at once."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            psycopg.connect(host=HOST, user="mlflow", dbname="mlflow", connect_timeout=3).close()
        except psycopg.OperationalError as exc:
            why = explained(str(exc))
            if "refuses the password" in why or time.monotonic() > deadline:
                sys.exit(why)
            time.sleep(RETRY_S)
        else:
            return


def check_tables() -> None:
    """End with a sentence unless the tables are of this MLflow, or there are none yet."""
    with psycopg.connect(host=HOST, user="mlflow", dbname="mlflow") as database:
        made = database.execute("SELECT to_regclass('public.alembic_version')").fetchone()
        if made is None or made[0] is None:
            return
        found = database.execute("SELECT version_num FROM alembic_version").fetchone()
    from mlflow.store.db.utils import (  # noqa: PLC0415 - what is wrong before needs no MLflow
        _get_latest_schema_revision,
    )

    wanted = _get_latest_schema_revision()  # type: ignore[no-untyped-call]
    if found and found[0] != wanted:
        sys.exit(
            f"error: the volume postgres-data has the tables of another MLflow (revision {found[0]}, this "
            f"one needs {wanted}): copy the volume, then `docker compose run --rm mlflow upgrade`; if it is "
            "of a newer MLflow, use that image"
        )


def main() -> None:
    """Become the server, or upgrade the tables."""
    os.environ["PGPASSWORD"] = password()  # libpq reads it
    wait_for_postgres()
    store = f"postgresql+psycopg://mlflow@{HOST}/mlflow"
    if sys.argv[1:] == ["upgrade"]:
        os.execv(sys.executable, (sys.executable, "-m", "mlflow", "db", "upgrade", store))  # noqa: S606
    # What `mlflow server --serve-artifacts` sets.
    os.environ.update(
        {
            "_MLFLOW_SERVER_FILE_STORE": store,
            "_MLFLOW_SERVER_REGISTRY_STORE": store,
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": "/mlflow/artifacts",
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SGI_NAME": "uvicorn",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
    )
    check_tables()
    uvicorn.run(
        "mlflow.server:app",
        interface="wsgi",
        host="0.0.0.0",  # noqa: S104 - the container's own network
        port=5000,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
