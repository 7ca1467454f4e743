"""The topic `audit`: who did what to which model; its order decides between two promotions."""

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from fraudstream.clients.kafka import common, unreachable
from fraudstream.clients.topic_log import TIMED_OUT, TopicReader
from fraudstream.core.scores import AuditEvent
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name

_decoder = msgspec.json.Decoder(AuditEvent)


def append(settings: Settings, event: AuditEvent) -> int:
    """Write one event, wait until the broker has it on disk, and return its offset.

    Raises:
        DependencyUnreachable: no broker confirms within `connect_timeout_ms`.
    """
    outcome: list[tuple[KafkaError | None, Message]] = []
    producer = Producer(
        common(settings)
        | {
            "log_level": 0,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 0,
            "message.timeout.ms": settings.connect_timeout_ms,
        }
    )
    producer.produce(
        topic_name(settings.environment, "audit"),
        key=event.model_name,
        value=msgspec.json.encode(event),
        on_delivery=lambda error, message: outcome.append((error, message)),
    )
    producer.flush(settings.connect_timeout_ms / 1000 + 1)
    error = outcome[0][0] if outcome else KafkaError(TIMED_OUT)
    if error is not None:
        raise unreachable(settings, KafkaException(error))
    return outcome[0][1].offset() or 0


def read_events(settings: Settings, model_name: str) -> list[tuple[int, AuditEvent]]:
    """Return (offset, event) of everything that happened to `model_name`, oldest first.

    Raises:
        DependencyUnreachable: no broker answers, or a Kafka transaction stays open.
        Refused: the topic does not exist.
    """
    return [each for each in read_all(settings) if each[1].model_name == model_name]


def read_all(settings: Settings) -> list[tuple[int, AuditEvent]]:
    """Return (offset, event) of everything that was written before the call, oldest first.

    Waits until no Kafka transaction is open, so that what stands behind one is not missed.

    Raises:
        DependencyUnreachable: no broker answers, or a Kafka transaction stays open.
        Refused: the topic does not exist.
    """
    topic = topic_name(settings.environment, "audit")
    with TopicReader(settings) as reader:
        return _events(reader, topic, *reader.whole_bounds(topic)[0])


def read_after(settings: Settings, offset: int) -> list[tuple[int, AuditEvent]]:
    """Return (offset, event) of what is committed after `offset` (-1: from the beginning), oldest first.

    Ends at the first Kafka transaction that is still open: for those that read on later.

    Raises:
        DependencyUnreachable: no broker answers.
        Refused: the topic does not exist.
    """
    topic = topic_name(settings.environment, "audit")
    with TopicReader(settings) as reader:
        low, high = reader.bounds(topic)[0]
        return _events(reader, topic, max(low, offset + 1), high)


def _events(reader: TopicReader, topic: str, begin: int, end: int) -> list[tuple[int, AuditEvent]]:
    return [
        (message.offset() or 0, _decoder.decode(message.value() or b""))
        for batch in reader.batches(topic, {0: (begin, end)})
        for message in batch
    ]
