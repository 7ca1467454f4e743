"""Hop 5 of training: may the new version replace the champion? Both score the same held-out transactions.

Held back is only what is shown to be worse: the 95 % interval of the difference lies below zero. Less
than that would hold back the retrainings that matter most, as on the first days of a new fraud the
difference is still next to nothing; and a version as good as the champion does no harm (ADR 0012).
"""

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from fraudstream.clients.inference import Model, load_model
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.core.errors import Refused
from fraudstream.core.evaluation import Share, average_precision, paired_bootstrap, share
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.model import CHAMPION, FloatArray, ModelVersion
from trainer.build import MIN_VALIDATION_FRAUDS, Dataset

MOST_ALERTS = 2.0
"""A candidate may give so many times the alerts that were asked for."""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """What the comparison found; `difference` of the average precisions, candidate minus champion.

    `low` and `high` bound it at 95 %, by a paired bootstrap over customers. The shares are those of the
    alerts, each version at its own threshold. None throughout where there was nothing to compare with.
    `rows` and `frauds` were compared; `known_rows` of the validation rows lie in the champion's own data.
    """

    passed: bool
    why: str
    champion: str | None
    alerts_per_1000: float
    rows: int = 0
    frauds: int = 0
    known_rows: int = 0
    known_rows_left_out: bool = False
    candidate_average_precision: float | None = None
    champion_average_precision: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    candidate_recall: Share | None = None
    champion_recall: Share | None = None
    candidate_precision: Share | None = None
    champion_precision: Share | None = None


@dataclass(frozen=True)
class Candidate:
    """The validation rows, and what the fit that has not seen them makes of them.

    `scores` float32 [N]; an alert from `threshold` on; `alerts_asked` per 1,000 transactions.
    """

    validation: Dataset
    scores: FloatArray
    threshold: float
    alerts_asked: float

    @property
    def alerts_per_1000(self) -> float:
        """Return how many of 1,000 validation rows reach the threshold."""
        return float((self.scores >= self.threshold).mean() * 1000)

    def rows(self, wanted: npt.NDArray[np.bool_]) -> "Candidate":
        """Return the rows where `wanted` bool [N] is True."""
        return Candidate(
            self.validation.rows(wanted), self.scores[wanted], self.threshold, self.alerts_asked
        )


def judge(
    candidate: Candidate, registry: ModelRegistry, name: str, feature_set: FeatureSet
) -> Gate:
    """Return whether the candidate may take the place of the champion of model `name`.

    A champion that no scorer of this release could load (another feature set, a broken file) bars
    nobody's way.

    Raises:
        DependencyUnreachable: MLflow does not answer.
    """
    version = registry.alias(name, CHAMPION)
    number = version.version if version else None
    if fault := own_fault(candidate):
        return _without_comparison(candidate, number, fault, passed=False)
    if version is None:
        note = "there is no champion to compare with"
        return _without_comparison(candidate, number, note, passed=True)
    try:
        champion = _load(registry, version, feature_set)
    except Refused as exc:
        note = f"champion {number} cannot be compared with: {exc}"
        return _without_comparison(candidate, number, note, passed=True)
    return compare(candidate, champion)


def own_fault(candidate: Candidate) -> str | None:
    """Return what is wrong with the candidate by itself, None if nothing is."""
    if not np.isfinite(candidate.scores).all():
        return "gives scores that are no numbers"
    alerts = int((candidate.scores >= candidate.threshold).sum())
    asked = candidate.alerts_asked * len(candidate.scores) / 1000
    if alerts > max(MOST_ALERTS * asked, 1):
        return (
            f"alerts on {candidate.alerts_per_1000:.1f} of 1,000 held-out transactions, more than "
            f"{MOST_ALERTS:g} times the {candidate.alerts_asked:g} asked for"
        )
    return None


def compare(candidate: Candidate, champion: Model) -> Gate:
    """Return the gate by the rows that neither has seen, if enough frauds are among them; else by all."""
    times, window = candidate.validation.event_time_ms, champion.contract.window
    known = (times >= window.from_ms) & (times <= window.to_ms)
    left_out = int(candidate.validation.labels[~known].sum()) >= MIN_VALIDATION_FRAUDS
    used = candidate.rows(~known) if left_out else candidate
    gate = _compared(used, champion)
    return msgspec.structs.replace(
        gate,
        why=gate.why + _overlap(int(known.sum()), left_out=left_out),
        alerts_per_1000=candidate.alerts_per_1000,
        known_rows=int(known.sum()),
        known_rows_left_out=bool(left_out and known.any()),
    )


def _compared(candidate: Candidate, champion: Model) -> Gate:
    rows, scores = candidate.validation, candidate.scores
    others = champion.score(rows.features)
    found = paired_bootstrap(rows.labels, scores, others, groups=rows.customers)
    passed = found.high >= 0
    precisions = [average_precision(rows.labels, each) for each in (scores, others)]
    recall, precision = _worth(rows, scores >= candidate.threshold)
    champion_recall, champion_precision = _worth(rows, others >= champion.threshold)
    return Gate(
        passed=passed,
        why=(
            f"{'is not worse' if passed else 'is worse'} than version {champion.version} on "
            f"{len(scores):,} held-out transactions with {rows.labels.sum():,} frauds: average precision "
            f"{precisions[0]:.3f} against {precisions[1]:.3f}, difference {found.low:+.3f} to {found.high:+.3f}"
        ),
        champion=champion.version,
        alerts_per_1000=candidate.alerts_per_1000,
        rows=len(scores),
        frauds=int(rows.labels.sum()),
        candidate_average_precision=precisions[0],
        champion_average_precision=precisions[1],
        difference=found.value,
        low=found.low,
        high=found.high,
        candidate_recall=recall,
        champion_recall=champion_recall,
        candidate_precision=precision,
        champion_precision=champion_precision,
    )


def _overlap(known: int, *, left_out: bool) -> str:
    if not known:
        return ""
    if left_out:
        return f"; {known:,} more, which the champion learned from, were left out"
    return f"; the champion learned from {known:,} of them, which favours it"


def _without_comparison(
    candidate: Candidate, champion: str | None, why: str, *, passed: bool
) -> Gate:
    return Gate(
        passed=passed, why=why, champion=champion, alerts_per_1000=candidate.alerts_per_1000
    )


def _worth(rows: Dataset, alerted: npt.NDArray[np.bool_]) -> tuple[Share, Share]:
    """Return recall and precision of the alerts."""
    hits = int((alerted & rows.labels).sum())
    return share(hits, int(rows.labels.sum())), share(hits, int(alerted.sum()))


def _load(registry: ModelRegistry, version: ModelVersion, feature_set: FeatureSet) -> Model:
    if version.feature_set not in ("", feature_set.hash):
        raise Refused(f"it learned from feature set {version.feature_set}, not {feature_set.hash}")
    return load_model(
        registry.fetch(version),
        version=version.version,
        sha256=version.sha256,
        feature_set=feature_set,
        threshold=version.threshold,
    )
