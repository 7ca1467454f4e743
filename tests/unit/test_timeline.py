"""Positions, numbers, cuts, passes and labels due, on a small table of the test's own."""

import math

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudstream.core.errors import SettingsError
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.transaction import decode_transaction
from producer.pace import Due
from producer.sources import Source
from producer.timeline import LabelOrder, Timeline
from tests.small_source import BEGIN_MS, small_source

BEFORE_ALL = LabelOrder(-math.inf)


def cut_of(source: Source, start: int, stop: int) -> Source:
    return msgspec.structs.replace(source, start=start, stop=stop)


def test_a_row_keeps_its_number_under_any_cut() -> None:
    whole, part = Timeline(small_source(), 4), Timeline(cut_of(small_source(), 30, 90), 4)
    assert [part.number(p) for p in (0, 59)] == [30, 89]
    assert list(part.chunk(5, 25)) == list(whole.chunk(35, 55))


def test_a_second_pass_has_new_ids_and_later_times_and_higher_numbers() -> None:
    timeline = Timeline(cut_of(small_source(rows=100), 10, 60), 4, loop=True)
    assert timeline.period_ms % DAY_MS == 0
    first = [decode_transaction(value) for _, value, _, _ in timeline.chunk(0, 50)]
    second = [decode_transaction(value) for _, value, _, _ in timeline.chunk(50, 100)]
    assert [t.transaction_id + "~1" for t in first] == [t.transaction_id for t in second]
    assert second[0].event_time_ms > first[-1].event_time_ms
    assert timeline.number(50) == 110
    assert timeline.event_time_ms(50) == second[0].event_time_ms


def test_a_loop_ends_before_the_year_2100() -> None:
    timeline = Timeline(small_source(), 4, loop=True)
    last = [
        decode_transaction(value)
        for _, value, _, _ in timeline.chunk(timeline.total - 1, timeline.total)
    ]
    assert last[0].event_time_ms > 4_102_444_800_000 - 2 * timeline.period_ms


def test_a_loop_whose_ids_would_grow_too_long_is_refused() -> None:
    source = small_source()
    ids = pa.array([f"{i:063d}" for i in range(source.stop)])
    table = source.table.set_column(
        source.table.column_names.index("transaction_id"), "transaction_id", ids
    )
    with pytest.raises(SettingsError, match="at most 64"):
        Timeline(msgspec.structs.replace(source, table=table), 4, loop=True)


def test_a_limit_counts_from_the_beginning_of_the_cut() -> None:
    assert Timeline(cut_of(small_source(), 30, 90), 4, limit=20).total == 20
    assert Timeline(cut_of(small_source(), 30, 90), 4, limit=200).total == 60
    assert Timeline(cut_of(small_source(), 30, 90), 4, limit=200, loop=True).total == 200


@given(st.lists(st.integers(-1, 119), min_size=4, max_size=4))
def test_the_first_unsent_row_is_the_first_above_its_partitions_last(last: list[int]) -> None:
    timeline = Timeline(small_source(rows=120), 4)
    numbers = np.array(last, dtype=np.int64)
    unsent = [n for _, _, partition, n in timeline.chunk(0, 120) if n > last[partition]]
    assert timeline.first_unsent(numbers) == (unsent[0] if unsent else 120)
    mask = timeline.unsent(0, 120, numbers)
    assert np.flatnonzero(mask).tolist() == unsent


def test_the_first_unsent_row_may_lie_in_a_later_pass() -> None:
    timeline = Timeline(cut_of(small_source(rows=100), 10, 60), 1, loop=True)
    assert timeline.first_unsent(np.array([59])) == 50
    assert timeline.first_unsent(np.array([110])) == 51


def test_what_is_due_ends_at_the_moment_the_chunk_or_the_pass() -> None:
    timeline = Timeline(small_source(rows=100), 4, loop=True)
    moment = timeline.event_time_ms(21)
    assert timeline.stop_of(Due(event_time_ms=moment), 0, 2_000) == 22
    assert timeline.stop_of(Due(event_time_ms=moment - 1), 0, 2_000) == 21
    assert timeline.stop_of(Due(position=7), 0, 2_000) == 7
    assert timeline.stop_of(Due(position=7), 9, 2_000) == 9
    assert timeline.stop_of(Due(), 0, 30) == 30
    assert timeline.stop_of(Due(), 90, 30) == 100


@given(st.integers(0, 119), st.integers(1, 120))
def test_labels_in_any_two_parts_are_the_labels_of_the_whole(middle: int, stop: int) -> None:
    timeline = Timeline(small_source(rows=120), 4)
    middle = min(middle, stop - 1)
    until = float(timeline.event_time_ms(stop - 1))
    whole = timeline.labels_due(BEFORE_ALL, until, stop)
    first = timeline.labels_due(BEFORE_ALL, float(timeline.event_time_ms(middle)), middle + 1)
    after = first[-1].order if first else BEFORE_ALL
    second = timeline.labels_due(after, until, stop)
    assert [label.order for label in first + second] == [label.order for label in whole]
    assert all(label.record.labelled_at_ms <= until for label in whole)


def test_only_reported_frauds_travel_as_labels() -> None:
    source = small_source(rows=120)
    due = Timeline(source, 4).labels_due(BEFORE_ALL, math.inf, 120)
    rows = source.table.to_pylist()
    known = {row["transaction_id"] for row in rows if row["labelled_at_ms"] is not None}
    assert {label.record.transaction_id for label in due} == known
    assert {label.record.label for label in due} == {"fraud"}


def test_labels_of_an_earlier_pass_come_in_the_next_one() -> None:
    timeline = Timeline(small_source(rows=120), 4, loop=True)
    within = timeline.labels_due(BEFORE_ALL, float(timeline.event_time_ms(119)), 120)
    all_labels = timeline.labels_due(BEFORE_ALL, math.inf, 120)
    assert 0 < len(within) < len(all_labels)
    later = timeline.labels_due(within[-1].order, float(timeline.event_time_ms(239)), 240)
    assert {label.order for label in all_labels} - {label.order for label in within} <= {
        label.order for label in later
    }
    ids = [label.record.transaction_id for label in within + later]
    assert len(ids) == len(set(ids))


def test_event_time_goes_on_where_no_transaction_is_due() -> None:
    timeline = Timeline(small_source(rows=100), 4)
    quiet = Due(event_time_ms=timeline.event_time_ms(21) - 1)
    assert timeline.known_until(quiet, 21, 21) == quiet.event_time_ms
    assert timeline.known_until(Due(position=20), 20, 20) == -math.inf
    assert timeline.known_until(Due(), 10, 30) == timeline.event_time_ms(29)
    assert timeline.known_until(
        Due(event_time_ms=BEGIN_MS * 2.0), 10, 100
    ) == timeline.event_time_ms(99)
