"""Hop 5 of training: may the new version replace the champion? Both score the same held-out transactions."""

import msgspec
import numpy as np
import numpy.typing as npt

from fraudstream.clients.inference import Model, load_version
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.core.errors import Refused
from fraudstream.core.evaluation import Share, average_precision, share
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.model import CHAMPION
from trainer.build import MIN_VALIDATION_FRAUDS, Dataset

ROUNDS = 200

Scores = npt.NDArray[np.floating]


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """What the comparison found; `difference` of the average precisions, candidate minus champion.

    `low` and `high` bound it at 95 %, by a paired bootstrap over customers. The shares are those of the
    alerts, each version at its own threshold. None throughout where there was nothing to compare with.
    """

    passed: bool
    why: str
    champion: str | None
    rows: int = 0
    frauds: int = 0
    candidate_average_precision: float | None = None
    champion_average_precision: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    candidate_recall: Share | None = None
    champion_recall: Share | None = None
    candidate_precision: Share | None = None
    champion_precision: Share | None = None


def pass_gate(
    registry: ModelRegistry,
    name: str,
    feature_set: FeatureSet,
    *,
    validation: Dataset,
    scores: Scores,
    threshold: float,
) -> Gate:
    """Return whether the candidate may be promoted; `scores` [N] are its scores of the validation rows.

    It is held back only if it is worse than the champion by more than chance explains: a retraining that
    is needed must not wait for a proof that so few frauds cannot give.

    Raises:
        DependencyUnreachable: MLflow does not answer.
    """
    version = registry.alias(name, CHAMPION)
    if version is None:
        return Gate(passed=True, why="there is no champion to compare with", champion=None)
    try:
        champion = load_version(registry, version, feature_set)
    except Refused as exc:
        return Gate(
            passed=True,
            why=f"version {version.version} cannot be compared with: {exc}",
            champion=version.version,
        )
    fresh = validation.event_time_ms > champion.contract.window.to_ms
    note = ""
    if int(validation.labels[fresh].sum()) < MIN_VALIDATION_FRAUDS:
        fresh[:] = True
        note = "; the champion was fitted on some of these transactions, which favours it"
    return compare(validation.rows(fresh), (scores[fresh], threshold), champion=champion, note=note)


def compare(
    rows: Dataset, candidate: tuple[Scores, float], *, champion: Model, note: str = ""
) -> Gate:
    """Return the gate for `rows`; `candidate` has its scores [N] of them and its threshold."""
    scores, threshold = candidate
    others = champion.score(rows.features)
    found = [average_precision(rows.labels, each) for each in (scores, others)]
    low, high = difference_interval(rows, scores, others)
    passed = high >= 0
    better = "is not worse" if passed else "is worse"
    candidate_recall, candidate_precision = _worth(rows, scores >= threshold)
    champion_recall, champion_precision = _worth(rows, others >= champion.threshold)
    return Gate(
        passed=passed,
        why=(
            f"{better} than version {champion.version} on {len(rows.labels):,} held-out transactions with "
            f"{rows.labels.sum():,} frauds: average precision {found[0]:.3f} against {found[1]:.3f}, "
            f"difference {low:+.3f} to {high:+.3f}{note}"
        ),
        champion=champion.version,
        rows=len(rows.labels),
        frauds=int(rows.labels.sum()),
        candidate_average_precision=found[0],
        champion_average_precision=found[1],
        difference=found[0] - found[1],
        low=low,
        high=high,
        candidate_recall=candidate_recall,
        champion_recall=champion_recall,
        candidate_precision=candidate_precision,
        champion_precision=champion_precision,
    )


def difference_interval(rows: Dataset, scores: Scores, others: Scores) -> tuple[float, float]:
    """Return the 95 % interval of the difference in average precision, `scores` minus `others` [N].

    Paired: each round scores the same resampled customers twice, since frauds come in series by card.
    """
    _, customer = np.unique(rows.customers, return_inverse=True)
    order = np.argsort(customer, kind="stable")
    sizes = np.bincount(customer)
    first = np.cumsum(sizes) - sizes
    random = np.random.default_rng(0)
    differences = []
    for _ in range(ROUNDS):
        drawn = random.integers(0, len(sizes), len(sizes))
        counts = sizes[drawn]
        begins = np.repeat(first[drawn] - np.cumsum(counts) + counts, counts)
        chosen = order[begins + np.arange(counts.sum())]
        labels = rows.labels[chosen]
        if labels.any():
            each = (average_precision(labels, s[chosen]) for s in (scores, others))
            differences.append(next(each) - next(each))
    low, high = np.quantile(differences, (0.025, 0.975))
    return float(low), float(high)


def _worth(rows: Dataset, alerted: npt.NDArray[np.bool_]) -> tuple[Share, Share]:
    """Return recall and precision of the alerts."""
    hits = int((alerted & rows.labels).sum())
    return share(hits, int(rows.labels.sum())), share(hits, int(alerted.sum()))
