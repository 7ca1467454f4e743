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
        "read('<I6', held, at) > limit",
        "read('<I6', held, at) >= limit",
    ),
    "terminal window one longer": ("if row_t <= limit then", "if row_t < limit then"),
    "terminal window one longer where no label is": ("old_t > limit and", "old_t >= limit and"),
    "digests not compared": (
        "local order = compare(sub(s, at + 6, at + 13), digest)",
        "local order = -1",
    ),
    "label one millisecond late": ("labelled_at <= now then", "labelled_at < now then"),
    "label from the future": ("labelled_at <= now then", "true then"),
    "delay one longer": (
        "count_until(rows, plan.row, k, confirmed)",
        "count_until(rows, plan.row, k, confirmed - 1)",
    ),
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
    "young genuine ones are passed over": ("if n > 0 and code == GENUINE then", "if false then"),
    "an old row with a label is genuine": (
        "if old_t > newest_label(e) then",
        "if old_t > 0 then",
    ),
    "hot at 3": ("ratio > HOT_RATIO", "ratio >= HOT_RATIO"),
    "clean below 2.5": ("ratio <= CLEAN_MAX_RATIO)", "ratio < CLEAN_MAX_RATIO)"),
    "explained at 2.5": ("ratio > CLEAN_MAX_RATIO", "ratio >= CLEAN_MAX_RATIO"),
    "no warm-up": ("n < CLEAN_WARM_UP or ", ""),
    "duplicates count": (
        "local first = customer[ROWS] > 0 and first_offset(customer, t, digest) or nil",
        "local first = nil",
    ),
    "duplicates visit": ("row = not first and TERMINAL.pack_row", "row = TERMINAL.pack_row"),
    "days by 24 hours": ("((t - t % DAY) - (from - from % DAY)) / DAY", "floor((t - from) / DAY)"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_library_fails_a_known_answer(
    mutant: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "build_library", mutated(MUTANTS[mutant]))
    assert next(wrong_cases(connect, CASES, NINE), None)
