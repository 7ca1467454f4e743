"""Watches the running system from outside: every committed result, alert, label, as it becomes readable."""

import threading
from collections import Counter, deque

import msgspec
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message, TopicPartition

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.clients.kafka import reader
from fraudstream.clients.topic_log import as_array
from fraudstream.core.errors import BadRecord, FraudstreamError
from fraudstream.core.feature_set import NINE
from fraudstream.core.scores import Decision, Stages
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name, topics
from fraudstream.core.transaction import decode_feedback
from monitoring.quality import LabelledQuality
from verify.demo.accounts import Accounts, Balance
from verify.demo.progress import Broker, Progress
from verify.demo.state import AlertLine, Latency, Series, VersionChange

WATCHED = ("scores", "alerts", "dead-letters", "feedback")
RECENT = 3_000
"""Latencies shown are those of so many newest scores."""
ALERTS_SHOWN = 30
ALERT_RATE_S = 15
ASK_S = 1.0
_AWAY = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)  # noqa: SLF001 - librdkafka's own codes


class Seen(msgspec.Struct, frozen=True, gc=False):
    """The part of a score record that the observer reads."""

    transaction_id: str
    event_time_ms: int
    source_partition: int
    source_offset: int
    source_timestamp_ms: int
    score: float | None
    decision: Decision
    model_version: str | None
    age_ms: int
    stages: Stages


class Served(msgspec.Struct, frozen=True, gc=False):
    """What a model decided on one transaction."""

    score: float
    alerted: bool
    version: str


class Watched(msgspec.Struct):
    """Everything counted so far; written by the observer's threads alone, under its lock."""

    results: Counter[str] = msgspec.field(default_factory=Counter)
    alerts: int = 0
    event_time_ms: int | None = None
    newest_sent_ms: int = 0
    """The latest Kafka timestamp of a transaction that has a score."""
    versions: list[VersionChange] = []
    pauses_ms: list[int] = []
    served: dict[str, Served] = {}
    latencies_ms: list[int] = []
    recent: deque[tuple[float, ...]] = msgspec.field(default_factory=lambda: deque(maxlen=RECENT))
    last_alerts: deque[AlertLine] = msgspec.field(
        default_factory=lambda: deque(maxlen=ALERTS_SHOWN)
    )
    rate_per_s: list[float] = []
    alerts_by_second: list[int] = []
    p99_ms: list[float | None] = []
    progress: Progress | None = None
    balance: Balance | None = None


