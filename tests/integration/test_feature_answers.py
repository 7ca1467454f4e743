"""The feature store against answers worked out by hand, and mutants of its library that must fail them."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from fraudstream.clients import feature_store
from fraudstream.clients.feature_store import FeatureStore
from fraudstream.core.feature_set import NINE
from fraudstream.core.settings import Settings
from fraudstream.core.transaction import Feedback
from fraudstream.core.twin import TwinReply
from tests.feature_cases import CASES, Case
from tests.feature_streams import Connect, connections, mutated, one, rows, send_labels

TOPIC = "transactions-id"


@pytest.fixture
def connect(settings: Settings) -> Iterator[Connect]:
    with connections(settings) as make:
        yield make


def last_reply(case: Case, store: FeatureStore) -> TwinReply:
    """Send the stream of a case one by one; return the reply to the last transaction."""
    positions, feedback = itertools.count(), itertools.count()
    for record in case.stream:
        if isinstance(record, Feedback):
            send_labels(store, [record], next(feedback))
        else:
            reply = rows(store.apply(TOPIC, one(record, next(positions))))[0]
    return reply


def wrong_cases(connect: Connect) -> list[str]:
    """Return the names of the known-answer cases that the store gets wrong."""
    wrong = []
    for number, case in enumerate(CASES):
        reply = last_reply(case, connect(f"-{number}"))
        found = dict(zip(NINE.features, reply.features, strict=True))
        if any(found[name] != np.float32(value) for name, value in case.want.items()):
            wrong.append(case.name)
    return wrong


def test_the_store_gives_the_answers_worked_out_by_hand(connect: Connect) -> None:
    assert wrong_cases(connect) == []


MUTANTS = {
    "window one millisecond longer": ("t - CUSTOMER_WINDOW)", "t - CUSTOMER_WINDOW - 1)"),
    "terminal window one longer": (
        "row_t <= t - TERMINAL_WINDOW",
        "row_t < t - TERMINAL_WINDOW",
    ),
    "digests not compared": (" or compare(digest_at(s, at), digest) < 0 then", " then"),
    "label one millisecond late": ("if labelled_at <= now then", "if labelled_at < now then"),
    "label from the future": ("if labelled_at <= now then", "if true then"),
    "delay one longer": ("row_t <= confirmed_until", "row_t < confirmed_until"),
    "lost correction": ("if order == 0 then -- the same", "if false then -- the same"),
    "earlier label stays": ("return sub(s, 1, at - 1) .. row", "return sub(s, 1, at - 1)"),
    "late label goes last": (
        "    if order < 0 then\n      break\n    end\n    at = previous",
        "    if true then\n      break\n    end\n    at = previous",
    ),
    "explained frauds count": ("if unexplained == 1 then", "if true then"),
    "hot at 3": ("< -HOT_RATIO", "<= -HOT_RATIO"),
    "clean below 2.5": ("ratio <= CLEAN_RATIO)", "ratio < CLEAN_RATIO)"),
    "explained at 2.5": ("ratio > CLEAN_RATIO", "ratio >= CLEAN_RATIO"),
    "no warm-up": ("clean < WARM_UP or ", ""),
    "duplicates count": ("if duplicate_of then", "if false then"),
    "duplicates visit": ("if not store then", "if false then"),
    "days by 24 hours": ("floor(start / DAY)", "floor((start - t % DAY) / DAY)"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_library_fails_a_known_answer(
    mutant: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "build_library", mutated(*MUTANTS[mutant]))
    assert wrong_cases(connect)
