"""The plain Python twin against answers worked out by hand."""

import msgspec
import numpy as np
import pytest

from fraudstream.core.feature_set import DAY_MS, NINE
from fraudstream.core.transaction import Feedback
from fraudstream.core.twin import Twin, TwinReply
from tests.feature_cases import CASES, Case, pay
from tests.window_cases import CASES as WINDOW_CASES
from tests.window_cases import KINDS


def replies(case: Case, twin: Twin) -> list[TwinReply]:
    found = []
    for offset, record in enumerate(case.stream):
        if isinstance(record, Feedback):
            twin.label(record)
        else:
            found.append(twin.apply(0, offset, record))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_twin_gives_the_answer_worked_out_by_hand(case: Case) -> None:
    last = replies(case, Twin())[-1]
    found = dict(zip(NINE.features, last.features, strict=True))
    assert {name: found[name] for name in case.want} == {
        name: float(np.float32(value)) for name, value in case.want.items()
    }


def test_names_of_cases_are_told_apart() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_duplicate_names_the_first_offset() -> None:
    twin = Twin()
    first = pay(0, customer="me", name="same")
    assert [twin.apply(3, offset, first).duplicate_of for offset in (7, 8, 11)] == [-1, 7, 7]


def test_the_same_id_of_another_customer_is_no_duplicate() -> None:
    twin = Twin()
    twin.apply(0, 0, pay(0, customer="one", name="same"))
    assert twin.apply(0, 1, pay(0, customer="other", name="same")).duplicate_of == -1


def test_a_duplicate_is_told_only_while_the_first_is_retained() -> None:
    twin = Twin()
    twin.apply(0, 0, pay(0, customer="me", name="same"))
    twin.apply(0, 1, pay(21, customer="me", terminal="far", plus_ms=-1))
    assert twin.apply(0, 2, pay(0, customer="me", name="same")).duplicate_of == 0
    twin.apply(0, 3, pay(21, customer="me", terminal="far"))
    assert twin.apply(0, 4, pay(0, customer="me", name="same")).duplicate_of == -1


@pytest.mark.parametrize(
    ("late_ms", "beyond", "truncated"),
    [
        (NINE.lateness_ms, False, False),
        (NINE.lateness_ms + 1, False, True),
        (NINE.customer_retention_ms - 1, False, True),
        (NINE.customer_retention_ms, True, True),
    ],
)
def test_later_than_the_lateness_is_told_and_beyond_retention_is_not_stored(
    late_ms: int, *, beyond: bool, truncated: bool
) -> None:
    twin = Twin()
    twin.apply(0, 0, pay(100, customer="me"))
    reply = twin.apply(0, 1, pay(100, customer="me", terminal="other", plus_ms=-late_ms))
    assert (reply.beyond_retention, reply.truncated) == (beyond, truncated)
    assert len(twin.customers["me"].entries) == (1 if beyond else 2)
    assert twin.customers["me"].n == 2


def test_the_parameters_of_the_set_are_used() -> None:
    patient = msgspec.structs.replace(NINE, label_delay_ms=8 * DAY_MS)
    case = next(
        case for case in CASES if case.name == "unlabelled, it is genuine from exactly 7 days on"
    )
    assert replies(case, Twin(patient))[-1].features[8] == 99.0


def test_every_feature_is_a_float32() -> None:
    for case in CASES:
        for reply in replies(case, Twin()):
            assert [float(np.float32(x)) for x in reply.features] == list(reply.features)


@pytest.mark.parametrize("case", WINDOW_CASES, ids=lambda case: case.name)
def test_the_twin_gives_the_answer_of_windows_worked_out_by_hand(case: Case) -> None:
    last = replies(case, Twin(KINDS))[-1]
    found = dict(zip(KINDS.features, last.features, strict=True))
    assert {name: found[name] for name in case.want} == {
        name: float(np.float32(value)) for name, value in case.want.items()
    }
