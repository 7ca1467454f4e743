"""First hop of a replay: a file becomes the canonical table, and its rows become records of the topics."""

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fraudstream.core.errors import SettingsError
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.transaction import Entities, Feedback, Transaction

ATTRIBUTE_PREFIX = "attr_"
REPORT_DELAY_MS = 7 * DAY_MS
"""The Handbook file has no reports: each of its frauds is taken as known so long after its event time."""

REQUIRED: dict[str, pa.DataType] = {
    "transaction_id": pa.string(),
    "event_time_ms": pa.int64(),
    "amount_minor": pa.int64(),
    "currency": pa.string(),
    "customer": pa.string(),
    "terminal": pa.string(),
}
OPTIONAL: dict[str, pa.DataType] = {
    "kind": pa.string(),
    "is_fraud": pa.bool_(),
    "labelled_at_ms": pa.int64(),
    "behaviour": pa.string(),
}
_DEFAULTS: dict[str, object] = {"kind": "purchase", "is_fraud": False, "behaviour": ""}
_ORDER = (
    "transaction_id",
    "event_time_ms",
    "kind",
    "amount_minor",
    "currency",
    "customer",
    "terminal",
)
_TRUTH = ("is_fraud", "labelled_at_ms", "behaviour")
_HANDBOOK = (
    "TRANSACTION_ID",
    "TX_DATETIME",
    "CUSTOMER_ID",
    "TERMINAL_ID",
    "TX_AMOUNT",
    "TX_FRAUD",
    "TX_FRAUD_SCENARIO",
)
_HASH_WHOLE_BYTES = 64 * 1024 * 1024
_HASH_PART_BYTES = 16 * 1024 * 1024


class Source(msgspec.Struct, frozen=True):
    """What a replay sends: rows `start` to `stop` (excluded) of a canonical table.

    A row number is the index in the whole table, in order of (event_time_ms, transaction_id), and with
    `identity` names a record for ever: a cut changes neither. The columns `is_fraud`, `labelled_at_ms`
    and `behaviour` are the truth and never enter a transaction's record.
    """

    identity: str
    table: pa.Table
    start: int
    stop: int


class Labels(msgspec.Struct, frozen=True):
    """The reported frauds in order of (labelled_at_ms, row): two int64 arrays of equal length [L]."""

    rows: NDArray[np.int64]
    labelled_at_ms: NDArray[np.int64]


def canonical_schema(attributes: tuple[str, ...] = ()) -> pa.Schema:
    """Return the schema of the canonical table with the float64 columns `attr_<name>` of `attributes`."""
    types = REQUIRED | OPTIONAL
    fields = [pa.field(name, types[name]) for name in _ORDER]
    fields += [pa.field(ATTRIBUTE_PREFIX + name, pa.float64()) for name in attributes]
    return pa.schema(fields + [pa.field(name, types[name]) for name in _TRUTH])


def read_source(path: Path, from_ms: int | None = None, to_ms: int | None = None) -> Source:
    """Return the source in a canonical .parquet or .jsonl file, or in the Handbook parquet.

    `from_ms` (included) and `to_ms` (excluded) cut by event time in UTC milliseconds.

    Raises:
        SettingsError: no such file, not readable as what it claims to be, columns missing or of a
            wrong type, or no transaction in the cut.
    """
    columns = _read_columns(path)
    missing = [name for name in REQUIRED if name not in columns.column_names]
    if not missing:
        table, name = _canonical(columns, path), path.suffix.removeprefix(".")
    elif all(column in columns.column_names for column in _HANDBOOK):
        table, name = _handbook(columns), "handbook"
    else:
        raise SettingsError(
            f"source {path} lacks the columns {', '.join(missing)}; allowed are the canonical table"
            f" ({', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}, {ATTRIBUTE_PREFIX}*)"
            f" or the Handbook's ({', '.join(_HANDBOOK)})"
        )
    source = Source(f"{name}-{_digest(path)}", table, 0, table.num_rows)
    return cut(source, from_ms, to_ms)


def cut(source: Source, from_ms: int | None = None, to_ms: int | None = None) -> Source:
    """Return the source limited to event times in [from_ms, to_ms); row numbers and identity stay.

    Raises:
        SettingsError: no transaction lies in the cut.
    """
    times = event_times(source.table)
    start, stop = source.start, source.stop
    if from_ms is not None:
        start = max(start, int(np.searchsorted(times, from_ms, side="left")))
    if to_ms is not None:
        stop = min(stop, int(np.searchsorted(times, to_ms, side="left")))
    if start >= stop:
        span = f"{_iso(int(times[0]))} to {_iso(int(times[-1]))}" if len(times) else "nothing"
        raise SettingsError(f"--from/--to leave no transaction of {source.identity}: it has {span}")
    return Source(source.identity, source.table, start, stop)


