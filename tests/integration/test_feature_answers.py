"""The feature store against answers worked out by hand, and mutants of its library that must fail them."""

import pytest

from fraudstream.clients import feature_store
from fraudstream.core.feature_set import NINE
from tests.feature_cases import CASES
from tests.feature_streams import Connect, mutated
from tests.known_answers import wrong_cases


def test_the_store_gives_the_answers_worked_out_by_hand(connect: Connect) -> None:
    assert list(wrong_cases(connect, CASES, NINE)) == []


MUTANTS = {
    "window one millisecond longer": (
        "local width, limit = plan.row, t - w.length",
        "local width, limit = plan.row, t - w.length - 1",
    ),
    "terminal window one longer": (
        "if row_t <= limit then",
        "if row_t < limit then",
    ),
    "digests not compared": (
        "local order = compare(sub(s, at + 6, at + 13), digest)",
        "local order = -1",
    ),
    "label one millisecond late": ("if labelled_at <= now then", "if labelled_at < now then"),
    "label from the future": ("if labelled_at <= now then", "if true then"),
    "delay one longer": ("row_t <= confirmed then", "row_t < confirmed then"),
    "lost correction": ("if order == 0 then -- the same", "if false then -- the same"),
    "earlier label stays": (
        "part.labels = sub(s, 1, at - 1) .. row",
        "part.labels = sub(s, 1, at - 1)",
    ),
    "late label goes last": (
        "    if order < 0 then\n      break\n    end\n    at = previous",
        "    if true then\n      break\n    end\n    at = previous",
    ),
    "explained frauds count": ("byte(rows, at + plan.flag) == 1 then", "true then"),
    "hot at 3": ("ratio > HOT_RATIO", "ratio >= HOT_RATIO"),
    "clean below 2.5": ("ratio <= CLEAN_MAX_RATIO)", "ratio < CLEAN_MAX_RATIO)"),
    "explained at 2.5": ("ratio > CLEAN_MAX_RATIO", "ratio >= CLEAN_MAX_RATIO"),
    "no warm-up": ("n < CLEAN_WARM_UP or ", ""),
    "duplicates count": (
        "local first = customer.h[ROWS] > 0 and first_offset(customer, t, digest) or nil",
        "local first = nil",
    ),
    "duplicates visit": ("row = not first and terminal_row", "row = terminal_row"),
    "days by 24 hours": ("floor(t / DAY) - floor(from / DAY)", "floor((t - from) / DAY)"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_library_fails_a_known_answer(
    mutant: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "build_library", mutated(MUTANTS[mutant]))
    assert next(wrong_cases(connect, CASES, NINE), None)
