"""What became of a transaction: its score and alert, or its dead letter, found by its position.

Results stand in the partition of the same number, since they have the input's key and the topics as many
partitions, in the order of their inputs, and not before them in time. So reading begins at the time of
sending and ends at the result, or at one of a later input. Only where nothing is found, though the input
is committed, the whole topics are read: an input with a key of another partition, or clocks that differ.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec
from confluent_kafka import Message

from fraudstream.clients.topic_log import Record, TopicReader, record_of
from fraudstream.core.topics import topic_name
from monitoring.trace import Found

CLOCK_SKEW_MS = 5_000
"""The clocks of producers and scorers may differ by so much; beyond it a result costs the long search."""
_AHEAD = 1_000
"""Records in a batch here: the first mostly holds what is looked for."""


class _Source(msgspec.Struct):
    source_partition: int = -1
    source_offset: int = -1


_sources = msgspec.json.Decoder(_Source)


class Outcomes:
    """Looks up results in the topics of one environment, through a reader of its scorers' group."""

    def __init__(self, reader: TopicReader, environment: str) -> None:
        self._reader = reader
        self._environment = environment

    def of(self, record: Record) -> Found:
        """Return an input with what became of it.

        What is committed is asked first: that must have a result.
        """
        topic = topic_name(self._environment, "transactions")
        committed = self._reader.committed(topic, [record.partition])[record.partition]
        score = self._nearby("scores", record, record.sent_at_ms - CLOCK_SKEW_MS)
        letter = None if score else self._dead_letter(record)
        if not score and not letter and record.offset < committed:
            score = next((m for m in self._all("scores") if _is_result(m, record)), None)
        alert = None
        if score is not None:
            alert = self._nearby("alerts", record, score.timestamp()[1])
        return Found(
            record=record,
            committed=committed,
            score=None if score is None else record_of(score),
            alert=None if alert is None else record_of(alert),
            dead_letter=None if letter is None else record_of(letter),
        )

    def _nearby(self, name: str, record: Record, from_ms: int) -> Message | None:
        """Return the record of scores or alerts that has the input's position."""
        for batch in self._since(name, record.partition, from_ms):
            for message, _ in holding(batch, [b"%d" % record.offset]):
                if _is_result(message, record):
                    return message
            newest = _source(batch[-1])
            if newest.source_partition == record.partition and newest.source_offset > record.offset:
                break
        return None

    def _dead_letter(self, record: Record) -> Message | None:
        """Return the dead letter of an input; there are few, so all are looked at."""
        return next((m for m in self._all("dead-letters") if _is_dead_letter(m, record)), None)

    def _since(self, name: str, partition: int, from_ms: int) -> Iterator[list[Message]]:
        topic = topic_name(self._environment, name)
        bounds = self._reader.bounds(topic)
        if partition in bounds:
            begin = self._reader.offset_at(topic, partition, from_ms)
            ranges = {partition: (begin, bounds[partition][1])}
            yield from self._reader.batches(topic, ranges, most=_AHEAD)

    def _all(self, name: str) -> Iterator[Message]:
        topic = topic_name(self._environment, name)
        return chain.from_iterable(self._reader.batches(topic, self._reader.bounds(topic)))


def holding(batch: Sequence[Message], needles: Sequence[bytes]) -> Iterator[tuple[Message, bytes]]:
    """Yield the messages whose value holds one of the needles, with the value.

    All values are searched as one block first, which is faster than one by one.
    """
    values: list[bytes] = [message.value() or b"" for message in batch]
    block = b"\n".join(values)
    if not any(needle in block for needle in needles):
        return
    for message, value in zip(batch, values, strict=True):
        if any(needle in value for needle in needles):
            yield message, value


def _is_result(message: Message, record: Record) -> bool:
    source = _source(message)
    return (source.source_partition, source.source_offset) == (record.partition, record.offset)


def _source(message: Message) -> _Source:
    try:
        return _sources.decode(message.value() or b"")
    except (ValueError, RecursionError):
        return _Source()


def _is_dead_letter(message: Message, record: Record) -> bool:
    """Tell by the headers; the original's follow the scorer's own, so the first of a name counts."""
    headers = dict(reversed(record_of(message).headers))
    named = (
        headers.get("source_topic"),
        headers.get("source_partition"),
        headers.get("source_offset"),
    )
    return named == (b"transactions", b"%d" % record.partition, b"%d" % record.offset)
