"""The ends of a topic's partitions: which of my records stands there last."""

import logging
import uuid
from collections.abc import Iterator, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from msgspec import Struct

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.kafka import common, unreachable
from fraudstream.clients.kafka_headers import headers_of
from fraudstream.core.errors import BadRecord, Refused
from fraudstream.core.settings import Settings

logger = logging.getLogger(__name__)

END_OF_PARTITION = KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka's own codes begin so
TIMED_OUT = KafkaError._TIMED_OUT  # noqa: SLF001

SETTLING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)
"""What a broker says of a topic that it is just making: ask again."""

SEARCH_BACK = 1_000_000
"""So many records of a partition are searched for the last one of a source; then the search gives up."""
FIRST_WINDOW = 1_000
WINDOW_GROWTH = 16
LEAST_S = 0.05
"""What is asked for when the time is over already gets so long for an answer."""
QUIET_S = 0.2
MOST_QUIET_S = 5.0


def settled_bounds(consumer: Consumer, place: TopicPartition, timeout_s: float) -> tuple[int, int]:
    """Return first and end offset of a partition; one of a topic that was just made may have no leader yet.

    Raises:
        KafkaException: the broker does not tell within `timeout_s`.
    """
    deadline_s = monotonic_s() + timeout_s
    while True:
        try:
            return consumer.get_watermark_offsets(place, timeout=timeout_s)
        except KafkaException as exc:
            if exc.args[0].code() not in SETTLING or monotonic_s() > deadline_s:
                raise
            consumer.poll(QUIET_S / 4)


def settled_places(
    consumer: Consumer, partitions: Sequence[TopicPartition], timeout_s: float
) -> list[TopicPartition]:
    """Return what the consumer's group has committed, each partition asked for by itself.

    A broker does not tell of several at once while a transaction is about to commit one of them. Workers
    under load always are: that answer may not come for seconds (ADR 0030).

    Raises:
        KafkaException: the broker does not tell of all within `timeout_s`.
    """
    deadline_s = monotonic_s() + timeout_s
    found = [
        place
        for each in partitions
        for place in consumer.committed([each], timeout=max(deadline_s - monotonic_s(), LEAST_S))
    ]
    for place in found:
        if place.error is not None:
            raise KafkaException(place.error)
    return found


class LastRecord(Struct, frozen=True):
    """The last record of a source in a partition: its offset and its headers."""

    offset: int
    headers: dict[str, str]


def last_records(
    settings: Settings, topic: str, partitions: int, *, source: str, search_back: int = SEARCH_BACK
) -> dict[int, LastRecord]:
    """Return by partition the last committed record whose header `source` is this one.

    Looks backwards from the end in growing windows, since records of others may stand behind it.

    Raises:
        Refused: of a partition's last `search_back` records none is the source's, and older ones are
            there; or records of the source still arrive.
        DependencyUnreachable: the broker does not answer.
    """
    consumer = Consumer(_config(settings))
    try:
        return _Search(settings, consumer, topic, source).run(range(partitions), search_back)
    except KafkaException as exc:
        raise unreachable(settings, exc) from exc
    finally:
        consumer.close()


class _Search:
    """One search: the windows, what was found, and the place of each end."""

    def __init__(self, settings: Settings, consumer: Consumer, topic: str, source: str) -> None:
        self._timeout_s = settings.connect_timeout_ms / 1000
        self._settings = settings
        self._consumer = consumer
        self._topic = topic
        self._source = source.encode()
        self._found: dict[int, LastRecord] = {}

    def run(self, partitions: Sequence[int], search_back: int) -> dict[int, LastRecord]:
        bounds = {
            p: settled_bounds(self._consumer, TopicPartition(self._topic, p), self._timeout_s)
            for p in partitions
        }
        window = min(FIRST_WINDOW, search_back)
        searched = 0
        while left := [
            p for p, (low, high) in bounds.items() if p not in self._found and low < high - searched
        ]:
            if searched >= search_back:
                raise self._too_far(left[0], search_back)
            if searched:
                logger.info("looking further back: %d records of %s", window, self._topic)
            self._read({p: max(bounds[p][0], bounds[p][1] - window) for p in left})
            searched, window = window, min(window * WINDOW_GROWTH, search_back)
        self._wait_until_quiet({p: bounds[p][1] for p in partitions})
        return self._found

    def _read(self, starts: dict[int, int]) -> None:
        """Read each partition from its start to its end."""
        self._assign(starts)
        open_partitions = set(starts)
        deadline_s = monotonic_s() + self._timeout_s
        while open_partitions:
            for message in self._messages():
                deadline_s = monotonic_s() + self._timeout_s
                if message.error():
                    open_partitions.discard(message.partition() or 0)
                else:
                    self._look(message)
            if monotonic_s() > deadline_s:
                raise unreachable(self._settings, KafkaException(KafkaError(TIMED_OUT)))

    def _wait_until_quiet(self, ends: dict[int, int]) -> None:
        """A killed replay may have left a request on its way: wait until none of its records comes."""
        self._assign(ends)
        began_s = quiet_since_s = monotonic_s()
        while monotonic_s() - quiet_since_s < QUIET_S:
            if any(self._look(m) for m in self._messages() if not m.error()):
                quiet_since_s = monotonic_s()
            if monotonic_s() - began_s > MOST_QUIET_S:
                raise Refused(
                    f"records of source {self._source.decode()} still arrive in {self._topic}: another"
                    " replay of it runs; end that one first, or two would send the same rows"
                )

    def _assign(self, starts: dict[int, int]) -> None:
        self._consumer.assign([TopicPartition(self._topic, p, at) for p, at in starts.items()])

    def _messages(self) -> Iterator[Message]:
        for message in self._consumer.consume(10_000, 0.05):
            error = message.error()
            if error and error.code() in SETTLING:
                continue
            if error and error.code() != END_OF_PARTITION:
                raise KafkaException(error)
            yield message

    def _look(self, message: Message) -> bool:
        try:
            headers = headers_of(message)
        except BadRecord:
            return False  # a replay writes none like that
        if ("source", self._source) not in headers:
            return False
        texts = {name: (value or b"").decode() for name, value in headers}
        self._found[message.partition() or 0] = LastRecord(message.offset() or 0, texts)
        return True

    def _too_far(self, partition: int, search_back: int) -> Refused:
        return Refused(
            f"the last {search_back} records of {self._topic} partition {partition} hold none of source"
            f" {self._source.decode()}, and older ones were not searched: say --search-back with a larger"
            " number, or --restart if the source is to be sent from its beginning"
        )


def _config(settings: Settings) -> dict[str, object]:
    return {
        **common(settings),
        "client.id": "fraudstream-replay",
        # No group is joined; the name only has to be there.
        "group.id": f"{settings.environment}.replay.{uuid.uuid4().hex[:8]}",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 50,
        "fetch.queue.backoff.ms": 2,
    }
