"""The page of `fraudstream trace`: a report becomes lines for people, as wide as their terminal.

Every text of a record goes through `printable`, and through `Text`, which knows no markup.
"""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.printable import printable
from fraudstream.core.transaction import Transaction
from monitoring.output import moment, money
from monitoring.trace_report import (
    AuditEntry,
    DeadLetter,
    GivenLabel,
    Input,
    Latency,
    Occurrence,
    Original,
    Position,
    Raised,
    Scored,
    Trace,
    TraceReport,
)

Row = tuple[str, str]

HEADING, EMPHASIS, NOTE = "bold cyan", "bold", "dim"
_NAMES = 18
"""Columns of the names of things; they fold below that only on a terminal too narrow for them."""


def page(report: TraceReport) -> RenderableType:
    """Return the page: one part for each trace that has something to show, an empty line between two."""
    parts: list[RenderableType] = []
    for trace in report.traces:
        parts += [*([Text()] if parts else []), *_trace(trace, report.environment)]
    return Group(*parts)


def _trace(trace: Trace, environment: str) -> Iterable[RenderableType]:
    yield _text(trace.transaction_id or f"no transaction_id, at {trace.asked}", EMPHASIS)
    count = len(trace.occurrences)
    for number, occurrence in enumerate(trace.occurrences, start=1):
        if count + trace.more > 1:
            yield Text()
            yield _text(f"sent {count + trace.more} times: {number}", HEADING)
        yield _text(_verdict(occurrence, environment), _style(occurrence))
        yield from _occurrence(occurrence)
    if trace.more:
        yield _text(f"{trace.more:,} more of the same id are not shown", NOTE)
    yield from _section("labels", [])
    yield from _labels(trace)
    yield from _section("audit", [])
    yield from _audit(trace.audit)
    if trace.by == "position":
        yield _text(
            "asked for by position: the same id sent again is not looked for; "
            "`fraudstream trace TRANSACTION_ID` does that",
            NOTE,
        )


def _verdict(occurrence: Occurrence, environment: str) -> str:
    """Return in one sentence what became of it."""
    place = occurrence.input.position
    if occurrence.score is not None:
        return _decision(occurrence.score)
    if occurrence.dead_letter is not None:
        return f"dead letter: {occurrence.dead_letter.kind}"
    if occurrence.state == "waiting":
        return (
            f"not scored yet: group {environment}.scorer has committed partition {place.partition} up to "
            f"offset {occurrence.committed:,}, this one is {place.offset:,}; if that stays so, "
            "start a worker with `fraudstream scorer`"
        )
    return (
        f"lost: group {environment}.scorer has committed partition {place.partition} up to offset "
        f"{occurrence.committed:,}, yet there is neither a score nor a dead letter: "
        "count with `fraudstream ledger`"
    )


def _decision(scored: Scored) -> str:
    record = scored.record
    if record.score is None or record.threshold is None:
        return "scored before any model: features were logged, nothing was decided"
    sign = ">=" if record.score >= record.threshold else "<"
    return (
        f"{record.decision}: score {record.score:.4f} {sign} threshold {record.threshold:.4f}, "
        f"model version {record.model_version}"
    )


def _style(occurrence: Occurrence) -> str:
    alarming = occurrence.alert is not None or occurrence.state in {"dead_letter", "lost"}
    return "bold red" if alarming else EMPHASIS


def _occurrence(occurrence: Occurrence) -> Iterable[RenderableType]:
    yield from _section("input", _input(occurrence.input))
    yield from _section("position", _position(occurrence.input))
    if occurrence.score is not None:
        yield from _section("features", [])
        yield from _features(occurrence.score)
        yield from _section("score", _score(occurrence.score))
        yield from _section("latency", _latency(occurrence.score.latency))
    if occurrence.alert is not None:
        yield from _section("alert", _alert(occurrence.alert))
    elif occurrence.score is not None and occurrence.score.record.decision == "alert":
        yield from _section("alert", [("missing", "the decision is alert, yet there is none")])
    if occurrence.dead_letter is not None:
        yield from _section("dead letter", _dead_letter(occurrence.dead_letter))


def _input(found: Input) -> Iterable[Row]:
    if found.transaction is not None:
        yield from _transaction(found.transaction)
    if found.unreadable is not None:
        yield "not readable", found.unreadable
    if found.original is not None:
        yield "bytes", _size(found.original)
        yield "value", found.original.text or "—"


def _transaction(paid: Transaction) -> Iterable[Row]:
    yield "event time", f"{moment(paid.event_time_ms, timespec='milliseconds')} UTC"
    amount = money(paid.amount_minor, paid.currency)
    yield "amount", f"{amount} ({paid.amount_minor} minor units)"
    yield "kind", paid.kind
    yield "customer", paid.entities.customer
    yield "terminal", paid.entities.terminal
    attributes = (f"{name} {value:g}" for name, value in paid.attributes.items())
    yield "attributes", ", ".join(attributes) or "none"


def _position(found: Input) -> Iterable[Row]:
    yield "topic", _place(found.position)
    yield "sent", f"{moment(found.sent_at_ms, timespec='milliseconds')} UTC"
    yield "key", "none" if found.key is None else found.key
    headers = (f"{each.name}={'' if each.value is None else each.value}" for each in found.headers)
    yield "headers", ", ".join(headers) or "none"
    if found.dead_letter_of is not None:
        yield "sent again", f"it was {found.dead_letter_of} (partition/offset), a dead letter"


