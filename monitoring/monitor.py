"""The monitoring service: reads scores, answers and dead letters; tells of drift and quality."""

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Never, TypeVar

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.inference import read_contract
from fraudstream.clients.kafka import (
    init_transactions,
    topic_facts,
    transactional_producer,
    unreachable,
)
from fraudstream.clients.metrics import Condition, ServiceMetrics
from fraudstream.clients.model_registry import ModelRegistry
from fraudstream.clients.set_log import find_set
from fraudstream.clients.topic_log import TopicReader, read_to_end
from fraudstream.core import metrics as m
from fraudstream.core.errors import (
    DependencyUnreachable,
    Fenced,
    FraudstreamError,
    Refused,
)
from fraudstream.core.health import Health
from fraudstream.core.model import model_name
from fraudstream.core.reference import Reference
from fraudstream.core.settings import Settings, state_path
from fraudstream.core.topics import topic_name
from monitoring.drift import Levels
from monitoring.intake import Progress, alert_times_ms, answers_of, require_width, scores_of
from monitoring.registry_watch import RegistryWatch
from monitoring.reports import Report, key_of
from monitoring.watching import State, Watching

logger = logging.getLogger(__name__)
T = TypeVar("T")
Ranges = dict[int, tuple[int, int]]
"""By partition where to read from and to, the offset after the last."""

LOOK_S = 1.0
SAVE_S = 10.0
"""The state is written so often, and whenever something was reported; what came since is read again."""
HANGS_S = 120.0
"""A batch of records takes less, and so do the questions that are asked of a server one after the other."""
AWAY_S = 2.0
"""A server that does not answer is asked again after so long."""
TOPICS = ("feedback", "dead-letters", "alerts", "scores")
"""In this order in each round, so that labels and alerts are known when their day is judged."""
FENCED = (
    KafkaError._FENCED,  # noqa: SLF001 - librdkafka's own codes begin so
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
)


