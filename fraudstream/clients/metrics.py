"""The metrics of one service as prometheus-client has them, made from the typed list."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.health import STATES, Health, State, hanging
from fraudstream.core.metrics import Metric


class ServiceMetrics:
    """What a service sets and counts, in a registry of its own, and how its process is."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._counters: dict[Metric, Counter] = {}
        self._gauges: dict[Metric, Gauge] = {}
        self._histograms: dict[Metric, Histogram] = {}
        self._shown: dict[Metric, set[tuple[str, ...]]] = {}
        for metric in metrics:
            self._make(metric)

    def counter(self, metric: Metric) -> Counter:
        """Return a counter of the list."""
        return self._counters[metric]

    def gauge(self, metric: Metric) -> Gauge:
        """Return a gauge of the list."""
        return self._gauges[metric]

    def histogram(self, metric: Metric) -> Histogram:
        """Return a histogram of the list."""
        return self._histograms[metric]

    def state(self, metric: Metric, now: Callable[[], State]) -> None:
        """Show the one state that a service is in, of all that there are, as `now` says when it is asked."""

        def holds(state: State) -> float:
            return float(now() == state)

        for each in STATES:
            self.gauge(metric).labels(each).set_function(partial(holds, each))

    def show(self, metric: Metric, values: Mapping[tuple[str, ...], float]) -> None:
        """Show these values of a gauge by its labels, and none of those that were shown before."""
        gauge = self.gauge(metric)
        for labels in self._shown.get(metric, set()) - values.keys():
            gauge.remove(*labels)
        for labels, value in values.items():
            gauge.labels(*labels).set(value)
        self._shown[metric] = set(values)

    def _make(self, metric: Metric) -> None:
        name, text, labels, registry = metric.name, metric.text, metric.labels, self.registry
        if metric.kind == "counter":
            counter = self._counters[metric] = Counter(name, text, labels, registry=registry)
            for value in metric.begins_with:
                counter.labels(value)
        elif metric.kind == "gauge":
            gauge = self._gauges[metric] = Gauge(name, text, labels, registry=registry)
            if not labels:
                gauge.set(float("nan"))  # not known yet: no rule takes it for a zero
        else:
            made = Histogram(name, text, labels, registry=registry, buckets=metric.edges)
            self._histograms[metric] = made


class Condition:
    """How a service is, as its loop says; the gauge of its state shows the same.

    A loop that says nothing for `most_s` seconds hangs: nothing that it does takes so long.
    """

    def __init__(self, metrics: ServiceMetrics, metric: Metric, most_s: float) -> None:
        self._said = Health("starting")
        self._most_s = most_s
        self._moved_s = monotonic_s()
        metrics.state(metric, lambda: self.now.state)

    @property
    def now(self) -> Health:
        """What the loop said last, or that it hangs; may be asked by other threads."""
        still_s = monotonic_s() - self._moved_s
        return self._said if still_s <= self._most_s else hanging(still_s)

    def become(self, health: Health) -> None:
        """Be so from now on."""
        self._said = health
        self.move()

    def move(self) -> None:
        """Take note that the loop goes on, in the midst of something long."""
        self._moved_s = monotonic_s()