def _features(scored: Scored) -> Iterable[RenderableType]:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    for _ in range(3):
        table.add_column(overflow="fold", justify="right")
    table.add_row(*(_text(title, NOTE) for title in ("  name", "value", "usual", "off")))
    for each in scored.features:
        table.add_row(
            _text(f"  {each.name}"),
            _text(f"{each.value:.6g}"),
            _text("—" if each.usual is None else f"{each.usual:.3g}"),
            _text("—" if each.off is None else f"{each.off:+.1f}"),
        )
    yield table
    if scored.no_usual is None:
        yield _note("usual: median of genuine payments; off: distance from it in mean deviations")
    else:
        yield _note(f"usual values are missing: {scored.no_usual}")


def _score(scored: Scored) -> Iterable[Row]:
    record = scored.record
    yield "score", "none" if record.score is None else f"{record.score:.6f}"
    yield "threshold", "none" if record.threshold is None else f"{record.threshold:.6f}"
    yield "decision", record.decision
    yield "model version", record.model_version or "none: scored before any model"
    yield "feature set", record.feature_set
    yield "duplicate of", _duplicate(scored)
    yield "apply_seq", f"{record.apply_seq}"
    yield "topic", _place(scored.position)


def _duplicate(scored: Scored) -> str:
    record = scored.record
    if record.duplicate_of is None:
        return "none"
    return f"transactions {record.source_partition}:{record.duplicate_of}, not counted again in features"


def _latency(latency: Latency) -> Iterable[Row]:
    yield "waiting in Kafka", f"{latency.waiting:.1f} ms"
    yield "features", f"{latency.features:.1f} ms"
    yield "model", f"{latency.model:.1f} ms"
    yield "other", f"{latency.other:.1f} ms"
    yield "until produce", f"{latency.until_produce:.1f} ms from poll, the three before included"
    late = ", stale: older than score_deadline_ms" if latency.stale else ", not stale"
    yield "age", f"{latency.age:,} ms from sending to produce{late}"


def _alert(alert: Raised) -> Iterable[Row]:
    yield "alert_id", alert.alert_id
    yield "reasons", "; ".join(alert.reasons) or "none"
    yield "suggested action", alert.suggested_action
    yield "topic", _place(alert.position)


def _dead_letter(letter: DeadLetter) -> Iterable[Row]:
    yield "kind", letter.kind
    yield "message", letter.message
    yield "topic", _place(letter.position)
    yield "bytes", _size(letter.original)
    yield "value", letter.original.text or "—"
    if (again := letter.sent_again) is not None:
        when = moment(again.at_ms, timespec="milliseconds")
        yield "sent again", f"{when} UTC by {again.actor} (audit {again.audit_offset})"


def _size(original: Original) -> str:
    if original.size_bytes is None:
        return "no value"
    cut = ", the beginning of them here" if original.cut else ""
    return f"{original.size_bytes:,}{cut}"


def _labels(trace: Trace) -> Iterable[RenderableType]:
    if not trace.labels:
        yield _note("none: without one it counts as genuine 7 days after its event time")
        return
    in_force = trace.label_in_force or "none, the latest answer is unsure"
    yield _grid([("in force", in_force), *(_label(each) for each in trace.labels)])


def _label(given: GivenLabel) -> Row:
    words = [given.label + (" (in force)" if given.in_force else "")]
    days = (given.labelled_at_ms - given.event_time_ms) / DAY_MS
    words.append(f"labelled {moment(given.labelled_at_ms, timespec='milliseconds')} UTC")
    words.append(f"{days:.1f} days after the event")
    words += [f"source {given.source}"] if given.source else []
    words += [f"analyst {given.analyst}"] if given.analyst else []
    if given.after_score is not None:
        words.append(f"sent {'after' if given.after_score else 'before'} the score")
    if given.fits is False:
        words.append("event time or entities are not this transaction's: features do not count it")
    return f"feedback {given.offset}", ", ".join(words)


def _audit(entries: list[AuditEntry]) -> Iterable[RenderableType]:
    if not entries:
        yield _note("no event about the model that scored it, or about this transaction")
        return
    rows = []
    for entry in entries:
        event = entry.event
        phase = event.evidence.get("phase")
        what = f"{event.event} {phase}" if isinstance(phase, str) else event.event
        when = moment(event.at_ms, timespec="milliseconds")
        about = f" of version {event.model_version}" if event.model_version else ""
        rows.append(
            (f"audit {entry.offset}", f"{what}{about}, {when} UTC, {event.actor}: {event.why}")
        )
    yield _grid(rows)


def _place(position: Position) -> str:
    return f"{position.topic} {position.partition}:{position.offset} (partition:offset)"


def _section(title: str, rows: Iterable[Row]) -> Iterable[RenderableType]:
    yield _text(title, HEADING)
    if listed := list(rows):
        yield _grid(listed)


def _grid(rows: Iterable[Row]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold", min_width=_NAMES)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(_text(f"  {name}", NOTE), _text(value))
    return table


def _note(text: str) -> Padding:
    return Padding.indent(_text(text, NOTE), 2)


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style, overflow="fold")
