"""Sources: what is read from files, how it is cut, and what is refused."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fraudstream.core.errors import SettingsError
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.transaction import Entities, Transaction
from producer.sources import (
    Source,
    canonical_schema,
    cut,
    event_times,
    feedback,
    in_canonical_order,
    labels,
    parse_time_ms,
    read_source,
    records,
)

T0 = 1_700_000_000_000
ROW: dict[str, Any] = {
    "transaction_id": "a",
    "event_time_ms": T0,
    "amount_minor": 1250,
    "currency": "EUR",
    "customer": "c1",
    "terminal": "t1",
}
HANDBOOK = Path(
    os.environ.get(
        "FRAUDSTREAM_HANDBOOK", Path(__file__).parents[3] / "shared" / "data" / "handbook.parquet"
    )
)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def stream(count: int) -> list[dict[str, Any]]:
    """Return `count` rows a second apart, every third a fraud; later frauds are known earlier."""
    return [
        ROW
        | {
            "transaction_id": f"id-{place:03}",
            "event_time_ms": T0 + 1000 * place,
            "is_fraud": place % 3 == 0,
            "labelled_at_ms": T0 + DAY_MS - 2000 * place if place % 6 == 0 else None,
        }
        for place in range(count)
    ]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return read_source(write_jsonl(tmp_path / "s.jsonl", stream(60)))


def test_missing_optional_columns_get_their_defaults(tmp_path: Path) -> None:
    source = read_source(write_jsonl(tmp_path / "s.jsonl", [ROW]))
    assert records(source.table, 0, 1) == [
        Transaction(1, "a", T0, "purchase", 1250, "EUR", Entities("c1", "t1"))
    ]
    assert source.table.schema.equals(canonical_schema())
    assert source.table["is_fraud"].to_pylist() == [False]
    assert len(labels(source.table).rows) == 0


def test_an_attribute_without_a_finite_value_is_left_out(tmp_path: Path) -> None:
    table = pa.table(
        {name: [value] * 4 for name, value in ROW.items()}
        | {"attr_x": [1.5, None, float("nan"), float("inf")], "attr_n": pa.array([1, 2, 3, 4])}
    )
    pq.write_table(table, tmp_path / "s.parquet")
    read = read_source(tmp_path / "s.parquet")
    assert [r.attributes for r in records(read.table, 0, 4)] == [
        {"x": 1.5, "n": 1.0},
        {"n": 2.0},
        {"n": 3.0},
        {"n": 4.0},
    ]


def test_rows_come_in_order_of_time_then_id_whatever_the_file(tmp_path: Path) -> None:
    moments = [(5, "b"), (3, "z"), (5, "a"), (3, "10"), (3, "9"), (1, "x")]
    rows = [ROW | {"event_time_ms": T0 + t, "transaction_id": name} for t, name in moments]
    source = read_source(write_jsonl(tmp_path / "s.jsonl", rows))
    assert source.table["transaction_id"].to_pylist() == ["x", "10", "9", "z", "a", "b"]
    assert in_canonical_order(source.table) is source.table


def test_a_cut_keeps_identity_and_row_numbers(source: Source) -> None:
    part = cut(source, T0 + 10_000, T0 + 20_000)
    assert (part.identity, part.start, part.stop) == (source.identity, 10, 20)
    assert part.table is source.table
    assert cut(part, None, T0 + 15_000).stop == 15


def test_an_empty_cut_says_which_times_there_are(source: Source) -> None:
    with pytest.raises(SettingsError, match="2023-11-14T22:13:20"):
        cut(source, T0 + 10_000_000)


def test_the_identity_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    one, same, other = (tmp_path / f"{n}.jsonl" for n in "abc")
    write_jsonl(one, stream(5))
    write_jsonl(same, stream(5))
    write_jsonl(other, stream(6))
    assert read_source(one).identity == read_source(same).identity
    assert read_source(one).identity != read_source(other).identity


def test_reported_frauds_come_in_order_of_their_reports_with_their_rows(source: Source) -> None:
    reported = labels(source.table)
    assert reported.rows.tolist() == list(range(54, -1, -6))
    assert np.all(np.diff(reported.labelled_at_ms) > 0)
    answers = feedback(source.table, reported)
    assert [a.transaction_id for a in answers] == [f"id-{row:03}" for row in reported.rows]
    assert [a.labelled_at_ms for a in answers] == reported.labelled_at_ms.tolist()
    assert {a.label for a in answers} == {"fraud"}


def test_labels_of_a_part_name_rows_of_the_whole(source: Source) -> None:
    assert labels(source.table, 10, 30).rows.tolist() == [24, 18, 12]


def test_records_of_a_part_are_those_rows(source: Source) -> None:
    whole = records(source.table, 0, 60)
    assert records(source.table, 7, 12) == whole[7:12]


@pytest.mark.parametrize("name", ["none.parquet", "none.jsonl", "none.csv"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read_source(tmp_path / name)


@pytest.mark.parametrize("name", ["broken.parquet", "broken.jsonl"])
def test_a_file_that_is_not_what_it_claims_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("not what it claims\n")
    with pytest.raises(SettingsError, match=name):
        read_source(tmp_path / name)


def test_missing_columns_are_listed_with_what_is_allowed(tmp_path: Path) -> None:
    row = {key: value for key, value in ROW.items() if key not in ("customer", "currency")}
    with pytest.raises(SettingsError, match=r"currency, customer.*TX_AMOUNT"):
        read_source(write_jsonl(tmp_path / "s.jsonl", [row]))


@pytest.mark.parametrize(
    ("field", "value"),
    [("amount_minor", "much"), ("event_time_ms", 1.5), ("customer", None), ("terminal", 5)],
)
def test_a_column_of_a_wrong_type_or_with_gaps_is_named(
    tmp_path: Path, field: str, value: object
) -> None:
    path = write_jsonl(tmp_path / "s.jsonl", [ROW, ROW | {field: value}])
    with pytest.raises(SettingsError, match=field):
        read_source(path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"e\.jsonl"):
        read_source(write_jsonl(tmp_path / "e.jsonl", []))
    pq.write_table(canonical_schema().empty_table(), tmp_path / "e.parquet")
    with pytest.raises(SettingsError, match="no transaction"):
        read_source(tmp_path / "e.parquet")


@pytest.mark.parametrize(
    ("text", "moment_ms"),
    [
        ("2018-04-01", 1_522_540_800_000),
        ("2018-04-01T00:00:31", 1_522_540_831_000),
        ("2018-04-01T02:00:31+02:00", 1_522_540_831_000),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str, moment_ms: int) -> None:
    assert parse_time_ms(text, "--from") == moment_ms


def test_a_wrong_time_names_its_option() -> None:
    with pytest.raises(SettingsError, match=r"--from = 'noon'"):
        parse_time_ms("noon", "--from")


def handbook_rows(amounts: list[float]) -> pa.Table:
    count = len(amounts)
    return pa.table(
        {
            "TRANSACTION_ID": pa.array(range(count), pa.int32()),
            "TX_DATETIME": pa.array([T0] * count, pa.timestamp("ms")),
            "CUSTOMER_ID": pa.array([7] * count, pa.int16()),
            "TERMINAL_ID": pa.array([8] * count, pa.int16()),
            "TX_AMOUNT": pa.array(amounts, pa.float32()),
            "TX_FRAUD": pa.array([place % 2 for place in range(count)], pa.int8()),
            "TX_FRAUD_SCENARIO": pa.array([2 * (place % 2) for place in range(count)], pa.int8()),
        }
    )


def test_handbook_amounts_are_exact_to_the_cent(tmp_path: Path) -> None:
    cents = list(range(1, 300_000, 7))
    pq.write_table(handbook_rows([c / 100 for c in cents]), tmp_path / "h.parquet")
    table = read_source(tmp_path / "h.parquet").table
    assert np.sort(np.asarray(table["amount_minor"])).tolist() == cents


def test_handbook_frauds_are_known_seven_days_later(tmp_path: Path) -> None:
    pq.write_table(handbook_rows([1.0, 2.0]), tmp_path / "h.parquet")
    table = read_source(tmp_path / "h.parquet").table
    assert table["labelled_at_ms"].to_pylist() == [None, T0 + 7 * DAY_MS]
    assert table["behaviour"].to_pylist() == ["", "scenario_2"]


@pytest.mark.handbook
@pytest.mark.skipif(not HANDBOOK.is_file(), reason="no Handbook data here")
def test_the_handbook_file_is_read_whole_and_exact() -> None:
    source = read_source(HANDBOOK)
    assert source.table.num_rows == 1_754_155
    assert pc.sum(source.table["is_fraud"]).as_py() == 14_681
    assert in_canonical_order(source.table) is source.table
    raw = pq.read_table(HANDBOOK, columns=["TX_AMOUNT"])["TX_AMOUNT"]
    back = np.asarray(source.table["amount_minor"]).astype(np.float64) / 100
    assert np.sort(back).astype(np.float32).tolist() == np.sort(np.asarray(raw)).tolist()
    week = cut(source, parse_time_ms("2018-07-25", "--from"), parse_time_ms("2018-08-01", "--to"))
    assert week.stop - week.start == 67_240
    assert len(labels(week.table, week.start, week.stop).rows) == 598
    assert event_times(week.table)[week.start] >= parse_time_ms("2018-07-25", "--from")
