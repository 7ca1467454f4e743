"""The hops of a training in order: collect, build, fit, evaluate, gate, refit, export, publish, promote."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from fraudstream.clients import audit_log
from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.score_log import ScoreLog, read_feedback, read_scores
from fraudstream.core.errors import TooLittle
from fraudstream.core.evaluation import threshold_for_rate
from fraudstream.core.model import (
    CHAMPION,
    Contract,
    DataWindow,
    FloatArray,
    model_name,
    usual_values,
)
from fraudstream.core.reference import Reference, reference_of
from fraudstream.core.scores import AuditEvent
from fraudstream.core.settings import Settings
from trainer.build import (
    Dataset,
    build,
    labels_in_force,
    newest,
    of_transactions,
    split,
    window,
)
from trainer.evaluate import evaluate
from trainer.gate import Gate, pass_gate
from trainer.options import TrainingOptions
from trainer.past import LEARNED_FROM, Held, learned_from, offsets_now
from trainer.promote import Order, Promotion, promote

if TYPE_CHECKING:
    from trainer.export import Exported, Served

PARITY_ROWS = 20_000
MIN_NEWEST = 1_000
"""Fewer transactions without a mature label are too few to set a threshold by."""

Say = Callable[[str], None]


class TrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a training did; `seconds` by step, `parity` how far ONNX is from scikit-learn at most.

    `held` says why a version that passed the gate was not promoted; None otherwise.

    `metrics` and `gate` are of the fit on the earlier rows; the published trees learned from all of them.
    """

    model_name: str
    model_version: str
    sha256: str
    feature_set: str
    promoted: bool
    previous: str | None
    held: str | None
    threshold: float
    parity: float
    window: DataWindow
    metrics: dict[str, float]
    gate: Gate
    scores_read: int
    duplicates: int
    other_feature_set: int
    seconds: dict[str, float]


class Steps:
    """Says each step when it begins and what it took; `seconds` has them by name."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, sentence: str) -> Iterator[None]:
        """Time the block as step `name`."""
        self.say(f"==> {sentence}")
        start_s = monotonic_s()
        yield
        self.seconds[name] = round(monotonic_s() - start_s, 2)


@dataclass(frozen=True)
class Collected:
    """What the topics held: the served scores, the mature rows of them, and the time that labels count at.

    `newest` float32 [M, F]: features of the rows that are younger than the label delay. `offsets` are those
    that the topics had at the beginning; a little more may have been read.
    """

    offsets: dict[str, dict[int, int]]
    log: ScoreLog
    mature: Dataset
    newest: FloatArray
    as_of_ms: int


@dataclass(frozen=True)
class Validated:
    """What the fit on the `earlier` rows was worth on the `later` ones: their scores float32 [N], metrics."""

    earlier: Dataset
    later: Dataset
    split_ms: int
    scores: FloatArray
    threshold: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class Learned:
    """The sealed model file and the largest difference of its scores from scikit-learn's."""

    exported: "Exported"
    parity: float


def train(settings: Settings, options: TrainingOptions, say: Say) -> TrainingReport:
    """Train one model on what was served, publish it, and make it champion if `options.promote` says so.

    `settings` has all addresses. `say` gets one line a step.

    Raises:
        TooLittle: nothing to learn from; the message says how many rows and frauds there are.
        Refused: the exported model does not agree with the trained one, or the promotion came second.
        DependencyUnreachable: Kafka or MLflow does not answer.
    """
    steps = Steps(say)
    registry = ModelRegistry(settings.mlflow_url, connect_timeout_ms=settings.connect_timeout_ms)
    registry.alias(model_name(settings.environment), CHAMPION)  # Unreachable? Said before the work.
    with steps.step("collect", "collecting scores and labels from Kafka"):
        collected = collect(settings, options)
    steps.say(_left_out(collected))
    validated = validate(collected, options, steps=steps, alerts_per_1000=settings.alerts_per_1000)
    with steps.step("gate", "comparing with the champion on the same transactions"):
        gate = _gate(registry, settings, options, validated)
        steps.say(f"    {'passed' if gate.passed else 'not passed'}: {gate.why}")
    learned = learn(
        collected, validated, options, steps=steps, alerts_per_1000=settings.alerts_per_1000
    )
    with steps.step("publish", "publishing to MLflow"):
        version = _publish(
            settings, options, learned.exported, gate=gate, offsets=collected.offsets
        )
    outcome = Promotion(version, None, moved=False)
    if options.promote and gate.passed:
        with steps.step("promote", f"making version {version} champion"):
            outcome = _promote(settings, options, registry, version)
    return _report(settings, collected, learned, gate=gate, outcome=outcome, seconds=steps.seconds)


