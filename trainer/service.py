"""The trainer as a service: every so often it trains on what was served and promotes what passes the gate."""

import threading
from collections.abc import Callable

import msgspec

from fraudstream.clients import audit_log
from fraudstream.clients.asking import require_answer
from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.metrics import Condition, ServiceMetrics
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.set_log import find_set
from fraudstream.core import metrics as m
from fraudstream.core.errors import DependencyUnreachable, FraudstreamError, TooLittle
from fraudstream.core.health import Health
from fraudstream.core.model import CHAMPION, model_name
from fraudstream.core.settings import Settings
from trainer.options import TrainingOptions
from trainer.past import LearnedFrom, learned_from, learned_last, offsets_now
from trainer.pipeline import TrainingReport, train

HANGS_S = 3600.0
"""A training says what it does; no step of it, the fit of all trees included, takes so long."""
SERVERS_AGAIN_S = 5.0
"""The servers are looked at so often between two rounds, and one that does not answer is asked again."""


class Rhythm(msgspec.Struct, frozen=True, kw_only=True):
    """How often to train, in seconds, and on what: the newest days of mature history, None for all of it."""

    every_s: float
    days: int | None
    feature_set: str | None
    actor: str


class TrainerService:
    """One loop; what a training does is `trainer.pipeline`."""

    def __init__(self, settings: Settings, rhythm: Rhythm, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._rhythm = rhythm
        self._say = say
        self._metrics = ServiceMetrics(m.TRAINER)
        self._seen: LearnedFrom | None = None
        self._due_s = 0.0
        """When the next round is, by the clock that does not jump."""
        self._broken_off = 0
        """How many trainings in a row a server has broken off."""
        self._models = ModelRegistry(
            settings.mlflow_url,
            connect_timeout_ms=settings.request_timeout_ms,
            request_timeout_ms=settings.request_timeout_ms,
        )
        self._pause = threading.Event()
        self.registry = self._metrics.registry
        self._condition = Condition(self._metrics, m.TRAINER_STATE, HANGS_S)

    def health(self) -> Health:
        """Return how the service is; may be called from another thread."""
        return self._condition.now

    def run(self) -> None:
        """Train, wait, train again, until an exception ends it: `Ended` at a signal.

        Raises:
            Refused: a topic does not exist.
            FraudstreamError: the feature set is not live.
        """
        while True:
            try:
                self._look()
                if monotonic_s() >= self._due_s:
                    self._round()
                    self._broken_off = 0
                    self._due_s = monotonic_s() + self._rhythm.every_s
            except DependencyUnreachable as exc:
                self._say(f"{exc}; asked again in {SERVERS_AGAIN_S:.0f} s")
                self._condition.become(Health("waiting", str(exc)))
                self._pause.wait(SERVERS_AGAIN_S)
                continue
            self._condition.become(Health("ready"))
            self._pause.wait(min(max(self._due_s - monotonic_s(), 0.0), SERVERS_AGAIN_S))

    def _look(self) -> None:
        """See that both servers answer; no round needs both unless it trains.

        Raises:
            DependencyUnreachable: one does not answer within `request_timeout_ms`.
        """
        require_answer(self._settings)
        self._models.alias(model_name(self._settings.environment), CHAMPION)

    def _round(self) -> None:
        """Train, unless nothing has come since the last time, be that of another process."""
        options = self._options()
        seen = learned_from(options, offsets_now(self._settings))
        if seen == (self._seen or self._learned_last(seen)):
            self._seen = seen
            self._metrics.counter(m.TRAININGS).labels("nothing_new").inc()
            return
        started_s = monotonic_s()
        self._condition.become(Health("ready", "training"))
        outcome = self._train(options)
        self._seen = self._seen if outcome == "failed" else seen
        self._metrics.counter(m.TRAININGS).labels(outcome).inc()
        self._metrics.gauge(m.TRAINING_SECONDS).set(monotonic_s() - started_s)
        self._metrics.gauge(m.TRAINING_ENDED).set(now_ms() / 1000)

    def _options(self) -> TrainingOptions:
        rhythm = self._rhythm
        return TrainingOptions(
            feature_set=find_set(self._settings, rhythm.feature_set),
            actor=rhythm.actor,
            days=rhythm.days,
            promote=True,
            by_service=True,
        )

    def _learned_last(self, like: LearnedFrom) -> LearnedFrom | None:
        """Return what an earlier process learned from, if there is a champion to show for it."""
        name = model_name(self._settings.environment)
        if self._models.alias(name, CHAMPION) is None:
            return None
        return learned_last(audit_log.read_events(self._settings, name), like)

    def _train(self, options: TrainingOptions) -> str:
        """Return the outcome, one of those that the metric names."""
        try:
            report = train(self._settings, options, self._tell)
        except DependencyUnreachable:
            self._break_off()
            raise
        except TooLittle as exc:
            self._say(f"not trained: {exc}")
            return "too_little"
        except FraudstreamError as exc:
            self._say(f"failed: {exc}")
            return "failed"
        return self._told(report)

    def _break_off(self) -> None:
        """Wait before all the work is done again; a training that was broken off twice has failed."""
        self._broken_off += 1
        if self._broken_off > 1:
            self._metrics.counter(m.TRAININGS).labels("failed").inc()
        again_s = min(SERVERS_AGAIN_S * 2 ** min(self._broken_off, 20), self._rhythm.every_s)
        self._due_s = monotonic_s() + again_s
        self._say(f"a server broke the training off; all of it is done again in {again_s:.0f} s")

    def _tell(self, what: str) -> None:
        self._condition.move()
        self._say(what)

    def _told(self, report: TrainingReport) -> str:
        for name, value in report.metrics.items():
            self._metrics.gauge(m.TRAINER_METRIC).labels(name).set(value)
        if not report.promoted:
            why = report.held or f"it {report.gate.why}"
            self._say(f"version {report.model_version} is not promoted: {why}")
            return "held" if report.held else "refused"
        self._metrics.show(m.TRAINER_MODEL, {(report.model_version,): 1})
        self._say(f"version {report.model_version} is champion")
        return "promoted"
