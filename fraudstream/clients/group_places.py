"""How far a consumer group is in a topic and where the log ends, asked for without waiting for the answer."""

from concurrent.futures import Future
from functools import partial

from confluent_kafka import KafkaException, TopicPartition
from msgspec import Struct

from fraudstream.clients.asking import in_thread
from fraudstream.clients.kafka import TopicFacts, offsets_reader
from fraudstream.clients.log_bounds import LogBounds
from fraudstream.core.errors import KafkaUnreachable
from fraudstream.core.settings import Settings


class Place(Struct, frozen=True):
    """The group's next offset in a partition (negative: none), the note committed with it, the log's end.

    The end is the offset after the last one that a reader of committed records may read; markers of
    transactions take offsets, too.
    """

    committed: int
    note: str
    end: int


class GroupPlaces:
    """Asks for the places of one group in one topic, one question at a time. Not thread-safe."""

    def __init__(self, settings: Settings, topic: TopicFacts, group: str) -> None:
        self._log = LogBounds(settings)
        self._open_reader = partial(offsets_reader, settings, group)
        self._reader = self._open_reader()
        self._timeout_s = settings.request_timeout_ms / 1000
        self._every = [
            TopicPartition(topic.name, partition) for partition in range(topic.partitions)
        ]
        self._asked: Future[dict[int, Place]] | None = None

    @property
    def asked(self) -> bool:
        """Tell whether an answer is awaited."""
        return self._asked is not None

    def ask(self) -> None:
        """Ask; the answer comes in the background.

        What a transaction that is still open will commit does not count yet, and is not waited for.
        """
        self._asked = in_thread(self._look)

    def answer(self) -> dict[int, Place] | None:
        """Return the places by partition once they have come, else None.

        Raises:
            DependencyUnreachable: the broker does not tell; ask again.
        """
        if self._asked is None or not self._asked.done():
            return None
        asked, self._asked = self._asked, None
        try:
            return asked.result()
        except KafkaException as exc:
            self._reader = self._open_reader()
            raise KafkaUnreachable(
                f"Kafka does not tell how far the group is: {exc.args[0].str()}"
            ) from exc

    def _look(self) -> dict[int, Place]:
        group = self._reader.committed(self._every, timeout=self._timeout_s)
        ends = self._log.readable(self._every, timeout_s=self._timeout_s)
        return {
            place.partition: Place(place.offset, place.metadata or "", ends[place.partition])
            for place in group
            if place.error is None
        }
