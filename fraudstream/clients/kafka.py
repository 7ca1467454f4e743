"""librdkafka as this product needs it: configurations with reasons, first contact, topic facts."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import KafkaUnreachable, Refused
from fraudstream.core.settings import Settings
from fraudstream.core.topics import MAX_DEAD_LETTER_BYTES

logger = logging.getLogger(__name__)

NO_COORDINATOR_YET = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)
LOADING_S = 0.1
"""A coordinator or controller that is not there yet is asked for again after so long."""
TRY_AGAIN_S = 0.05
"""A producer that cannot begin yet tries again after so long."""
ABORT_AGAIN_S = 1.0
"""An abort that is not through is called anew after so long."""
ASKS_AGAIN_SOON: dict[str, Any] = {
    "retry.backoff.ms": 5,
    "retry.backoff.max.ms": 100,
    "topic.metadata.refresh.fast.interval.ms": 100,  # librdkafka's own; else it would be 5, too
}
"""For who asks what a group has committed: the broker does not tell while a transaction is about to commit,
which takes some ms, and librdkafka's own back-offs grow to a second."""


class TopicFacts(Struct, frozen=True):
    """What the broker says of one topic: its full name, its id (new when recreated), its partitions."""

    name: str
    topic_id: str
    partitions: int


def instance_id(group: str, slot: int) -> str:
    """Return the name of a worker in its group and of its transactions, the same after a restart."""
    return f"{group}.{slot}"


