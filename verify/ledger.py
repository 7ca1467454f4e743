"""The loss ledger: in = scored + dead letters, counted by position with an independent client.

Reads with kafka-python, not with the scorer's librdkafka, and imports nothing of scorer/. Every
position of `transactions` that the group has committed must have exactly one readable result.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec
import numpy as np
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, RetriableError
from kafka.structs import OffsetAndMetadata

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import DependencyUnreachable, Refused
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name

NAMED = 20
"""At most so many positions of a kind are named in the report."""

Progress = Callable[[str, int, int], None]
"""Told the topic, records read so far, and how many there are."""


class Position(msgspec.Struct, frozen=True):
    """Where a transaction stands in its topic."""

    source_partition: int
    source_offset: int


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What came in and what came out, in records.

    `waiting`: not yet committed by the scorers. `lost`: committed, yet without a result. `duplicates`:
    results beyond the first of a position. `unfounded`: results of positions that do not exist.
    """

    transactions: int
    scored: int
    dead_letters: int
    waiting: int
    lost: int
    duplicates: int
    unfounded: int
    lost_positions: list[Position]
    duplicate_positions: list[Position]

    @property
    def balanced(self) -> bool:
        """Return whether every committed transaction has exactly one result."""
        return not (self.lost or self.duplicates or self.unfounded)


class Record(Protocol):
    """The part of a kafka-python record that is read here."""

    partition: int
    offset: int
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Log:
    """The topics of one environment as an independent reader sees them.

    Raises:
        DependencyUnreachable: no broker answers within `connect_timeout_ms`.
        Refused: a topic does not exist.
    """

    def __init__(self, settings: Settings, progress: Progress | None = None) -> None:
        self._environment = settings.environment
        self._patience_s = settings.connect_timeout_ms / 1000
        self._pause = threading.Event()
        self._progress = progress or (lambda _topic, _done, _total: None)
        try:
            # kafka-python reads aborted records unless it is told not to.
            self._consumer = KafkaConsumer(
                bootstrap_servers=settings.kafka_bootstrap,
                isolation_level="read_committed",
                enable_auto_commit=False,
                bootstrap_timeout_ms=settings.connect_timeout_ms,
                max_partition_fetch_bytes=8 * 1024 * 1024,
                max_poll_records=5_000,
            )
            self._admin = KafkaAdminClient(
                bootstrap_servers=settings.kafka_bootstrap,
                bootstrap_timeout_ms=settings.connect_timeout_ms,
            )
        except (KafkaError, OSError) as exc:
            raise DependencyUnreachable(
                f"Kafka at {settings.kafka_bootstrap} does not answer ({type(exc).__name__}): start it "
                "with `fraudstream stack up`, or set FRAUDSTREAM_KAFKA_BOOTSTRAP"
            ) from exc

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()
        self._admin.close()

    def committed(self, group: str) -> dict[int, int]:
        """Return the next offset of each partition of `transactions` by the scorers' group."""
        topic = topic_name(self._environment, "transactions")
        offsets = self._group_offsets(group)
        return {tp.partition: found.offset for tp, found in offsets.items() if tp.topic == topic}

    def _group_offsets(self, group: str) -> "dict[TopicPartition, OffsetAndMetadata]":
        """Return a group's offsets; a broker that has just started looks for its coordinator first."""
        deadline = monotonic_s() + self._patience_s
        while True:
            try:
                offsets: dict[TopicPartition, OffsetAndMetadata]
                offsets = self._admin.list_group_offsets({group: None})[group]
            except RetriableError as exc:
                if monotonic_s() > deadline:
                    raise DependencyUnreachable(
                        f"Kafka does not tell the offsets of group {group} ({type(exc).__name__}): "
                        "look at the broker's log with `fraudstream stack logs`"
                    ) from exc
                self._pause.wait(0.1)
            else:
                return offsets

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lag(self, group: str) -> tuple[int, int]:
        """Return how many records of `transactions` the scorers have committed, and how many there are."""
        topic = topic_name(self._environment, "transactions")
        numbers = sorted(self._consumer.partitions_for_topic(topic) or ())
        ends = self._consumer.end_offsets([TopicPartition(topic, number) for number in numbers])
        return sum(self.committed(group).values()), sum(ends.values())

    def records(self, name: str) -> Iterator[Record]:
        """Yield every readable record of a topic, from its beginning to its end as of now."""
        topic = topic_name(self._environment, name)
        partitions = self._consumer.partitions_for_topic(topic)
        if not partitions:
            raise Refused(f"topic {topic} does not exist: make it with `fraudstream topics create`")
        places = [TopicPartition(topic, partition) for partition in sorted(partitions)]
        self._consumer.assign(places)
        self._consumer.seek_to_beginning(*places)
        begins = self._consumer.beginning_offsets(places)
        ends = self._consumer.end_offsets(places)
        total = sum(ends[place] - begins[place] for place in places)
        done = 0
        open_places = {place for place in places if begins[place] < ends[place]}
        while open_places:
            for place, found in self._consumer.poll(timeout_ms=1_000).items():
                yield from (record for record in found if record.offset < ends[place])
            # The position, not the last record, tells the end: markers of transactions take offsets.
            open_places = {p for p in open_places if self._consumer.position(p) < ends[p]}
            self._consumer.pause(*(p for p in places if p not in open_places))
            done = sum(min(self._consumer.position(p), ends[p]) - begins[p] for p in places)
            self._progress(name, done, total)
        self._consumer.resume(*places)