def collect(settings: Settings, options: TrainingOptions) -> Collected:
    """Read scores, then labels, and keep the rows whose label is mature; memory holds the window alone.

    Raises:
        TooLittle: there are no scores of this feature set.
        DependencyUnreachable: Kafka does not answer.
    """
    delay_ms, days = options.feature_set.label_delay_ms, options.days
    offsets = offsets_now(settings)
    needed = partial(window, as_of_ms=options.as_of_ms, label_delay_ms=delay_ms, days=days)
    log = read_scores(settings, options.feature_set, needed)
    if not log.read:
        raise TooLittle(
            f"no scores of feature set {options.feature_set.hash} in environment {settings.environment} "
            f"({log.other_feature_set} of other sets): run `fraudstream scorer` and `fraudstream replay`"
        )
    as_of_ms = log.newest_ms if options.as_of_ms is None else options.as_of_ms
    answers = of_transactions(read_feedback(settings), log.transaction_ids)
    labels = labels_in_force(answers, as_of_ms)
    mature = build(log, labels, as_of_ms=as_of_ms, label_delay_ms=delay_ms, days=days)
    young = newest(log, as_of_ms=as_of_ms, label_delay_ms=delay_ms)
    return Collected(offsets, log, mature, young, as_of_ms)


def validate(
    collected: Collected, options: TrainingOptions, *, steps: Steps, alerts_per_1000: float
) -> Validated:
    """Fit on the earlier rows and see what that is worth on the later ones.

    Raises:
        TooLittle: too few rows or frauds.
    """
    earlier, later, split_ms = split(collected.mature, options.validation_share)
    # Seconds of imports that commands which only read should not pay.
    with steps.step("import", "loading scikit-learn"):
        from trainer.fit import fit  # noqa: PLC0415
    with steps.step("fit", f"fitting on {len(earlier.labels):,}, {earlier.labels.sum():,} frauds"):
        fitted = fit(earlier.features, earlier.labels, seed=options.seed)
    with steps.step(
        "evaluate", f"evaluating on {len(later.labels):,}, {later.labels.sum():,} frauds"
    ):
        scores = fitted.probabilities(later.features).astype(np.float32)
        threshold, metrics = evaluate(
            later, scores, alerts_per_1000=alerts_per_1000, seed=options.seed
        )
    return Validated(earlier, later, split_ms, scores, threshold, metrics)


def learn(
    collected: Collected,
    validated: Validated,
    options: TrainingOptions,
    *,
    steps: Steps,
    alerts_per_1000: float,
) -> Learned:
    """Fit once more, on all mature rows, and export that with the contract inside (ADR 0012).

    Raises:
        Refused: ONNX and scikit-learn do not agree.
    """
    from trainer.export import check_parity, convert, golden_rows, scoring, seal  # noqa: PLC0415
    from trainer.fit import fit  # noqa: PLC0415

    rows = collected.mature
    with steps.step("refit", f"fitting on all {len(rows.labels):,}, {rows.labels.sum():,} frauds"):
        fitted = fit(rows.features, rows.labels, seed=options.seed)
    with steps.step("export", "exporting to ONNX, comparing with scikit-learn"):
        converted = convert(fitted)
        compared = rows.features[-PARITY_ROWS:]
        parity = check_parity(converted, fitted, compared)
        usual, spread = usual_values(rows.features[~rows.labels])
        served = scoring(converted)
        contract = Contract(
            feature_set=options.feature_set.hash,
            features=options.feature_set.features,
            threshold=_threshold(served, collected, validated, alerts_per_1000),
            golden_inputs=golden_rows(compared, served(compared)).tolist(),
            golden_outputs=[],
            usual=usual.tolist(),
            spread=spread.tolist(),
            window=_window(validated, as_of_ms=collected.as_of_ms),
            metrics=validated.metrics,
            created_at_ms=now_ms(),
            reference=_reference(served, collected, validated, options.feature_set.features),
        )
        return Learned(seal(converted, contract), parity)


