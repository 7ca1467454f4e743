"""What a worker serves at /metrics, in Prometheus' form: its status and where its partitions are."""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from fraudstream.core import metrics as m
from fraudstream.core.health import WAITS
from scorer.ends import Ends
from scorer.histogram import Buckets
from scorer.live_sets import LiveSets
from scorer.parts import Parts
from scorer.stages import MS_PER_S
from scorer.status import Status

Labels = tuple[str, ...]
Samples = Mapping[Labels, float]
"""Values by the values of the metric's labels."""


class WorkerMetrics(Collector):
    """Reads the worker's own counters when it is asked; the hot path does nothing for it but count."""

    def __init__(self, status: Status, parts: Parts, ends: Ends) -> None:
        self._status = status
        self._parts = parts
        self._ends = ends
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> str:
        """Return the page; waits for Kafka's answer, briefly, so that no event loop should call it."""
        return generate_latest(self._registry).decode()

    def describe(self) -> Iterable[Family]:
        """Return nothing: a worker's metrics are not looked at before they are asked for."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Yield every metric that has a value now."""
        status, parts = self._status, self._parts
        plain = _counters(status) | _gauges(status) | self._partitions() | _features(parts.live)
        histograms = _histograms(status)
        for metric in m.SCORER:
            if metric.kind == "histogram":
                yield _histogram(metric, histograms[metric])
            elif samples := plain[metric]:
                yield _family(metric, samples)

    def _partitions(self) -> dict[m.Metric, Samples]:
        assignment, evenness = self._parts.assignment, self._parts.evenness
        owned = list(assignment.positions)
        apart, lags = evenness.apart(owned), assignment.lags(self._ends.now(owned))
        return {
            m.LAG: {(str(p),): lag for p, lag in lags.items()},
            m.EVENT_TIME: {(str(p),): each.event_time_ms for p, each in apart.items()},
            m.BEHIND: {(str(p),): each.behind_ms for p, each in apart.items()},
            m.HELD: {(str(p),): int(each.held) for p, each in apart.items()},
        }


def _counters(s: Status) -> dict[m.Metric, Samples]:
    plain = {
        m.RECORDS: s.records,
        m.SCORED: s.scored,
        m.ALERTS: s.alerts,
        m.POISON: s.poison,
        m.BATCHES: s.batches,
        m.ABORTED: s.aborted,
        m.REDELIVERED: s.redelivered,
        m.TRUNCATED: s.truncated,
        m.BEYOND_RETENTION: s.beyond_retention,
        m.SWAPS: s.swaps,
        m.REBUILDS: s.rebuilds,
    }
    found: dict[m.Metric, Samples] = {metric: {(): value} for metric, value in plain.items()}
    dead = dict.fromkeys(m.DEAD_LETTERS.begins_with, 0) | s.dead_by_kind
    return found | {m.SECONDS: _by(s.seconds), m.DEAD_LETTERS: _by(dead)}


def _gauges(s: Status) -> dict[m.Metric, Samples]:
    return {
        m.STATE: {(s.health().state,): 1},
        m.WAITING: {(each,): int(each == s.waiting_for) for each in WAITS},
        m.MODEL: {(s.model_version,): 1} if s.model_version else {},
        m.RESTARTS: {(s.slot,): s.restarts},
        m.REBUILD_RECORDS: {(): s.rebuild_done},
        m.REBUILD_WANTED: {(): s.rebuild_total},
    }


def _features(live: LiveSets) -> dict[m.Metric, Samples]:
    states = {each: store.state for each, store in dict(live.stores).items()}
    memory = max((state.server.memory_bytes for state in states.values()), default=0)
    return {
        m.FEATURE_CALLS: {(each,): state.server.calls for each, state in states.items()},
        m.FEATURE_MEMORY: {(): memory} if memory else {},
        m.FEATURE_STATE: {(each, state.meta.state): 1 for each, state in states.items()},
    }


def _histograms(s: Status) -> dict[m.Metric, dict[Labels, tuple[Buckets, float]]]:
    return {
        m.STAGE_SECONDS: {
            (stage,): (buckets, sum_s) for stage, buckets, sum_s in s.stages.histograms()
        },
        m.BATCH_RECORDS: {(): s.batch_records.read()},
        m.COMMIT_SECONDS: {(): s.commit_ms.read(MS_PER_S)},
        m.SCORES: {(): s.scores.read()},
    }


def _by(counts: Mapping[str, float]) -> Samples:
    return {(name,): value for name, value in dict(counts).items()}


def _family(metric: m.Metric, samples: Samples) -> Family:
    make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = make(metric.name, metric.text, labels=metric.labels)
    for labels, value in samples.items():
        family.add_metric(labels, value)
    return family


def _histogram(metric: m.Metric, found: Mapping[Labels, tuple[Buckets, float]]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
    for labels, (buckets, total) in found.items():
        family.add_metric(labels, buckets, total)
    return family
