"""The three topics of a ledger as they grow: read on and on, their ends, and that they stay the same."""

from collections.abc import Collection, Sequence

import msgspec
from kafka import TopicPartition
from kafka.admin import OffsetSpec
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError

from fraudstream.clients.kafka_python import AWAY
from fraudstream.core.errors import DependencyUnreachable, FraudstreamError, Refused
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from verify.ledger import Log

RESULTS = ("scores", "dead-letters")
NAMES = (*RESULTS, "transactions")
"""The topics that are followed, by base name."""

Place = tuple[str, int]
"""A partition: topic by base name, number."""


class Topic(msgspec.Struct, frozen=True):
    """What a topic is right now: its id (new when it is made anew), its number of partitions."""

    topic_id: str
    partitions: int


class LiveLog(Log):
    """An independent reader that goes on as records come; raises as `Log`, and in each method.

    Raises:
        DependencyUnreachable: the broker does not answer now; everything that was read stays, go on later.
        Refused: a topic is gone or was made anew, or records were deleted before they were read.
        FraudstreamError: kafka-python cannot read a record (its compression, or it is corrupt).
    """

    request_ms = 5_000
    """Short, for the balance is not shown while an answer is awaited."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._address = settings.kafka_bootstrap
        self._topics: dict[str, Topic] = {}
        self._base = {topic_name(self._environment, name): name for name in NAMES}

    def grown(self) -> list[tuple[Place, int]]:
        """Look at the topics; return the partitions that are new since the last look, and their begin."""
        try:
            found = self._describe()
            new = [
                (name, number)
                for name, topic in found.items()
                for number in range(self._partitions(name), topic.partitions)
            ]
            begins = self._offsets(new, OffsetSpec.EARLIEST)
            self._topics = found
            self._follow(begins)
        except KafkaError as exc:
            raise self._translated(exc) from exc
        return list(begins.items())

    def committed(self, group: str) -> dict[int, int]:
        """Return the next offset of each partition of `transactions` by the scorers' group."""
        try:
            return self._of_transactions(self._admin.list_group_offsets({group: None})[group])
        except KafkaError as exc:
            raise self._translated(exc) from exc

    def written(self, names: Sequence[str]) -> dict[Place, int]:
        """Return the ends of topics as of now, records of open transactions included, as `Log.ends`."""
        places = [(name, number) for name in names for number in range(self._partitions(name))]
        try:
            return self._offsets(places, OffsetSpec.LATEST)
        except KafkaError as exc:
            raise self._translated(exc) from exc

    def read(self, timeout_ms: int) -> dict[Place, list[ConsumerRecord]]:
        """Return the committed records that have come, by partition; none may come within `timeout_ms`."""
        try:
            found = self._consumer.poll(timeout_ms=timeout_ms)
        except KafkaError as exc:
            raise self._translated(exc) from exc
        return {(self._base[tp.topic], tp.partition): records for tp, records in found.items()}

    def position(self, place: Place) -> int:
        """Return the offset below which everything committed of a partition has been returned."""
        try:
            return int(self._consumer.position(self._partition(place)))
        except KafkaError as exc:
            raise self._translated(exc) from exc

    def hold(self, names: Collection[str]) -> None:
        """Read nothing of the topics in `names` until told otherwise, and everything of the others."""
        places = [self._partition((n, p)) for n in NAMES for p in range(self._partitions(n))]
        held = [place for place in places if self._base[place.topic] in names]
        self._consumer.resume(*(place for place in places if place not in held))
        self._consumer.pause(*held)

    def _describe(self) -> dict[str, Topic]:
        found = {}
        for told in self._admin.describe_topics(list(self._base)):
            name = self._base[told["name"]]
            if told["error_code"] == UNKNOWN_TOPIC:
                raise Refused(
                    f"topic {told['name']} does not exist: make it with `fraudstream topics create`"
                )
            topic = Topic(str(told["topic_id"]), len(told["partitions"]))
            before = self._topics.get(name, topic)
            if topic.topic_id != before.topic_id or topic.partitions < before.partitions:
                raise Refused(
                    f"topic {told['name']} was made anew while it was read: its offsets mean other "
                    "records now; start the ledger again"
                )
            found[name] = topic
        return found

    def _follow(self, begins: dict[Place, int]) -> None:
        if not begins:
            return
        self._consumer.assign(
            [self._partition((n, p)) for n in NAMES for p in range(self._partitions(n))]
        )
        for place, begin in begins.items():
            self._consumer.seek(self._partition(place), begin)

    def _offsets(self, places: Sequence[Place], spec: OffsetSpec) -> dict[Place, int]:
        if not places:
            return {}
        asked = {self._partition(place): spec for place in places}
        found = self._admin.list_partition_offsets(asked)
        return {(self._base[tp.topic], tp.partition): at.offset for tp, at in found.items()}

    def _partitions(self, name: str) -> int:
        return self._topics[name].partitions if name in self._topics else 0

    def _partition(self, place: Place) -> TopicPartition:
        return TopicPartition(topic_name(self._environment, place[0]), place[1])

    def _translated(self, exc: KafkaError) -> FraudstreamError:
        if isinstance(exc, OffsetOutOfRangeError | LogTruncationError):
            return Refused(
                f"records were deleted before the ledger has read them, or a topic was made anew ({exc}): "
                "start the ledger again"
            )
        if isinstance(exc, AWAY):
            return DependencyUnreachable(
                f"Kafka at {self._address} does not answer ({type(exc).__name__})"
            )
        return FraudstreamError(
            f"the topics on {self._address} cannot be read with kafka-python ({exc}): for records in lz4, "
            "snappy or zstd install the package of that codec beside fraudstream, then start again"
        )


UNKNOWN_TOPIC = 3
"""Kafka's error code of a topic that does not exist."""
