"""Third hop: every worker reads the one feedback partition; the marks in Redis decide who applies."""

import logging
import threading
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from fraudstream.clients.feature_store import StateInDoubt
from fraudstream.clients.kafka import TopicFacts
from fraudstream.core.errors import BadRecord, DependencyUnreachable, KafkaUnreachable, Refused
from fraudstream.core.transaction import Feedback, decode_feedback
from scorer.assignment import WAYS_OUT
from scorer.live_sets import LiveSets

logger = logging.getLogger(__name__)

END_S = 5.0
"""How long the broker may take to tell where the topic ends."""


def decode_labels(messages: Sequence[Message]) -> tuple[list[int], list[Feedback]]:
    """Return offsets and labels of the records that can be decoded; the others are left out and named."""
    offsets: list[int] = []
    labels: list[Feedback] = []
    for message in messages:
        offset = int(message.offset() or 0)
        try:
            labels.append(decode_feedback(message.value()))
            offsets.append(offset)
        except BadRecord as exc:
            logger.warning("feedback at offset %d is left out: %s", offset, exc)
    return offsets, labels


class LabelReader:
    """Applies the feedback topic to every live set, at least up to the offset that a batch asks for."""

    def __init__(self, consumer: Consumer, live: LiveSets, topic: TopicFacts) -> None:
        self._consumer = consumer
        self._live = live
        self._topic = topic
        self._position = -1
        self.gate = threading.Lock()
        """Held by who asks the broker through the consumer: meanwhile nothing can be taken from it."""
        self.go_back()

    def go_back(self) -> None:
        """Go on after the newest label that all sets have; those that have more take none of it twice.

        Raises:
            DependencyUnreachable: the feature store does not answer.
        """
        stores = self._live.stores.values()
        position = min(each.marks(self._topic.topic_id, [0])[0] for each in stores) + 1
        if position != self._position:
            self._position = position
            self._consumer.assign([TopicPartition(self._topic.name, 0, position)])

    def end_offset(self) -> int:
        """Return the offset after the newest feedback record, as the broker has it now.

        Raises:
            DependencyUnreachable: it does not tell within `END_S`.
        """
        place = TopicPartition(self._topic.name, 0)
        try:
            return int(self._consumer.get_watermark_offsets(place, timeout=END_S)[1])
        except KafkaException as exc:
            raise self._silent(exc.args[0]) from exc

    def apply_available(self) -> None:
        """Apply what has been fetched already, without waiting; nothing while somebody has the `gate`."""
        if self.gate.acquire(blocking=False):
            try:
                self._apply_next(timeout_s=0.0)
            finally:
                self.gate.release()

    def apply_until(self, offset: int, *, timeout_s: float) -> None:
        """Apply feedback until `offset`, or the newest record there is, is included.

        Raises:
            DependencyUnreachable: the record does not come within `timeout_s` of silence.
        """
        if self._position <= offset:
            offset = self._within_log(offset)
        while self._position <= offset:
            if not self._apply_next(timeout_s=timeout_s):
                raise KafkaUnreachable(
                    f"topic {self._topic.name} gives nothing after offset {self._position - 1}, "
                    f"but the stream needs {offset}: does the broker answer?"
                )

    def _within_log(self, offset: int) -> int:
        newest = self.end_offset() - 1
        if offset > newest:
            logger.warning("a header asks for feedback %d; the newest there is: %d", offset, newest)
        return min(offset, newest)

    def _apply_next(self, *, timeout_s: float) -> bool:
        first = self._consumer.poll(timeout_s)
        if first is None:
            return False
        records: list[Message] = []
        last = self._position - 1
        for message in (first, *self._consumer.consume(499, 0.0)):
            error = message.error()
            if error is None:
                last = int(message.offset() or 0)
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                # Aborted records and markers of transactions take offsets, too.
                last = max(last, int(message.offset() or 0) - 1)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
                raise Refused(f"feedback after offset {last} is gone from the log; {WAYS_OUT}")
            elif not error.retriable():
                raise self._silent(error)
        if last < self._position:
            return False
        self._apply(*decode_labels(records), last)
        return True

    def _silent(self, error: KafkaError) -> KafkaUnreachable:
        return KafkaUnreachable(
            f"Kafka does not tell what topic {self._topic.name} has ({error.str()}): does it run?"
        )

    def _apply(self, offsets: list[int], labels: list[Feedback], last: int) -> None:
        try:
            for store in self._live.stores.values():
                store.apply_labels(
                    self._topic.topic_id,
                    previous_offset=self._position - 1,
                    last_offset=last,
                    offsets=offsets,
                    labels=labels,
                )
        except (DependencyUnreachable, StateInDoubt):
            # What was fetched and not applied must come again.
            self._consumer.seek(TopicPartition(self._topic.name, 0, self._position))
            raise
        self._position = last + 1
