"""The records of one transaction, those of docs/topics.md, as they would stand in the topics."""

import functools
from typing import Any

import msgspec

from fraudstream.clients.topic_log import Record
from fraudstream.core.feature_set import NINE
from fraudstream.core.model import Contract, DataWindow
from fraudstream.core.scores import Score
from monitoring.trace import Evidence, Found
from tests.conftest import REPOSITORY
from tests.documents import fences

SENT_MS = 1_795_384_894_112
PRODUCED_MS = SENT_MS + 12
ID = "1908e380-000041741"
PARTITION, OFFSET = 3, 5_121
HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold red]\u202egenuine\x9b31m\r\n[/]"
"""Clears the screen, names the window, opens and closes markup, turns the writing, returns the carriage."""


@functools.cache
def _examples() -> dict[str, dict[str, Any]]:
    page = REPOSITORY / "docs" / "topics.md"
    names = ("transaction", "feedback", "score", "alert", "audit")
    return {name: msgspec.json.decode(fences(page, f"json {name}")[0]) for name in names}


def example(name: str, **changes: object) -> bytes:
    """Return the example of a record with changes."""
    return msgspec.json.encode(_examples()[name] | changes)


def entry(
    topic: str,
    value: bytes | None,
    *,
    offset: int = OFFSET,
    sent_at_ms: int = SENT_MS,
    partition: int = PARTITION,
    headers: tuple[tuple[str, bytes | None], ...] = (),
) -> Record:
    """Return a record of a topic."""
    key = b"C0000304"
    return Record(f"local.{topic}", partition, offset, sent_at_ms, key, value, headers)


def paid(value: bytes | None = None, **changes: object) -> Record:
    """Return the transaction as it was sent."""
    sent = entry("transactions", value or example("transaction"))
    return msgspec.structs.replace(sent, **changes)


def score(**changes: object) -> Record:
    """Return its score."""
    return entry("scores", example("score", **changes), offset=6_000, sent_at_ms=PRODUCED_MS)


def alert(**changes: object) -> Record:
    """Return its alert."""
    return entry("alerts", example("alert", **changes), offset=7, sent_at_ms=PRODUCED_MS)


def answer(offset: int, *, sent_at_ms: int = PRODUCED_MS + 1_000, **changes: object) -> Record:
    """Return a record of topic feedback."""
    value = example("feedback", **changes)
    return entry("feedback", value, partition=0, offset=offset, sent_at_ms=sent_at_ms)


def event(offset: int, **changes: object) -> Record:
    """Return a record of topic audit."""
    return entry("audit", example("audit", **changes), partition=0, offset=offset)


def letter(value: bytes | None, *headers: tuple[str, bytes | None]) -> Record:
    """Return a dead letter; more `headers` follow those of the scorer."""
    own = (("error_kind", b"invalid_field"), ("error_message", b"Expected `int` - at `$.v`"))
    return entry("dead-letters", value, offset=9, headers=(*own, *headers))


def served(**changes: object) -> Found:
    """Return a transaction with score and alert."""
    return Found(record=paid(), committed=6_000, score=score(**changes), alert=alert())


def evidence(*found: Found, **changes: object) -> Evidence:
    """Return what stands in the topics about the transaction."""
    made = Evidence(asked=ID, transaction_id=ID, found=list(found))
    return msgspec.structs.replace(made, **changes)


def contract(**changes: object) -> Contract:
    """Return the contract of the version that scored it: every usual value 2, every spread 4."""
    width = len(NINE.features)
    made = Contract(
        feature_set=msgspec.json.decode(example("score"), type=Score).feature_set,
        features=NINE.features,
        threshold=0.28,
        golden_inputs=[[0.0] * width],
        golden_outputs=[0.5],
        usual=[2.0] * width,
        spread=[4.0] * width,
        window=DataWindow(**dict.fromkeys(DataWindow.__struct_fields__, 0)),
        metrics={},
        created_at_ms=0,
    )
    return msgspec.structs.replace(made, **changes)
