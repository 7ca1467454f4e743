"""The loss ledger: in = scored + dead letters, counted by position with an independent client.

Reads with kafka-python, not with the scorer's librdkafka, and imports nothing of scorer/. Every
position of `transactions` that the group has committed must have exactly one readable result, and that
result must be of the transaction which stands there: same id in a score, same bytes in a dead letter.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Self

import msgspec
import numpy as np
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.kafka_python import AWAY
from fraudstream.core.errors import DependencyUnreachable, FraudstreamError, Refused
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from verify.odd_headers import read_odd_headers
from verify.tally import DEAD_LETTER, SCORE, Arrivals, Arrived, Ints, Record, Results

NAMED = 20
"""At most so many positions of a kind are named in the report."""

STUCK_S = 60.0
"""A transaction that stays open so long after everything else was read is not waited for any longer."""

Progress = Callable[[str, int, int], None]
"""Told the topic, records read so far, and how many there are."""


class Position(msgspec.Struct, frozen=True):
    """Where a transaction stands in its topic."""

    source_partition: int
    source_offset: int


class Place(msgspec.Struct, frozen=True):
    """Where a result itself stands: topic (base name), partition, offset."""

    topic: str
    partition: int
    offset: int


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What came in and what came out, in records.

    `waiting`: not yet committed by the scorers. `lost`: committed, yet without a result. `duplicates`:
    results beyond the first of a position. `unfounded`: results of positions that do not exist, or that
    do not say which one. `mismatched`: results of another transaction than the one at their position.

    Where a topic begins later than at offset 0: `expired` are results of positions before the beginning of
    `transactions`, part of no other number. `unknown`: committed and without a result, which may have stood
    before the beginning of `scores`.
    """

    transactions: int
    scored: int
    dead_letters: int
    waiting: int
    unknown: int
    lost: int
    duplicates: int
    unfounded: int
    mismatched: int
    expired: int
    lost_positions: list[Position]
    duplicate_positions: list[Position]
    unfounded_places: list[Place]
    mismatched_places: list[Place]

    @property
    def balanced(self) -> bool:
        """Return whether every committed transaction has exactly one result, and it is its own."""
        return not (self.lost or self.duplicates or self.unfounded or self.mismatched)


class Begins(msgspec.Struct, frozen=True):
    """The first offset by partition of the topics whose beginning may have expired."""

    transactions: dict[int, int] = {}
    scores: dict[int, int] = {}


