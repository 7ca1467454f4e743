"""Second hop: Kafka messages become a batch of frozen transactions, or dead letters with a reason."""

from collections.abc import Container, Iterable, Mapping
from typing import Protocol

import msgspec

from fraudstream.clients.kafka_headers import Headers, headers_of
from fraudstream.core.errors import BadRecord
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.transaction import Transaction, decode_transaction

ALL = "all"
"""In the header `not_applied`: no feature set has the record."""


class Message(Protocol):
    """The part of a confluent-kafka message that the scorer reads."""

    def value(self) -> bytes | None:
        """Return the bytes of the record."""

    def key(self) -> bytes | None:
        """Return the bytes of the key."""

    def headers(self) -> list[tuple[str, str | bytes | None]] | None:
        """Return the headers."""

    def partition(self) -> int:
        """Return the partition."""

    def offset(self) -> int:
        """Return the offset."""

    def timestamp(self) -> tuple[int, int]:
        """Return type and milliseconds of the Kafka timestamp."""


class Part(msgspec.Struct):
    """What a batch holds of one partition; `messages` and `transactions` are the decodable ones, in order."""

    partition: int
    previous_offset: int
    last_offset: int
    messages: list[Message]
    transactions: list[Transaction]


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that can never be scored, and why.

    `not_applied`: the feature sets that do not hold it, though its value may be a transaction. `bare`: its
    headers are not to be touched.
    """

    message: Message
    kind: str
    reason: str
    not_applied: str = ""
    bare: bool = False


class Batch(msgspec.Struct):
    """One batch: its parts by partition, its dead letters, and the feedback offset that it needs."""

    parts: list[Part]
    dead: list[DeadLetter]
    after_feedback: int
    polled_at_ms: int

    @property
    def size(self) -> int:
        """Return the number of records, dead letters included."""
        return self.scorable + len(self.dead)

    @property
    def scorable(self) -> int:
        """Return the number of decodable records."""
        return sum(len(part.messages) for part in self.parts)


MOST_OFFSET_DIGITS = 19
"""A Kafka offset is a signed 64-bit integer."""


def decode(
    messages: Iterable[Message],
    positions: Mapping[int, int],
    *,
    polled_at_ms: int,
    max_ahead_days: float = 366,
    passed_over: Container[tuple[int, int]] = (),
) -> Batch:
    """Return the batch in `messages`; `positions` are the next offsets expected, by partition.

    A transaction whose event time is more than `max_ahead_days` after it was sent is a dead letter:
    its entities would take every later one for long past.

    What is in `passed_over` (partition, offset) counts as handled and is not looked at.

    A message of a partition that is not in `positions`, or from before its position, is left out:
    it was fetched before a rebalance and belongs to somebody else now, or was handled already.
    """
    parts: dict[int, Part] = {}
    dead: list[DeadLetter] = []
    after_feedback = -1
    most_ahead_ms = max_ahead_days * DAY_MS
    for message in messages:
        part = _part_of(message, parts, positions)
        if part is None:
            continue
        part.last_offset = message.offset()
        if passed_over and (part.partition, part.last_offset) in passed_over:
            continue
        try:
            if headers := headers_of(message):
                after_feedback = max(after_feedback, _after_feedback(headers))
            transaction = decode_transaction(message.value())
            sent_at_ms = message.timestamp()[1]
            if transaction.event_time_ms - sent_at_ms > most_ahead_ms and sent_at_ms > 0:
                raise _too_far_ahead(transaction.event_time_ms, sent_at_ms, max_ahead_days)
            part.transactions.append(transaction)
            part.messages.append(message)
        except BadRecord as exc:
            bare = exc.kind == "unreadable_header"
            dead.append(DeadLetter(message, exc.kind, str(exc), not_applied=ALL, bare=bare))
    return Batch(list(parts.values()), dead, after_feedback, polled_at_ms)


def _part_of(message: Message, parts: dict[int, Part], positions: Mapping[int, int]) -> Part | None:
    partition = message.partition()
    part = parts.get(partition)
    if part is not None:
        return part if message.offset() > part.last_offset else None
    position = positions.get(partition)
    if position is None or message.offset() < position:
        return None
    part = parts[partition] = Part(partition, position - 1, position - 1, [], [])
    return part


def _too_far_ahead(event_time_ms: int, sent_at_ms: int, max_ahead_days: float) -> BadRecord:
    return BadRecord(
        "invalid_field",
        f"event_time_ms {event_time_ms} is {(event_time_ms - sent_at_ms) // DAY_MS} days after it was sent; "
        f"allowed: {max_ahead_days} (setting max_event_ahead_days) - at `$.event_time_ms`",
    )


def _after_feedback(headers: Headers) -> int:
    """Return the feedback offset that must be applied before a record, -1 for none."""
    for name, value in headers:
        if name == "after_feedback":
            if (
                not isinstance(value, bytes)
                or not value.isdigit()
                or len(value) > MOST_OFFSET_DIGITS
            ):
                raise BadRecord(
                    "invalid_field",
                    f"header after_feedback = {(value or '')[:40]!r}; allowed: a feedback offset",
                )
            return int(value)
    return -1
