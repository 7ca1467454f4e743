"""Writes a canonical table to a file: the same bytes for the same table, complete or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fraudstream.core.errors import FraudstreamError, Refused, SettingsError

FORMATS = (".parquet", ".jsonl")
_GROUP_ROWS = 200_000
# Sorted or unique columns gain nothing from a dictionary; differences pack them far smaller.
_ENCODINGS = {"transaction_id": "DELTA_BYTE_ARRAY", "event_time_ms": "DELTA_BINARY_PACKED"}


def check_target(path: Path, *, force: bool) -> None:
    """Check that a table can be written to `path` before the work begins.

    Raises:
        SettingsError: the name ends in no known format, or its folder does not exist.
        Refused: the file exists and `force` is not set.
    """
    if path.suffix not in FORMATS:
        raise SettingsError(f"--out = {path}: the name must end in {' or '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise SettingsError(
            f"--out = {path}: the folder {path.parent} does not exist; make it first"
        )
    if path.exists() and not path.is_file():
        raise SettingsError(f"--out = {path}: this is no file; give the name of a file")
    if path.exists() and not force:
        raise Refused(f"{path} exists already: choose another name, or overwrite it with --force")


def write_table(
    table: pa.Table,
    path: Path,
    *,
    force: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write `table` as .parquet or .jsonl under a temporary name, then rename; `advance` hears of rows.

    Raises:
        SettingsError: the name ends in no known format, or its folder does not exist.
        Refused: the file exists and `force` is not set.
        FraudstreamError: the file cannot be written (folder not writable, disk full).
    """
    check_target(path, force=force)
    partial = path.with_name(f".{path.name}.partial")
    write = _write_parquet if path.suffix == ".parquet" else _write_jsonl
    try:
        with partial.open("wb") as file:
            write(table, file, advance)
        partial.replace(path)
    except OSError as exc:
        raise FraudstreamError(
            f"cannot write {path}: {exc.strerror or exc}; is the folder writable, the disk full?"
        ) from exc
    finally:
        partial.unlink(missing_ok=True)


def _write_parquet(table: pa.Table, file: BinaryIO, advance: Callable[[int], None]) -> None:
    dictionaries: Any = [name for name in table.column_names if name not in _ENCODINGS]
    with pq.ParquetWriter(
        file,
        table.schema,
        compression="zstd",
        use_dictionary=dictionaries,
        column_encoding=_ENCODINGS,
    ) as writer:
        for start in range(0, table.num_rows, _GROUP_ROWS):
            part = table.slice(start, _GROUP_ROWS)
            writer.write_table(part, row_group_size=_GROUP_ROWS)
            advance(part.num_rows)


def _write_jsonl(table: pa.Table, file: BinaryIO, advance: Callable[[int], None]) -> None:
    for start in range(0, table.num_rows, _GROUP_ROWS):
        part = table.slice(start, _GROUP_ROWS)
        file.write("\n".join(_json_lines(part)).encode() + b"\n")
        advance(part.num_rows)


def _json_lines(table: pa.Table) -> list[str]:
    """Return each row as one JSON object. Generated strings hold nothing that JSON would escape."""
    parts: list[Any] = []
    for place, field in enumerate(table.schema):
        parts.append(("," if place else "{") + f'"{field.name}":')
        parts.extend(_json_values(table[field.name], text=pa.types.is_string(field.type)))
    joined: list[Any] = pc.binary_join_element_wise(*parts, "}", "").to_pylist()
    return joined


def _json_values(column: "pa.ChunkedArray[Any]", *, text: bool) -> list[Any]:
    values: Any = column.cast(pa.string())
    return ['"', values, '"'] if text else [values.fill_null("null")]
