"""The trainer as a service: every so often it trains on what was served and promotes what passes the gate."""

import threading
from collections.abc import Callable

import msgspec

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.kafka import Broker
from fraudstream.clients.metrics import Condition, ServiceMetrics
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.set_log import find_set
from fraudstream.clients.topic_log import TopicReader
from fraudstream.core import metrics as m
from fraudstream.core.errors import DependencyUnreachable, Refused, TooLittle
from fraudstream.core.health import Health
from fraudstream.core.model import CHAMPION, model_name
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from trainer.pipeline import TrainingOptions, TrainingReport, train

SERVERS_AGAIN_S = 5.0
"""The servers are looked at so often between two rounds, and one that does not answer is asked again."""

Ends = dict[str, dict[int, tuple[int, int]]]


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
        self._seen: Ends = {}
        self._due_s = 0.0
        """When the next round is, by the clock that does not jump."""
        self._broker = Broker(settings)
        self._models = ModelRegistry(
            settings.mlflow_url,
            connect_timeout_ms=settings.request_timeout_ms,
            request_timeout_ms=settings.request_timeout_ms,
        )
        self._pause = threading.Event()
        self.registry = self._metrics.registry
        self._condition = Condition(self._metrics, m.TRAINER_STATE)

    def health(self) -> Health:
        """Return how the service is; may be called from another thread."""
        return self._condition.now

    def run(self) -> None:
        """Train, wait, train again, until an exception ends it: `Ended` at a signal.

        Raises:
            FraudstreamError: a topic does not exist, or MLflow's registry was changed by somebody else.
        """
        while True:
            try:
                self._look()
                if monotonic_s() >= self._due_s:
                    self._round()
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
        self._broker.require_answer()
        self._models.alias(model_name(self._settings.environment), CHAMPION)

    def _round(self) -> None:
        """Train, unless nothing has come since the last time."""
        ends = self._ends()
        if ends == self._seen:
            self._metrics.counter(m.TRAININGS).labels("nothing_new").inc()
            return
        started_s = monotonic_s()
        self._condition.become(Health("ready", "training"))
        outcome = self._train()
        self._seen = ends
        self._metrics.counter(m.TRAININGS).labels(outcome).inc()
        self._metrics.gauge(m.TRAINING_SECONDS).set(monotonic_s() - started_s)
        self._metrics.gauge(m.TRAINING_ENDED).set(now_ms() / 1000)

    def _train(self) -> str:
        """Return the outcome, one of those that the metric names."""
        settings, rhythm = self._settings, self._rhythm
        options = TrainingOptions(
            feature_set=find_set(settings, rhythm.feature_set),
            actor=rhythm.actor,
            days=rhythm.days,
            promote=True,
        )
        try:
            report = train(settings, options, self._say)
        except TooLittle as exc:
            self._say(f"not trained: {exc}")
            return "too_little"
        except Refused as exc:
            self._say(f"not promoted: {exc}")
            return "failed"
        return self._told(report)

    def _told(self, report: TrainingReport) -> str:
        for name, value in report.metrics.items():
            self._metrics.gauge(m.TRAINER_METRIC).labels(name).set(value)
        if not report.promoted:
            self._say(f"version {report.model_version} is not promoted: it {report.gate.why}")
            return "refused"
        self._metrics.only(m.TRAINER_MODEL, report.model_version)
        self._say(f"version {report.model_version} is champion")
        return "promoted"

    def _ends(self) -> Ends:
        names = [topic_name(self._settings.environment, each) for each in ("scores", "feedback")]
        with TopicReader(self._settings) as log:
            return {name: log.bounds(name) for name in names}
