"""How far the other workers are in event time, as the notes tell that they commit with their offsets."""

import logging
from collections.abc import Collection

import msgspec

from fraudstream.clients.group_places import GroupPlaces, Place
from fraudstream.core.errors import DependencyUnreachable

logger = logging.getLogger(__name__)

ASK_EVERY_S = 1.0
ASK_SOON_S = 0.05
"""How often, while this worker waits, or goes through a history at hours of event time in that time."""
PATIENCE_S = 10.0
"""A partition that does not move for so long holds nobody: longer than the takeover from a dead worker."""
MOST_STEP_S = 0.5
"""Of a longer time between two looks only so much counts: this worker itself was waiting."""


class Hand(msgspec.Struct, frozen=True, omit_defaults=True):
    """What stands in a note of a batch in hand, and of workers that died of one (scorer/deaths.py).

    `owner`: who has a batch in hand, empty for nobody. `deaths`: of workers with a batch from here in hand.
    `until`: the offset after the first such batch. `alone`: the offset of the one record in hand, -1 for
    several; `alone_deaths`: of workers with that one in hand. `row`: records buried since the last score.
    """

    owner: str = ""
    deaths: int = 0
    until: int = 0
    alone: int = -1
    alone_deaths: int = 0
    row: int = 0


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker commits with an offset: the newest event time (UTC ms) that it has read in the partition.

    `read_to`: the end of the log up to which nothing but markers followed; 0 where that is not known.
    """

    event_time_ms: int = 0
    read_to: int = 0
    hand: Hand | None = None


class Seen(msgspec.Struct):
    """What is known of a partition of another worker."""

    holds_at_ms: int
    """Who is too far beyond this event time waits: that of the partition, or ours when it had no more."""
    committed: int = -1
    event_time_ms: int = 0
    has_more: bool = True
    still_s: float = 0.0
    """For how long it has held this worker without moving, of the time in which this worker looked."""


class Neighbours:
    """The partitions of one topic that other workers own, or nobody."""

    def __init__(self, places: GroupPlaces, partitions: int) -> None:
        self._places = places
        self._partitions = range(partitions)
        self._seen: dict[int, Seen] = {}
        self._asked_s = 0.0
        self._asked_at_ms = 0
        self._looked_s = 0.0
        self._away = False

    def forget(self) -> None:
        """Begin anew: partitions have changed hands."""
        self._seen = {}

    def look(
        self, own: Collection[int], *, now_s: float, held: bool, furthest_ms: int, lead_ms: int
    ) -> None:
        """Take what has been answered, and ask again when it is time to.

        `furthest_ms` is the newest event time of this worker; who is `lead_ms` behind it may hold it.
        """
        if not own or len(own) == len(self._partitions):
            return
        step_s, self._looked_s = min(now_s - self._looked_s, MOST_STEP_S), now_s
        for partition in self._partitions:
            if partition in own:
                self._seen.pop(partition, None)
            else:
                self._seen.setdefault(partition, Seen(furthest_ms))
        for partition, place in self._answer().items():
            if partition in self._seen:
                _take(self._seen[partition], place, self._asked_at_ms)
        for partition, seen in self._seen.items():
            _age(partition, seen, step_s if seen.holds_at_ms < furthest_ms - lead_ms else 0)
        soon = held or furthest_ms - self._asked_at_ms > lead_ms // 8
        since_s = now_s - self._asked_s
        if not self._places.asked and since_s > (ASK_SOON_S if soon else ASK_EVERY_S):
            self._places.ask()
            self._asked_s, self._asked_at_ms = now_s, furthest_ms

    def hold_at(self) -> list[int]:
        """Return the event times (ms) that others hold this worker at, without those that do not move."""
        return [seen.holds_at_ms for seen in self._seen.values() if seen.still_s < PATIENCE_S]

    def event_times(self) -> list[int]:
        """Return the event times that are known, in ms; may be called from another thread."""
        return [seen.event_time_ms for seen in list(self._seen.values()) if seen.event_time_ms]

    def _answer(self) -> dict[int, Place]:
        try:
            found = self._places.answer()
        except DependencyUnreachable as exc:
            if not self._away:
                logger.warning("%s; how far the other workers are is not known", exc)
            self._away = True
            return {}
        self._away = self._away and found is None
        return found or {}


def _take(seen: Seen, place: Place, asked_at_ms: int) -> None:
    """Take what was answered; what is there only at one of two answers is as good as read.

    `asked_at_ms`: the event time that this worker had reached when it asked.
    """
    note = read_note(place.note)
    has_more = place.end > max(place.committed, note.read_to)
    unknown = place.committed >= 0 and not note.event_time_ms  # committed by an older version
    if unknown or not has_more:
        seen.holds_at_ms = asked_at_ms
    elif seen.has_more:
        seen.holds_at_ms = note.event_time_ms
    if place.committed != seen.committed:
        seen.still_s = 0.0
    seen.has_more, seen.committed = has_more, place.committed
    seen.event_time_ms = note.event_time_ms


def _age(partition: int, seen: Seen, step_s: float) -> None:
    """Count for how long a partition has held this worker; `step_s` 0: it does not."""
    before, seen.still_s = seen.still_s, (seen.still_s + step_s if step_s else 0.0)
    if before < PATIENCE_S <= seen.still_s:
        logger.warning(
            "partition %d, which another worker has or nobody, has not moved for %.0f s: it is not "
            "waited for any more",
            *(partition, PATIENCE_S),
        )


def read_note(text: str) -> Note:
    """Return the note in a commit's metadata; an empty one where another program has committed."""
    try:
        return msgspec.json.decode(text, type=Note)
    except msgspec.DecodeError:
        return Note()


def write_note(note: Note) -> str:
    """Return the note as a commit's metadata."""
    return msgspec.json.encode(note).decode()
