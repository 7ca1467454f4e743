"""The protocol by which model quality on the Handbook's data is stated (`docs/features.md`, section Proof).

Train 7 days, wait 7 for the labels, test 7; of each test day the cards that are known to be defrauded by
then are left out. The model is that of the trainer: trees on a grid of at most 255 values a feature.
"""

from dataclasses import dataclass
from datetime import date
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fraudstream.core.evaluation import average_precision, card_precision_at_k, roc_auc
from fraudstream.core.feature_set import DAY_MS
from fraudstream.core.model import FloatArray
from producer.sources import event_times
from trainer.fit import fit

Bools = NDArray[np.bool_]

TRAIN_STARTS = ("2018-07-25", "2018-08-01", "2018-08-08", "2018-08-15")
TRAIN_DAYS = DELAY_DAYS = TEST_DAYS = 7
MEASURES = ("roc_auc", "average_precision", "card_precision_100")


@dataclass(frozen=True)
class Cards:
    """N transactions: `day` int64 since 1970, `fraud` bool, `card` int64 code of the customer, each [N]."""

    day: NDArray[np.int64]
    fraud: Bools
    card: NDArray[np.int64]


def cards_of(table: pa.Table) -> Cards:
    """Return the truth about a canonical table."""
    coded = table["customer"].combine_chunks().dictionary_encode()
    return Cards(
        event_times(table) // DAY_MS,
        np.asarray(table["is_fraud"]),
        np.asarray(coded.indices).astype(np.int64),
    )


def fold(cards: Cards, train_start: str) -> tuple[Bools, Bools]:
    """Return which rows train and which test, bool [N] each, for a train start such as 2018-07-25.

    A card is known on a test day if it had a fraud from the train start to 8 days before that day.
    """
    start = (date.fromisoformat(train_start) - date(1970, 1, 1)).days
    train = (cards.day >= start) & (cards.day < start + TRAIN_DAYS)
    test = np.zeros(len(cards.day), np.bool_)
    first_test = start + TRAIN_DAYS + DELAY_DAYS
    for day in range(first_test, first_test + TEST_DAYS):
        told = cards.fraud & (cards.day >= start) & (cards.day < day - DELAY_DAYS)
        test |= (cards.day == day) & ~np.isin(cards.card, np.unique(cards.card[told]))
    return train, test


def fold_figures(
    features: FloatArray, cards: Cards, train_start: str, seed: int
) -> dict[str, float]:
    """Return the three measures of the trainer's model on the test rows of a fold.

    Its trees follow from the rows alone, so a seed above 0 takes a random nine tenths of those to train.
    """
    train, test = fold(cards, train_start)
    if seed:
        train &= np.random.default_rng(seed).random(len(train)) < 0.9
    model = fit(features[train], cards.fraud[train], seed=seed)
    scores, fraud = model.probabilities(features[test]), cards.fraud[test]
    precision = card_precision_at_k(
        fraud, scores, days=cards.day[test], customers=cards.card[test], k=100
    )
    values = (roc_auc(fraud, scores), average_precision(fraud, scores), precision)
    return dict(zip(MEASURES, values, strict=True))


def stated(features: FloatArray, table: pa.Table, seeds: range) -> dict[str, Any]:
    """Return rows, frauds and measures of each fold, as the mean over `seeds`, and the mean of the folds."""
    cards = cards_of(table)
    folds: dict[str, dict[str, Any]] = {}
    for train_start in TRAIN_STARTS:
        train, test = fold(cards, train_start)
        by_seed = [fold_figures(features, cards, train_start, seed) for seed in seeds]
        precisions = [round(figures["average_precision"], 4) for figures in by_seed]
        folds[train_start] = {
            "train": [int(train.sum()), int(cards.fraud[train].sum())],
            "test": [int(test.sum()), int(cards.fraud[test].sum())],
            "average_precision_by_seed": precisions,
            **{name: round(fmean(figures[name] for figures in by_seed), 4) for name in MEASURES},
        }
    means = {name: round(fmean(each[name] for each in folds.values()), 4) for name in MEASURES}
    return {"folds": folds, "mean": means}
