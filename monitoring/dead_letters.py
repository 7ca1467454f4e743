"""What `fraudstream dead-letters` says of dead letters: selected, counted, explained; pure."""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from fraudstream.clients.dead_letter_log import room_again
from fraudstream.core.dead_letters import Letter, Replay
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.printable import printable_bytes
from monitoring.trace_search import position_in

SHOWN_BYTES = 2_000
"""So many bytes of a value are shown; JSON has all that is kept."""

WHAT_TO_DO = {
    "null_value": "its producer sent no value: nothing to send again; see to the producer",
    "too_large": "a transaction has at most 65,536 bytes: let the producer send it anew, smaller",
    "malformed_json": "let the producer send it anew; sent again as it is, it fails again",
    "unknown_version": "start a release that knows this schema version, then replay it",
    "invalid_field": "let the producer send it anew; replay it if a limit of the settings was the reason",
    "unreadable_header": "replay it: it is sent again without its headers",
    "poison": "mend what failed (model, feature store), or start a release that does; then replay it",
    "score_too_large": "raise max.message.bytes of the topic, then replay it",
    "deadly": "find out in a test environment what ends the worker; once that is mended, replay it",
}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters: empty or None takes all. Times are UTC ms of the dead letter, [since, until)."""

    names: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    partitions: frozenset[int] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None

    def has(self, letter: Letter) -> bool:
        """Tell whether a dead letter is wanted."""
        return (
            (not self.names or letter.name in self.names)
            and (not self.kinds or letter.kind in self.kinds)
            and (not self.partitions or letter.partition in self.partitions)
            and (self.since_ms is None or letter.at_ms >= self.since_ms)
            and (self.until_ms is None or letter.at_ms < self.until_ms)
        )


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter in a report; texts of the record are escaped, `value_base64` has what is kept of it."""

    position: str
    kind: str
    reason: str
    at_ms: int
    dead_letter_partition: int
    dead_letter_offset: int
    key: str | None
    size_bytes: int
    whole: bool
    headers: list[tuple[str, str | None]]
    text: str
    value_base64: str | None
    replayed_at_ms: int | None
    replayed_by: str | None


class ListReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `list --json` writes: all that are wanted are counted, the newest are shown."""

    environment: str
    total: int
    by_kind: dict[str, int]
    replayed: int
    letters: list[Shown]


class ReplayReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `replay --json` writes: positions in `transactions`; `impossible` says why by position."""

    environment: str
    dry_run: bool
    sent: list[str]
    sent_before: list[str]
    impossible: dict[str, str]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay is about to do."""

    to_send: list[Letter]
    sent_before: list[str]
    impossible: dict[str, str]


def shown(letter: Letter, replays: Mapping[str, Replay]) -> Shown:
    """Return a dead letter as a report has it."""
    replay = replays.get(letter.name)
    value = letter.value
    return Shown(
        position=letter.name,
        kind=printable_bytes(letter.kind.encode()),
        reason=printable_bytes(letter.reason.encode()),
        at_ms=letter.at_ms,
        dead_letter_partition=letter.place[0],
        dead_letter_offset=letter.place[1],
        key=None if letter.key is None else printable_bytes(letter.key),
        size_bytes=letter.size_bytes,
        whole=letter.whole,
        headers=[
            (
                printable_bytes(name.encode(errors="backslashreplace")),
                None if text is None else printable_bytes(text),
            )
            for name, text in letter.headers
        ],
        text=printable_bytes((value or b"")[:SHOWN_BYTES]),
        value_base64=None if value is None else b64encode(value).decode(),
        replayed_at_ms=None if replay is None else replay.at_ms,
        replayed_by=None if replay is None else replay.actor,
    )


def plan(letters: Iterable[Letter], replays: Mapping[str, Replay], limit: tuple[str, int]) -> Plan:
    """Return which of the letters are to be sent, each position once, and why others are not.

    `limit`: the topic that they go to (full name), and the bytes that it takes of a record.
    """
    topic, most_bytes = limit
    to_send: dict[str, Letter] = {}
    sent_before: list[str] = []
    impossible: dict[str, str] = {}
    for letter in letters:
        if letter.name in replays:
            sent_before.append(letter.name)
        elif not letter.whole:
            impossible[letter.name] = "its value was cut: let its producer send it anew"
        elif letter.value is None:
            impossible[letter.name] = "it has no value"
        elif (size := room_again(letter)) > most_bytes:
            impossible[letter.name] = (
                f"its record takes {size:,} bytes, max.message.bytes of topic {topic} is {most_bytes}: "
                "raise that, or let its producer send it anew"
            )
        else:
            to_send[letter.name] = letter
    return Plan(to_send=list(to_send.values()), sent_before=sent_before, impossible=impossible)


def check_sent(names: Iterable[str], impossible: Mapping[str, str]) -> None:
    """See that each name that was asked for could be sent.

    Raises:
        FraudstreamError: names the first that could not, and the reason.
    """
    if kept := [name for name in names if name in impossible]:
        more = f" (nor are {len(kept) - 1:,} others)" if len(kept) > 1 else ""
        raise FraudstreamError(f"{kept[0]} is not sent: {impossible[kept[0]]}{more}")


def check_found(names: Iterable[str], letters: Sequence[Letter], environment: str) -> None:
    """See that each name is that of a dead letter.

    Raises:
        FraudstreamError: names those that are not.
    """
    found = {letter.name for letter in letters}
    if missing := sorted(set(names) - found):
        raise FraudstreamError(
            f"no dead letter of {environment} is of {', '.join(missing)} (PARTITION-OFFSET in topic "
            "transactions): `fraudstream dead-letters list` shows them, `fraudstream trace` what became of it"
        )


def name_of(text: str) -> str | None:
    """Return the name in a text written PARTITION-OFFSET or PARTITION:OFFSET, None if it is none."""
    place = position_in(text)
    return None if place is None else f"{place[0]}-{place[1]}"