def _threshold(
    served: "Served", collected: Collected, validated: Validated, alerts_per_1000: float
) -> float:
    """Return the score that so many of 1,000 reach in the newest traffic, whose labels are not known yet.

    What was learned from cannot say it, and the fit on the earlier rows knew less (ADR 0013).
    """
    if len(collected.newest) < MIN_NEWEST:
        return validated.threshold
    return threshold_for_rate(served(collected.newest), alerts_per_1000=alerts_per_1000)


def _reference(
    served: "Served", collected: Collected, validated: Validated, names: tuple[str, ...]
) -> Reference:
    """Return what traffic is like, and what this very model says of it: the newest, or later rows of few."""
    few = len(collected.newest) < MIN_NEWEST
    features = validated.later.features if few else collected.newest
    return reference_of(served(features), features, names)


def _gate(
    registry: ModelRegistry, settings: Settings, options: TrainingOptions, validated: Validated
) -> Gate:
    return pass_gate(
        registry,
        model_name(settings.environment),
        options.feature_set,
        validation=validated.later,
        scores=validated.scores,
        threshold=validated.threshold,
    )


def _publish(
    settings: Settings,
    options: TrainingOptions,
    exported: "Exported",
    *,
    gate: Gate,
    offsets: dict[str, dict[int, int]],
) -> str:
    """Publish the file, write both events to the audit topic, return the version."""
    from trainer.publish import publish  # noqa: PLC0415 - imports MLflow

    parameters = {"seed": str(options.seed), "days": str(options.days or "all")}
    version = publish(settings, exported, parameters)
    published = AuditEvent(
        event="publish",
        model_name=model_name(settings.environment),
        model_version=version,
        at_ms=now_ms(),
        actor=options.actor,
        why="train",
        evidence={
            "sha256": exported.sha256,
            "metrics": exported.contract.metrics,
            LEARNED_FROM: msgspec.to_builtins(learned_from(options, offsets), str_keys=True),
        },
    )
    judged = msgspec.structs.replace(
        published, event="gate", why=gate.why, evidence=msgspec.to_builtins(gate)
    )
    for event in (published, judged):
        audit_log.append(settings, event)
    return version


def _promote(
    settings: Settings, options: TrainingOptions, registry: ModelRegistry, version: str
) -> Promotion:
    order = Order(
        version=version,
        actor=options.actor,
        why="trainer" if options.by_service else "train --promote",
        now_ms=now_ms(),
        by_service=options.by_service,
    )
    try:
        return promote(settings, registry, order, feature_set=options.feature_set)
    except Held as exc:
        return Promotion(version, None, moved=False, held=str(exc))


def _window(validated: Validated, *, as_of_ms: int) -> DataWindow:
    earlier, later = validated.earlier, validated.later
    return DataWindow(
        from_ms=int(earlier.event_time_ms[0]),
        split_ms=validated.split_ms,
        to_ms=int(later.event_time_ms[-1]),
        as_of_ms=as_of_ms,
        fit_rows=len(earlier.labels),
        fit_frauds=int(earlier.labels.sum()),
        validation_rows=len(later.labels),
        validation_frauds=int(later.labels.sum()),
    )


def _left_out(collected: Collected) -> str:
    log, mature = collected.log, len(collected.mature.labels)
    served = log.read
    return (
        f"    {served:,} scored transactions, {mature:,} with a mature label; left out: "
        f"{served - mature:,} too young or too old, {log.duplicates:,} duplicates, "
        f"{log.other_feature_set:,} of another feature set"
    )


def _report(
    settings: Settings,
    collected: Collected,
    learned: Learned,
    *,
    gate: Gate,
    outcome: Promotion,
    seconds: dict[str, float],
) -> TrainingReport:
    contract = learned.exported.contract
    return TrainingReport(
        model_name=model_name(settings.environment),
        model_version=outcome.version,
        sha256=learned.exported.sha256,
        feature_set=contract.feature_set,
        promoted=outcome.moved,
        previous=outcome.previous,
        held=outcome.held,
        threshold=contract.threshold,
        parity=learned.parity,
        window=contract.window,
        metrics=contract.metrics,
        gate=gate,
        scores_read=collected.log.read,
        duplicates=collected.log.duplicates,
        other_feature_set=collected.log.other_feature_set,
        seconds=seconds,
    )
