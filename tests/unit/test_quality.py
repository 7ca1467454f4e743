"""Recall and precision from labels as they come: delays, corrections, order of arrival, windows."""

import random
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudstream.core.evaluation import share
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.transaction import Entities, Feedback, Label
from monitoring.quality import LabelledQuality

DELAY_MS = 7 * DAY_MS
DAY_0 = 20_000


def at(day: float) -> int:
    return int((DAY_0 + day) * DAY_MS)


def answer(name: str, day: float, label: Label = "fraud") -> Feedback:
    return Feedback(1, name, at(0), Entities("c", "t"), label, at(day))


def quality() -> LabelledQuality:
    return LabelledQuality(label_delay_ms=DELAY_MS)


def test_a_fraud_counts_once_its_label_has_come() -> None:
    seen = quality()
    seen.decide("found", at(1), alerted=True)
    seen.decide("missed", at(1), alerted=False)
    assert seen.recall(7).total == 0
    seen.label(answer("found", 2))
    seen.label(answer("missed", 3))
    assert (seen.recall(7).hits, seen.recall(7).total) == (1, 2)


def test_an_alert_without_a_label_was_wrong_when_the_label_delay_is_over() -> None:
    seen = quality()
    seen.decide("right", at(1), alerted=True)
    seen.decide("wrong", at(1), alerted=True)
    seen.label(answer("right", 2))
    seen.decide("later", at(8.9), alerted=False)
    assert seen.precision(7).total == 0, "the day is not mature"
    seen.decide("later still", at(9), alerted=False)
    assert (seen.precision(7).hits, seen.precision(7).total) == (1, 2)


def test_matured_are_the_labelled_and_the_old() -> None:
    seen = quality()
    for number in range(5):
        seen.decide(f"old {number}", at(1), alerted=False)
    seen.decide("young", at(5), alerted=False)
    seen.decide("known", at(5), alerted=False)
    seen.label(answer("known", 5.5))
    assert seen.matured() == 1
    seen.decide("now", at(9), alerted=False)
    assert seen.matured() == 6


def test_the_latest_label_is_in_force_whatever_the_order_of_arrival() -> None:
    for order in ((0, 1), (1, 0)):
        answers = [answer("a", 2, "fraud"), answer("a", 3, "genuine")]
        seen = quality()
        seen.decide("a", at(1), alerted=True)
        for index in order:
            seen.label(answers[index])
        assert seen.recall(7).total == 0, order


def test_a_label_may_come_before_its_transaction_and_a_decision_counts_once() -> None:
    seen = quality()
    seen.label(answer("a", 2))
    seen.decide("a", at(1), alerted=True)
    seen.decide("a", at(1), alerted=False)
    assert (seen.recall(7).hits, seen.recall(7).total) == (1, 1)


def test_the_series_has_a_gap_where_nothing_is_known() -> None:
    seen = quality()
    seen.decide("a", at(0), alerted=True)
    seen.decide("b", at(2), alerted=False)
    seen.label(answer("b", 3))
    assert seen.by_day() == ((None, None, 0.0), (None, None, None))
    seen.decide("c", at(8), alerted=False)
    assert seen.by_day()[1][:3] == (0.0, None, None)


def test_old_days_are_forgotten() -> None:
    seen = LabelledQuality(label_delay_ms=DELAY_MS, keep_days=10)
    seen.decide("a", at(0), alerted=True)
    seen.decide("b", at(11), alerted=True)
    seen.label(answer("a", 12))
    assert seen.recall(100).total == 0
    assert seen.precision(100).total == 0


numbers = st.integers(0, 29)
decisions = st.dictionaries(numbers, st.tuples(st.integers(0, 20), st.booleans()), max_size=30)
labels = st.dictionaries(
    st.tuples(numbers, st.integers(1, 60)),
    st.sampled_from(["fraud", "genuine", "unsure"]),
    max_size=40,
)


@given(decisions, labels, st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_figures(
    decided: dict[int, tuple[int, bool]],
    labelled: dict[tuple[int, int], Label],
    shuffler: random.Random,
) -> None:
    def decide(seen: LabelledQuality, number: int) -> None:
        day, alerted = decided[number]
        seen.decide(f"{number}", at(day), alerted=alerted)

    def label(seen: LabelledQuality, number: int, day: int) -> None:
        seen.label(answer(f"{number}", day, labelled[number, day]))

    events = [partial(decide, number=number) for number in decided]
    events += [partial(label, number=number, day=day) for number, day in labelled]
    results = []
    for _ in range(2):
        seen = quality()
        for event in events:
            event(seen)
        results.append((seen.recall(7), seen.precision(7), seen.matured(), seen.by_day()))
        shuffler.shuffle(events)
    assert results[0] == results[1]


def test_wilson_s_interval_is_that_of_the_textbook() -> None:
    found = share(10, 50)
    assert found.value == 0.2
    assert [found.low, found.high] == pytest.approx([0.1124, 0.3304], abs=1e-4)
    assert share(0, 0).value is None
    assert (share(0, 9).low, share(9, 9).high) == (0.0, 1.0)
