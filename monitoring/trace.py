"""Everything known of one transaction, joined from what stands in the topics; pure, the reading is elsewhere.

`monitoring/trace_search.py` brings the records, `monitoring/trace_report.py` names what is said of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import msgspec

from fraudstream.clients.topic_log import Record
from fraudstream.core.dead_letters import DEAD_LETTER_OF, Replay, replays_in
from fraudstream.core.errors import BadRecord, FraudstreamError
from fraudstream.core.feature_set import packaged
from fraudstream.core.model import Contract
from fraudstream.core.printable import printable_bytes
from fraudstream.core.scores import Alert, AuditEvent, Score
from fraudstream.core.transaction import (
    Feedback,
    Transaction,
    decode_feedback,
    decode_transaction,
)
from monitoring.trace_report import (
    AuditEntry,
    DeadLetter,
    Feature,
    GivenLabel,
    Header,
    Input,
    Latency,
    Occurrence,
    Original,
    Position,
    Raised,
    Scored,
    SentAgain,
    State,
    Trace,
)

SHOWN_BYTES = 2_000
"""So many bytes of a value that is no transaction are shown."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The records of one occurrence as they stand in the topics."""

    record: Record
    committed: int
    score: Record | None = None
    alert: Record | None = None
    dead_letter: Record | None = None


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All records about one thing asked for; `feedback` and `audit` may hold records about others."""

    asked: str
    by_position: bool = False
    transaction_id: str | None
    found: list[Found] = []
    more: int = 0
    feedback: list[Record] = []
    audit: list[Record] = []


Contracts = Mapping[str, Contract | str]
"""By model version: its contract, or the sentence that says why there is none."""

T = TypeVar("T")

_scores = msgspec.json.Decoder(Score)
_alerts = msgspec.json.Decoder(Alert)
_events = msgspec.json.Decoder(AuditEvent)


def join(evidence: Evidence, contracts: Contracts) -> Trace:
    """Return the trace of what the topics say.

    Raises:
        FraudstreamError: a score or an alert is none that this release knows.
    """
    in_order = sorted(evidence.found, key=lambda each: _order(each.record))
    replays = replays_in(_events_in(evidence.audit))
    occurrences = [_occurrence(each, contracts, replays) for each in in_order]
    labels = _labels(evidence, occurrences)
    in_force = [each.label for each in labels if each.in_force]
    return Trace(
        asked=evidence.asked,
        by="position" if evidence.by_position else "transaction_id",
        transaction_id=evidence.transaction_id,
        occurrences=occurrences,
        more=evidence.more,
        label_in_force=in_force[0] if in_force else None,
        labels=labels,
        audit=list(_audit(evidence, occurrences)),
    )


def versions_in(evidence: Iterable[Evidence]) -> set[str]:
    """Return the model versions that scored anything of it.

    Raises:
        FraudstreamError: a score is none that this release knows.
    """
    records = [each.score for one in evidence for each in one.found if each.score is not None]
    return {version for each in records if (version := score_of(each).model_version) is not None}


def score_of(record: Record) -> Score:
    """Return the score in a record of topic scores.

    Raises:
        FraudstreamError: it is none that this release knows.
    """
    return _decoded(_scores, record)


def original_of(value: bytes | None, size_bytes: int | None = None) -> Original:
    """Return the beginning of a value; `size_bytes` tells the size of one that was cut before."""
    kept = value or b""
    size = max(len(kept), size_bytes or 0)
    return Original(
        size_bytes=None if value is None else size,
        text=printable_bytes(kept[:SHOWN_BYTES]),
        cut=size > SHOWN_BYTES,
    )


def _order(record: Record) -> tuple[int, int, int]:
    return record.sent_at_ms, record.partition, record.offset


def _occurrence(found: Found, contracts: Contracts, replays: Mapping[str, Replay]) -> Occurrence:
    again = replays.get(f"{found.record.partition}-{found.record.offset}")
    return Occurrence(
        state=_state(found),
        committed=found.committed,
        input=_input(found.record),
        score=None if found.score is None else _scored(found.score, contracts),
        alert=None if found.alert is None else _raised(found.alert),
        dead_letter=None if found.dead_letter is None else _refused(found.dead_letter, again),
    )


def _state(found: Found) -> State:
    if found.score is not None:
        return "scored"
    if found.dead_letter is not None:
        return "dead_letter"
    return "waiting" if found.record.offset >= found.committed else "lost"


def _input(record: Record) -> Input:
    try:
        transaction, unreadable = decode_transaction(record.value), None
    except BadRecord as exc:
        transaction, unreadable = None, f"{exc.kind}: {exc}"
    return Input(
        position=_position(record, "transactions"),
        sent_at_ms=record.sent_at_ms,
        key=None if record.key is None else printable_bytes(record.key),
        headers=[
            Header(name, None if value is None else printable_bytes(value))
            for name, value in record.headers
        ],
        transaction=transaction,
        unreadable=unreadable,
        original=original_of(record.value) if transaction is None else None,
        dead_letter_of=_origin(record),
    )


def _origin(record: Record) -> str | None:
    origin = dict(record.headers).get(DEAD_LETTER_OF)
    return None if origin is None else printable_bytes(origin)


def _scored(record: Record, contracts: Contracts) -> Scored:
    score = score_of(record)
    contract = _contract(score, contracts)
    stages = score.stages
    return Scored(
        position=_position(record, "scores"),
        produced_at_ms=score.source_timestamp_ms + score.age_ms,
        record=score,
        features=_features(score, contract if isinstance(contract, Contract) else None),
        no_usual=contract if isinstance(contract, str) else None,
        latency=Latency(
            waiting=stages.waiting,
            features=stages.features,
            model=stages.model,
            other=max(stages.until_produce - stages.features - stages.model, 0.0),
            until_produce=stages.until_produce,
            age=score.age_ms,
            stale=score.stale,
        ),
    )


def _contract(score: Score, contracts: Contracts) -> Contract | str:
    """Return the contract of the version that scored it, or why it cannot be used."""
    if score.model_version is None:
        return "they come with a model, and this was scored before there was one"
    contract = contracts.get(score.model_version, "its contract was not asked for")
    if isinstance(contract, str):
        return contract
    width = len(score.features)
    if contract.feature_set != score.feature_set or len(contract.features) != width:
        return (
            f"the contract of version {score.model_version} is of feature set "
            f"{contract.feature_set}, this score of {score.feature_set}"
        )
    return contract


def _features(score: Score, contract: Contract | None) -> list[Feature]:
    if contract is not None:
        rows = zip(contract.features, score.features, contract.usual, contract.spread, strict=True)
        return [
            Feature(name, value, usual, (value - usual) / spread if spread else None)
            for name, value, usual, spread in rows
        ]
    known = next((each for each in packaged().values() if each.hash == score.feature_set), None)
    names = known.features if known else [f"feature {i + 1}" for i in range(len(score.features))]
    return [Feature(name, value) for name, value in zip(names, score.features, strict=False)]


def _raised(record: Record) -> Raised:
    alert = _decoded(_alerts, record)
    return Raised(
        position=_position(record, "alerts"),
        alert_id=alert.alert_id,
        reasons=alert.reasons,
        suggested_action=alert.suggested_action,
    )


def _refused(record: Record, again: Replay | None) -> DeadLetter:
    # The original's headers follow the scorer's own, so the first of a name counts.
    headers = {name: value or b"" for name, value in reversed(record.headers)}
    cut_from = headers.get("original_bytes", b"")[:19]
    return DeadLetter(
        position=_position(record, "dead-letters"),
        kind=printable_bytes(headers.get("error_kind", b"")),
        message=printable_bytes(headers.get("error_message", b"")),
        original=original_of(record.value, int(cut_from) if cut_from.isdigit() else None),
        sent_again=None
        if again is None
        else SentAgain(again.at_ms, again.actor, again.audit_offset),
    )


def _labels(evidence: Evidence, occurrences: Sequence[Occurrence]) -> list[GivenLabel]:
    """Return the answers in the order of their offsets; of the latest ones the last is in force.

    If that one is `unsure`, it counts as none, and nothing is in force.
    """
    answers = [
        (record, answer)
        for record in evidence.feedback
        if (answer := _answer(record)) is not None
        and answer.transaction_id == evidence.transaction_id
    ]
    latest = max(
        ((answer.labelled_at_ms, record.offset) for record, answer in answers), default=None
    )
    sent = [each.input.transaction for each in occurrences if each.input.transaction is not None]
    scores = [each.score for each in occurrences if each.score is not None]
    return [
        GivenLabel(
            offset=record.offset,
            label=answer.label,
            event_time_ms=answer.event_time_ms,
            labelled_at_ms=answer.labelled_at_ms,
            source=answer.source,
            analyst=answer.analyst,
            sent_at_ms=record.sent_at_ms,
            in_force=(answer.labelled_at_ms, record.offset) == latest and answer.label != "unsure",
            fits=any(_fits(answer, each) for each in sent) if sent else None,
            after_score=record.sent_at_ms > scores[0].produced_at_ms if scores else None,
        )
        for record, answer in sorted(answers, key=lambda pair: pair[0].offset)
    ]


def _answer(record: Record) -> Feedback | None:
    try:
        return decode_feedback(record.value)
    except BadRecord:
        return None  # The scorer leaves it out as well, and has logged its offset and the reason.


def _fits(answer: Feedback, transaction: Transaction) -> bool:
    return (answer.event_time_ms, answer.entities) == (
        transaction.event_time_ms,
        transaction.entities,
    )


def _audit(evidence: Evidence, occurrences: Sequence[Occurrence]) -> Iterator[AuditEntry]:
    """Yield the events about a version that scored it here, or that name the transaction."""
    scores = [each.score.record for each in occurrences if each.score is not None]
    versions = {score.model_version for score in scores}
    for offset, event in _events_in(evidence.audit):
        if event.model_version in versions or _names(event, evidence.transaction_id):
            yield AuditEntry(offset, event)


def _events_in(records: Iterable[Record]) -> Iterator[tuple[int, AuditEvent]]:
    """Yield offset and event of the records that this release knows."""
    for record in records:
        try:
            yield record.offset, _events.decode(record.value or b"")
        except (ValueError, RecursionError):
            continue


def _names(value: object, wanted: str | None) -> bool:
    """Tell whether a text in `value`, at any depth, is the id or holds it between blanks."""
    if wanted is None:
        return False
    if isinstance(value, str):
        return value == wanted or wanted in value.split()
    if isinstance(value, AuditEvent):
        return _names(value.why, wanted) or _names(value.evidence, wanted)
    if isinstance(value, dict):
        return any(_names(each, wanted) for pair in value.items() for each in pair)
    return isinstance(value, list) and any(_names(each, wanted) for each in value)


def _position(record: Record, topic: str) -> Position:
    return Position(topic, record.partition, record.offset)


def _decoded(decoder: msgspec.json.Decoder[T], record: Record) -> T:
    try:
        return decoder.decode(record.value or b"")
    except (ValueError, RecursionError) as exc:
        raise FraudstreamError(
            f"the record at {record.topic} {record.partition}:{record.offset} (partition:offset) is none "
            f"that this release knows ({exc}): use the release that wrote it"
        ) from exc
