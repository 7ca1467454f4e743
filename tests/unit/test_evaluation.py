"""The measures agree with scikit-learn's, and with examples counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from fraudstream.core.evaluation import (
    average_precision,
    bootstrap,
    card_precision_at_k,
    roc_auc,
    threshold_for_rate,
)

# Few distinct scores, so that ties are common.
LABELLED = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=60).filter(
    lambda rows: 0 < sum(label for label, _ in rows) < len(rows)
)


@given(LABELLED)
def test_average_precision_and_auc_are_those_of_scikit_learn(rows: list[tuple[bool, int]]) -> None:
    labels = np.array([label for label, _ in rows])
    scores = np.array([score / 5 for _, score in rows], np.float32)

    assert average_precision(labels, scores) == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )
    assert roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_measures_need_the_classes_they_compare() -> None:
    scores = np.array([0.1, 0.2])
    with pytest.raises(ValueError, match="at least one positive"):
        average_precision(np.array([False, False]), scores)
    with pytest.raises(ValueError, match="positive and negative"):
        roc_auc(np.array([True, True]), scores)


def test_a_detected_card_leaves_the_later_days() -> None:
    labels = np.array([True, False, True, False])
    scores = np.array([0.9, 0.1, 0.9, 0.8])
    customers = np.array(["a", "b", "a", "b"])

    # Day 1 finds a; on day 2 a is gone, so b is the first of the list and no fraud.
    found = card_precision_at_k(
        labels, scores, days=np.array([1, 1, 2, 2]), customers=customers, k=1
    )

    assert found == 0.5


def test_the_bootstrap_interval_holds_the_value_and_is_the_same_for_the_same_seed() -> None:
    random = np.random.default_rng(1)
    labels = random.random(500) < 0.2
    scores = random.random(500) + 0.5 * labels

    first = bootstrap(average_precision, labels, scores, rounds=50, seed=3)

    assert first.low < first.value < first.high
    assert first == bootstrap(average_precision, labels, scores, rounds=50, seed=3)
    assert first != bootstrap(average_precision, labels, scores, rounds=50, seed=4)


def test_the_threshold_lets_no_more_alerts_through_than_asked_for() -> None:
    scores = np.arange(1000) / 1000

    threshold = threshold_for_rate(scores, alerts_per_1000=5)

    assert (scores >= threshold).sum() == 5


def test_scores_tied_at_the_threshold_are_not_split() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.8] + [0.1] * 996)

    assert threshold_for_rate(scores, alerts_per_1000=3) == 0.9
    assert threshold_for_rate(scores, alerts_per_1000=4) == 0.8


def test_the_highest_score_alerts_even_if_less_than_one_alert_is_asked_for() -> None:
    assert threshold_for_rate(np.array([0.1, 0.7, 0.7]), alerts_per_1000=1) == 0.7
