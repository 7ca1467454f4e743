"""What is known of the running demo, gathered into pictures for the live view."""

from collections import deque

from fraudstream.clients.clock import monotonic_s
from verify.demo.observer import Observer
from verify.demo.state import Picture

STORY_LINES = 40
WINDOW_DAYS = 7
"""Recall and precision shown are those of so many days of event time."""


class Board:
    """Written by the story, read by the view; `observer` None until the topics exist."""

    def __init__(self, scenario: str) -> None:
        self.started_s = monotonic_s()
        self.scenario = scenario
        self.step = "starting"
        self.observer: Observer | None = None
        self.promised_recall: float | None = None
        self.lines: deque[str] = deque(maxlen=STORY_LINES)

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the demo began."""
        return monotonic_s() - self.started_s

    def picture(self) -> Picture:
        """Return how everything is now."""
        observer = self.observer
        if observer is None:
            return Picture(
                scenario=self.scenario,
                step=self.step,
                elapsed_s=self.elapsed_s,
                story=tuple(self.lines),
            )
        latency = observer.latency()
        with observer.lock:
            w, quality = observer.watched, observer.quality
            series = observer.series()
            a_minute = series.alerts_per_min[-1] if series.alerts_per_min else 0.0
            return Picture(
                scenario=self.scenario,
                step=self.step,
                elapsed_s=self.elapsed_s,
                event_time_ms=w.event_time_ms,
                transactions=max(
                    sum(w.progress.ends.values()) if w.progress else 0, w.results.total()
                ),
                scored=w.results["scores"],
                dead_letters=w.results["dead-letters"],
                waiting=w.progress.waiting if w.progress else 0,
                difference=w.balance.difference if w.balance else None,
                checked=w.balance.checked if w.balance else 0,
                rate_per_s=series.rate_per_s[-1] if series.rate_per_s else 0.0,
                alerts=w.alerts,
                alerts_per_min=a_minute,
                latency=latency,
                versions=tuple(w.versions),
                recall=quality.recall(WINDOW_DAYS),
                precision=quality.precision(WINDOW_DAYS),
                matured=quality.matured(),
                promised_recall=self.promised_recall,
                series=series,
                last_alerts=tuple(w.last_alerts),
                story=tuple(self.lines),
            )
