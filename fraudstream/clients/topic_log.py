"""A topic as a finite log: its committed records from the beginning to the end that it had when asked."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.kafka import ASKS_AGAIN_SOON, common, missing_topic, unreachable
from fraudstream.clients.kafka_headers import headers_of
from fraudstream.clients.kafka_log import settled_bounds, settled_places
from fraudstream.clients.log_bounds import LogBounds
from fraudstream.core.errors import BadRecord, KafkaUnreachable
from fraudstream.core.settings import Settings

_BATCH = 10_000
_WAIT_S = 0.05
"""A batch is what is there when its first record is; so long is waited for that one."""
_END_OF_PARTITION = KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's own codes begin so
NO_TOPIC = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
)
TIMED_OUT = KafkaError._TIMED_OUT  # noqa: SLF001
_SILENCE_S = 30.0
_AHEAD_KIB = 8_192
"""What is fetched ahead of a partition. librdkafka's own 64 MiB take 0.5 GiB of memory for 8 partitions whose
records are decoded more slowly than they come, and make reading no faster."""


class Record(msgspec.Struct, frozen=True):
    """A record as it stands in its topic (full name); `sent_at_ms` is its Kafka timestamp."""

    topic: str
    partition: int
    offset: int
    sent_at_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class TopicReader:
    """One connection that reads committed records of any topic, each time up to the end it has then.

    Joins no group and commits nothing; `group` is the one whose offsets `committed` tells. Every method
    raises DependencyUnreachable when no broker answers within `connect_timeout_ms`, or it falls silent
    for 30 s.
    """

    def __init__(self, settings: Settings, *, group: str | None = None) -> None:
        self._settings = settings
        self._timeout_s = settings.connect_timeout_ms / 1000
        self._consumer = _consumer(settings, group or f"{settings.environment}.log-reader")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """Return the first offset and the one after the last of each partition of `topic` (full name).

        Raises:
            Refused: the topic does not exist.
        """
        with self._translated():
            metadata = self._consumer.list_topics(topic, timeout=self._timeout_s).topics[topic]
            if metadata.error is not None:
                if metadata.error.code() in NO_TOPIC:
                    raise missing_topic(topic)
                raise KafkaException(metadata.error)
            places = [TopicPartition(topic, partition) for partition in metadata.partitions]
            return {
                place.partition: settled_bounds(self._consumer, place, self._timeout_s)
                for place in places
            }

    def whole_bounds(
        self, topic: str, meanwhile: Callable[[], None] = lambda: None
    ) -> dict[int, tuple[int, int]]:
        """Return bounds as `bounds` does, up to all that was written when asked, committed or not.

        Waits until no transaction is open below those ends: one of a process that died hides what others have
        committed behind it until the broker aborts it. `meanwhile` is called several times a second.

        Raises:
            DependencyUnreachable: a transaction stays open for longer than the broker lets ours.
        """
        timeout_s = self._timeout_s + self._settings.transaction_timeout_ms / 1000
        deadline_s = monotonic_s() + timeout_s
        bounds = self.bounds(topic)
        places = [TopicPartition(topic, partition) for partition in bounds]
        with self._translated():
            written = LogBounds(self._settings).written(places, timeout_s=self._timeout_s)
        ends = dict(zip(bounds, written, strict=True))
        while hidden := [p for p, end in ends.items() if bounds[p][1] < end]:
            if monotonic_s() > deadline_s:
                raise KafkaUnreachable(
                    f"a Kafka transaction in partition {hidden[0]} of topic {topic} has been open for more "
                    f"than {timeout_s:.0f} s and hides what stands behind it: try again, and look at the "
                    "broker's log with `fraudstream stack logs`"
                )
            meanwhile()
            self._consumer.poll(_WAIT_S)
            bounds = self.bounds(topic)
        return bounds

    def batches(
        self, topic: str, ranges: Mapping[int, tuple[int, int]], *, most: int = _BATCH
    ) -> Iterator[list[Message]]:
        """Yield batches of the records in `ranges`, offsets [from, to) by partition, in order of each.

        Reading ends there, however much is written meanwhile, or at the first transaction still open.
        """
        open_ends = {partition: end for partition, (begin, end) in ranges.items() if end > begin}
        with self._translated():
            self._consumer.assign(
                [TopicPartition(topic, partition, ranges[partition][0]) for partition in open_ends]
            )
            yield from _batches(self._consumer, open_ends, most)

    def record_at(self, topic: str, partition: int, offset: int) -> Record | None:
        """Return the record at one place; None when none stands there."""
        begin, end = self.bounds(topic).get(partition, (0, 0))
        if not begin <= offset < end:
            return None
        for batch in self.batches(topic, {partition: (offset, offset + 1)}, most=1):
            return record_of(batch[0])
        return None

    def offset_at(self, topic: str, partition: int, sent_at_ms: int) -> int:
        """Return the offset of the first record with this Kafka timestamp or a later one; the end if none."""
        asked = [TopicPartition(topic, partition, sent_at_ms)]
        with self._translated():
            (found,) = self._consumer.offsets_for_times(asked, timeout=self._timeout_s)
            if found.error is not None:
                raise KafkaException(found.error)
        return found.offset if found.offset >= 0 else self.bounds(topic)[partition][1]

    def committed(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Return the next offset of the group by partition, 0 where it has committed none."""
        asked = [TopicPartition(topic, partition) for partition in partitions]
        with self._translated():
            found = settled_places(self._consumer, asked, self._timeout_s)
        return {place.partition: max(place.offset, 0) for place in found}

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as exc:
            raise unreachable(self._settings, exc) from exc


