"""What the live decisions were worth: the served scores held against the truth of the source."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from fraudstream.clients.inference import Model, load_version
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.score_log import read_scores
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.evaluation import average_precision
from fraudstream.core.feature_set import DAY_MS, NINE
from fraudstream.core.model import CHAMPION, Contract, ModelVersion, model_name
from fraudstream.core.settings import Settings
from verify.demo.observer import Watched
from verify.demo.periods import Bools, Period, Retrained, Truth, gain_of, period, truth_of
from verify.demo.scenarios import Scenario
from verify.demo.stage import Play


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of the live part; None where there was no fraud, or no such period."""

    frauds: int
    average_precision: float | None
    lift_over_chance: float | None
    periods: tuple[Period, ...]
    retraining: Retrained | None

    def of(self, name: str, measure: str) -> float | None:
        """Return the value of `recall` or `precision` in the period `name`, rounded."""
        for found in self.periods:
            if found.name == name:
                value: float | None = getattr(found, measure).value
                return None if value is None else round(value, 4)
        return None


class Decisions(msgspec.Struct, frozen=True):
    """What was served for the N live transactions of the truth.

    `served` and `alerted` bool [N], `score` float64 [N] (0 where not served), `version` [N] as the place
    in `versions` (-1 where not served).
    """

    served: Bools
    alerted: Bools
    score: NDArray[np.float64]
    version: NDArray[np.int64]
    versions: tuple[str, ...]


def judge(settings: Settings, play: Play, scenario: Scenario, watched: Watched) -> Judgement:
    """Return what the live decisions were worth, in all and by period."""
    rows = play.source.table.slice(play.source.start + play.history, play.live)
    truth = truth_of(rows)
    made = _decisions(truth, watched)
    frauds = int((truth.fraud & made.served).sum())
    precision = (
        average_precision(truth.fraud[made.served], made.score[made.served]) if frauds else None
    )
    chance = frauds / max(int(made.served.sum()), 1)
    periods = tuple(_periods(play, scenario, truth, made))
    return Judgement(
        frauds=frauds,
        average_precision=None if precision is None else round(precision, 4),
        lift_over_chance=None if precision is None else round(precision / chance, 1),
        periods=periods,
        retraining=_retraining(settings, truth, made),
    )


def contract_of(settings: Settings) -> Contract:
    """Return the contract of the champion.

    Raises:
        FraudstreamError: there is none.
    """
    registry = _registry(settings)
    return _load(registry, registry.alias(model_name(settings.environment), CHAMPION)).contract


def _decisions(truth: Truth, watched: Watched) -> Decisions:
    found = [watched.served.get(name) for name in truth.ids]
    versions = tuple(change.version for change in watched.versions)
    place = {version: index for index, version in enumerate(versions)}
    return Decisions(
        np.array([each is not None for each in found]),
        np.array([each is not None and each.alerted for each in found]),
        np.array([0.0 if each is None else each.score for each in found]),
        np.array([-1 if each is None else place[each.version] for each in found]),
        versions,
    )


def _periods(play: Play, scenario: Scenario, truth: Truth, made: Decisions) -> list[Period]:
    """Return the periods of a scenario: by the day of what happens, and by the version that served."""
    day = scenario.new_fraud_day if scenario.wave_day is None else scenario.wave_day
    if day is None:
        return [_period("all of it", truth, made.served, made)]
    onset_ms = play.day_ms(day)
    calm = made.served & (truth.event_time_ms < onset_ms)
    later = made.served & ~calm
    if scenario.wave_day is not None:
        wave = later & (truth.event_time_ms < onset_ms + DAY_MS)
        chosen = {"calm": calm, "attack": wave, "afterwards": later & ~wave}
    else:
        first = made.version == 0
        chosen = {"calm": calm, "before": later & first, "after": later & ~first}
    return [_period(name, truth, rows, made) for name, rows in chosen.items() if rows.any()]


def _period(name: str, truth: Truth, chosen: Bools, made: Decisions) -> Period:
    versions = tuple(made.versions[index] for index in np.unique(made.version[chosen]))
    return period(name, truth, chosen, made.alerted, versions)


def _retraining(settings: Settings, truth: Truth, made: Decisions) -> Retrained | None:
    """Return what the first model would have found of the frauds that a later one decided on.

    By the very features that were served.
    """
    frauds = np.flatnonzero(made.served & (made.version > 0) & truth.fraud)
    if not len(frauds):
        return None
    registry = _registry(settings)
    first = registry.version(model_name(settings.environment), made.versions[0])
    model = _load(registry, first)
    log = read_scores(settings, NINE)
    row = {name: index for index, name in enumerate(log.ids())}
    features = log.features[[row[truth.ids[i]] for i in frauds]]
    alone = model.score(features) >= model.threshold
    return gain_of(made.alerted[frauds], alone, truth.incident[frauds])


def _registry(settings: Settings) -> ModelRegistry:
    return ModelRegistry(settings.mlflow_url, connect_timeout_ms=settings.connect_timeout_ms)


def _load(registry: ModelRegistry, version: ModelVersion | None) -> Model:
    if version is None:
        raise FraudstreamError("the demo's model is gone from MLflow")
    return load_version(registry, version, NINE)
