"""Whether exactly the scores that decide so have an alert, and each alert says what its score says.

Both are kept as a place and eight bytes of what they say (Python's own hash), so the whole payload is
compared, and the few scores in a hundred that are alerts take little room.
"""

from collections import Counter
from collections.abc import Iterator

import msgspec

from verify.tally import Record

ALERT = "alert"
OWN = ("alert_id", "reasons", "suggested_action")
"""The fields of an alert that its score has not."""

Place = tuple[int, int]
"""Partition and offset of a transaction."""


class _Decision(msgspec.Struct, gc=False):
    source_partition: int
    source_offset: int
    decision: str


_decision = msgspec.json.Decoder(_Decision)
_encoder = msgspec.json.Encoder(order="sorted")


class Alerts:
    """The alerts that there are, and those that the scores ask for."""

    def __init__(self) -> None:
        self._asked: dict[Place, int] = {}
        self._found: dict[Place, int] = {}
        self._times: Counter[Place] = Counter()
        self._wrong: list[str] = []
        self.read = 0
        """How many alerts there are, whatever they say."""

    def ask(self, score: Record) -> None:
        """Note the record of a score; one that cannot be read asks for nothing."""
        try:
            row = _decision.decode(score.value or b"")
            if row.decision == ALERT:
                place = row.source_partition, row.source_offset
                self._asked[place] = _digest(score.key, msgspec.json.decode(score.value or b""))
        except (ValueError, RecursionError):
            return

    def add(self, alert: Record) -> None:
        """Note the record of an alert."""
        self.read += 1
        try:
            row = _decision.decode(alert.value or b"")
            said = msgspec.json.decode(alert.value or b"")
        except (ValueError, RecursionError):
            self._wrong.append(f"alert {self.read} in the order of reading cannot be read")
            return
        place = row.source_partition, row.source_offset
        own = [said.pop(name, None) for name in OWN]
        if own[0] != f"{place[0]}-{place[1]}":
            self._wrong.append(f"{place}: the alert has the id {own[0]!r}")
        self._times[place] += 1
        self._found[place] = _digest(alert.key, said)

    def differences(self) -> list[str]:
        """Return in words each alert that is missing, too much, or says something else than its score."""
        return [*self._wrong, *self._differing()]

    def _differing(self) -> Iterator[str]:
        for place in sorted(self._asked.keys() - self._found.keys()):
            yield f"{place}: the score is an alert, and there is none"
        for place in sorted(self._found.keys() - self._asked.keys()):
            yield f"{place}: an alert of which no score says so"
        for place, times in sorted(self._times.items()):
            if times > 1:
                yield f"{place}: {times} alerts"
            if place in self._asked and self._found[place] != self._asked[place]:
                yield f"{place}: the alert says something else than its score"


def _digest(key: bytes | None, said: object) -> int:
    return hash((key, _encoder.encode(said)))
