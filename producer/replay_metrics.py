"""What a replay serves with `--metrics-port`: how far it is, and whether it still sends."""

from collections.abc import Callable

from fraudstream.clients.metrics import ServiceMetrics
from fraudstream.core import metrics as m
from fraudstream.core.health import Health
from producer.replay import Progress

SILENT_S = 5.0
"""Kafka that has taken nothing for so long is waited for."""


class ReplayMetrics:
    """Set by the replay's own progress, in its thread; read by the web server's."""

    def __init__(self) -> None:
        self._metrics = ServiceMetrics(m.PRODUCER)
        self._sent = self._labels = 0
        self._silent_s: Callable[[], float] | None = None
        self.registry = self._metrics.registry
        self._metrics.state(m.REPLAY_STATE, lambda: self.health().state)

    def show(self, progress: Progress) -> None:
        """Take over where the replay is."""
        made = self._metrics
        made.counter(m.REPLAY_SENT).inc(progress.sent - self._sent)
        made.counter(m.REPLAY_LABELS).inc(progress.labels - self._labels)
        self._sent, self._labels = progress.sent, progress.labels
        made.gauge(m.REPLAY_ROWS).set(progress.total)
        made.gauge(m.REPLAY_POSITION).set(progress.position)
        made.gauge(m.REPLAY_LATE).set(progress.lag_s)
        made.gauge(m.REPLAY_EVENT_TIME).set(progress.event_time_ms)
        self._silent_s = progress.silent_s

    def health(self) -> Health:
        """Return `ready` while it goes on; the gauge of the state says the same."""
        if self._silent_s is None:
            return Health("starting")
        if (silent_s := self._silent_s()) > SILENT_S:
            return Health("waiting", f"Kafka has taken nothing for {silent_s:.0f} s")
        return Health("ready")
