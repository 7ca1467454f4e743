"""The page of `fraudstream trace`: every figure on it, at any width, and no text of a record acts on it."""

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from monitoring.trace import Evidence, Found, join
from monitoring.trace_page import page
from monitoring.trace_report import TraceReport
from tests.trace_cases import (
    HOSTILE,
    ID,
    OFFSET,
    alert,
    answer,
    contract,
    event,
    evidence,
    example,
    letter,
    paid,
    score,
    served,
)

WIDTHS = [30, 44, 80, 100, 200]


def drawn(*traced: Evidence, width: int = 80, colour: bool = False) -> str:
    """Return the page as a terminal of this width, or a pipe, would show it."""
    console = Console(
        file=io.StringIO(),
        width=width,
        highlight=False,
        force_terminal=colour,
        color_system="standard" if colour else None,
    )
    contracts = {"1": contract()}
    report = TraceReport(
        environment="local",
        traces=[join(each, contracts) for each in traced],
        unknown=[],
        searched=0,
        partitions=[],
        seconds=0.0,
    )
    with console.capture() as captured:
        console.print(page(report))
    return captured.get()


def told(*traced: Evidence) -> str:
    """Return the page on one line, so that a sentence can be looked for."""
    return " ".join(drawn(*traced).split())


FULL = evidence(served(), feedback=[answer(4)], audit=[event(0), event(6, event="publish")])
DEAD = evidence(Found(record=paid(b"\x00{"), committed=6_000, dead_letter=letter(b"\x00{")))
WAITING = evidence(Found(record=paid(headers=(("row", b"17"),)), committed=5_000))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("traced", [FULL, DEAD, WAITING, evidence(feedback=[answer(4)])])
def test_no_line_is_wider_than_the_terminal(traced: Evidence, width: int) -> None:
    lines = drawn(traced, width=width).split("\n")
    assert max(cell_len(line.rstrip()) for line in lines) <= width
    assert all(line.isprintable() for line in lines)


def test_the_page_of_an_alert_has_every_part() -> None:
    text = told(FULL)
    for words in (
        f"{ID} alert: score 0.5811 >= threshold 0.2800, model version 1",
        "event time 2025-02-04 09:31:31.000 UTC",
        "amount 1,418.15 EUR (141815 minor units)",
        "kind purchase",
        "customer C0000304",
        "terminal T0000099",
        "attributes distance_km 4.2, card_present 1, mcc 5732",
        "transactions 3:5121 (partition:offset)",
        "amount_ratio 24.4 2 +5.6",
        "terminal_days_since_genuine 0.75 2 -0.3",
        "score 0.581055",
        "feature set 44df9c1ad927d62b",
        "duplicate of none",
        "apply_seq 1838484838441742",
        "waiting in Kafka 5.0 ms",
        "other 2.6 ms",
        "age 12 ms from sending to produce, not stale",
        "alert_id 3-5121",
        "amount_ratio 24.4 (usual 0.899)",
        "suggested action call the customer before the next purchase",
        "in force fraud",
        "feedback 4 fraud (in force), labelled 2025-02-07 09:31:31.000 UTC, 3.0 days after the event,",
        "source analyst, analyst mk, sent after the score",
        "audit 0 swap of version 1",
        "scorer: the champion alias moved",
        "audit 6 publish of version 1",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("traced", "words"),
    [
        (
            WAITING,
            "not scored yet: group local.scorer has committed partition 3 up to offset 5,000",
        ),
        (WAITING, "headers row=17"),
        (evidence(Found(record=paid(), committed=6_000)), "lost: group local.scorer has committed"),
        (DEAD, "dead letter: invalid_field"),
        (DEAD, r"value \x00{"),
        (DEAD, "message Expected `int` - at `$.v`"),
        (evidence(served(stale=True)), "stale: older than score_deadline_ms"),
        (evidence(served(duplicate_of=17)), "duplicate of transactions 3:17, not counted again"),
        (
            evidence(served(model_version=None, score=None, threshold=None, decision="none")),
            "scored before any model: features were logged, nothing was decided",
        ),
        (evidence(served(score=0.1, decision="pass")), "pass: score 0.1000 < threshold 0.2800"),
        (evidence(served(model_version="2")), "usual values are missing: its contract"),
        (
            evidence(Found(record=paid(), committed=6_000, score=score())),
            "missing the decision is alert, yet there is none",
        ),
        (evidence(served(), more=7), "7 more of the same id are not shown"),
        (evidence(served()), "labels none: without one it counts as genuine"),
        (evidence(served(), feedback=[answer(4, label="unsure")]), "in force none, the latest"),
        (
            evidence(served(), feedback=[answer(4, event_time_ms=1_738_661_491_001)]),
            "event time or entities are not this transaction's",
        ),
        (evidence(served(), by_position=True, asked="3-5121"), "asked for by position"),
        (
            evidence(Found(record=paid(b"{"), committed=0), transaction_id=None, asked="3:5121"),
            "no transaction_id, at 3:5121",
        ),
    ],
)
def test_the_page_says(traced: Evidence, words: str) -> None:
    assert words in told(traced)


def test_a_transaction_sent_twice_is_shown_twice_the_first_first() -> None:
    again = Found(
        record=paid(offset=OFFSET + 9),
        committed=6_000,
        score=score(source_offset=OFFSET + 9, duplicate_of=OFFSET),
    )
    text = told(evidence(again, served()))
    first, _, second = text.partition("sent 2 times: 2")
    assert "sent 2 times: 1" in first
    assert f"transactions 3:{OFFSET} (partition:offset)" in first
    assert f"duplicate of transactions 3:{OFFSET}" in second


def hostile() -> Evidence:
    """Return records whose every text would like to act on the terminal."""
    names = {"customer": HOSTILE, "terminal": HOSTILE}
    value = example(
        "transaction", transaction_id=HOSTILE, kind=HOSTILE[:32], entities=names, attributes={}
    )
    label = answer(4, transaction_id=HOSTILE, entities=names, source=HOSTILE, analyst=HOSTILE)
    found = Found(
        record=paid(value, headers=((HOSTILE, HOSTILE.encode()),), key=HOSTILE.encode()),
        committed=6_000,
        score=score(model_version=HOSTILE, feature_set=HOSTILE),
        alert=alert(reasons=[HOSTILE], suggested_action=HOSTILE, alert_id=HOSTILE),
        dead_letter=letter(HOSTILE.encode()),
    )
    audit = [event(1, model_version=HOSTILE, actor=HOSTILE, why=HOSTILE)]
    return evidence(found, asked=HOSTILE, transaction_id=HOSTILE, feedback=[label], audit=audit)


def test_hostile_text_stands_there_and_does_nothing() -> None:
    text = drawn(hostile(), width=200)
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.count(r"[2J\x1b]0;owned\x07[bold red]\u202egenuine\x9b31m") >= 12


def test_at_a_terminal_colours_are_the_page_s_own() -> None:
    escapes = {part.partition("m")[0] for part in drawn(hostile(), colour=True).split("\x1b")[1:]}
    assert all(re.fullmatch(r"\[[0-9;]*", code) for code in escapes)
    assert len(escapes) > 1
