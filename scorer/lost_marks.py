"""Offsets whose transaction has ended, while the broker has lost the mark that says so.

Kafka 4.3.1, killed between its decision on a transaction and the marks that it then writes, was seen to
leave out that of the group's offsets (docs/adr/0022). It answers UNSTABLE_OFFSET_COMMIT from then on to
whoever asks where to go on, restarts of workers and of the broker included. Whether such offsets hold is told
by what was in the same transaction: the results, which readers see or do not.
"""

import logging
from collections.abc import Collection

import msgspec
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from fraudstream.clients.kafka import common, unreachable
from fraudstream.clients.topic_log import TopicReader, record_of
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from scorer.output import BatchAborted, TransactionalOutput
from scorer.results import place_of

logger = logging.getLogger(__name__)

MARGIN_MS = 600_000
"""Results are looked for from so long before their transactions were sent: clocks of senders differ."""
ABORTS_AFTER_S = 12.0
"""A broker ends a transaction that is too old, and is done with it, within so long by default."""


class _Position(msgspec.Struct):
    source_partition: int
    source_offset: int


class LostMarks:
    """Finds out where a group really is in partitions that it is not told of, and commits that."""

    def __init__(self, settings: Settings, group: str, output: TransactionalOutput) -> None:
        self._settings = settings
        self._group = group
        self._output = output
        self._topic = topic_name(settings.environment, "transactions")

    @property
    def after_s(self) -> float:
        """Return after how many seconds no transaction can be open any more that ends by itself."""
        return self._settings.transaction_timeout_ms / 1000 + ABORTS_AFTER_S

    def mend(self, partitions: Collection[int], group_metadata: object) -> None:
        """Commit, as the owner in `group_metadata`, the offsets after the last results where none is settled.

        To be called once the broker has not told the offsets for `after_s`. The mark that ends this worker's
        transaction ends what earlier ones of its slot have left, too; what is of another slot is aborted,
        now that what it may have wanted to say is committed.

        Raises:
            DependencyUnreachable: the broker does not answer.
        """
        unsettled = self._unsettled(partitions)
        if not unsettled:
            return
        begins = {place.partition: max(place.offset, 0) for place in unsettled}
        with TopicReader(self._settings) as reader:
            ends = self._after_results(reader, begins)
        logger.warning(
            "Kafka has lost the end of a transaction (UNSTABLE_OFFSET_COMMIT): by the results that are "
            "there, the group goes on at %s",
            ends,
        )
        offsets = [
            TopicPartition(self._topic, p.partition, ends[p.partition], metadata=p.metadata or "")
            for p in unsettled
        ]
        try:
            self._output.commit([], offsets, group_metadata)
        except BatchAborted as exc:
            logger.warning("%s: not settled", exc)
            return
        if self._unsettled(partitions):
            from fraudstream.clients.hanging import (  # noqa: PLC0415 - its client loads for 0.1 s
                abort_hanging_offsets,
            )

            ended = abort_hanging_offsets(self._settings, self._group, older_than_s=self.after_s)
            logger.warning(
                "%d transactions that others have left without an end are aborted", ended
            )

    def _unsettled(self, partitions: Collection[int]) -> list[TopicPartition]:
        """Return the offsets before those that are not settled, with their notes."""
        waiting = {
            place.partition for place in self._offsets(partitions, stable=True) if place.error
        }
        return self._offsets(waiting, stable=False) if waiting else []

    def _offsets(self, partitions: Collection[int], *, stable: bool) -> list[TopicPartition]:
        places = [TopicPartition(self._topic, partition) for partition in partitions]
        admin = AdminClient(
            common(self._settings)
        )  # without a name it would be gone before the answer
        asked = admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(self._group, places)],
            require_stable=stable,
            request_timeout=self._settings.request_timeout_ms / 1000,
        )
        try:
            found = asked[self._group].result().topic_partitions
        except KafkaException as exc:
            raise unreachable(self._settings, exc) from exc
        for place in found:
            if place.error and place.error.code() != KafkaError.UNSTABLE_OFFSET_COMMIT:
                raise unreachable(self._settings, KafkaException(place.error))
        return list(found)

    def _after_results(self, reader: TopicReader, begins: dict[int, int]) -> dict[int, int]:
        """Return by partition the offset after the last with a result, or where it begins if none has one."""
        sent = [self._sent_at_ms(reader, *place) for place in begins.items()]
        since_ms = min((each for each in sent if each is not None), default=None)
        ends = dict(begins)
        if since_ms is None:
            return ends
        for name in ("scores", "dead-letters"):
            topic = topic_name(self._settings.environment, name)
            ranges = {
                partition: (reader.offset_at(topic, partition, max(since_ms - MARGIN_MS, 0)), end)
                for partition, (_, end) in reader.bounds(topic).items()
            }
            for batch in reader.batches(topic, ranges):
                for message in batch:
                    if name == "scores":
                        found = msgspec.json.decode(message.value() or b"", type=_Position)
                        partition, offset = found.source_partition, found.source_offset
                    else:
                        partition, offset = place_of(dict(reversed(record_of(message).headers)))
                    if partition in ends:
                        ends[partition] = max(ends[partition], offset + 1)
        return ends

    def _sent_at_ms(self, reader: TopicReader, partition: int, begin: int) -> int | None:
        """Return when the first transaction from an offset on was sent, None where there is none."""
        _, end = reader.bounds(self._topic)[partition]
        for batch in reader.batches(self._topic, {partition: (begin, end)}, most=1):
            return record_of(batch[0]).sent_at_ms
        return None
