"""Dead letters as data: which record of topic dead-letters says what, and which were sent again."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from fraudstream.core.scores import AuditEvent

DEAD_LETTER_OF = "dead_letter_of"
"""Header of a transaction that was sent again: topic/partition/offset of the one before."""
REPLAY: Literal["dead_letter_replay"] = "dead_letter_replay"
"""The audit event of a replay; it stands in the same Kafka transaction as the records sent."""

_OWN = (
    "source_topic",
    "source_partition",
    "source_offset",
    "error_kind",
    "error_message",
    "not_applied",
    "original_bytes",
    "original_sha256",
)
"""The headers that a scorer puts in front, in this order; the last three not always."""
_OF_A_REPLAY = {"source", "row", "pass", "restarted_ms"}
"""By these `fraudstream replay` finds the last row that it has sent: no other record may carry them."""

Headers = Sequence[tuple[str, bytes | None]]


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter: `partition` and `offset` are those of the record in `transactions`, its identity.

    `place` is its own (partition, offset) in dead-letters, `at_ms` when it was written there. `whole`: the
    value is not cut. `headers` are the original ones.
    """

    partition: int
    offset: int
    kind: str
    reason: str
    at_ms: int
    place: tuple[int, int]
    key: bytes | None
    value: bytes | None
    size_bytes: int
    whole: bool
    headers: Headers

    @property
    def name(self) -> str:
        """The position in `transactions`, as `fraudstream trace` takes it."""
        return f"{self.partition}-{self.offset}"


class Replay(msgspec.Struct, frozen=True):
    """When a dead letter was sent again, and by whom; `audit_offset` is the place of the event."""

    audit_offset: int
    at_ms: int
    actor: str


def read_letter(
    place: tuple[int, int], at_ms: int, key: bytes | None, value: bytes | None, headers: Headers
) -> Letter | None:
    """Return the dead letter in a record of topic dead-letters, None if it does not say of what it is."""
    own = own_headers(headers)
    partition, offset = own.get("source_partition", b""), own.get("source_offset", b"")
    if own.get("source_topic") != b"transactions" or not (_number(partition) and _number(offset)):
        return None
    cut_from = own.get("original_bytes", b"")
    return Letter(
        partition=int(partition),
        offset=int(offset),
        kind=own.get("error_kind", b"").decode(errors="backslashreplace"),
        reason=own.get("error_message", b"").decode(errors="backslashreplace"),
        at_ms=at_ms,
        place=place,
        key=key,
        value=value,
        size_bytes=int(cut_from) if _number(cut_from) else len(value or b""),
        whole="original_sha256" not in own,
        headers=headers[len(own) :],
    )


def own_headers(headers: Headers) -> Mapping[str, bytes]:
    """Return the scorer's headers of a dead letter: a run at the front, in its order, each name once.

    The digest of a value that was cut only with its size before it: alone it is the transaction's.
    """
    own: dict[str, bytes] = {}
    wanted = list(_OWN)
    for name, value in headers:
        if name not in wanted or (name == "original_sha256" and "original_bytes" not in own):
            break
        del wanted[: wanted.index(name) + 1]
        own[name] = value or b""
    return own


def headers_of_replay(letter: Letter) -> list[tuple[str, bytes | None]]:
    """Return the headers to send a letter's record with again: its own, and where it comes from."""
    left_out = _OF_A_REPLAY | {DEAD_LETTER_OF}
    kept = [(name, value) for name, value in letter.headers if name not in left_out]
    origin = f"transactions/{letter.partition}/{letter.offset}"
    return [*kept, (DEAD_LETTER_OF, origin.encode())]


def replays_in(events: Iterable[tuple[int, AuditEvent]]) -> dict[str, Replay]:
    """Return by the names of dead letters when they were sent again; events come with their offsets."""
    found: dict[str, Replay] = {}
    for audit_offset, event in events:
        names = event.evidence.get("dead_letters")
        if event.event == REPLAY and isinstance(names, list):
            replay = Replay(audit_offset, event.at_ms, event.actor)
            found |= {name: replay for name in names if isinstance(name, str)}
    return found


def counts_by_kind(letters: Iterable[Letter]) -> dict[str, int]:
    """Return how many there are of each kind, most first."""
    counts: dict[str, int] = {}
    for letter in letters:
        counts[letter.kind] = counts.get(letter.kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _number(text: bytes) -> bool:
    return re.fullmatch(rb"[0-9]{1,18}", text) is not None
