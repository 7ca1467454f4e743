"""What a trace says of a transaction: the records that `fraudstream trace --json` writes."""

from typing import Literal

import msgspec

from fraudstream.core.scores import AuditEvent, Score
from fraudstream.core.transaction import Label, Transaction

State = Literal["scored", "dead_letter", "waiting", "lost"]
"""`waiting`: no worker has committed it yet. `lost`: committed, yet without a result."""


class Position(msgspec.Struct, frozen=True):
    """Where a record stands: topic (base name), partition, offset."""

    topic: str
    partition: int
    offset: int


class Header(msgspec.Struct, frozen=True):
    """One header as text; None if it has no value."""

    name: str
    value: str | None


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """A value as it was received: its size, and its beginning with control characters escaped."""

    size_bytes: int | None
    text: str
    cut: bool


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """What came in. Without a `transaction` the value could not be decoded: `unreadable` says why.

    `dead_letter_of`: it was sent again; the topic/partition/offset of the one that became a dead letter.
    """

    position: Position
    sent_at_ms: int
    key: str | None
    headers: list[Header]
    transaction: Transaction | None
    unreadable: str | None
    original: Original | None
    dead_letter_of: str | None = None


class Feature(msgspec.Struct, frozen=True):
    """A feature as served; `usual` is the median of genuine payments, `off` the distance in spreads."""

    name: str
    value: float
    usual: float | None = None
    off: float | None = None


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time went, in milliseconds: `age` from the Kafka timestamp of the input to produce.

    `other` is what `until_produce` has more than features and model.
    """

    waiting: float
    features: float
    model: float
    other: float
    until_produce: float
    age: int
    stale: bool


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """The score, its features by name and its latency; `no_usual` says why the usual values are missing."""

    position: Position
    produced_at_ms: int
    record: Score
    features: list[Feature]
    no_usual: str | None
    latency: Latency


class Raised(msgspec.Struct, frozen=True, kw_only=True):
    """The alert of a score."""

    position: Position
    alert_id: str
    reasons: list[str]
    suggested_action: str


class SentAgain(msgspec.Struct, frozen=True):
    """When a dead letter was sent to transactions again, by whom, and the event's offset in topic audit."""

    at_ms: int
    actor: str
    audit_offset: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """The dead letter that a record became; `sent_again` is the event, None if it was not."""

    position: Position
    kind: str
    message: str
    original: Original
    sent_again: SentAgain | None = None


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """One time that the transaction was sent; `committed`: the group's next offset in its partition."""

    state: State
    committed: int
    input: Input
    score: Scored | None
    alert: Raised | None
    dead_letter: DeadLetter | None


class GivenLabel(msgspec.Struct, frozen=True, kw_only=True):
    """One answer about the transaction, at `offset` of topic feedback.

    `fits`: event time and entities are those of the transaction; None without one. `after_score`: it
    was sent after the first score was produced; None without a score.
    """

    offset: int
    label: Label
    event_time_ms: int
    labelled_at_ms: int
    source: str
    analyst: str
    sent_at_ms: int
    in_force: bool
    fits: bool | None
    after_score: bool | None


class AuditEntry(msgspec.Struct, frozen=True):
    """One event at `offset` of topic audit."""

    offset: int
    event: AuditEvent


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of what was `asked` for; occurrences in the order of their sending.

    `label_in_force` is None without a label, also if the latest answer is `unsure`. `more`: further
    occurrences that are counted only.
    """

    asked: str
    by: Literal["transaction_id", "position"]
    transaction_id: str | None
    occurrences: list[Occurrence]
    more: int
    label_in_force: Label | None
    labels: list[GivenLabel]
    audit: list[AuditEntry]


class TraceReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that was asked for, in that order, and where it was looked for; `unknown`: what was not found.

    `searched`: records of topic transactions that were looked through, in `partitions` (all, unless a
    customer was named); 0 if positions alone were asked for.
    """

    environment: str
    traces: list[Trace]
    unknown: list[str]
    searched: int
    partitions: list[int]
    seconds: float
