"""Batches that end their worker, counted across restarts by a note beside the group's offsets.

Python survives most of what a record can do to it, native code does not. So each worker, before its first
batch of an assignment, commits a note beside the offsets where it begins: this batch is in hand. The
commit of the batch takes the note away. Who finds one that another worker left knows that it died there,
whatever machine it was on. After `CAREFUL_AFTER` deaths at one place batches are small, then of one record,
with a note for each; a record that was alone in hand for `MOST_ALONE` deaths becomes a dead letter.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import TopicPartition
from msgspec.structs import replace

from fraudstream.core.errors import BadRecord, Refused
from scorer.assignment import Assignment
from scorer.batch import Message
from scorer.neighbours import Hand, read_note, write_note
from scorer.output import BatchAborted

logger = logging.getLogger(__name__)

CAREFUL_AFTER = 2
"""So many deaths with the same first batch in hand, and batches become small."""
MOST_ALONE = 3
"""So many deaths with one record alone in hand, and it becomes a dead letter."""

Commit = Callable[[list[TopicPartition]], None]


class Deaths:
    """What this worker knows of deaths in its partitions, and what it has in hand. `owner` names it."""

    def __init__(
        self,
        assignment: Assignment,
        commit: Commit,
        *,
        owner: str,
        topic: str,
        most_in_a_row: int,
    ) -> None:
        self._assignment = assignment
        self._commit = commit
        self._owner = owner
        self._topic = topic
        self._most_in_a_row = most_in_a_row
        self._notes: Mapping[int, str] = {}
        self._texts: dict[int, str] = {}
        """The note last committed in a partition, as far as this worker knows."""
        self._hands: dict[int, Hand] = {}
        """By partition: the deaths there. Nearly always empty."""
        self._held: set[int] = set()
        """Partitions whose note says that this worker has a batch in hand."""
        self._noted: set[int] = set()
        """Partitions of this assignment that have had their first note."""
        self._in_doubt = False
        """Whether notes were given out for a commit of which it is not known yet how it ended."""

    @property
    def careful(self) -> bool:
        """Whether a partition of this worker has had deaths enough for small batches."""
        self._follow()
        return self._deaths() >= CAREFUL_AFTER

    @property
    def watched(self) -> bool:
        """Whether the batch just taken in hand must have no other beside it: a note says where it begins."""
        return self.careful or bool(self._held)

    def most_records(self, usual: int) -> int:
        """Return how many records the next batch may have, at most `usual`."""
        if not self.careful:
            return usual
        return math.isqrt(usual) if self._deaths() == CAREFUL_AFTER else 1

    def take_in_hand(self, messages: Sequence[Message]) -> BadRecord | None:
        """Commit the note, where one is due; return why if the one record is to be buried instead.

        Raises:
            Refused: one record after the other ends the worker.
            BatchAborted: the note was not committed.
        """
        self._follow()
        ends = self._ends(messages)
        due = [p for p in ends if p not in self._noted or self._is_careful(p)]
        if not due:
            return None
        alone = messages[0].offset() if len(messages) == 1 else -1
        hands = {p: self._hand(p, ends[p], alone) for p in due}
        self._put({p: replace(hand, owner=self._owner) for p, hand in hands.items()})
        self._hands |= hands
        self._held |= hands.keys()
        self._noted |= hands.keys()
        if alone < 0 or hands[due[0]].alone_deaths < MOST_ALONE:
            return None
        return self._verdict(due[0], hands[due[0]])

    def amend(
        self, notes: dict[int, str], last_offsets: Mapping[int, int], *, buried: bool = False
    ) -> dict[int, str]:
        """Return the notes for a commit up to these offsets: deaths are remembered until they are passed."""
        self._in_doubt = True
        for partition in last_offsets.keys() & self._hands.keys():
            left = self._left(partition, last_offsets[partition], buried=buried)
            if left is not None:
                notes[partition] = write_note(replace(read_note(notes[partition]), hand=left))
        return notes

    def keep(self, notes: Mapping[int, str]) -> dict[int, str]:
        """Return the notes for a commit that passes no record: what stands there of deaths stays."""
        self._follow()
        self._texts |= {
            p: write_note(replace(read_note(text), hand=read_note(self._texts.get(p, "")).hand))
            for p, text in notes.items()
        }
        return {p: self._texts[p] for p in notes}

    def done(self, notes: Mapping[int, str]) -> None:
        """Take note that these were committed, by partition."""
        self._in_doubt = False
        if not self._hands and not self._held:
            return
        for partition, text in notes.items():
            self._texts[partition] = text
            self._held.discard(partition)
            hand = read_note(text).hand
            if hand is None:
                self._hands.pop(partition, None)
            else:
                self._hands[partition] = hand

    def withdraw(self) -> None:
        """Before an end that no record is to blame for: take the notes back, if the broker lets us.

        Not while a commit is in doubt: they go with offsets, which that may have passed.
        """
        self._follow()
        if self._in_doubt:
            return
        held = self._held & self._assignment.positions.keys()
        hands = {p: self._hands[p] for p in held if p in self._hands}
        try:
            self._put({p: hand if hand.deaths else None for p, hand in hands.items()})
        except BatchAborted as exc:
            logger.warning("%s; this end counts as one that a record may be to blame for", exc)
        self._held -= held

    def _follow(self) -> None:
        """After an assignment, or a return to what is committed, read the notes that stand there."""
        if self._notes is self._assignment.notes:
            return
        self._notes, self._in_doubt = self._assignment.notes, False
        self._noted, self._held = set(), set()
        self._texts = dict(self._notes)
        before, self._hands = self._hands, {}
        for partition, text in self._notes.items():
            found = read_note(text).hand
            if found is None:
                continue
            if found.owner == self._owner:
                self._held.add(partition)
            self._hands[partition] = self._counted(partition, found, before.get(partition))

    def _counted(self, partition: int, found: Hand, mine: Hand | None) -> Hand:
        """Return a note with the death counted that it tells of, if it does."""
        if not found.owner:
            return found
        if found.owner == self._owner:
            return mine or replace(found, owner="")
        counted = replace(
            found,
            owner="",
            deaths=found.deaths + 1,
            alone_deaths=found.alone_deaths + (found.alone >= 0),
        )
        logger.warning(
            "a worker ended with a batch from offset %d of partition %d in hand; deaths there: %d",
            *(self._assignment.positions.get(partition, -1), partition, counted.deaths),
        )
        return counted

    def _ends(self, messages: Sequence[Message]) -> dict[int, int]:
        """Return by partition the offset after the last message that is this worker's to handle."""
        positions = self._assignment.positions
        ends = {}
        for message in messages:
            position = positions.get(message.partition())
            if position is not None and message.offset() >= position:
                ends[message.partition()] = message.offset() + 1
        return ends

    def _hand(self, partition: int, end: int, alone: int) -> Hand:
        hand = self._hands.get(partition, Hand())
        return replace(
            hand,
            until=hand.until if hand.deaths >= CAREFUL_AFTER else max(hand.until, end),
            alone=alone,
            alone_deaths=hand.alone_deaths if alone == hand.alone else 0,
        )

    def _left(self, partition: int, last_offset: int, *, buried: bool) -> Hand | None:
        """Return what is to be remembered after a commit up to `last_offset`."""
        hand = self._hands[partition]
        row = hand.row + 1 if buried and hand.alone == last_offset else 0
        if hand.deaths < CAREFUL_AFTER or (last_offset + 1 >= hand.until and not row):
            return None
        return replace(hand, owner="", alone=-1, alone_deaths=0, row=row)

    def _put(self, hands: Mapping[int, Hand | None]) -> None:
        places = []
        for partition, hand in hands.items():
            note = read_note(self._texts.get(partition, ""))
            self._texts[partition] = write_note(replace(note, hand=hand))
            position = self._assignment.committed[partition]
            places.append(
                TopicPartition(self._topic, partition, position, metadata=self._texts[partition])
            )
        if places:
            self._commit(places)

    def _is_careful(self, partition: int) -> bool:
        hand = self._hands.get(partition)
        return hand is not None and hand.deaths >= CAREFUL_AFTER

    def _deaths(self) -> int:
        owned = self._assignment.positions
        return max((hand.deaths for p, hand in self._hands.items() if p in owned), default=0)

    def _verdict(self, partition: int, hand: Hand) -> BadRecord:
        place = f"offset {hand.alone} of partition {partition}"
        if hand.row >= self._most_in_a_row:
            self._hands[partition] = replace(hand, alone_deaths=0)  # once it is mended, try again
            raise Refused(
                f"{hand.row} records in a row ended their workers and became dead letters, and {place} has "
                f"done so {hand.alone_deaths} times: this looks like a fault of the deployment (a library, a "
                "model), not of the records; mend it, start again, then send those with `fraudstream "
                "dead-letters replay --kind deadly`. If the records are at fault, start with a higher "
                "poison_in_a_row"
            )
        logger.error("%s has ended %d workers; it becomes a dead letter", place, hand.alone_deaths)
        return BadRecord(
            "deadly",
            f"{hand.alone_deaths} workers ended with this record alone in hand, each without a word: see "
            "what the supervisor says of their end (a signal, out of memory)",
        )
