"""Features are asked for in a thread, so that the batch before is scored and committed meanwhile."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

import msgspec

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.feature_store import Slice
from fraudstream.core.errors import DependencyUnreachable
from scorer.assignment import Assignment
from scorer.batch import Batch
from scorer.labels import LabelReader
from scorer.live_sets import AppliedSets, LiveSets
from scorer.poison import blaming
from scorer.waiting import Abandoned


class Answer(msgspec.Struct, frozen=True):
    """What the live sets say of a batch, and how long labels and features took, in milliseconds."""

    applied: AppliedSets
    took_ms: float


class InHand(msgspec.Struct):
    """A batch whose features are asked for; `notes` go with its offsets.

    It may be committed in the `generation` in which it was polled, and in no other.
    """

    batch: Batch
    last_offsets: dict[int, int]
    notes: dict[int, str]
    generation: int
    slices: list[Slice]
    asked: "Future[Answer]"


class Ahead:
    """Applies one batch after the other to the features, at most one at a time (ADR 0018)."""

    def __init__(
        self, live: LiveSets, labels: LabelReader, topic_id: str, assignment: Assignment
    ) -> None:
        self._live = live
        self._labels = labels
        self._topic_id = topic_id
        self._assignment = assignment
        self._thread = ThreadPoolExecutor(1, "features")

    def ask(self, batch: Batch, notes: dict[int, str]) -> InHand:
        """Ask for the features of a batch; the answer of the one before must have come."""
        slices = [
            Slice(
                partition=part.partition,
                previous_offset=part.previous_offset,
                last_offset=part.last_offset,
                committed_offset=self._assignment.committed[part.partition] - 1,
                offsets=[message.offset() for message in part.messages],
                transactions=part.transactions,
            )
            for part in batch.parts
        ]
        last_offsets = {part.partition: part.last_offset for part in batch.parts}
        asked = self._submit(batch, slices)
        return InHand(batch, last_offsets, notes, self._assignment.generation, slices, asked)

    def check(self, hand: InHand) -> None:
        """See that the batch may still be committed: what was polled before a change may be another's now.

        Raises:
            Abandoned: partitions have changed hands since.
        """
        if hand.generation != self._assignment.generation:
            raise Abandoned("the partitions changed while a batch was in hand")

    def answer(self, hand: InHand) -> Answer:
        """Wait for the features; where a server is away, ask once more and say so.

        Raises:
            DependencyUnreachable: call again.
            StateInDoubt, ReplyGone: as the feature store does.
            Unscorable: what nobody expects.
        """
        try:
            return hand.asked.result()
        except DependencyUnreachable:
            hand.asked = self._submit(hand.batch, hand.slices)
            raise

    def drop(self, hand: InHand) -> None:
        """Wait until nothing of the batch is under way; whatever came of it, it is read again."""
        wait([hand.asked])

    def _submit(self, batch: Batch, slices: list[Slice]) -> "Future[Answer]":
        return self._thread.submit(self._apply, batch, slices)

    def _apply(self, batch: Batch, slices: list[Slice]) -> Answer:
        """Apply labels that the batch needs, then the batch, in one call for each live set."""
        begun_s = monotonic_s()
        self._labels.apply_available()
        self._labels.apply_until(batch.after_feedback, timeout_s=1.0)
        with blaming("features"):
            applied = self._live.apply(self._topic_id, slices)
        return Answer(applied, (monotonic_s() - begun_s) * 1000)


def positions_after(hand: InHand | None, positions: Mapping[int, int]) -> Mapping[int, int]:
    """Return where reading goes on, by partition, behind the batch in hand."""
    if hand is None:
        return positions
    taken = {p: last + 1 for p, last in hand.last_offsets.items() if p in positions}
    return {**positions, **taken}