class Log:
    """The topics of one environment as an independent reader sees them.

    Raises:
        DependencyUnreachable: no broker answers within `connect_timeout_ms`.
        Refused: a topic does not exist.
    """

    request_ms = 30_000
    """A question to the broker that is not answered within it is given up; kafka-python's own default."""

    def __init__(self, settings: Settings, progress: Progress | None = None) -> None:
        self._environment = settings.environment
        self._patience_s = settings.connect_timeout_ms / 1000
        self._pause = threading.Event()
        self._progress = progress or (lambda _topic, _done, _total: None)
        read_odd_headers()
        try:
            # kafka-python reads aborted records unless it is told not to.
            self._consumer = KafkaConsumer(
                bootstrap_servers=settings.kafka_bootstrap,
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="none",  # a position that is gone is an error, never a silent jump
                bootstrap_timeout_ms=settings.connect_timeout_ms,
                max_partition_fetch_bytes=8 * 1024 * 1024,
                max_poll_records=5_000,
            )
            self._admin = KafkaAdminClient(
                bootstrap_servers=settings.kafka_bootstrap,
                bootstrap_timeout_ms=settings.connect_timeout_ms,
                request_timeout_ms=self.request_ms,
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
        return self._of_transactions(self._group_offsets(group))

    def _of_transactions(
        self, offsets: "dict[TopicPartition, OffsetAndMetadata]"
    ) -> dict[int, int]:
        topic = topic_name(self._environment, "transactions")
        return {tp.partition: found.offset for tp, found in offsets.items() if tp.topic == topic}

    def _group_offsets(self, group: str) -> "dict[TopicPartition, OffsetAndMetadata]":
        """Return a group's offsets; a broker that has just started looks for its coordinator first."""
        deadline = monotonic_s() + self._patience_s
        while True:
            try:
                offsets: dict[TopicPartition, OffsetAndMetadata]
                offsets = self._admin.list_group_offsets({group: None})[group]
            except AWAY as exc:
                if monotonic_s() > deadline:
                    raise DependencyUnreachable(
                        f"Kafka does not tell the offsets of group {group} ({type(exc).__name__}): "
                        "look at the broker's log with `fraudstream stack logs`"
                    ) from exc
                self._pause.wait(0.1)
            else:
                return offsets

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lag(self, group: str) -> tuple[int, int]:
        """Return how many records of `transactions` the scorers have committed, and how many there are."""
        topic = topic_name(self._environment, "transactions")
        numbers = sorted(self._consumer.partitions_for_topic(topic) or ())
        ends = self._consumer.end_offsets([TopicPartition(topic, number) for number in numbers])
        return sum(self.committed(group).values()), sum(ends.values())

    def ends(self, places: "list[TopicPartition]") -> "dict[TopicPartition, int]":
        """Return the end of each partition, records of open transactions included.

        A reader of committed records reaches it once every transaction that had written below it has
        ended. The end that such a reader is told (the last stable offset) may lie before results whose
        offsets are committed already: their transaction's marker reaches each partition on its own.

        Raises:
            DependencyUnreachable: the broker does not answer.
        """
        return self._bounds(places, OffsetSpec.LATEST)

    def begins(self, name: str) -> dict[int, int]:
        """Return the first offset of each partition of a topic: above 0 what was below has expired.

        Raises:
            DependencyUnreachable: the broker does not answer.
        """
        topic = topic_name(self._environment, name)
        numbers = sorted(self._consumer.partitions_for_topic(topic) or ())
        places = [TopicPartition(topic, number) for number in numbers]
        found = self._bounds(places, OffsetSpec.EARLIEST)
        return {place.partition: offset for place, offset in found.items()}

    def _bounds(
        self, places: "list[TopicPartition]", spec: OffsetSpec
    ) -> "dict[TopicPartition, int]":
        try:
            found = self._admin.list_partition_offsets(dict.fromkeys(places, spec))
        except KafkaError as exc:
            raise DependencyUnreachable(
                f"Kafka does not tell where topic {places[0].topic} begins and ends "
                f"({type(exc).__name__}): look at the broker's log with `fraudstream stack logs`"
            ) from exc
        return {place: at.offset for place, at in found.items()}

    def records(self, name: str, *, with_open: bool = False) -> Iterator[Record]:
        """Yield every readable record of a topic, from its beginning to its end as of now.

        `with_open` waits for transactions that are open now, and takes in what they commit.

        Raises:
            Refused: the topic does not exist.
            DependencyUnreachable: the broker does not answer, or a transaction stays open.
            FraudstreamError: kafka-python cannot read a record (its compression, or it is corrupt).
        """
        topic = topic_name(self._environment, name)
        partitions = self._consumer.partitions_for_topic(topic)
        if not partitions:
            raise Refused(f"topic {topic} does not exist: make it with `fraudstream topics create`")
        places = [TopicPartition(topic, partition) for partition in sorted(partitions)]
        self._consumer.assign(places)
        self._consumer.seek_to_beginning(*places)
        begins = self._consumer.beginning_offsets(places)
        ends = self.ends(places) if with_open else self._consumer.end_offsets(places)
        total = sum(ends[place] - begins[place] for place in places)
        done, moved_s = -1, monotonic_s()
        open_places = {place for place in places if begins[place] < ends[place]}
        while open_places:
            for place, found in self._poll(topic).items():
                yield from (record for record in found if record.offset < ends[place])
            # The position, not the last record, tells the end: markers of transactions take offsets.
            open_places = {p for p in open_places if self._consumer.position(p) < ends[p]}
            self._consumer.pause(*(p for p in places if p not in open_places))
            before, done = done, sum(self._passed(p, ends[p]) - begins[p] for p in places)
            moved_s = monotonic_s() if done > before else moved_s
            if monotonic_s() - moved_s > STUCK_S:
                raise self._stuck(min(open_places), ends)
            self._progress(name, done, total)
        self._consumer.resume(*places)

    def _passed(self, place: TopicPartition, end: int) -> int:
        return min(int(self._consumer.position(place)), end)

    def _stuck(
        self, place: TopicPartition, ends: "dict[TopicPartition, int]"
    ) -> DependencyUnreachable:
        return DependencyUnreachable(
            f"topic {place.topic} cannot be read to its end: partition {place.partition} stands at "
            f"{self._consumer.position(place)} of {ends[place]} for {STUCK_S:.0f} s; a transaction is open "
            "there, or the broker does not answer: count again once that is over"
        )

    def _poll(self, topic: str) -> "dict[TopicPartition, list[Record]]":
        found: dict[TopicPartition, list[Record]]
        try:
            found = self._consumer.poll(timeout_ms=1_000)
        except OffsetOutOfRangeError as exc:
            raise FraudstreamError(
                f"records of topic {topic} were deleted while they were read: count again"
            ) from exc
        except AWAY as exc:
            raise DependencyUnreachable(
                f"topic {topic} cannot be read to its end: Kafka does not answer any more "
                f"({type(exc).__name__}): count again when it does"
            ) from exc
        except KafkaError as exc:
            raise FraudstreamError(
                f"topic {topic} cannot be read with kafka-python ({exc}): for records in lz4, snappy or "
                "zstd install the package of that codec beside fraudstream, then count again"
            ) from exc
        return found


def count(log: Log, group: str) -> Ledger:
    """Return the ledger of an environment; `group` is the consumer group of its scorers.

    The offsets come first, then results up to the ends asked after that, open transactions included,
    then the transactions: whatever was committed has its result, whatever has a result is among them.

    Raises:
        FraudstreamError: a topic cannot be read to its end.
    """
    committed = log.committed(group)
    came_in, results = Arrivals(), Results()
    for record in log.records("scores", with_open=True):
        results.add_score(record)
    for record in log.records("dead-letters", with_open=True):
        results.add_dead_letter(record)
    for record in log.records("transactions"):
        came_in.add_record(record)
    # Asked after reading: what expires meanwhile has expired.
    begins = Begins(log.begins("transactions"), log.begins("scores"))
    return balance(came_in, results, committed, begins)


def balance(
    came_in: Arrivals,
    results: Results,
    committed: dict[int, int],
    begins: Begins = Begins(),  # noqa: B008 - it is frozen
) -> Ledger:
    """Return the ledger of what came in and what came out; `committed` as in `Log`."""
    sums = _Sums(len(results))
    for partition in came_in.partitions():
        arrived = came_in.of(partition)
        outputs = sums.join(partition, arrived, results)
        sums.add(
            partition,
            arrived.offsets,
            outputs,
            committed=committed.get(partition, 0),
            certain=results.certain_from(partition, begins.scores),
        )
    expired = ~sums.founded & results.before(begins.transactions)
    counted = results.kinds()[~expired]
    unfounded = np.flatnonzero(~sums.founded & ~expired)
    mismatched = np.flatnonzero(sums.founded & ~sums.own)
    return Ledger(
        transactions=len(came_in),
        scored=int((counted == SCORE).sum()),
        dead_letters=int((counted == DEAD_LETTER).sum()),
        waiting=sums.waiting,
        unknown=sums.unknown,
        lost=sums.lost,
        duplicates=sums.duplicates,
        unfounded=len(unfounded),
        mismatched=len(mismatched),
        expired=int(expired.sum()),
        lost_positions=sums.lost_positions[:NAMED],
        duplicate_positions=sums.duplicate_positions[:NAMED],
        unfounded_places=[Place(*results.own_place(int(i))) for i in unfounded[:NAMED]],
        mismatched_places=[Place(*results.own_place(int(i))) for i in mismatched[:NAMED]],
    )


class _Sums:
    """The sums over partitions; `founded`, `own` bool [results]: has a position, is its transaction's."""

    def __init__(self, results: int) -> None:
        self.founded = np.zeros(results, dtype=bool)
        self.own = np.zeros(results, dtype=bool)
        self.waiting = self.unknown = self.lost = self.duplicates = 0
        self.lost_positions: list[Position] = []
        self.duplicate_positions: list[Position] = []

    def join(self, partition: int, arrived: Arrived, results: Results) -> Ints:
        """Look the results of a partition up among its transactions; return int64 [N]: results of each."""
        partitions, offsets = results.sources()
        mine = np.flatnonzero(partitions == partition)
        at = np.searchsorted(arrived.offsets, offsets[mine])
        at = np.minimum(at, len(arrived.offsets) - 1)
        exists = arrived.offsets[at] == offsets[mine]
        mine, at = mine[exists], at[exists]
        is_score = results.kinds()[mine] == SCORE
        wanted = np.where(is_score, arrived.names[at], arrived.contents[at])
        self.founded[mine] = True
        is_own = (wanted == results.digests()[mine]) | (wanted == results.claimed()[mine])
        self.own[mine] = is_own
        return np.bincount(at, minlength=len(arrived.offsets))

    def add(
        self, partition: int, offsets: Ints, outputs: Ints, *, committed: int, certain: int
    ) -> None:
        """Add what is lost, doubled or waiting; `outputs` int64 [N]: results of each of `offsets`."""
        missing = offsets[outputs == 0]
        settled = missing[missing < committed]
        lost = settled[settled >= certain]
        self.waiting += len(missing) - len(settled)
        self.unknown += len(settled) - len(lost)
        self.lost += len(lost)
        self.duplicates += int((outputs[outputs > 1] - 1).sum())
        doubled = offsets[outputs > 1]
        self.lost_positions += [Position(partition, int(o)) for o in lost[:NAMED]]
        self.duplicate_positions += [Position(partition, int(o)) for o in doubled[:NAMED]]
