"""Days of scored transactions for the monitor, and what it reports of them."""

import msgspec

from fraudstream.clients.inference import load_model
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.topic_log import read_to_end
from fraudstream.core.feature_set import DAY_MS, NINE
from fraudstream.core.model import CHAMPION, model_name
from fraudstream.core.scores import Score
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from monitoring.reports import DayReport, Report
from tests.integration.served_scores import (
    SPAN_MS,
    T0,
    fraud_label,
    made_score,
    send,
    serve,
    transactional,
)
from tests.model_samples import rows
from tests.processes import run

DAY_ROWS = 600


class Desk:
    """An environment with a champion, into which days of scored transactions come."""

    def __init__(self, settings: Settings) -> None:
        serve(settings, 12_000)
        done = run(settings, "train", "--promote", timeout_s=120)
        assert done.returncode == 0, done.stderr
        registry = ModelRegistry(settings.mlflow_url, connect_timeout_ms=5_000)
        champion = registry.alias(model_name(settings.environment), CHAMPION)
        assert champion is not None
        self.model = load_model(
            registry.fetch(champion), version="1", sha256=champion.sha256, feature_set=NINE
        )
        self.settings = settings
        self.producer = transactional(settings)

    def day(self, number: int, *, shift: float = 0.0) -> None:
        """Commit a day of scores after the history, and the labels of its frauds, dated 7 days later."""
        features, frauds = rows(DAY_ROWS, seed=100 + number)
        features = features.copy()
        features[:, 0] += shift
        chances = self.model.score(features)
        begin_ms = T0 + SPAN_MS + number * DAY_MS
        scores = [
            self._scored(number * DAY_ROWS + i, begin_ms + i * DAY_MS // DAY_ROWS, row, chance)
            for i, (row, chance) in enumerate(zip(features.tolist(), chances.tolist(), strict=True))
        ]
        answers = [
            fraud_label(s) for s, fraud in zip(scores, frauds.tolist(), strict=True) if fraud
        ]
        self.producer.begin_transaction()
        send(self.producer, self.settings, scores, answers)
        self.producer.commit_transaction()

    def _scored(self, number: int, at_ms: int, row: list[float], chance: float) -> Score:
        score = made_score(100_000 + number, event_time_ms=at_ms, features=row)
        alert = chance >= self.model.threshold
        return msgspec.structs.replace(
            score, score=chance, model_version="1", decision="alert" if alert else "pass"
        )


def plain_days(settings: Settings, days: int, *, first: int = 0) -> None:
    """Commit days of scores, from day `first` on, by a version that no registry has."""
    scores = [
        msgspec.structs.replace(
            made_score(i, event_time_ms=T0 + i * DAY_MS // DAY_ROWS, features=[1.0] * 9),
            model_version="1",
            score=0.1,
            decision="pass",
        )
        for i in range(first * DAY_ROWS, (first + days) * DAY_ROWS)
    ]
    producer = transactional(settings)
    producer.begin_transaction()
    send(producer, settings, scores, [])
    producer.commit_transaction()


def reports(settings: Settings) -> list[Report]:
    decoder = msgspec.json.Decoder(Report)
    topic = topic_name(settings.environment, "monitoring")
    return [
        decoder.decode(m.value() or b"") for batch in read_to_end(settings, topic) for m in batch
    ]


def days_over(settings: Settings, n: int) -> bool:
    return sum(isinstance(each, DayReport) for each in reports(settings)) >= n
