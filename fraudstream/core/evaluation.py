"""Measures of a model on labelled scores, in plain numpy (no scikit-learn in the scorer)."""

from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]
Labels = npt.NDArray[np.bool_]
Measure = Callable[[Labels, Scores], float]


class Interval(msgspec.Struct, frozen=True):
    """A measure with its bootstrap interval."""

    value: float
    low: float
    high: float


class Share(msgspec.Struct, frozen=True):
    """`hits` of `total` with its 95 % Wilson interval; the shares are None while `total` is 0."""

    hits: int
    total: int
    value: float | None
    low: float | None
    high: float | None


def share(hits: int, total: int) -> Share:
    """Return `hits` of `total` with the 95 % interval of Wilson (1927), as of independent trials."""
    if total == 0:
        return Share(hits, total, None, None, None)
    z2 = 1.959964**2
    p = hits / total
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = np.sqrt(z2 * (p * (1 - p) / total + z2 / (4 * total**2))) / (1 + z2 / total)
    return Share(hits, total, p, max(float(centre - half), 0.0), min(float(centre + half), 1.0))


def average_precision(labels: Labels, scores: Scores) -> float:
    """Return the average precision, 0 to 1: sum over thresholds of (recall step) * precision.

    `labels` bool [N], True is fraud; `scores` [N], higher is riskier; equal scores are one threshold.
    Same definition as scikit-learn's `average_precision_score`.

    Raises:
        ValueError: no positive label.
    """
    hits, alarms = _cumulated(labels, scores)
    if hits[-1] == 0:
        raise ValueError("average precision needs at least one positive label")
    precision = hits / alarms
    recall_steps = np.diff(hits, prepend=0) / hits[-1]
    return float(np.sum(recall_steps * precision))


def roc_auc(labels: Labels, scores: Scores) -> float:
    """Return the area under the ROC curve, 0 to 1: the chance that a fraud outscores a genuine one.

    `labels` bool [N], `scores` [N]; ties count half (Mann-Whitney U / (positives * negatives)).

    Raises:
        ValueError: only one class is present.
    """
    hits, alarms = _cumulated(labels, scores)
    false_alarms = alarms - hits
    if hits[-1] == 0 or false_alarms[-1] == 0:
        raise ValueError("the area under the ROC curve needs positive and negative labels")
    area = np.trapezoid(np.append(0, hits), np.append(0, false_alarms))
    return float(area / (hits[-1] * false_alarms[-1]))


def card_precision_at_k(
    labels: Labels,
    scores: Scores,
    *,
    days: npt.NDArray[np.integer],
    customers: npt.NDArray[np.generic],
    k: int = 100,
) -> float:
    """Return the card precision at `k`, 0 to 1, as the Fraud Detection Handbook defines it.

    Per day, a customer counts with the highest of its scores; of the `k` highest the share of
    defrauded customers is taken, and those detected leave the later days. Mean over the days.
    `days` and `customers` [N] are day number and identity of each transaction.
    """
    detected: set[object] = set()
    shares = []
    for day in np.unique(days):
        on_day = days == day
        cards = _by_card(customers[on_day].tolist(), scores[on_day].tolist(), labels[on_day])
        top = sorted(
            (
                (score, fraud, card)
                for card, (score, fraud) in cards.items()
                if card not in detected
            ),
            key=lambda entry: -entry[0],
        )[:k]
        found = {card for _, fraud, card in top if fraud}
        detected |= found
        shares.append(len(found) / k)
    return float(np.mean(shares))


def bootstrap(
    measure: Measure, labels: Labels, scores: Scores, *, rounds: int = 200, seed: int = 0
) -> Interval:
    """Return `measure` with its 95 % percentile interval over `rounds` resamplings of the rows.

    Positives and negatives are drawn separately, so that each round has both.
    """
    random = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels), np.flatnonzero(~labels)]
    values = []
    for _ in range(rounds):
        rows = np.concatenate([random.choice(group, len(group)) for group in groups if len(group)])
        values.append(measure(labels[rows], scores[rows]))
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(measure(labels, scores), float(low), float(high))


def threshold_for_rate(scores: Scores, *, alerts_per_1000: float) -> float:
    """Return the lowest score such that at most `alerts_per_1000` of 1,000 `scores` reach it.

    Equal scores are not split, so ties can make it fewer; at least one score reaches the threshold.
    `scores` [N], N >= 1.
    """
    values, counts = np.unique(scores, return_counts=True)
    reaching = np.cumsum(counts[::-1])[::-1]
    allowed = len(scores) * alerts_per_1000 / 1000
    fits = np.flatnonzero(reaching <= allowed)
    return float(values[fits[0]] if len(fits) else values[-1])


def _cumulated(
    labels: Labels, scores: Scores
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return, per distinct score from the highest down, positives and rows that reach it."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_ties = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    hits = np.cumsum(labels[order])[last_of_ties].astype(np.float64)
    return hits, (last_of_ties + 1).astype(np.float64)


def _by_card(
    cards: list[object], scores: list[float], labels: Labels
) -> dict[object, tuple[float, bool]]:
    """Return per card its highest score and whether any of its transactions was fraud."""
    best: dict[object, tuple[float, bool]] = {}
    for card, score, fraud in zip(cards, scores, labels.tolist(), strict=True):
        known = best.get(card, (float("-inf"), False))
        best[card] = (max(known[0], score), known[1] or fraud)
    return best
