"""Hop 4 of training: what the model is worth on the later transactions, and from which score to alert."""

import numpy as np
import numpy.typing as npt

from fraudstream.core.evaluation import (
    average_precision,
    bootstrap,
    card_precision_at_k,
    roc_auc,
    threshold_for_rate,
)
from fraudstream.core.feature_set import DAY_MS
from trainer.build import Dataset


def evaluate(
    validation: Dataset, scores: npt.NDArray[np.floating], *, alerts_per_1000: float, seed: int
) -> tuple[float, dict[str, float]]:
    """Return threshold and measures for `scores` [N] of the validation rows.

    `chance` is the share of frauds, which is the average precision of a guess; recall and precision
    are those of the alerts at the threshold.
    """
    labels = validation.labels
    threshold = threshold_for_rate(scores, alerts_per_1000=alerts_per_1000)
    alerted = scores >= threshold
    precision = bootstrap(average_precision, labels, scores, rounds=100, seed=seed)
    return threshold, {
        "average_precision": precision.value,
        "average_precision_low": precision.low,
        "average_precision_high": precision.high,
        "roc_auc": roc_auc(labels, scores),
        "card_precision_100": card_precision_at_k(
            labels,
            scores,
            days=validation.event_time_ms // DAY_MS,
            customers=validation.customers,
        ),
        "chance": float(labels.mean()),
        "alerts_per_1000": float(alerted.mean() * 1000),
        "alert_precision": float(labels[alerted].mean()),
        "alert_recall": float(alerted[labels].mean()),
    }