def read_to_end(settings: Settings, topic: str) -> Iterator[list[Message]]:
    """Yield batches of the committed records of all partitions of `topic` (full name), oldest first each.

    Reading ends at the offsets the topic had at the start, however much is written meanwhile, or at
    the first transaction still open. Commits nothing.

    Raises:
        DependencyUnreachable: no broker answers within `connect_timeout_ms`, or it falls silent for 30 s.
        Refused: the topic does not exist.
    """
    with TopicReader(settings) as reader:
        yield from reader.batches(topic, reader.bounds(topic))


def record_of(message: Message) -> Record:
    """Return a message as plain values."""
    key, value = message.key(), message.value()
    return Record(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        sent_at_ms=message.timestamp()[1],
        key=key.encode() if isinstance(key, str) else key,
        value=value.encode() if isinstance(value, str) else value,
        headers=_headers(message),
    )


def _headers(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    """Return the headers; of those that cannot be read, one that says so."""
    try:
        return tuple(headers_of(message))
    except BadRecord as exc:
        return (("unreadable", str(exc).encode()),)


def as_array(values: Iterable[bytes]) -> bytes:
    """Return JSON values as one array, which decodes faster than they do one by one."""
    return b"[" + b",".join(values) + b"]"


def _batches(consumer: Consumer, open_ends: dict[int, int], most: int) -> Iterator[list[Message]]:
    heard_s = monotonic_s()
    while open_ends:
        first = consumer.poll(_WAIT_S)
        received = [] if first is None else [first, *consumer.consume(most - 1, 0.0)]
        records = _wanted(received, open_ends)
        if records:
            yield records
        if received:
            heard_s = monotonic_s()
        elif monotonic_s() - heard_s > _SILENCE_S:
            raise KafkaException(KafkaError(TIMED_OUT))


def _wanted(received: list[Message], open_ends: dict[int, int]) -> list[Message]:
    """Return the records before their partition's end; partitions that have reached it are closed."""
    records = []
    for message in received:
        partition, offset = message.partition() or 0, message.offset() or 0
        end = open_ends.get(partition, 0)
        error = message.error()
        if error is not None:
            if error.code() != _END_OF_PARTITION:
                raise KafkaException(error)
            end = 0
        elif offset < end:
            records.append(message)
        if offset >= end - 1:
            open_ends.pop(partition, None)
    return records


def _consumer(settings: Settings, group: str) -> Consumer:
    """Return a consumer that never idles: with librdkafka's own waits reading takes four times as long."""
    return Consumer(
        common(settings)
        | ASKS_AGAIN_SOON
        | {
            "log_level": 0,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
            "fetch.queue.backoff.ms": 2,
            "queued.max.messages.kbytes": _AHEAD_KIB,
        }
    )
