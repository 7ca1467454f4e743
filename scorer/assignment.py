"""Which partitions a worker owns and where each goes on: committed offset, log and features must fit."""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.kafka import TopicFacts
from fraudstream.clients.kafka_log import settled_places
from fraudstream.clients.log_bounds import LogBounds
from fraudstream.core.errors import FraudstreamError, KafkaUnreachable, Refused
from fraudstream.core.settings import Settings
from scorer.lost_marks import RESULTS, LostMarks

logger = logging.getLogger(__name__)

AFRESH = (
    "start afresh beside it: set FRAUDSTREAM_ENVIRONMENT to a new name and run "
    "`fraudstream topics create`"
)
WAYS_OUT = (
    "nothing was read or written. Either restore what is missing (the topic, or the Redis data of "
    f"this environment) and start again, or {AFRESH}"
)
OFFSETS_OUT = (
    "nothing was read or written. Kafka forgets the offsets of a group that had no worker for "
    "`offsets.retention.minutes` (a week by default). Either restore a copy of the broker's data that has "
    f"them and start again, or {AFRESH}"
)


ASK_S = 5.0
PATIENCE_S = 60.0
"""How long the broker may take to tell where to go on; the group keeps its member meanwhile."""


def group_name(settings: Settings) -> str:
    """Return the consumer group of the scorers of an environment."""
    return f"{settings.environment}.scorer"


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about one partition: next offset by the group (-1 none), last applied (-1 none), log bounds.

    `by_scorer`: whether a scorer has committed the offset; each of its commits has a note.
    """

    partition: int
    committed: int
    mark: int
    low: int
    high: int
    by_scorer: bool = True


def check_bounds(bounds: Bounds) -> None:
    """Refuse to go on where group, features and log do not fit.

    Features that end before what is committed are no such case: they are rebuilt (scorer/recovery.py). Before
    anything is applied for the first time, an offset is committed (scorer/deaths.py).

    Raises:
        Refused: names what differs and the two safe ways out.
    """
    b = bounds
    if b.committed < 0 and 0 <= b.low <= b.mark < b.high:
        gone = f"features are at {b.mark}, but the group's offsets are gone"
        raise Refused(f"partition {b.partition}: {gone}; {OFFSETS_OUT}")
    if b.committed < 0:
        problem = f"log begins at offset {b.low}" if b.low > b.mark + 1 else ""
    elif not b.low <= b.committed <= b.high:
        problem = f"group would go on at {b.committed}, but the log has {b.low} to {b.high}"
    elif not b.by_scorer and b.mark >= b.committed:
        problem = (
            f"another program has moved the group's place back to {b.committed}, but the features are at "
            f"{b.mark}: what lies between may have been scored already"
        )
    else:
        problem = ""
    if not problem and b.mark >= b.high:
        problem = (
            f"features are at {b.mark}, but the log ends at {b.high}: was the topic recreated?"
        )
    if problem:
        raise Refused(f"partition {b.partition}: {problem}; {WAYS_OUT}")


class Assignment:
    """The partitions of one worker: `positions` (next offset to read) and `committed` (next by the group)."""

    def __init__(
        self, consumer: Consumer, topic: TopicFacts, lost_marks: LostMarks, log: LogBounds
    ) -> None:
        self._consumer = consumer
        self._log = log
        self._topic = topic
        self._lost_marks = lost_marks
        self.positions: dict[int, int] = {}
        self.committed: dict[int, int] = {}
        self._sought: dict[int, int] = {}
        """Where reading was to begin last; the client tells of none before something was read from there."""
        self.notes: dict[int, str] = {}
        """What was committed with the offsets that this worker began at; a new dict whenever it begins."""
        self._pause = threading.Event()
        self.group_metadata: object = None
        """Names the generation in which the present partitions were assigned; commits are fenced by it.

        Taken when they are: asked for later, it could be of a newer generation, in which the batch in
        hand belongs to somebody else.
        """
        self.generation = 0
        """Grows with each change of ownership: a batch of an older generation must be dropped."""
        self.proven = False
        """Whether the features are known to hold what is committed; asked anew at each assignment."""
        self._leaving = False

    def subscribe(self) -> None:
        """Join the group; the callbacks run inside the worker's own calls of poll and consume."""
        self._consumer.subscribe(
            [self._topic.name],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._revoked,
        )

    def leave(self) -> None:
        """Close the consumer; what is assigned in the meantime is not taken up: nothing would read it.

        A consumer that is closed while partitions wait to be taken up may wait for ever for the answer to
        that (librdkafka destroys the request of a group that has ended), so they are answered before. To
        unsubscribe would be no way: a static member that does gives its place in the group up.
        """
        self._leaving = True
        self._consumer.pause(self._consumer.assignment())  # nothing is read ahead any more
        while self._consumer.consume(1_000, 0):
            pass  # what was read ahead, for nobody
        self._consumer.close()

    def rewind(self) -> None:
        """Go on from what the group has committed: a batch that failed may have been, or not.

        Raises:
            DependencyUnreachable: the broker does not tell.
        """
        owned = [TopicPartition(self._topic.name, partition) for partition in self.positions]
        facts = self._facts(self._consumer, owned) if owned else []
        self.notes = {tp.partition: tp.metadata or "" for tp, _, _ in facts}
        for tp, low, _ in facts:
            offset = low if tp.offset == OFFSET_INVALID else tp.offset
            self.seek(TopicPartition(self._topic.name, tp.partition, offset))
            self.positions[tp.partition] = self.committed[tp.partition] = offset

    def wake(self, partitions: Iterable[int]) -> None:
        """Have what was resumed fetched at once, where everything was paused.

        librdkafka would look after up to a second, but does at once for what is sought (to any offset but 0):
        so each partition is, to where reading goes on anyway.
        """
        places = [TopicPartition(self._topic.name, partition) for partition in partitions]
        for place in self._consumer.position(places):
            if place.offset < 0:  # nothing was read since it was assigned, or sought
                place.offset = self._sought[place.partition]
            with suppress(KafkaException):  # assigned just now: it is fetched without that
                self.seek(place)

    def seek(self, place: TopicPartition) -> None:
        """Have reading go on there; by the leader epoch in a place the client sees that a log was cut.

        Raises:
            KafkaException: the partition is not read just now.
        """
        self._consumer.seek(place)
        self._sought[place.partition] = place.offset

    def offsets_after(
        self, last_offsets: Mapping[int, int], notes: Mapping[int, str]
    ) -> list[TopicPartition]:
        """Return what a transaction commits when these offsets, by partition, are done, with a note each."""
        return [
            TopicPartition(self._topic.name, partition, last + 1, metadata=notes[partition])
            for partition, last in last_offsets.items()
        ]

    def begins_at(self, offsets: Sequence[TopicPartition]) -> bool:
        """Return whether the group is at just these offsets, with their notes: nobody has gone on since."""
        return bool(offsets) and all(
            (self.committed.get(each.partition), self.notes.get(each.partition))
            == (each.offset, each.metadata)
            for each in offsets
        )

    def done(self, last_offsets: dict[int, int]) -> None:
        """Take note that everything up to these offsets is committed."""
        for partition, last in last_offsets.items():
            self.positions[partition] = self.committed[partition] = last + 1

    def check(self, marks: Mapping[int, int]) -> None:
        """Refuse to read on where the group's place does not fit the log or the marks, asked for before.

        Raises:
            Refused: names what differs and the two safe ways out.
            DependencyUnreachable: the broker does not tell.
        """
        owned = [TopicPartition(self._topic.name, partition) for partition in self.positions]
        facts = self._facts(self._consumer, owned) if owned else []
        if any(tp.offset == OFFSET_INVALID for tp, _, _ in facts):
            self._check_new()
        for tp, low, high in facts:
            mark = marks[tp.partition]
            place = -1 if tp.offset == OFFSET_INVALID else tp.offset
            check_bounds(
                Bounds(
                    partition=tp.partition,
                    committed=place,
                    mark=mark,
                    low=low,
                    high=high,
                    by_scorer=bool(tp.metadata),
                )
            )

    def _check_new(self) -> None:
        """Refuse to begin where there are results although the group has no place in any partition.

        The results are looked at first: who makes one commits a place with it.

        Raises:
            Refused: the group had places, and has lost them; everything would be scored again.
            DependencyUnreachable: the broker does not tell.
        """
        try:
            topics = self._consumer.list_topics(timeout=ASK_S).topics
            environment = self._topic.name.removesuffix("transactions")
            names = [name for each in RESULTS if (name := environment + each) in topics]
            places = [TopicPartition(name, p) for name in names for p in topics[name].partitions]
            written = sum(end for _, end in self._log.ask(places, timeout_s=ASK_S))
        except KafkaException as exc:
            raise KafkaUnreachable(
                f"Kafka does not tell whether there are results: {exc.args[0].str()}"
            ) from exc
        if written and max(self.committed_everywhere().values()) < 0:
            raise Refused(f"there are results, but the group's offsets are gone; {OFFSETS_OUT}")

    def lags(self, ends: Mapping[int, int]) -> dict[int, int]:
        """Return how many records before the end of each partition are not committed.

        May be called from another thread; a partition whose end is not told is left out.
        """
        return {
            partition: max(ends[partition] - committed, 0)
            for partition, committed in dict(self.committed).items()
            if partition in ends
        }

    def committed_everywhere(self) -> dict[int, int]:
        """Return the group's next offset of every partition of the topic, -1 for none.

        Raises:
            DependencyUnreachable: the broker does not tell, or waits for a transaction to end.
        """
        every = [TopicPartition(self._topic.name, p) for p in range(self._topic.partitions)]
        try:
            found = settled_places(self._consumer, every, ASK_S)
        except KafkaException as exc:
            raise KafkaUnreachable(
                f"Kafka does not tell what is committed: {exc.args[0].str()}"
            ) from exc
        return {tp.partition: -1 if tp.offset == OFFSET_INVALID else tp.offset for tp in found}

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._leaving:  # a closing consumer answers no question
            consumer.unassign()
            return
        if added := [p.partition for p in partitions if p.partition >= self._topic.partitions]:
            raise FraudstreamError(
                f"topic {self._topic.name} has partitions {sorted(added)} now, which it had not when this "
                "worker began: start it again and it takes them in; what that means for features stands "
                "in docs/operations.md under Partitions"
            )
        self.generation += 1
        self.proven = False
        starts = []
        self.group_metadata = consumer.consumer_group_metadata()
        facts = self._facts(consumer, partitions)
        self.notes = {tp.partition: tp.metadata or "" for tp, _, _ in facts}
        for tp, low, _ in facts:
            start = low if tp.offset == OFFSET_INVALID else tp.offset
            self._sought[tp.partition] = start
            self.positions[tp.partition] = self.committed[tp.partition] = start
            starts.append(TopicPartition(self._topic.name, tp.partition, start))
        consumer.assign(starts)
        consumer.resume(starts)
        logger.info("owns partitions %s", sorted(tp.partition for tp in partitions))

    def _facts(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> list[tuple[TopicPartition, int, int]]:
        """Return the group's place in each partition with the bounds of its log.

        The broker lets the answer wait while a transaction of a dead worker is still open. Where it does so
        for longer than one may be open, those who own the partitions settle the offsets
        (scorer/lost_marks.py).

        Raises:
            DependencyUnreachable: it does not answer in time; without a place nothing may be read.
        """
        deadline = monotonic_s() + max(PATIENCE_S, 2 * self._lost_marks.after_s)
        while True:
            try:
                return self._ask(consumer, partitions)
            except KafkaException as exc:
                if monotonic_s() > deadline:
                    raise KafkaUnreachable(
                        f"Kafka does not tell where to go on ({exc.args[0].str()}): see what the "
                        "broker says with `fraudstream stack logs`, then start the worker again"
                    ) from exc
                logger.warning("Kafka does not tell where to go on: %s", exc.args[0].str())
                self._lost_marks.look([tp.partition for tp in partitions], self.group_metadata)
                self._pause.wait(0.2)

    def _ask(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> list[tuple[TopicPartition, int, int]]:
        places = _committed(consumer, partitions)
        bounds = self._log.ask(places, timeout_s=ASK_S)
        return [(tp, *ends) for tp, ends in zip(places, bounds, strict=True)]

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.generation += 1
        for tp in partitions:
            self.positions.pop(tp.partition, None)
            self.committed.pop(tp.partition, None)
        consumer.unassign()
        logger.info("gave up partitions %s", sorted(tp.partition for tp in partitions))


def _committed(consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    places = consumer.committed(partitions, timeout=ASK_S)
    for tp in places:
        if tp.error is not None:
            raise KafkaException(tp.error)
    return places
