"""The gate: a candidate that is worse than the champion is held back, one that is not is let through."""

import numpy as np
import pytest

from fraudstream.clients.inference import Model, load_model
from fraudstream.core.feature_set import NINE
from tests.model_samples import rows, sample
from trainer.build import Dataset
from trainer.gate import compare, difference_interval


@pytest.fixture(scope="module")
def champion() -> Model:
    exported = sample().exported
    return load_model(exported.onnx_bytes, version="1", sha256=exported.sha256, feature_set=NINE)


@pytest.fixture(scope="module")
def held_out() -> Dataset:
    features, labels = rows(4_000, seed=11)
    customers = np.array([f"c{number % 300}" for number in range(4_000)])
    return Dataset(features, labels, np.arange(4_000), customers)


def test_the_champion_s_own_scores_pass_with_a_difference_of_nothing(
    champion: Model, held_out: Dataset
) -> None:
    gate = compare(held_out, (champion.score(held_out.features), 0.5), champion=champion)
    assert gate.passed
    assert (gate.difference, gate.low, gate.high) == (0, 0, 0)
    assert gate.candidate_recall == gate.champion_recall
    assert "is not worse than version 1 on 4,000 held-out transactions" in gate.why


def test_the_truth_itself_passes_and_its_figures_are_right(
    champion: Model, held_out: Dataset
) -> None:
    gate = compare(held_out, (held_out.labels.astype(np.float32), 0.5), champion=champion)
    assert gate.passed
    assert gate.candidate_average_precision == 1
    assert gate.low is not None
    assert gate.low > 0
    assert gate.candidate_recall is not None
    assert gate.candidate_recall.hits == gate.candidate_recall.total == gate.frauds


def test_scores_of_chance_are_held_back(champion: Model, held_out: Dataset) -> None:
    guess = np.random.default_rng(1).random(len(held_out.labels))
    gate = compare(held_out, (guess, 0.5), champion=champion, note="; a note")
    assert not gate.passed
    assert gate.why.startswith("is worse than version 1")
    assert gate.why.endswith("; a note")


def test_the_interval_is_paired_and_by_customer(held_out: Dataset) -> None:
    random = np.random.default_rng(2)
    scores = held_out.labels + random.normal(0, 0.3, len(held_out.labels))
    slightly = scores + random.normal(0, 1e-4, len(scores))
    low, high = difference_interval(held_out, scores, slightly)
    assert high - low < 0.005, "the same customers for both"
    one = Dataset(
        held_out.features, held_out.labels, held_out.event_time_ms, np.zeros(4_000, np.str_)
    )
    low, high = difference_interval(one, scores, random.random(len(scores)))
    assert high == low, "with one customer there is nothing to resample"