def worker_consumer(settings: Settings, *, group: str, slot: int) -> Consumer:
    """Return the consumer of one worker: a static member whose restart takes its partitions back at once.

    Small fetches let the partitions advance evenly in event time; offsets are committed by the
    producer's transactions only, and a missing offset is an error, never a silent jump.
    """
    return Consumer(
        common(settings)
        | ASKS_AGAIN_SOON
        | {
            "group.id": group,
            "group.instance.id": instance_id(group, slot),
            "session.timeout.ms": settings.session_timeout_ms,
            # Members are told of a rebalance by the answer.
            "heartbeat.interval.ms": max(settings.session_timeout_ms // 15, 400),
            "max.poll.interval.ms": 300_000,
            "topic.metadata.refresh.interval.ms": 10_000,  # partitions that are added show within it
            "partition.assignment.strategy": "range",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "fetch.message.max.bytes": 131_072,
            "fetch.wait.max.ms": 100,
            "fetch.queue.backoff.ms": 2,
            "queued.min.messages": 4_000,
            "queued.max.messages.kbytes": 32_768,
        }
    )


def reader(
    settings: Settings, *, group: str, from_beginning: bool = True, tell_end: bool = False
) -> Consumer:
    """Return a consumer of committed records that commits nothing and is assigned by hand.

    With `tell_end` the end of a partition comes as an event, since the last offsets may hold no record,
    and an offset that is gone is an error.
    """
    reset = "error" if tell_end else "earliest" if from_beginning else "latest"
    return Consumer(
        common(settings)
        | {
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": reset,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 50,
            "enable.partition.eof": tell_end,
        }
    )


BATCH_BYTES = 1_000_000
"""librdkafka's own limit of a batch; a topic that takes less refuses the whole batch."""


def transactional_producer(
    settings: Settings, *, transactional_id: str, most_bytes: int = BATCH_BYTES
) -> Producer:
    """Return the producer of one worker; no batch of several records takes more than `most_bytes`.

    The short back-offs take a transaction from 100 ms to 3 ms: the broker answers
    CONCURRENT_TRANSACTIONS while the markers of the last one are written (ADR 0002).
    """
    return Producer(
        common(settings)
        | {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": settings.transaction_timeout_ms,
            "partitioner": "murmur2_random",
            "linger.ms": 0,
            "retry.backoff.ms": 1,
            "retry.backoff.max.ms": 5,
            "message.max.bytes": MAX_DEAD_LETTER_BYTES,
            "batch.num.messages": 10_000,
            "batch.size": min(most_bytes, BATCH_BYTES),
        }
    )


def init_transactions(producer: Producer, timeout_s: float) -> None:
    """Fence an earlier producer of the same name, once what it left open is aborted.

    librdkafka tries again after half a second where it has no connection yet, and where the broker is still
    at that abort, which takes some ms (ADR 0031). So a connection is had first, and short calls begin anew.

    Raises:
        KafkaException: the broker does not answer, or is not done, within `timeout_s`.
    """
    deadline_s = monotonic_s() + timeout_s
    with suppress(KafkaException):  # the next call says what is wrong
        producer.list_topics(timeout=timeout_s)
    _in_short_calls(producer.init_transactions, TRY_AGAIN_S, deadline_s - monotonic_s())


def abort_transaction(producer: Producer, timeout_s: float) -> None:
    """Abort the open transaction, so that nobody waits for what was not committed.

    librdkafka drops what was not sent and waits for what was. A record that comes back in between, to be sent
    again, it waits for in vain, and drops when it is called anew. The broker may have that
    record: the producer is not to be used for another transaction (ADR 0033).

    Raises:
        KafkaException: it is not aborted within `timeout_s`.
    """
    _in_short_calls(producer.abort_transaction, ABORT_AGAIN_S, timeout_s)


def _in_short_calls(call: Callable[[float], None], each_s: float, timeout_s: float) -> None:
    """Call with the seconds that it may take, again and again until it is through, or time is."""
    deadline_s = monotonic_s() + timeout_s
    while True:
        try:
            call(max(min(deadline_s - monotonic_s(), each_s), 0.0))
        except KafkaException as exc:
            if not exc.args[0].retriable() or monotonic_s() >= deadline_s:
                raise
        else:
            return


def topic_facts(settings: Settings, names: list[str]) -> dict[str, TopicFacts]:
    """Return the facts of the topics in `names`, by name; also the first contact with the broker.

    Raises:
        DependencyUnreachable: no broker answers within `connect_timeout_ms`.
        Refused: a topic does not exist.
    """
    timeout_s = settings.connect_timeout_ms / 1000
    admin = connected(settings, timeout_s)
    try:
        asked = admin.describe_topics(TopicCollection(names), request_timeout=timeout_s)
        return {name: _facts(name, future) for name, future in asked.items()}
    except KafkaException as exc:
        raise unreachable(settings, exc) from exc


def connected(settings: Settings, timeout_s: float) -> AdminClient:
    """Return a client that has had an answer, so that what it does not get later is not for want of a broker.

    Raises:
        DependencyUnreachable: no broker answers within `timeout_s`.
    """
    try:
        return answered(common(settings), timeout_s)
    except KafkaException as exc:
        raise unreachable(settings, exc) from exc


def answered(config: dict[str, Any], timeout_s: float) -> AdminClient:
    """Return a new client once it has had an answer; holds the thread up, signals included, until then.

    A broker that stood still counts as none for a moment, and tells of no controller then; librdkafka asks
    again for one after minutes only, so a client that was told so is given up. Not asked with
    `describe_cluster`, where that answer ends the process by SIGABRT (librdkafka 2.16, docs/adr/0033).

    Raises:
        KafkaException: no broker answers within `timeout_s`, or only one that counts as none.
    """
    deadline_s = monotonic_s() + timeout_s
    while True:
        admin = AdminClient(config)
        told = admin.list_topics(timeout=max(deadline_s - monotonic_s(), LOADING_S))
        if told.controller_id >= 0:
            return admin
        if monotonic_s() > deadline_s:
            nobody = KafkaError(KafkaError._TRANSPORT, "it knows no controller")  # noqa: SLF001
            raise KafkaException(nobody)
        threading.Event().wait(LOADING_S)


def kept_places(settings: Settings, group: str) -> list[str]:
    """Return the names of the static members of a group, alive or not; none where that is not told.

    Also the first contact with the broker.

    Raises:
        DependencyUnreachable: no broker answers within `connect_timeout_ms`.
    """
    admin = connected(settings, settings.connect_timeout_ms / 1000)
    timeout_s = settings.request_timeout_ms / 1000
    asked = admin.describe_consumer_groups([group], request_timeout=timeout_s)[group]
    try:
        return [each.group_instance_id for each in asked.result().members if each.group_instance_id]
    except KafkaException as exc:
        # A coordinator that is just loading, say: whatever is wrong, `require_coordinator` waits for it.
        logger.warning("the group does not tell whose places it keeps: %s", exc.args[0].name())
        return []


def offsets_reader(settings: Settings, group: str) -> Consumer:
    """Return a client that asks what a group has committed (`committed`), and never joins it.

    Not what an open transaction will commit. An admin client must not ask that: told that the broker is not
    the coordinator (any more), librdkafka 2.16 looks for the group of the client, which has none, and the
    process ends by SIGSEGV.
    """
    return Consumer(
        common(settings)
        | {"group.id": group, "isolation.level": "read_uncommitted", "enable.auto.commit": False}
    )


def require_coordinator(settings: Settings, group: str, topic: str) -> None:
    """Ask for what a group has committed in a topic: without an answer a worker would wait in silence.

    Raises:
        DependencyUnreachable: the group's coordinator is not available within `connect_timeout_ms`.
    """
    reader = offsets_reader(settings, group)
    deadline_s = monotonic_s() + settings.connect_timeout_ms / 1000
    try:
        while exc := _no_offsets(reader, topic, max(deadline_s - monotonic_s(), LOADING_S)):
            error: KafkaError = exc.args[0]
            if error.code() not in NO_COORDINATOR_YET or monotonic_s() > deadline_s:
                raise KafkaUnreachable(
                    f"Kafka has no coordinator for group {group} ({error.str()}): see what the broker says "
                    "with `fraudstream stack logs` (topic __consumer_offsets), then start the worker again"
                ) from exc
            threading.Event().wait(LOADING_S)
    finally:
        reader.close()


def _no_offsets(reader: Consumer, topic: str, timeout_s: float) -> KafkaException | None:
    """Return why a group's coordinator does not tell what is committed, None if it does."""
    try:
        reader.committed([TopicPartition(topic, 0)], timeout=timeout_s)
    except KafkaException as exc:
        return exc
    return None


def unreachable(settings: Settings, exc: KafkaException) -> KafkaUnreachable:
    """Return the error for a broker that does not answer, naming its address and what to try."""
    reason = exc.args[0].str() if exc.args and isinstance(exc.args[0], KafkaError) else str(exc)
    return KafkaUnreachable(
        f"Kafka at {settings.kafka_bootstrap} does not answer ({reason}): start it with "
        "`fraudstream stack up`, or set FRAUDSTREAM_KAFKA_BOOTSTRAP to a broker that runs"
    )


def missing_topic(name: str) -> Refused:
    """Return the error for a topic (full name) that does not exist."""
    return Refused(f"topic {name} does not exist: make it with `fraudstream topics create`")


def _facts(name: str, future: object) -> TopicFacts:
    try:
        described = future.result()  # type: ignore[attr-defined]
    except KafkaException as exc:
        if exc.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise missing_topic(name) from exc
        raise
    return TopicFacts(name, str(described.topic_id), len(described.partitions))


def common(settings: Settings) -> dict[str, Any]:
    """Return what all clients of this product have in common."""
    return {
        "bootstrap.servers": settings.kafka_bootstrap,
        "client.id": "fraudstream",
        "log_level": 3,
        "logger": logger,
        "socket.keepalive.enable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "allow.auto.create.topics": False,
    }
