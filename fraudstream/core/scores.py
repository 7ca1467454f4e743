"""The results as they stand in the topics `scores`, `alerts` and `audit`."""

from typing import Literal

import msgspec

Decision = Literal["alert", "pass", "none"]
"""`none` when no model was serving: the features are logged, nothing is decided."""


class Stages(msgspec.Struct, frozen=True, gc=False):
    """Where the time of one score went, in milliseconds: waiting in Kafka, then the hops of its batch."""

    waiting: float
    features: float
    model: float
    until_produce: float


class SetFeatures(msgspec.Struct, frozen=True):
    """What a live set that the model does not read says of the transaction: for training and comparison."""

    features: list[float]
    apply_seq: int


class Score(msgspec.Struct, frozen=True, gc=False):
    """One score: exactly one committed record of this kind, or one dead letter, exists per source position.

    `features` are float32 values in the order of the feature set; `apply_seq` is the place of this
    application in the state of that set; `other_sets` has the same of the other live sets by hash, if there
    are any; `age_ms` runs from the source record's Kafka timestamp to produce.

    Only the last field has a default, so that the worker can give all by place.
    """

    v: Literal[1]
    transaction_id: str
    event_time_ms: int
    customer: str
    terminal: str
    amount_minor: int
    currency: str
    source_partition: int
    source_offset: int
    source_timestamp_ms: int
    score: float | None
    decision: Decision
    threshold: float | None
    model_version: str | None
    challenger_score: float | None
    feature_set: str
    features: list[float]
    apply_seq: int
    duplicate_of: int | None
    age_ms: int
    stale: bool
    stages: Stages
    other_sets: dict[str, SetFeatures] | msgspec.UnsetType = msgspec.UNSET


class Alert(Score, frozen=True, kw_only=True):
    """A score above its threshold, for people: `alert_id` comes from the source position."""

    alert_id: str
    reasons: list[str]
    suggested_action: str


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what to which model, or to the feature sets, when, why and on what evidence."""

    v: Literal[1] = 1
    event: Literal[
        "publish", "gate", "promote", "swap", "refused", "feature_set", "dead_letter_replay"
    ]
    model_name: str
    model_version: str
    at_ms: int
    actor: str
    why: str
    evidence: dict[str, object] = {}
