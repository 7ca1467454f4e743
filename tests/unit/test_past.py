"""What a trainer reads from the audit topic before it trains or promotes."""

from typing import Literal

import msgspec
import pytest

from fraudstream.core.scores import AuditEvent
from trainer.past import (
    LEARNED_FROM,
    Events,
    Held,
    LearnedFrom,
    check_not_taken_back,
    learned_last,
)

LEARNED = LearnedFrom(
    offsets={"scores": {0: 10, 1: 12}, "feedback": {0: 3}},
    feature_set="abc",
    days=30,
    as_of_ms=None,
    validation_share=0.2,
    seed=0,
    promote=True,
)
LIKE = msgspec.structs.replace(LEARNED, offsets={})


def event(
    kind: Literal["publish", "gate", "promote", "refused"], version: int, **evidence: object
) -> AuditEvent:
    # As it comes out of the topic: JSON has no numbers as keys.
    encoded = msgspec.json.encode(
        AuditEvent(
            event=kind,
            model_name="x-fraud",
            model_version=str(version),
            at_ms=1,
            actor="ana",
            why="too many alerts",
            evidence=evidence,
        )
    )
    return msgspec.json.decode(encoded, type=AuditEvent)


def published(version: int, learned: LearnedFrom = LEARNED) -> AuditEvent:
    return event("publish", version, **{LEARNED_FROM: learned})


def promoted(version: int, before: int | None, *, by_service: bool = False) -> list[AuditEvent]:
    expected = None if before is None else str(before)
    return [
        event("promote", version, phase=phase, expected_champion=expected, by_service=by_service)
        for phase in ("intent", "done")
    ]


def log(*events: AuditEvent) -> Events:
    return list(enumerate(events))


@pytest.mark.parametrize(
    "last",
    [
        [event("gate", 1, passed=False)],
        [event("gate", 1, passed=True), *promoted(1, None)],
        [event("gate", 1, passed=True), event("refused", 1)],
    ],
)
def test_what_was_learned_from_stands_in_the_publication(last: list[AuditEvent]) -> None:
    others = [published(2, msgspec.structs.replace(LEARNED, promote=False)), event("publish", 3)]
    assert learned_last(log(published(1), *last, *others), LIKE) == LEARNED


@pytest.mark.parametrize(
    "events",
    [
        [],
        [published(1)],
        [published(1), event("gate", 1, passed=True)],
        [published(1), event("gate", 1, passed=True), promoted(1, None)[0]],
        [event("publish", 1), *promoted(1, None)],
        [published(1), *promoted(1, None), published(2), event("gate", 2, passed=True)],
        [*promoted(1, None), published(1)],
        [published(1, msgspec.structs.replace(LEARNED, seed=1)), *promoted(1, None)],
    ],
)
def test_a_training_that_came_to_no_end_is_done_again(events: list[AuditEvent]) -> None:
    assert learned_last(log(*events), LIKE) is None


@pytest.mark.parametrize(
    ("events", "champion"),
    [
        ([], None),
        ([], "4"),
        (promoted(1, None), "1"),
        (promoted(1, None), None),
        ([*promoted(1, None), *promoted(10, 9)], "10"),
        ([*promoted(3, 2), *promoted(2, 3), *promoted(3, 2)], "3"),
        ([*promoted(3, 2), *promoted(2, 3), *promoted(4, 2)], "4"),
        ([*promoted(7, 6), *promoted(1, None, by_service=True)], "1"),
    ],
)
def test_a_champion_that_nobody_went_back_to_may_be_replaced(
    events: list[AuditEvent], champion: str | None
) -> None:
    check_not_taken_back(log(*events), champion)


@pytest.mark.parametrize(
    ("events", "champion", "why"),
    [
        ([*promoted(10, 9), *promoted(9, 10)], "9", r"ana went back to version 9 from 10 \(too"),
        ([*promoted(3, 2), *promoted(2, None)], "2", "ana went back to version 2 from 3"),
        ([*promoted(3, 2), *promoted(1, 3), *promoted(2, 1)], "2", "ana went back to version 1"),
        ([*promoted(3, 2), *promoted(1, 3)], "2", "ana went back to version 1 from 3"),
        ([*promoted(3, 2), *promoted(1, 3)], "none", "ana went back to version 1 from 3"),
        ([*promoted(9, 8), *promoted(10, 9)], "9", "somebody set the alias back from version 10"),
    ],
)
def test_a_champion_that_somebody_went_back_to_stays(
    events: list[AuditEvent], champion: str, why: str
) -> None:
    with pytest.raises(Held, match=f"version {champion} stays champion: {why}"):
        check_not_taken_back(log(*events), None if champion == "none" else champion)
