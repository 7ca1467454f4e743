"""Which rows may be learned from, with which label: nothing that was not known at the time."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from fraudstream.clients.score_log import ScoreLog
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.transaction import Entities, Feedback, Label
from trainer.build import Dataset, build, labels_in_force, newest, of_transactions, split

T0 = 1_532_476_800_000
AS_OF = T0 + 10 * DAY_MS


def answer(label: Label, *, at_ms: int, transaction_id: str = "a") -> Feedback:
    return Feedback(1, transaction_id, T0, Entities("c", "t"), label, at_ms)


def log(times: list[int]) -> ScoreLog:
    """Return a log with one row a time; ids are a, b, c...; the only feature is the row's number."""
    count = len(times)
    return ScoreLog(
        transaction_ids=pa.chunked_array([[chr(ord("a") + i) for i in range(count)]], pa.string()),
        customers=pa.chunked_array([["c"] * count], pa.string()),
        event_time_ms=np.array(times, np.int64),
        features=np.arange(count, dtype=np.float32).reshape(-1, 1),
        duplicates=0,
        other_feature_set=0,
    )


def built(times: list[int], labels: dict[str, str], days: int | None = None) -> Dataset:
    return build(log(times), labels, as_of_ms=AS_OF, label_delay_ms=7 * DAY_MS, days=days)


def test_a_row_younger_than_the_label_delay_is_left_out() -> None:
    border = AS_OF - 7 * DAY_MS

    dataset = built([border, border + 1], {"a": "fraud", "b": "fraud"})

    assert dataset.features[:, 0].tolist() == [0]


def test_what_is_too_young_to_learn_from_is_the_newest_traffic_up_to_as_of() -> None:
    border = AS_OF - 7 * DAY_MS
    times = [border, border + 1, AS_OF, AS_OF + 1]

    young = newest(log(times), as_of_ms=AS_OF, label_delay_ms=7 * DAY_MS)

    assert young[:, 0].tolist() == [1, 2], (
        "no row is both learned from and judged by, none is later"
    )


def test_the_order_in_which_partitions_were_read_changes_no_row_and_not_their_order() -> None:
    times = [T0 + 2, T0, T0, T0 + 2, T0, AS_OF, AS_OF - 1, AS_OF, T0 + 1]
    first = log(times)
    other = [7, 4, 8, 2, 0, 6, 5, 3, 1]
    second = replace(
        first,
        transaction_ids=first.transaction_ids.take(pa.array(other)),
        event_time_ms=first.event_time_ms[other],
        features=first.features[other],
    )

    seen = [
        (
            build(each, {"c": "fraud"}, as_of_ms=AS_OF, label_delay_ms=7 * DAY_MS),
            newest(each, as_of_ms=AS_OF, label_delay_ms=7 * DAY_MS)[:, 0].tolist(),
        )
        for each in (first, second)
    ]

    for mature, young in seen:
        assert mature.features[:, 0].tolist() == [1, 2, 4, 8, 0, 3]
        assert mature.labels.tolist() == [False, True, False, False, False, False]
        assert young == [6, 5, 7]


def test_a_row_without_a_label_counts_as_genuine_once_it_is_mature() -> None:
    dataset = built([T0, T0], {"b": "fraud"})

    assert dataset.labels.tolist() == [False, True]


def test_rows_come_in_order_of_event_time() -> None:
    dataset = built([T0 + 2, T0, T0 + 1], {"c": "fraud"})

    assert dataset.features[:, 0].tolist() == [1, 2, 0]
    assert dataset.labels.tolist() == [False, True, False]


def test_days_keeps_the_newest_mature_days() -> None:
    newest = AS_OF - 7 * DAY_MS

    dataset = built([newest, newest - DAY_MS + 1, newest - DAY_MS], {}, days=1)

    assert dataset.features[:, 0].tolist() == [1, 0]


def test_a_label_counts_only_from_the_time_it_was_given() -> None:
    answers = [answer("fraud", at_ms=AS_OF + 1)]

    assert labels_in_force(answers, AS_OF) == {}
    assert labels_in_force(answers, AS_OF + 1) == {"a": "fraud"}


def test_the_latest_label_wins_whatever_the_order_of_arrival() -> None:
    answers = [answer("genuine", at_ms=T0 + 2), answer("fraud", at_ms=T0 + 1)]

    assert labels_in_force(answers, AS_OF) == {"a": "genuine"}


def test_of_labels_given_at_the_same_time_the_later_offset_wins() -> None:
    answers = [answer("fraud", at_ms=T0), answer("genuine", at_ms=T0)]

    assert labels_in_force(answers, AS_OF) == {"a": "genuine"}


def test_unsure_counts_as_no_label() -> None:
    in_force = labels_in_force([answer("unsure", at_ms=T0)], AS_OF)

    assert built([T0], in_force).labels.tolist() == [False]


def test_labels_of_transactions_outside_the_window_take_no_memory() -> None:
    answers = [answer("fraud", at_ms=T0, transaction_id=each) for each in ("x", "b", "y", "a", "b")]

    known = list(of_transactions(answers, log([T0, T0]).transaction_ids))

    assert [each.transaction_id for each in known] == ["b", "a", "b"]
    assert list(of_transactions(answers, pa.chunked_array([], pa.string()))) == []


def labelled(frauds: list[bool]) -> Dataset:
    count = len(frauds)
    return Dataset(
        features=np.zeros((count, 1), np.float32),
        labels=np.array(frauds),
        event_time_ms=np.arange(count, dtype=np.int64),
        customers=np.array(["c"] * count),
    )


def test_the_later_part_validates() -> None:
    fit, validation, border_ms = split(labelled([True] * 100), 0.2)

    assert (len(fit.labels), len(validation.labels), border_ms) == (80, 20, 80)
    assert fit.event_time_ms.max() < validation.event_time_ms.min()


def test_no_mature_row_is_said() -> None:
    with pytest.raises(FraudstreamError, match="no scored transaction is old enough"):
        split(labelled([]), 0.2)


def test_too_few_frauds_are_counted_and_said() -> None:
    with pytest.raises(FraudstreamError, match=r"^19 known frauds in 80 transactions to fit"):
        split(labelled([True] * 19 + [False] * 61 + [True] * 20), 0.2)
    with pytest.raises(FraudstreamError, match=r"and 4 in 20 to validate"):
        split(labelled([True] * 84 + [False] * 16), 0.2)
    split(labelled([True] * 20 + [False] * 60 + [True] * 5 + [False] * 15), 0.2)
