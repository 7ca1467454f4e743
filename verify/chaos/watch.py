"""An outsider's watch on the results: when after a fault the first one of a partition was committed."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from statistics import median
from types import TracebackType

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from fraudstream.clients.clock import monotonic_s, now_ms
from fraudstream.core.scores import Stages
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name

ASKED_MS = {
    "restarted_worker": 3_000.0,
    "takeover": 10_000.0,
    "kafka_back": 5_000.0,
    "redis_back": 5_000.0,
}
"""How long a recovery may take, by kind, on a machine that has nothing else to do."""


class Polled(msgspec.Struct, frozen=True):
    """What of a score tells when its record was polled."""

    source_timestamp_ms: int
    stages: Stages


class Version(msgspec.Struct, frozen=True):
    """What of a score tells who made it."""

    model_version: str | None = None


class Recovery(msgspec.Struct, frozen=True):
    """How long recoveries of a kind took, in ms, from the end of the fault to the first commit.

    `late`: those that took longer than is asked, each with the fault and the one before it.
    """

    count: int
    median: float
    max: float
    late: list[str] = []


class Pending:
    """A fault that has ended: the first result of one of `partitions` produced after it ends the recovery.

    With `polled`, the first one whose record was polled after it.
    """

    def __init__(
        self, kind: Callable[[], str], partitions: set[int] | None, after: str, *, polled: bool
    ) -> None:
        self.kind = kind
        self.after = after
        self.partitions = partitions
        self.since_ms = now_ms()
        self.began_s = monotonic_s()
        self.took_s: float | None = None
        self._polled = polled

    def ended_by(self, newest: Mapping[int, Message]) -> bool:
        """Return whether one of these scores, the newest of each partition, ends the recovery."""
        places = newest.keys() if self.partitions is None else newest.keys() & self.partitions
        moment = polled_ms if self._polled else produced_ms
        return any(moment(newest[place]) > self.since_ms for place in places)


def produced_ms(score: Message) -> float:
    """Return when a score was handed to Kafka's client, in Unix ms."""
    return score.timestamp()[1]


def polled_ms(score: Message) -> float:
    """Return when the record that a score is of was polled, in Unix ms."""
    told = msgspec.json.decode(score.value() or b"", type=Polled)
    return told.source_timestamp_ms + told.stages.waiting


def version_of(score: Message) -> str | None:
    """Return the version that made a score, None for none or one that cannot be read: the oracle names it."""
    try:
        return msgspec.json.decode(score.value() or b"", type=Version).model_version
    except (ValueError, RecursionError):
        return None


class Watch:
    """Reads the committed scores in a thread; `expect` begins a measurement, `drop` gives all up."""

    def __init__(self, settings: Settings) -> None:
        self._topic = topic_name(settings.environment, "scores")
        self._partitions = settings.partitions
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.kafka_bootstrap,
                "group.id": f"{settings.environment}.chaos.watch",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "latest",
                "fetch.wait.max.ms": 20,
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pending: list[Pending] = []
        self._took: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
        self._faults: deque[str] = deque(maxlen=2)
        self._began_s = monotonic_s()
        self.seen = 0
        self._versions: set[str | None] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        places = [TopicPartition(self._topic, each) for each in range(self._partitions)]
        self._consumer.assign(places)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def expect(
        self,
        kind: str | Callable[[], str],
        partitions: set[int] | None = None,
        *,
        polled: bool = False,
    ) -> Pending:
        """Begin to measure: the fault ends now. Without partitions, any of them counts.

        A `kind` that only the recovery tells is asked for once it is over. `polled`: only results of records
        polled from now on count, where a batch may have been past what has failed.
        """
        asked = (lambda: kind) if isinstance(kind, str) else kind
        made = Pending(asked, partitions, " after ".join(reversed(self._faults)), polled=polled)
        with self._lock:
            self._pending.append(made)
        return made

    def has_seen(self, version: str) -> bool:
        """Return whether a version was seen to score."""
        return version in self._versions

    def drop(self) -> None:
        """Measure no more what is under way: another fault comes into it."""
        with self._lock:
            self._pending.clear()

    def tell(self, fault: str) -> None:
        """Note a fault, for those who ask what made a recovery slow."""
        self._faults.append(f"{fault} at {monotonic_s() - self._began_s:.1f} s")

    def recoveries(self) -> dict[str, Recovery]:
        """Return by kind how long recoveries took."""
        with self._lock:
            return {
                kind: _recovery(took, ASKED_MS.get(kind))
                for kind, took in sorted(self._took.items())
            }

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                messages = self._consumer.consume(500, 0.05)
            except KafkaException:
                continue  # the broker is away: that is the test
            now_s = monotonic_s()
            newest = {each.partition() or 0: each for each in messages if each.error() is None}
            self.seen += len(messages)
            self._versions |= {version_of(each) for each in newest.values()}
            if newest:
                self._note(newest, now_s)

    def _note(self, newest: Mapping[int, Message], now_s: float) -> None:
        with self._lock:
            for each in list(self._pending):
                if each.ended_by(newest):
                    each.took_s = now_s - each.began_s
                    self._took[each.kind()].append((each.took_s * 1000, each.after))
                    self._pending.remove(each)


def _recovery(found: list[tuple[float, str]], asked_ms: float | None) -> Recovery:
    took = [each for each, _ in found]
    most = float("inf") if asked_ms is None else asked_ms
    late = [f"{each:.0f} ms: {after}" for each, after in found if each > most]
    return Recovery(len(took), round(median(took), 1), round(max(took), 1), late)
