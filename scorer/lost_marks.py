"""Offsets whose transaction has ended, while the broker has lost the mark that says so.

Kafka 4.3.0 to 4.4.0, killed between its decision on a transaction and the marks that it then writes, can
leave them out (docs/adr/0022, 0025). It answers UNSTABLE_OFFSET_COMMIT from then on to whoever asks where to
go on, restarts of workers and of the broker included. Whether such offsets hold is told by what was in the
same transaction: the results, which readers see or do not.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.kafka import (
    common,
    init_transactions,
    offsets_reader,
    transactional_producer,
    unreachable,
)
from fraudstream.clients.log_bounds import LogBounds
from fraudstream.clients.topic_log import TopicReader, record_of
from fraudstream.core.dead_letters import own_headers
from fraudstream.core.errors import DependencyUnreachable
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from scorer.neighbours import read_note, write_note
from scorer.results import place_of

if TYPE_CHECKING:
    from fraudstream.clients.hanging import Open

logger = logging.getLogger(__name__)

MARGIN_MS = 600_000
"""Results are looked for from so long before the end of their transaction: clocks of workers differ."""
ABORTS_AFTER_S = 12.0
"""A broker ends a transaction that is too old, and is done with it, within so long by default."""
STEP_S = 10.0
RESULTS = ("scores", "dead-letters")

Places = dict[str, dict[int, int]]
"""Offsets by topic and partition."""


class _Position(msgspec.Struct):
    source_partition: int
    source_offset: int


class _First(msgspec.Struct, frozen=True):
    """What was found when offsets were seen not to be settled: what was open, where results ended."""

    at_s: float
    open: "frozenset[Open]"
    ends: Places


class LostMarks:
    """Finds out where a group really is in partitions that it is not told of, and has that told."""

    def __init__(self, settings: Settings, group: str, slot: int, partitions: int) -> None:
        self._settings = settings
        self._group = group
        self._slot = slot
        self._partitions = range(partitions)
        self._topic = topic_name(settings.environment, "transactions")
        self._first: _First | None = None
        self.after_s = settings.transaction_timeout_ms / 1000 + ABORTS_AFTER_S
        """A transaction that is open for longer, in seconds, does not end by itself."""

    def look(self, owned: Collection[int], group_metadata: object) -> None:
        """Call whenever the broker does not tell the offsets: twice `after_s` apart, and it is mended.

        Each owner, as `group_metadata` says, commits the offsets after the last results in its partitions,
        with a producer of its own, whose end ends nothing else. Once all are right, the last one aborts what
        hangs: no other offset is ever in force. What goes wrong is said, and tried again at the next call.
        """
        try:
            self._look(owned, group_metadata)
        except (DependencyUnreachable, KafkaException) as exc:
            logger.warning("it cannot be found out why: %s", exc)

    def _look(self, owned: Collection[int], group_metadata: object) -> None:
        from fraudstream.clients.hanging import (  # noqa: PLC0415 - its client loads for 0.1 s
            abort_in_offsets,
            open_in_offsets,
        )

        unsettled = self._unsettled()
        seen = open_in_offsets(self._settings, self._group) if unsettled else frozenset()
        first = self._first
        hanging = first.open & seen if first else frozenset()
        if unsettled and not seen:
            places = [place.partition for place in unsettled]
            logger.warning("offsets of partitions %s wait for a transaction that is ending", places)
        if first is None or not hanging:
            self._first = _First(monotonic_s(), seen, self._ends()) if seen else None
        elif monotonic_s() - first.at_s > self.after_s:
            since_ms = max(min(each.last_ms for each in hanging) - MARGIN_MS, 0)
            ends = self._after_results(unsettled, first.ends, since_ms)
            if self._settle(unsettled, ends, owned, group_metadata):
                ended = abort_in_offsets(self._settings, self._group, hanging)
                logger.warning("%d transactions without an end are aborted", ended)
                self._first = None

    def _settle(
        self,
        unsettled: list[TopicPartition],
        ends: Mapping[int, int] | None,
        owned: Collection[int],
        group_metadata: object,
    ) -> bool:
        """Commit what is wrong in the partitions `owned`; return whether nothing is wrong any more."""
        if ends is None:
            logger.warning("results are not settled either: it is not known where the group is")
            return False
        wrong = [place for place in unsettled if place.offset != ends[place.partition]]
        mine = [place for place in wrong if place.partition in owned]
        if mine:
            self._commit(mine, ends, group_metadata)
        others = sorted({place.partition for place in wrong} - set(owned))
        if others:
            logger.warning("partitions %s are for their owners to settle", others)
        return not others

    def _commit(
        self, mine: list[TopicPartition], ends: Mapping[int, int], group_metadata: object
    ) -> None:
        logger.warning(
            "Kafka has lost the end of a transaction (UNSTABLE_OFFSET_COMMIT): by the results that are "
            "there, the group goes on at %s",
            {place.partition: ends[place.partition] for place in mine},
        )
        offsets = [
            TopicPartition(
                self._topic,
                place.partition,
                ends[place.partition],
                metadata=write_note(
                    msgspec.structs.replace(read_note(place.metadata or ""), hand=None)
                ),
            )
            for place in mine
        ]
        producer = transactional_producer(
            self._settings, transactional_id=f"{self._group}.mend-{self._slot}"
        )
        init_transactions(producer, STEP_S)
        producer.begin_transaction()
        producer.send_offsets_to_transaction(offsets, group_metadata, STEP_S)
        producer.commit_transaction(STEP_S)

    def _unsettled(self) -> list[TopicPartition]:
        """Return the offsets before those that are not settled, of all partitions, with their notes."""
        places = [TopicPartition(self._topic, partition) for partition in self._partitions]
        before = {place.partition: place for place in self._before(places)}
        return [before[place.partition] for place in self._settled(places) if place.error]

    def _before(self, places: list[TopicPartition]) -> list[TopicPartition]:
        reader = offsets_reader(self._settings, self._group)
        try:
            return reader.committed(places, timeout=self._settings.request_timeout_ms / 1000)
        except KafkaException as exc:
            raise unreachable(self._settings, exc) from exc
        finally:
            reader.close()

    def _settled(self, places: list[TopicPartition]) -> list[TopicPartition]:
        """Ask as a reader of what is settled; only an admin client tells of each partition, and at once.

        The coordinator has just answered: of one that is none it must not be asked (see `offsets_reader`).
        """
        # Without a name the client would be gone before the answer.
        admin = AdminClient(common(self._settings))
        asked = admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(self._group, places)],
            require_stable=True,
            request_timeout=self._settings.request_timeout_ms / 1000,
        )
        try:
            found = list(asked[self._group].result().topic_partitions)
        except KafkaException as exc:
            raise unreachable(self._settings, exc) from exc
        for place in found:
            if place.error and place.error.code() != KafkaError.UNSTABLE_OFFSET_COMMIT:
                raise unreachable(self._settings, KafkaException(place.error))
        return found

    def _ends(self) -> Places:
        """Return where the topics of results end now, what is not committed included."""
        log, timeout_s = LogBounds(self._settings), self._settings.request_timeout_ms / 1000
        found: Places = {}
        with TopicReader(self._settings) as reader:
            for name in RESULTS:
                topic = topic_name(self._settings.environment, name)
                partitions = list(reader.bounds(topic))
                places = [TopicPartition(topic, each) for each in partitions]
                ends = log.written(places, timeout_s=timeout_s)
                found[topic] = dict(zip(partitions, ends, strict=True))
        return found

    def _after_results(
        self, unsettled: list[TopicPartition], written: Places, since_ms: int
    ) -> dict[int, int] | None:
        """Return by partition the offset after the last with a result, or where it begins if none has one.

        None where results that were `written` before the first look are not settled, so that readers see
        neither them nor what is behind them.
        """
        with TopicReader(self._settings) as reader:
            bounds = {topic: reader.bounds(topic) for topic in (self._topic, *written)}
            for topic, places in written.items():
                if any(bounds[topic][partition][1] < end for partition, end in places.items()):
                    return None
            lows = {partition: low for partition, (low, _) in bounds.pop(self._topic).items()}
            ends = {p.partition: max(p.offset, lows[p.partition]) for p in unsettled}
            for partition, offset in _results(reader, bounds, since_ms):
                if partition in ends:
                    ends[partition] = max(ends[partition], offset + 1)
        return ends


def _results(
    reader: TopicReader, bounds: Mapping[str, Mapping[int, tuple[int, int]]], since_ms: int
) -> Iterator[tuple[int, int]]:
    """Yield the places in `transactions` of the results that were written since a time."""
    for topic, places in bounds.items():
        ranges = {
            partition: (reader.offset_at(topic, partition, since_ms), end)
            for partition, (_, end) in places.items()
        }
        for batch in reader.batches(topic, ranges):
            yield from _positions(batch)


def _positions(messages: Collection[Message]) -> Iterator[tuple[int, int]]:
    """Yield the places in `transactions` of results; what names none is no result of this product."""
    for message in messages:
        try:
            if (message.topic() or "").endswith("dead-letters"):
                yield place_of(own_headers(record_of(message).headers))
            else:
                found = msgspec.json.decode(message.value() or b"", type=_Position)
                yield found.source_partition, found.source_offset
        except (msgspec.DecodeError, KeyError, ValueError) as exc:
            place = f"{message.topic()} {message.partition()}:{message.offset()}"
            logger.warning("%s names no transaction (%s): left out", place, exc)