class Monitor:
    """One loop: read all that has come, report the days that are over, keep the state in a file."""

    def __init__(self, settings: Settings, levels: Levels) -> None:
        self._settings = settings
        self._levels = levels
        self._file = state_path(settings) / "monitor" / f"{settings.environment}.msgpack"
        self._watching: Watching
        """Made when the servers are there, and anew when they were away."""
        self._registry = ModelRegistry(
            settings.mlflow_url, connect_timeout_ms=settings.connect_timeout_ms
        )
        self._watch = RegistryWatch(settings)
        self._producer: Producer | None = None
        self._sent: set[str] = set()
        self._widths: dict[str, int | None] = {}
        """How many features each version has that was asked for, None where that is not known."""
        self._progress = Progress({})
        self._counted: dict[tuple[str, int], int] = {}
        """By topic and partition the offset after the last record that was counted."""
        self._saved_s = 0.0
        self._unsaved = False
        self._metrics = ServiceMetrics(m.MONITOR)
        self._pause = threading.Event()
        self.registry = self._metrics.registry
        self._condition = Condition(self._metrics, m.MONITOR_STATE, HANGS_S)

    def health(self) -> Health:
        """Return how the service is; may be called from another thread."""
        return self._condition.now

    def run(self) -> None:
        """Go on until an exception ends it: `Ended` at a signal.

        Raises:
            Refused: a topic does not exist.
            Refused: a score is none, or a topic was made anew.
            Fenced: another monitor reports now.
        """
        self._watch.start()
        while True:
            try:
                with TopicReader(self._settings) as reader:
                    self._go_on(reader)
            except DependencyUnreachable as exc:
                logger.warning("%s; asked again in %.0f s", exc, AWAY_S)
                self._producer = None
                self._condition.become(Health("waiting", str(exc)))
                self._pause.wait(AWAY_S)

    def _go_on(self, reader: TopicReader) -> Never:
        """Read round after round, until a server does not answer: a reader may have lost it for good."""
        while True:
            moved = self.round(reader)
            why = self._watch.why
            self._condition.become(Health("waiting", why) if why else Health("ready"))
            if not moved:
                self._pause.wait(LOOK_S)

    def round(self, reader: TopicReader) -> bool:
        """Read what is there now, report, save; return whether anything was there."""
        if self._producer is None:
            self._begin()
        state, moved = self._watching.state, False
        for name in TOPICS:
            topic = topic_name(self._settings.environment, name)
            ends = reader.bounds(topic)
            self._condition.move()
            before = state.offsets.setdefault(name, {})
            ranges = {p: (before.get(p, low), end) for p, (low, end) in ends.items()}
            self._check_places(topic, ranges, ends)
            if not any(begin < end for begin, end in ranges.values()):
                continue
            moved = True
            for messages in reader.batches(topic, ranges):
                self._take(name, messages)
                self._count(name, messages)
                self._condition.move()
            before |= {p: end for p, (_, end) in ranges.items()}
        if moved:
            for version in sorted(self._watching.unknown()):
                self._follow(version)
        self._report(moved=moved)
        return moved

    def _count(self, name: str, messages: Sequence[Message]) -> None:
        """Count what has not been counted; after a round that was broken off records are read again."""
        new = 0
        for each in messages:
            place, offset = (name, each.partition() or 0), each.offset() or 0
            if offset >= self._counted.get(place, 0):
                self._counted[place] = offset + 1
                new += 1
        self._metrics.counter(m.MONITOR_READ).labels(name).inc(new)

    def _report(self, *, moved: bool) -> None:
        """Tell of days that are over or mature; save then, and now and then."""
        reports = self._watching.due(self._progress.limit(self._watching.begun_ms()))
        self._tell(reports)
        self._unsaved = self._unsaved or moved
        if reports or (self._unsaved and monotonic_s() - self._saved_s > SAVE_S):
            self._save()
        if reports or moved:
            self._show()

    def _require_same_topics(self) -> None:
        """Take note of the topics' ids; refuse to go on in a topic that was made anew."""
        names = {topic_name(self._settings.environment, name): name for name in TOPICS}
        known = self._watching.state.topic_ids
        for full, facts in topic_facts(self._settings, list(names)).items():
            if known.setdefault(names[full], facts.topic_id) != facts.topic_id:
                raise Refused(f"topic {full} was made anew since it was read: {self._way_out}")

    @property
    def _way_out(self) -> str:
        return f"remove {self._file}, and the monitor begins with what is there"

    def _check_places(
        self, topic: str, ranges: Ranges, bounds: Mapping[int, tuple[int, int]]
    ) -> None:
        """Refuse to go on where what comes next is gone."""
        for partition, (begin, end) in ranges.items():
            if not bounds[partition][0] <= begin <= end:
                raise Refused(
                    f"partition {partition} of {topic} was read to {begin}, but has {bounds[partition][0]} "
                    f"to {end} now: did records expire? If so, {self._way_out}"
                )

    def _take(self, name: str, messages: Sequence[Message]) -> None:
        if name == "scores":
            self._take_scores(messages)
        elif name == "feedback":
            self._watching.labels(answers_of(messages))
        elif name == "alerts":
            self._watching.alert_records(alert_times_ms(messages))
        else:
            self._watching.dead_letters([each.timestamp()[1] for each in messages])

    def _take_scores(self, messages: Sequence[Message]) -> None:
        scored = scores_of(messages)
        self._progress.heard(messages, scored)
        versions = {each.model_version for each in scored if each.model_version is not None}
        for version in sorted(versions - self._widths.keys()):
            self._follow(version)
        require_width(messages, scored, self._widths)
        self._watching.scores(scored)

    def _follow(self, version: str) -> None:
        """Compare what this version scores with its training."""
        self._condition.move()
        reference = self._reference(version)
        self._widths[version] = None if reference is None else len(reference.features)
        self._watching.follow(version, reference)

    def _reference(self, version: str) -> Reference | None:
        """Return what a version says of its training; None, with a warning, where that cannot be had."""
        found = self._registry.version(model_name(self._settings.environment), version)
        if found is None:
            logger.warning("version %s is not in the registry: it is not compared", version)
            return None
        try:
            reference = read_contract(self._registry.fetch(found)).reference
        except DependencyUnreachable:
            raise
        except FraudstreamError as exc:
            logger.warning("version %s is not compared with its training: %s", version, exc)
            return None
        if reference is None:
            logger.warning("version %s says nothing of its training: train a new one", version)
        return reference

    def _begin(self) -> None:
        """Fence whoever reported before, then see what was reported: nothing of it can come any more.

        The state is that of the file: a round that a server broke off counts as a whole, or not.
        """
        settings = self._settings
        self._watching = Watching(
            _load(self._file),
            label_delay_ms=find_set(settings, None).label_delay_ms,
            levels=self._levels,
        )
        self._widths.clear()
        self._require_same_topics()
        self._condition.move()
        self._progress = Progress(self._watching.state.newest)
        producer = transactional_producer(
            settings, transactional_id=f"{settings.environment}.monitor"
        )
        try:
            init_transactions(producer, settings.connect_timeout_ms / 1000)
        except KafkaException as exc:
            raise unreachable(settings, exc) from exc
        self._sent = self._sent_before()
        self._producer = producer
        self._show()

    def _tell(self, reports: Sequence[Report]) -> None:
        """Write reports that are not there yet, all or none.

        Raises:
            Fenced: another monitor of this environment has begun since.
            DependencyUnreachable: the broker does not take them; a new begin sees whether it did.
        """
        new = [each for each in reports if key_of(each) not in self._sent]
        if not new or self._producer is None:
            return
        topic = topic_name(self._settings.environment, "monitoring")
        try:
            self._producer.begin_transaction()
            for each in new:
                self._producer.produce(topic, msgspec.json.encode(each), key_of(each))
            self._producer.commit_transaction(self._settings.connect_timeout_ms / 1000)
        except KafkaException as exc:
            if exc.args[0].code() in FENCED:
                raise Fenced(
                    f"another monitor of environment {self._settings.environment} reports now: run one"
                ) from exc
            raise unreachable(self._settings, exc) from exc
        for each in new:
            self._sent.add(key_of(each))
            self._metrics.counter(m.MONITOR_REPORTS).labels(each.__struct_config__.tag).inc()

    def _sent_before(self) -> set[str]:
        """Return the keys of the reports that are in the topic: they are not written again."""
        topic = topic_name(self._settings.environment, "monitoring")
        batches = read_to_end(self._settings, topic)
        keys = (each.key() for batch in batches for each in batch)
        return {key.decode() if isinstance(key, bytes) else str(key) for key in keys}

    def _save(self) -> None:
        """Write the state.

        Raises:
            FraudstreamError: the disk does not take it.
        """
        written = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with written.open("wb") as file:
                file.write(msgspec.msgpack.encode(self._watching.state))
                file.flush()
                os.fsync(file.fileno())
            written.replace(self._file)
        except OSError as exc:
            raise FraudstreamError(
                f"the state cannot be written to {self._file} ({exc.strerror}): make room, or set "
                "FRAUDSTREAM_STATE_DIR; what was reported is not reported again"
            ) from exc
        self._saved_s, self._unsaved = monotonic_s(), False
        for each in self._watching.delays_days:
            self._metrics.histogram(m.MONITOR_DELAY).observe(each)
        self._watching.delays_days.clear()

    def _show(self) -> None:
        watching, gauge = self._watching, self._metrics.gauge
        gauge(m.MONITOR_NEWEST).set(min(watching.state.newest_ms, now_ms()) or float("nan"))
        day, decided = watching.quality()
        gauge(m.MONITOR_MATURE).set(decided)
        gauge(m.MONITOR_FRAUDS).set(day.frauds)
        for metric, part, whole in (
            (m.MONITOR_RECALL, day.found, day.frauds),
            (m.MONITOR_PRECISION, day.found, day.alerts),
            (m.MONITOR_ALERT_RATE, day.alerts, decided),
        ):
            gauge(metric).set(part / whole if whole else float("nan"))
        distances, show = watching.state.distances, self._metrics.show
        open_versions = watching.open_versions() & self._widths.keys()
        show(m.MONITOR_REFERENCE, {(v,): self._widths[v] is not None for v in open_versions})
        show(m.MONITOR_PSI, {(name,): each.psi for name, each in distances.items()})
        show(m.MONITOR_KS, {(name,): each.ks for name, each in distances.items()})
        show(
            m.MONITOR_BINS,
            {
                (name, str(number)): count
                for name, each in distances.items()
                for number, count in enumerate(each.counts)
            },
        )
        show(
            m.MONITOR_DRIFT, {(name,): each.drifts for name, each in watching.state.alarms.items()}
        )


def _load(file: Path) -> State:
    """Return the state as it was saved last, a new one if there is none.

    Raises:
        Refused: the file is damaged, or of another release.
    """
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=State)
    except FileNotFoundError:
        return State()
    except msgspec.DecodeError as exc:
        raise Refused(
            f"{file} is no state of this monitor ({exc}): remove it, and everything is read again; "
            "what it has reported already is not reported twice"
        ) from exc
