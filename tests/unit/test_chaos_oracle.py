"""The oracle of chaos runs accepts what the twin says, and names each planted difference."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from fraudstream.core.feature_set import NINE
from fraudstream.core.model import FloatArray
from fraudstream.core.transaction import Transaction, encode
from fraudstream.core.twin import Twin
from tests.feature_streams import Stream
from verify.chaos.alerts import Alerts
from verify.chaos.columns import Scores
from verify.chaos.oracle import Read, Sent, compare_features, compare_probabilities
from verify.chaos.sent import Transactions
from verify.ledger import balance
from verify.tally import Arrivals, Results

Row = dict[str, Any]
N = 300
SENT_MS = 1_700_000_000_000
NOT_ITS_OWN = "are not those of its transaction"


class Told(msgspec.Struct):
    """A record as kafka-python gives it."""

    value: bytes | None
    key: bytes | None = b"c1"
    partition: int = 0
    offset: int = 0
    timestamp: int = 0
    headers: Sequence[tuple[str, bytes | None]] = ()


def transactions() -> list[Transaction]:
    stream = Stream(7)
    return [stream.transaction() for _ in range(N)]


def sound(made: list[Transaction]) -> list[Row]:
    """Return the scores of one partition, applied in offset order."""
    twin = Twin()
    rows = []
    for offset, each in enumerate(made):
        reply = twin.apply(0, offset, each)
        row = {
            "transaction_id": each.transaction_id,
            "event_time_ms": each.event_time_ms,
            "customer": each.entities.customer,
            "terminal": each.entities.terminal,
            "amount_minor": each.amount_minor,
            "currency": each.currency,
            "source_partition": 0,
            "source_offset": offset,
            "source_timestamp_ms": SENT_MS + offset,
            "apply_seq": 100 + offset,
            "features": list(reply.features),
            "feature_set": NINE.hash,
            "decision": "none",
            "duplicate_of": None if reply.duplicate_of < 0 else reply.duplicate_of,
        }
        rows.append(row)
    return rows


def read(made: list[Transaction], rows: list[Row]) -> Read:
    scores = Scores(len(NINE.features), NINE.hash)
    for row in rows:
        key = str(row.get("key", row["customer"])).encode()
        scores.add(msgspec.json.encode(row), key)
    sent = Transactions()
    for offset, each in enumerate(made):
        value, key = encode(each), each.entities.customer.encode()
        sent.add(Told(value, key, 0, offset, SENT_MS + offset))
    ledger = balance(Arrivals(), Results(), {})
    return Read(sent, [], scores, Alerts(), ledger, 0.0)


def test_what_the_twin_says_is_no_difference_in_whatever_order_it_is_read() -> None:
    made = transactions()
    rows = sound(made)
    assert any(row["duplicate_of"] is not None for row in rows)
    found, features = compare_features(read(made, rows[::-1]))
    assert found == {}
    assert features[::-1].tolist() == [row["features"] for row in rows]


def one_bit_more(row: Row) -> None:
    row["features"][0] = float(row["features"][0]) * (1 + 2**-23)


def a_duplicate(row: Row) -> None:
    row["duplicate_of"] = 3


def another(field: str, value: object) -> Callable[[Row], None]:
    """Return what gives a score another value than that of its transaction."""

    def plant(row: Row) -> None:
        assert row.get(field) != value
        row[field] = value

    return plant


def a_place_given_out_twice(row: Row) -> None:
    row["apply_seq"] += 1


def a_position_that_does_not_exist(row: Row) -> None:
    row["source_offset"] = N + 5


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (one_bit_more, "the oracle has"),
        (a_duplicate, "the oracle has"),
        (a_place_given_out_twice, "was given out twice"),
        (a_position_that_does_not_exist, "which is no transaction"),
        (another("transaction_id", "t"), NOT_ITS_OWN),
        (another("event_time_ms", 1), NOT_ITS_OWN),
        (another("customer", "c"), NOT_ITS_OWN),
        (another("terminal", "t"), NOT_ITS_OWN),
        (another("amount_minor", -1), NOT_ITS_OWN),
        (another("currency", "XXX"), NOT_ITS_OWN),
        (another("source_timestamp_ms", SENT_MS), NOT_ITS_OWN),
        (another("key", "c"), NOT_ITS_OWN),
    ],
)
def test_a_planted_difference_is_named(plant: Callable[[Row], None], said: str) -> None:
    made = transactions()
    rows = sound(made)
    plant(rows[N // 2])
    found, _ = compare_features(read(made, rows))
    assert any(said in text for text in found.values())


def halved(version: str, features: FloatArray) -> tuple[FloatArray, float]:
    assert version == "2"
    return (features[:, 0] / 2).astype(np.float32), 0.5


@pytest.mark.parametrize(
    ("score", "decision", "version", "threshold", "differs"),
    [
        (0.25, "pass", "2", 0.5, False),
        (0.25, "alert", "2", 0.5, True),
        (float(np.nextafter(np.float32(0.25), np.float32(1))), "pass", "2", 0.5, True),
        (None, "pass", "2", 0.5, True),
        (0.25, "pass", "2", 0.6, True),
        (0.25, "pass", "2", None, True),
        (None, "none", None, None, False),
        (0.25, "none", None, None, True),
        (None, "pass", None, None, True),
        (None, "none", None, 0.5, True),
    ],
)
def test_a_probability_threshold_or_decision_that_is_not_that_of_the_version_is_a_difference(
    score: float | None,
    decision: str,
    version: str | None,
    threshold: float | None,
    *,
    differs: bool,
) -> None:
    scores = Scores(len(NINE.features), NINE.hash)
    row = sound(transactions()[:1])[0]
    changes = {
        "score": score,
        "decision": decision,
        "model_version": version,
        "threshold": threshold,
    }
    scores.add(msgspec.json.encode(row | changes), b"")
    features = np.full((1, len(NINE.features)), 0.5, np.float32)
    assert bool(compare_probabilities(scores, features, halved)) is differs


@pytest.mark.parametrize("value", [None, b"", b"{}", b"[" * 30_000, b'{"source_partition":0}'])
def test_a_score_that_cannot_be_read_counts_as_one(value: bytes | None) -> None:
    scores = Scores(len(NINE.features), NINE.hash)
    scores.add(value, b"")
    assert (scores.unreadable, len(scores)) == (1, 0)


def test_a_score_of_another_feature_set_counts_as_a_difference() -> None:
    scores = Scores(len(NINE.features), NINE.hash)
    row = sound(transactions()[:1])[0] | {"feature_set": "another"}
    scores.add(msgspec.json.encode(row), b"")
    assert scores.unreadable == 1


def a_score(offset: int, decision: str = "alert") -> Row:
    return {
        "transaction_id": f"t{offset}",
        "source_partition": 2,
        "source_offset": offset,
        "score": 0.5 + offset / 100,
        "decision": decision,
        "stages": {"waiting": 1.5, "features": 2.0},
    }


def its_alert(score: Row) -> Row:
    place = f"{score['source_partition']}-{score['source_offset']}"
    return {"alert_id": place, "reasons": ["amount"], "suggested_action": "call"} | score


def told(row: Row) -> Told:
    return Told(msgspec.json.encode(row))


def compared(scores: list[Row], alerts: list[Told]) -> Alerts:
    found = Alerts()
    for score in scores:
        found.ask(told(score))
    for alert in alerts:
        found.add(alert)
    return found


SCORES = [a_score(3), a_score(4, "pass"), a_score(5), a_score(6, "none")]
SOUND = [told(its_alert(SCORES[i])) for i in (2, 0)]


def test_an_alert_for_each_score_that_decides_so_is_no_difference() -> None:
    found = compared(SCORES, SOUND)
    assert (found.read, found.differences()) == (2, [])


@pytest.mark.parametrize(
    ("alerts", "said"),
    [
        (SOUND[:1], ["(2, 3): the score is an alert, and there is none"]),
        ([*SOUND, SOUND[0]], ["(2, 5): 2 alerts"]),
        (
            [*SOUND, told(its_alert(SCORES[1]))],
            ["(2, 4): an alert of which no score says so"],
        ),
        (
            [SOUND[0], told(its_alert(SCORES[0]) | {"score": 0.54})],
            ["(2, 3): the alert says something else than its score"],
        ),
        (
            [SOUND[0], told(its_alert(SCORES[0]) | {"transaction_id": "t9"})],
            ["(2, 3): the alert says something else than its score"],
        ),
        (
            [SOUND[0], Told(SOUND[1].value, b"c2")],
            ["(2, 3): the alert says something else than its score"],
        ),
        (
            [SOUND[0], told(its_alert(SCORES[0]) | {"alert_id": "2-5"})],
            ["(2, 3): the alert has the id '2-5'"],
        ),
        ([*SOUND, Told(None)], ["alert 3 in the order of reading cannot be read"]),
        ([*SOUND, Told(b"{}")], ["alert 3 in the order of reading cannot be read"]),
    ],
)
def test_an_alert_that_is_lost_doubled_unfounded_or_not_its_score_s_is_named(
    alerts: list[Told], said: list[str]
) -> None:
    assert compared(SCORES, alerts).differences() == said


@pytest.mark.parametrize("value", [None, b"", b"{}", b"[" * 30_000])
def test_a_score_that_cannot_be_read_asks_for_no_alert(value: bytes | None) -> None:
    found = Alerts()
    found.ask(Told(value))
    assert found.differences() == []


def test_the_rate_of_sending_is_that_of_the_log() -> None:
    sent = Sent()
    assert sent.per_s == 0.0
    for number in (0, 3, 1, 2, 4):
        sent.add(1_000 + 250 * number)
    assert sent.per_s == 5.0
