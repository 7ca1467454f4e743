"""How far a consumer group is in a topic and where the log ends, asked for without waiting for the answer."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import TypeVar

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    ListOffsetsResultInfo,
    OffsetSpec,
)
from msgspec import Struct

from fraudstream.clients.kafka import Asking, TopicFacts, offsets_reader
from fraudstream.core.errors import KafkaUnreachable
from fraudstream.core.settings import Settings

T = TypeVar("T")


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
        self._asking = Asking(settings)
        self._open_reader = partial(offsets_reader, settings, group)
        self._reader = self._open_reader()
        self._timeout_s = settings.request_timeout_ms / 1000
        self._every = [
            TopicPartition(topic.name, partition) for partition in range(topic.partitions)
        ]
        self._latest = {place: OffsetSpec.latest() for place in self._every}  # type: ignore[no-untyped-call]
        self._group: Future[list[TopicPartition]] | None = None
        self._ends: Mapping[TopicPartition, Future[ListOffsetsResultInfo]] = {}

    @property
    def asked(self) -> bool:
        """Tell whether an answer is awaited."""
        return self._group is not None

    def ask(self) -> None:
        """Ask; the answer comes in the background.

        What a transaction that is still open will commit does not count yet, and is not waited for.
        """
        self._group = in_thread(
            partial(self._reader.committed, self._every, timeout=self._timeout_s)
        )
        self._ends = self._asking.client.list_offsets(
            self._latest,
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=self._timeout_s,
        )

    def answer(self) -> dict[int, Place] | None:
        """Return the places by partition once they have come, else None.

        Raises:
            DependencyUnreachable: the broker does not tell; ask again.
        """
        if self._group is None or not self._group.done():
            return None
        if not all(each.done() for each in self._ends.values()):
            return None
        group, self._group = self._group, None
        try:
            ends = {place.partition: each.result().offset for place, each in self._ends.items()}
            found = group.result()
        except KafkaException as exc:
            self._asking.renew()
            self._reader = self._open_reader()
            raise KafkaUnreachable(
                f"Kafka does not tell how far the group is: {exc.args[0].str()}"
            ) from exc
        return {
            place.partition: Place(place.offset, place.metadata or "", ends[place.partition])
            for place in found
            if place.error is None
        }


def in_thread(ask: Callable[[], T]) -> "Future[T]":
    """Ask in a thread of its own, which does not hold up the end of the process."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as exc:  # noqa: BLE001 - it is for who asked
            answer.set_exception(exc)

    Thread(target=run, name="places", daemon=True).start()
    return answer
