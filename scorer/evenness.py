"""Keeps the partitions of a worker close in event time while it catches up.

A terminal is shared by customers of several partitions, and its features are those of the definitions
only while no partition is further behind another than the label delay. Reading by turns does not see
to that: partitions with fewer transactions a day run ahead. So those ahead are paused.
"""

from collections.abc import Callable, Mapping

from confluent_kafka import Consumer, TopicPartition

from scorer.assignment import Assignment
from scorer.batch import Batch

EMPTY_POLLS = 10
"""After so many in a row, what the log still seems to hold are markers of transactions, not records."""


class Evenness:
    """Pauses partitions more than `lead_ms` ahead of the slowest that has more to read, until half of it."""

    def __init__(self, consumer: Consumer, topic: str, lead_ms: int) -> None:
        self._consumer = consumer
        self._topic = topic
        self._lead_ms = lead_ms
        self._newest: dict[int, int] = {}
        self._held: set[int] = set()
        self._generation = 0
        self._empty_polls = 0
        self._exhausted: dict[int, int] = {}
        """The positions at which partitions gave nothing for `EMPTY_POLLS`."""

    def forget(self) -> None:
        """Take note that somebody else has resumed all partitions."""
        self._held = set()

    def look(self, batch: Batch, assignment: Assignment) -> None:
        """Take note of a batch, which may be empty; pause who is ahead, resume who is not any more."""
        if assignment.generation != self._generation:  # partitions that are assigned are not paused
            self._generation = assignment.generation
            self.forget()
        positions = assignment.positions
        for part in batch.parts:
            times = [transaction.event_time_ms for transaction in part.transactions]
            self._newest[part.partition] = max(times, default=self._newest.get(part.partition, 0))
        self._empty_polls = 0 if batch.size else self._empty_polls + 1
        if self._empty_polls >= EMPTY_POLLS:
            self._exhausted = {p: at for p, at in positions.items() if p not in self._held}
        ahead = self._ahead(positions)
        self._each(self._consumer.resume, self._held - ahead)
        self._each(self._consumer.pause, ahead - self._held)
        self._held = ahead

    def _ahead(self, positions: Mapping[int, int]) -> set[int]:
        behind = [self._newest.get(p, 0) for p in positions if self._has_more(p, positions[p])]
        if not behind:
            return set()
        far, near = min(behind) + self._lead_ms, min(behind) + self._lead_ms // 2
        return {
            partition
            for partition in positions
            if self._newest.get(partition, 0) > (near if partition in self._held else far)
        }

    def _has_more(self, partition: int, position: int) -> bool:
        """Tell whether records wait there, as far as the last fetch told; before the first they may."""
        if self._exhausted.get(partition) == position:
            return False
        place = TopicPartition(self._topic, partition)
        end = self._consumer.get_watermark_offsets(place, cached=True)[1]
        return bool(end < 0 or end > position)

    def _each(self, how: Callable[[list[TopicPartition]], None], partitions: set[int]) -> None:
        if partitions:
            how([TopicPartition(self._topic, partition) for partition in sorted(partitions)])