class Tally:
    """How often each position occurs, as one growing int32 array a partition."""

    def __init__(self) -> None:
        self._pending: dict[int, list[int]] = {}
        self.records = 0

    def add(self, partition: int, offset: int) -> None:
        """Count one record of a position."""
        self._pending.setdefault(partition, []).append(offset)
        self.records += 1

    def counts(self, partition: int, length: int) -> np.ndarray:
        """Return int64 [length]: how often each offset below `length` occurs."""
        offsets = np.array(self._pending.get(partition, []), dtype=np.int64)
        return np.bincount(offsets, minlength=length)

    def partitions(self) -> set[int]:
        """Return the partitions that occur."""
        return set(self._pending)


def count(log: Log, group: str) -> Ledger:
    """Return the ledger of an environment; `group` is the consumer group of its scorers."""
    committed = log.committed(group)
    came_in, results = Tally(), Tally()
    for record in log.records("scores"):
        place = _position_decoder.decode(record.value or b"")
        results.add(place.source_partition, place.source_offset)
    scored = results.records
    for record in log.records("dead-letters"):
        headers = dict(record.headers)
        results.add(int(headers["source_partition"]), int(headers["source_offset"]))
    for record in log.records("transactions"):
        came_in.add(record.partition, record.offset)
    return balance(came_in, results, scored, committed)


_position_decoder = msgspec.json.Decoder(Position)


def balance(came_in: Tally, results: Tally, scored: int, committed: dict[int, int]) -> Ledger:
    """Return the ledger of two tallies; `scored` of `results` are scores, `committed` as in `Log`."""
    waiting = unfounded = 0
    lost: list[Position] = []
    duplicates: list[Position] = []
    lost_count = duplicate_count = 0
    for partition in sorted(came_in.partitions() | results.partitions()):
        inputs = came_in.counts(partition, 0)
        outputs = results.counts(partition, len(inputs))
        inputs = np.pad(inputs, (0, len(outputs) - len(inputs)))
        due = np.arange(len(inputs)) < committed.get(partition, 0)
        missing = np.flatnonzero((inputs > 0) & (outputs == 0) & due)
        doubled = np.flatnonzero((inputs > 0) & (outputs > 1))
        waiting += int(((inputs > 0) & (outputs == 0) & ~due).sum())
        unfounded += int(outputs[inputs == 0].sum())
        lost_count += len(missing)
        duplicate_count += int((outputs[doubled] - 1).sum())
        lost += [Position(partition, int(offset)) for offset in missing[:NAMED]]
        duplicates += [Position(partition, int(offset)) for offset in doubled[:NAMED]]
    return Ledger(
        transactions=came_in.records,
        scored=scored,
        dead_letters=results.records - scored,
        waiting=waiting,
        lost=lost_count,
        duplicates=duplicate_count,
        unfounded=unfounded,
        lost_positions=lost[:NAMED],
        duplicate_positions=duplicates[:NAMED],
    )
