"""What a generated table holds, in numbers for the end of `generate`."""

from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of rows, frauds by behaviour and honest look-alikes; times in seconds, rate in rows/s."""

    identity: str
    transactions: int
    frauds: int
    fraud_rate: float
    never_reported: int
    frauds_by_behaviour: dict[str, int]
    look_alikes: dict[str, int]
    seconds: float
    rate_per_s: float


def statistics(table: pa.Table, identity: str, seconds: float) -> Statistics:
    """Return the numbers of a canonical table that took `seconds` to make."""
    # Masks, not expressions: those run in Arrow's threads, which may outlive the interpreter's end.
    fraud = table.filter(table["is_fraud"])
    honest = table.filter(pc.invert(table["is_fraud"]))
    return Statistics(
        identity=identity,
        transactions=table.num_rows,
        frauds=fraud.num_rows,
        fraud_rate=round(fraud.num_rows / table.num_rows, 6),
        never_reported=fraud["labelled_at_ms"].null_count,
        frauds_by_behaviour=_counts(fraud),
        look_alikes=_counts(honest),
        seconds=round(seconds, 3),
        rate_per_s=round(table.num_rows / seconds),
    )


def _counts(table: pa.Table) -> dict[str, int]:
    counted: Any = table["behaviour"].value_counts()
    return {entry["values"]: entry["counts"] for entry in counted.to_pylist() if entry["values"]}
