"""Keeps partitions close in event time during a long catch-up: those of a worker, and those of all workers.

A terminal is shared by customers of several partitions, and its features are those of the definitions
only while no partition is further behind another than the label delay. Reading by turns does not see
to that: partitions with fewer transactions a day run ahead. So those ahead are paused.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec
from confluent_kafka import Consumer, TopicPartition

from scorer.assignment import Assignment
from scorer.batch import Batch
from scorer.neighbours import Neighbours, Note, read_note, write_note

MOST_REST_S = 0.5
"""A worker all of whose partitions are ahead rests so long before it pauses them.

A pause throws away what was fetched ahead, and most are short. A rest costs no more than it takes, but keeps
the worker from hearing of changes in its group.
"""
EMPTY_POLLS = 10
"""After so many in a row, what the log still seems to hold are markers of transactions, not records."""


class Apart(msgspec.Struct, frozen=True):
    """Where a partition is in event time: its newest, how far behind the furthest, whether it is paused."""

    event_time_ms: int
    behind_ms: int
    held: bool


class Evenness:
    """Pauses partitions more than `lead_ms` ahead of the slowest that has more to read, until half of it."""

    def __init__(
        self, consumer: Consumer, topic: str, lead_ms: int, neighbours: Neighbours
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self.lead_ms = lead_ms
        self._neighbours = neighbours
        self._newest: dict[int, int] = {}
        self._held: set[int] = set()
        self._paused: set[int] = set()
        self._all_held_s: float | None = None
        """Since when all partitions are held, on the clock of the caller."""
        self.rests = False
        """Whether every partition is ahead of other workers', so that nothing is to be polled just now."""
        self._generation = 0
        self._notes: Mapping[int, str] = {}
        self._empty_polls = 0
        self._exhausted: dict[int, int] = {}
        """The positions at which partitions gave nothing for `EMPTY_POLLS`."""
        self._are_due = False
        """Whether partitions have ended since the other workers were last told of any."""
        self._ends: dict[int, int] = {}
        """The ends of the log when the first poll of a row gave nothing."""
        self._told: dict[int, int] = {}
        """The ends of the log of which committed notes tell that nothing to be read comes before them."""

    def forget(self) -> None:
        """Take note that somebody else has resumed all partitions."""
        self._held, self._paused = set(), set()

    def look(self, batch: Batch, assignment: Assignment, now_s: float) -> None:
        """Take note of a batch, which may be empty; pause who is ahead, resume who is not any more."""
        if assignment.generation != self._generation:  # partitions that are assigned are not paused
            self._generation = assignment.generation
            self._neighbours.forget()
            self.forget()
            self._are_due, self._empty_polls = False, 0
        if assignment.notes is not self._notes:  # what was read and not committed is read again
            self._notes, self._are_due = assignment.notes, False
            self._told = {p: read_note(note).read_to for p, note in self._notes.items()}
            self._newest |= {p: read_note(note).event_time_ms for p, note in self._notes.items()}
        positions = assignment.positions
        self._read(batch)
        if batch.size or self.rests:
            self._empty_polls = 0
        else:
            self._empty_polls += 1
        if self._empty_polls == 1:
            self._ends = {p: self._end(p) for p in positions}
        if self._empty_polls >= EMPTY_POLLS:
            self._exhausted = {p: at for p, at in positions.items() if p not in self._held}
            self._are_due = True
        furthest = max((self._newest.get(p, 0) for p in positions), default=0)
        self._neighbours.look(
            positions,
            now_s=now_s,
            held=bool(self._held),
            furthest_ms=furthest,
            lead_ms=self.lead_ms // 2,
        )
        self._hold(self._ahead(positions), assignment, now_s)

    def notes(self, partitions: Iterable[int]) -> dict[int, str]:
        """Return what to commit with the offsets of a batch, so that other workers know how far they are."""
        return {p: write_note(Note(event_time_ms=self._newest.get(p, 0))) for p in partitions}

    def untold(self, positions: Mapping[int, int]) -> dict[int, str]:
        """Return notes on partitions that have ended in markers, until they are `told`: the log says more."""
        if not self._are_due:
            return {}
        self._are_due, self._empty_polls = False, 0
        return {
            p: write_note(Note(event_time_ms=self._newest.get(p, 0), read_to=self._ends[p]))
            for p, at in positions.items()
            if self._exhausted.get(p) == at and self._ends[p] > max(at, self._told.get(p, 0))
        }

    def told(self, notes: Mapping[int, str]) -> None:
        """Take note that these, of `untold`, are committed."""
        self._told |= {p: read_note(note).read_to for p, note in notes.items()}

    def apart(self, partitions: Iterable[int]) -> dict[int, Apart]:
        """Return where partitions of this worker are; may be called from another thread."""
        newest = {p: self._newest[p] for p in partitions if p in self._newest}
        furthest = max([*newest.values(), *self._neighbours.event_times()], default=0)
        return {p: Apart(at, furthest - at, p in self._held) for p, at in newest.items()}

    def _read(self, batch: Batch) -> None:
        """Take note of event times; late ones lead nobody back, and none is ahead of the clock."""
        for part in batch.parts:
            self._told.pop(part.partition, None)  # the batch commits a note of its own
            newest = max((each.event_time_ms for each in part.transactions), default=0)
            before = self._newest.get(part.partition, 0)
            self._newest[part.partition] = max(before, min(newest, batch.polled_at_ms))

    def _hold(self, ahead: set[int], assignment: Assignment, now_s: float) -> None:
        """Pause and resume so that nothing of the partitions ahead comes, and of the others all."""
        everything = set(assignment.positions)
        if self._held - ahead:
            self._empty_polls = 0  # what is resumed takes a while to come again
        self._held = ahead
        if not ahead or ahead != everything:
            self._all_held_s = None
        elif self._all_held_s is None:
            self._all_held_s = now_s
        self.rests = self._all_held_s is not None and now_s - self._all_held_s < MOST_REST_S
        paused = self._paused & ahead if self.rests else ahead
        resumed = self._paused - paused
        self._each(self._consumer.resume, resumed)
        if resumed and self._paused == everything:
            assignment.wake(resumed)
        self._each(self._consumer.pause, paused - self._paused)
        self._paused = paused

    def _ahead(self, positions: Mapping[int, int]) -> set[int]:
        behind = [self._newest.get(p, 0) for p in positions if self._has_more(p, positions[p])]
        behind += self._neighbours.hold_at()
        if not behind:
            return set()
        far, near = min(behind) + self.lead_ms, min(behind) + self.lead_ms // 2
        return {
            partition
            for partition in positions
            if self._newest.get(partition, 0) > (near if partition in self._held else far)
        }

    def _has_more(self, partition: int, position: int) -> bool:
        """Tell whether records wait there, as far as the last fetch told; before the first they may."""
        if self._exhausted.get(partition) == position:
            return False
        end = self._end(partition)
        return end < 0 or end > position

    def _end(self, partition: int) -> int:
        """Return the end of a partition as the last fetch told it, negative before the first."""
        place = TopicPartition(self._topic, partition)
        return int(self._consumer.get_watermark_offsets(place, cached=True)[1])

    def _each(self, how: Callable[[list[TopicPartition]], None], partitions: set[int]) -> None:
        if partitions:
            how([TopicPartition(self._topic, partition) for partition in sorted(partitions)])
