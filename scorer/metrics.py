"""What a worker serves at /metrics, in Prometheus' form: its status and where its partitions are."""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from fraudstream.core import metrics as m
from scorer.evenness import Apart
from scorer.hot_path import HotPath
from scorer.status import Status

Samples = Mapping[str, float]
"""Values by the metric's label; by "" for one without labels."""


class WorkerMetrics(Collector):
    """Reads the hot path's own counters when it is asked; the hot path does nothing for it."""

    def __init__(self, hot_path: HotPath) -> None:
        self._hot_path = hot_path
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> str:
        """Return the page."""
        return generate_latest(self._registry).decode()

    def describe(self) -> Iterable[Family]:
        """Return nothing: a worker's metrics are not looked at before they are asked for."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Yield every metric that has a value now."""
        status = self._hot_path.status
        found = {**_counters(status), **_gauges(status), **_partitions(self._hot_path.apart)}
        for metric in m.SCORER:
            if metric.kind == "histogram":
                yield _histogram(metric, status)
            elif samples := found[metric]:
                yield _family(metric, samples)


def _counters(s: Status) -> dict[m.Metric, Samples]:
    plain = {
        m.RECORDS: s.records,
        m.SCORED: s.scored,
        m.ALERTS: s.alerts,
        m.DEAD_LETTERS: s.dead_letters,
        m.POISON: s.poison,
        m.BATCHES: s.batches,
        m.ABORTED: s.aborted,
        m.REDELIVERED: s.redelivered,
        m.TRUNCATED: s.truncated,
        m.BEYOND_RETENTION: s.beyond_retention,
        m.SWAPS: s.swaps,
        m.REBUILDS: s.rebuilds,
    }
    return {metric: {"": value} for metric, value in plain.items()} | {m.SECONDS: dict(s.seconds)}


def _gauges(s: Status) -> dict[m.Metric, Samples]:
    return {
        m.STATE: {s.state: 1},
        m.WAITING: {s.waiting_for: 1} if s.waiting_for else {},
        m.REBUILD_RECORDS: {"": s.rebuild_done},
        m.REBUILD_WANTED: {"": s.rebuild_total},
    }


def _partitions(apart: Mapping[int, Apart]) -> dict[m.Metric, Samples]:
    return {
        m.EVENT_TIME: {str(p): each.event_time_ms for p, each in apart.items()},
        m.BEHIND: {str(p): each.behind_ms for p, each in apart.items()},
        m.HELD: {str(p): int(each.held) for p, each in apart.items()},
    }


def _family(metric: m.Metric, samples: Samples) -> Family:
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(metric.name, metric.text, labels=metric.labels)
    for label, value in samples.items():
        family.add_metric([label] if metric.labels else [], value)
    return family


def _histogram(metric: m.Metric, status: Status) -> Family:
    family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
    for stage, buckets, total_s in status.stages.histograms():
        family.add_metric([stage], buckets, total_s)
    return family