def event_times(table: pa.Table) -> NDArray[np.int64]:
    """Return the event times of a table, UTC milliseconds, int64 [N]."""
    return _int64(table["event_time_ms"])


def parse_time_ms(text: str, field: str) -> int:
    """Return the UTC milliseconds of an ISO date or time; one without a zone is UTC.

    Raises:
        SettingsError: `text` is neither; names `field`.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise SettingsError(
            f"{field} = {text!r}: use an ISO date or time (UTC) as in 2018-07-25 or 2018-07-25T12:00"
        ) from exc
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def records(table: pa.Table, start: int, stop: int) -> list[Transaction]:
    """Return rows [start, stop) of a canonical table as transactions, in order, without the truth."""
    part = table.slice(start, stop - start)
    entities = map(Entities, _strings(part, "customer"), _strings(part, "terminal"))
    rows = zip(
        _strings(part, "transaction_id"),
        event_times(part).tolist(),
        _strings(part, "kind"),
        _int64(part["amount_minor"]).tolist(),
        _strings(part, "currency"),
        entities,
        _attributes(part),
        strict=True,
    )
    return [Transaction(1, *row) for row in rows]


def labels(table: pa.Table, start: int = 0, stop: int | None = None) -> Labels:
    """Return the frauds among rows [start, stop) that are ever reported, in the order of the reports.

    Only they travel as labels: a genuine transaction is implied by the label delay.
    """
    part = table.slice(start, None if stop is None else stop - start)
    known = pc.and_(part["is_fraud"], pc.is_valid(part["labelled_at_ms"]))
    rows = np.flatnonzero(np.asarray(known))
    times = _int64(part["labelled_at_ms"].take(rows))
    order = np.lexsort((rows, times))
    return Labels((rows[order] + start).astype(np.int64), times[order])


def feedback(table: pa.Table, reported: Labels) -> list[Feedback]:
    """Return the answers that `reported` names, in its order, as records of the topic `feedback`."""
    part = table.take(reported.rows)
    entities = map(Entities, _strings(part, "customer"), _strings(part, "terminal"))
    rows = zip(
        _strings(part, "transaction_id"),
        event_times(part).tolist(),
        entities,
        reported.labelled_at_ms.tolist(),
        strict=True,
    )
    return [
        Feedback(1, identifier, event_ms, entity, "fraud", at_ms, source="report")
        for identifier, event_ms, entity, at_ms in rows
    ]


def in_canonical_order(table: pa.Table) -> pa.Table:
    """Return the rows in order of (event_time_ms, transaction_id); only ties compare their ids."""
    times = event_times(table)
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    same = ordered[1:] == ordered[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if len(tied):
        rows = order[tied]
        ids = np.array(_strings(table.take(rows), "transaction_id"))
        order[tied] = rows[np.lexsort((ids, times[rows]))]
    if np.array_equal(order, np.arange(len(order))):
        return table
    return table.take(order)


def _read_columns(path: Path) -> pa.Table:
    readers: dict[str, Callable[[Path], pa.Table]] = {".parquet": _parquet, ".jsonl": _jsonl}
    if path.suffix not in readers:
        raise SettingsError(f"source {path}: the name must end in {' or '.join(readers)}")
    if not path.is_file():
        raise SettingsError(
            f"source {path} is no file: check the path, or make one: generate --out"
        )
    try:
        return readers[path.suffix](path)
    except (pa.ArrowException, OSError) as exc:
        reason = str(exc).splitlines()[0]
        raise SettingsError(f"source {path} cannot be read as {path.suffix}: {reason}") from exc


def _parquet(path: Path) -> pa.Table:
    known = {*REQUIRED, *OPTIONAL, *_HANDBOOK}
    names = pq.read_schema(path).names
    wanted = [name for name in names if name in known or name.startswith(ATTRIBUTE_PREFIX)]
    return pq.read_table(path, columns=wanted, partitioning=None)


def _jsonl(path: Path) -> pa.Table:
    # Only strings are prescribed, lest an id pass for a date; numbers are cast later, by name.
    columns = (REQUIRED | OPTIONAL).items()
    texts = [pa.field(name, kind) for name, kind in columns if pa.types.is_string(kind)]
    table = pj.read_json(
        path,
        read_options=pj.ReadOptions(block_size=4 * 1024 * 1024),
        parse_options=pj.ParseOptions(explicit_schema=pa.schema(texts)),
    )
    # The reader makes every prescribed column: one without a single value was not in the file.
    absent = [name for name in table.column_names if table[name].null_count == table.num_rows]
    return table.drop_columns(absent)


def _canonical(columns: pa.Table, path: Path) -> pa.Table:
    attributes = tuple(
        name.removeprefix(ATTRIBUTE_PREFIX)
        for name in columns.column_names
        if name.startswith(ATTRIBUTE_PREFIX)
    )
    schema = canonical_schema(attributes)
    table = pa.table([_column(columns, field, path) for field in schema], schema=schema)
    return in_canonical_order(table)


def _column(columns: pa.Table, field: "pa.Field[Any]", path: Path) -> "pa.ChunkedArray[Any]":
    if field.name not in columns.column_names:
        default = pa.scalar(_DEFAULTS.get(field.name), field.type)
        return pa.chunked_array([pa.repeat(default, columns.num_rows)])
    try:
        column = columns[field.name].cast(field.type)
    except pa.ArrowException as exc:
        raise SettingsError(
            f"source {path}: column {field.name} is not {field.type}: {exc}"
        ) from exc
    if field.name.startswith(ATTRIBUTE_PREFIX):  # a record holds finite numbers only
        finite: pa.ChunkedArray[Any] = pc.if_else(
            pc.is_finite(column), column, pa.scalar(None, field.type)
        )
        return finite
    if column.null_count and field.name in _DEFAULTS:
        return column.fill_null(pa.scalar(_DEFAULTS[field.name], field.type))
    if column.null_count and field.name in REQUIRED:
        raise SettingsError(
            f"source {path}: column {field.name} is empty in {column.null_count} rows; none may be"
        )
    return column


def _handbook(columns: pa.Table) -> pa.Table:
    """Return the Handbook's simulated transactions as a canonical table (UTC, cents, no attributes)."""
    rows = columns.num_rows
    moments = columns["TX_DATETIME"].cast(pa.timestamp("ms")).cast(pa.int64())
    fraud = columns["TX_FRAUD"].cast(pa.bool_())
    # float32 holds these amounts to far less than half a cent, so the nearest cent is the true one.
    cents = np.rint(np.asarray(columns["TX_AMOUNT"]).astype(np.float64) * 100).astype(np.int64)
    reported = pc.if_else(fraud, pc.add(moments, REPORT_DELAY_MS), pa.scalar(None, pa.int64()))
    scenario = columns["TX_FRAUD_SCENARIO"].cast(pa.string())
    columns_in_order: list[Any] = [
        columns["TRANSACTION_ID"].cast(pa.string()),
        moments,
        pa.repeat(pa.scalar("purchase"), rows),
        cents,
        pa.repeat(pa.scalar("EUR"), rows),
        columns["CUSTOMER_ID"].cast(pa.string()),
        columns["TERMINAL_ID"].cast(pa.string()),
        fraud,
        reported,
        pc.if_else(fraud, pc.replace_substring_regex(scenario, "^", "scenario_"), ""),
    ]
    table = pa.table(columns_in_order, schema=canonical_schema())
    return in_canonical_order(table)


def _attributes(table: pa.Table) -> Iterable[dict[str, float]]:
    names = [name for name in table.column_names if name.startswith(ATTRIBUTE_PREFIX)]
    if not names:
        return ({} for _ in range(table.num_rows))
    keys = [name.removeprefix(ATTRIBUTE_PREFIX) for name in names]
    values: Iterable[tuple[Any, ...]] = zip(*(table[n].to_pylist() for n in names), strict=True)
    return (
        {k: x for k, x in zip(keys, numbers, strict=True) if x is not None} for numbers in values
    )


def _digest(path: Path) -> str:
    """Return 12 hex digits over size and content; of a large file, its beginning and end."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _HASH_WHOLE_BYTES:
            digest.update(file.read())
        else:
            digest.update(file.read(_HASH_PART_BYTES))
            file.seek(-_HASH_PART_BYTES, 2)
            digest.update(file.read())
    return digest.hexdigest()[:12]


def _strings(table: pa.Table, name: str) -> list[str]:
    values: list[Any] = table[name].to_pylist()
    return values


def _int64(column: "pa.ChunkedArray[Any]") -> NDArray[np.int64]:
    return np.asarray(column).astype(np.int64, copy=False)


def _iso(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="seconds")