class Observer:
    """Reads the topics of an environment from their beginning on, in a thread, until `stop`.

    `paced` says whether transactions are sent at a rate; only then latencies mean something.
    """

    def __init__(self, settings: Settings, started_s: float) -> None:
        self._started_s = started_s
        self._consumer = reader(settings, group=f"{settings.environment}.observer", tell_end=True)
        self._topics = {topic_name(settings.environment, name): name for name in WATCHED}
        self._consumer.assign(
            [
                TopicPartition(topic_name(settings.environment, t.name), p, OFFSET_BEGINNING)
                for t in topics(settings.partitions)
                if t.name in WATCHED
                for p in range(t.partitions)
            ]
        )
        self._scores = msgspec.json.Decoder(list[Seen])
        self._alerts = msgspec.json.Decoder(list[AlertLine])
        self._reached: dict[tuple[str, int], int] = {}
        self._last_by_partition: dict[int, tuple[int, str | None]] = {}
        self._accounts = Accounts()
        self._unbalanced: Progress | None = None
        self._broker = Broker(settings)
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, daemon=True, name="observer")
        self.lock = threading.Lock()
        self.quality = LabelledQuality(label_delay_ms=NINE.label_delay_ms)
        """Recall and precision by what is known now; hold `lock` while asking it."""
        self.watched = Watched()
        self.paced = False
        # Of its own, since latencies are measured by reading, and the broker may be away.
        self._asking = threading.Thread(target=self._ask, daemon=True, name="asker")
        self._thread.start()
        self._asking.start()

    def stop(self) -> None:
        """End the threads and close the connections."""
        self._stopping.set()
        self._thread.join()
        self._asking.join()
        self._consumer.close()
        self._broker.close()

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or at once when the thread has ended."""
        self._thread.join(seconds)

    def has_read_all(self) -> bool:
        """Return whether every transaction has a result that was read here."""
        progress = self.watched.progress
        return progress is not None and self.watched.results.total() >= sum(progress.ends.values())

    def check(self) -> None:
        """Raise what ended the thread, if it ended.

        Raises:
            FraudstreamError: a topic cannot be read any more.
        """
        if self._error is not None:
            raise FraudstreamError(
                f"watching the demo's topics failed: {self._error}"
            ) from self._error

    def latency(self) -> Latency | None:
        """Return the latency of the newest scores from their own ledger; None before live traffic."""
        with self.lock:
            rows = np.array(self.watched.recent)
        if not len(rows):
            return None
        return Latency(
            *np.quantile(rows[:, 0], (0.5, 0.99)).tolist(), *np.median(rows[:, 1:], axis=0).tolist()
        )

    def quantile_ms(self, q: float) -> float:
        """Return a quantile, in milliseconds, of the time from sending to a committed score read here."""
        with self.lock:
            times = np.array(self.watched.latencies_ms)
        return float(np.quantile(times, q)) if len(times) else float("nan")

    def series(self) -> Series:
        """Return the histories for the charts; hold `lock` while asking."""
        w = self.watched
        alerts = np.array(w.alerts_by_second, dtype=np.float64)
        window = np.ones(ALERT_RATE_S) * 60 / ALERT_RATE_S
        a_minute = np.convolve(alerts, window)[: len(alerts)] if len(alerts) else alerts
        return Series(
            tuple(w.rate_per_s), tuple(a_minute.tolist()), tuple(w.p99_ms), *self.quality.by_day()
        )

    def _guarded(self) -> None:
        try:
            self._run()
        except (KafkaException, msgspec.DecodeError, FraudstreamError) as exc:
            self._error = exc

    def _run(self) -> None:
        tick_s = monotonic_s()
        before = (tick_s, 0, 0)
        while not self._stopping.is_set():
            found = self._consumer.consume(2_000, 0.02)
            with self.lock:
                self._note(found, now_ms())
            if monotonic_s() >= tick_s:
                tick_s = monotonic_s() + 1.0
                before = self._tick(*before)

    def _note(self, found: list[Message], read_at_ms: int) -> None:
        values: dict[str, list[bytes]] = {name: [] for name in WATCHED}
        for message in found:
            name = self._topics[message.topic() or ""]
            if self._is_record(message, name):
                values[name].append(message.value() or b"null")
                if name == "dead-letters":
                    self._dead_letter(message)
        for score in self._scores.decode(as_array(values["scores"])):
            self._score(score, read_at_ms)
        self.watched.last_alerts.extend(self._alerts.decode(as_array(values["alerts"])))
        for value in values["feedback"]:
            self._label(value)

    def _is_record(self, message: Message, name: str) -> bool:
        error = message.error()
        partition, offset = message.partition() or 0, message.offset() or 0
        if error is None:
            self._reached[name, partition] = offset + 1
            return True
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            self._reached[name, partition] = offset
        elif error.code() not in _AWAY and not error.retriable():
            raise KafkaException(error)
        return False

    def _score(self, score: Seen, read_at_ms: int) -> None:
        w = self.watched
        w.results["scores"] += 1
        self._accounts.enter(score.source_partition, score.source_offset)
        if w.event_time_ms is None or score.event_time_ms > w.event_time_ms:
            w.event_time_ms = score.event_time_ms
        w.newest_sent_ms = max(w.newest_sent_ms, score.source_timestamp_ms)
        if self.paced:
            w.latencies_ms.append(read_at_ms - score.source_timestamp_ms)
            s = score.stages
            w.recent.append((score.age_ms, s.waiting, s.features, s.model, s.until_produce))
        if score.model_version is not None and score.score is not None:
            self._decided(score, score.model_version, score.score)

    def _decided(self, score: Seen, version: str, chance: float) -> None:
        w = self.watched
        alerted = score.decision == "alert"
        w.alerts += alerted
        w.served[score.transaction_id] = Served(chance, alerted, version)
        self.quality.decide(score.transaction_id, score.event_time_ms, alerted=alerted)
        produced_ms = score.source_timestamp_ms + score.age_ms
        last_ms, last_version = self._last_by_partition.get(score.source_partition, (0, None))
        if last_version != version:
            if last_version is not None:
                w.pauses_ms.append(produced_ms - last_ms)
            if all(change.version != version for change in w.versions):
                at_s = round(monotonic_s() - self._started_s, 1)
                w.versions.append(VersionChange(version, at_s, score.event_time_ms))
        self._last_by_partition[score.source_partition] = produced_ms, version

    def _dead_letter(self, message: Message) -> None:
        self.watched.results["dead-letters"] += 1
        places = dict(message.headers() or ())
        partition, offset = (bytes(places[f"source_{n}"] or b"") for n in ("partition", "offset"))  # type: ignore[arg-type]
        self._accounts.enter(int(partition), int(offset))

    def _label(self, value: bytes) -> None:
        try:
            self.quality.label(decode_feedback(value))
        except BadRecord:
            return  # The scorer leaves it out as well, and has logged its offset and the reason.

    def _tick(self, last_s: float, last_results: int, last_alerts: int) -> tuple[float, int, int]:
        """Add a point to the histories, and balance what was asked last."""
        w = self.watched
        now_s, results = monotonic_s(), w.results.total()
        with self.lock:
            w.rate_per_s.append((results - last_results) / max(now_s - last_s, 1e-3))
            w.alerts_by_second.append(w.alerts - last_alerts)
            count = results - last_results
            newest = [row[0] for row in w.recent][-count:] if self.paced and count else []
            w.p99_ms.append(float(np.quantile(newest, 0.99)) if newest else None)
        self._balance()
        return now_s, results, w.alerts

    def _balance(self) -> None:
        """Compare what was committed when last asked with the results, once all of those were read."""
        asked = self._unbalanced
        if asked is not None and all(
            self._reached.get(place, 0) >= end for place, end in asked.results.items()
        ):
            self.watched.balance = self._accounts.balance(asked.committed)
            self._unbalanced = None

    def _ask(self) -> None:
        """Ask the broker again and again where everything stands."""
        while not self._stopping.wait(ASK_S):
            try:
                progress = self._broker.progress()
            except (KafkaException, TimeoutError):
                continue  # The broker is away: the last answer and the last balance stay.
            with self.lock:
                self.watched.progress = progress
            if self._unbalanced is None:
                self._unbalanced = progress
