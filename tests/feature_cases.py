"""Known answers of the nine features, worked out by hand: the twin and the feature store must give them.

A case is a stream and what some features of its last transaction must be. Unless it says otherwise a
transaction is of 53.00 by a customer of its own: ratio exactly 1, clean, unexplained.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from fraudstream.core.feature_set import DAY_MS, id_digest
from fraudstream.core.transaction import Entities, Feedback, Label, Transaction

MIDNIGHT = 19_732 * DAY_MS
"""2024-01-10T00:00:00Z, day 0 of the cases."""
HOUR = 1 / 24

_ids = itertools.count()


def pay(
    day: float,
    amount: int = 5_300,
    *,
    customer: str = "",
    terminal: str = "shop",
    name: str = "",
    plus_ms: int = 0,
) -> Transaction:
    """Return a transaction `day` days after MIDNIGHT (+ milliseconds), amount in minor units."""
    number = next(_ids)
    return Transaction(
        1,
        name or f"tx{number}",
        MIDNIGHT + round(day * DAY_MS) + plus_ms,
        "purchase",
        amount,
        "EUR",
        Entities(customer or f"customer{number}", terminal),
    )


def answer(transaction: Transaction, label: Label, day: float, plus_ms: int = 0) -> Feedback:
    """Return a label on `transaction`, given `day` days after MIDNIGHT."""
    return Feedback(
        1,
        transaction.transaction_id,
        transaction.event_time_ms,
        transaction.entities,
        label,
        MIDNIGHT + round(day * DAY_MS) + plus_ms,
    )


class Case(NamedTuple):
    """A stream, and features of its last transaction by name."""

    name: str
    stream: Sequence[Transaction | Feedback]
    want: dict[str, float]


def _mine(day: float, amount: int, plus_ms: int = 0, name: str = "") -> Transaction:
    """Return a transaction of the one customer that the case is about."""
    return pay(day, amount, customer="me", terminal=f"t{day}", plus_ms=plus_ms, name=name)


def _last_and_first(last: float, first: float) -> dict[str, float]:
    return {"days_since_last_hot": last, "days_since_first_hot": first}


def _run(length: float, age: float, before: float, since_genuine: float) -> dict[str, float]:
    return {
        "terminal_fraud_run": length,
        "terminal_run_age_days": age,
        "terminal_days_genuine_before_run": before,
        "terminal_days_since_genuine": since_genuine,
    }


_NO_RUN = {
    "terminal_fraud_run": 0.0,
    "terminal_run_age_days": -1.0,
    "terminal_days_genuine_before_run": -1.0,
}
_NOTHING_HOT = _last_and_first(99.0, 99.0)
_three = [_mine(day, 5_300) for day in (0, 1, 2)]
"""Warmed up: n = 3, sum = 159.00, clean mean 53.00."""

_CUSTOMER = [
    Case(
        "the first transaction has the prior alone",
        [_mine(0, 12_345)],
        {"amount": 123.45, "amount_ratio": 12_345 / 5_300, "max_ratio_14d": 0.0} | _NOTHING_HOT,
    ),
    Case("an amount of nothing", [_mine(0, 0)], {"amount": 0.0, "amount_ratio": 0.0}),
    Case(
        "the clean mean counts what came before, not the current one",
        [_mine(0, 5_300), _mine(1, 10_600)],
        {"amount_ratio": 2.0, "max_ratio_14d": 1.0},
    ),
    Case(
        "while warming up a high ratio is clean",
        [_mine(0, 20_000), _mine(1, 12_650)],
        {"amount_ratio": 1.0, "max_ratio_14d": 20_000 / 5_300},
    ),
    Case(
        "after warming up a ratio of exactly 2.5 is clean",
        [*_three, _mine(3, 13_250), _mine(4, 6_890)],
        {"amount_ratio": 1.0},
    ),
    Case(
        "after warming up a ratio above 2.5 is not clean",
        [*_three, _mine(3, 13_251), _mine(4, 5_300)],
        {"amount_ratio": 1.0},
    ),
    Case(
        "an amount of 220.00 may be clean",
        [_mine(0, 22_000), _mine(1, 13_650)],
        {"amount_ratio": 1.0},
    ),
    Case(
        "an amount above 220.00 never is",
        [_mine(0, 22_001), _mine(1, 5_300)],
        {"amount_ratio": 1.0},
    ),
    Case(
        "a ratio of exactly 3 is not hot",
        [*_three, _mine(3, 15_900), _mine(4, 5_300)],
        {"max_ratio_14d": 3.0} | _NOTHING_HOT,
    ),
    Case(
        "days since the last and the first hot one are fractions",
        [*_three, _mine(3, 15_901), _mine(4, 5_300), _mine(5.25, 21_200), _mine(6, 5_300)],
        {"max_ratio_14d": 4.0 * 5_300 / 5_300} | _last_and_first(0.75, 3.0),
    ),
    Case(
        "the current transaction is not in its own window",
        [*_three, _mine(3, 21_200)],
        {"amount_ratio": 4.0, "max_ratio_14d": 1.0} | _NOTHING_HOT,
    ),
    Case(
        "what is 14 days old to the millisecond is out of the window",
        [*_three, _mine(3, 21_200), _mine(17, 5_300)],
        {"max_ratio_14d": 0.0} | _NOTHING_HOT,
    ),
    Case(
        "what is a millisecond younger is in",
        [*_three, _mine(3, 21_200, plus_ms=1), _mine(17, 5_300)],
        {"max_ratio_14d": 4.0} | _last_and_first(14 - 1 / DAY_MS, 14 - 1 / DAY_MS),
    ),
    Case(
        "a late transaction sees its own past only, but the whole profile",
        [_mine(0, 5_300), _mine(2, 21_200), _mine(1, 10_600)],
        {"max_ratio_14d": 1.0, "amount_ratio": 10_600 / ((5_300 + 21_200 + 5_300) / 3)}
        | _NOTHING_HOT,
    ),
    Case(
        "after a gap of months the window is empty and the profile remains",
        [*_three, _mine(3, 21_200), _mine(200, 5_300)],
        {"amount_ratio": 1.0, "max_ratio_14d": 0.0} | _NOTHING_HOT,
    ),
]


def _tie(first: str, second: str) -> list[Transaction | Feedback]:
    """Return a hot transaction named `first` and a usual one named `second`, both at the same time."""
    return [*_three, _mine(3, 21_200, name=first), _mine(3, 5_300, name=second)]


_low, _high = sorted(("tie-a", "tie-b"), key=id_digest)
_TIES = [
    Case(
        "of two at the same time the one with the larger digest sees the other",
        _tie(_low, _high),
        {"max_ratio_14d": 4.0} | _last_and_first(0.0, 0.0),
    ),
    Case(
        "of two at the same time the one with the smaller digest does not",
        _tie(_high, _low),
        {"max_ratio_14d": 1.0} | _NOTHING_HOT,
    ),
    Case(
        "a transaction sent twice is counted once and does not see itself",
        [*_three, *(_mine(3, 21_200, name="twice") for _ in range(2))],
        {"amount_ratio": 4.0, "max_ratio_14d": 1.0} | _NOTHING_HOT,
    ),
    Case(
        "a transaction sent twice is counted once in the profile",
        [*(_mine(0, 10_600, name="again") for _ in range(3)), _mine(1, 7_950)],
        {"amount_ratio": 1.0},
    ),
]


def _answers(day: float, *, genuine: list[Transaction], fraud: list[Transaction]) -> list[Feedback]:
    return [answer(t, "genuine", day) for t in genuine] + [answer(t, "fraud", day) for t in fraud]


_expensive, _unusual, _just_usual = (pay(1, amount) for amount in (22_001, 13_251, 13_250))
_once = pay(1, customer="me")
_a, _b, _c, _d = (pay(day) for day in (0.5, 1.25, 2.0, 3.9))
_TERMINAL = [
    Case("a new terminal knows nothing", [pay(0)], _NO_RUN | {"terminal_days_since_genuine": 99.0}),
    Case(
        "unlabelled, it is genuine from exactly 7 days on",
        [_a, pay(7.5)],
        _NO_RUN | {"terminal_days_since_genuine": 7.0},
    ),
    Case(
        "a millisecond earlier nothing is confirmed",
        [_a, pay(7.5, plus_ms=-1)],
        _NO_RUN | {"terminal_days_since_genuine": 99.0},
    ),
    Case(
        "a genuine label confirms at once",
        [_a, answer(_a, "genuine", 0.75), pay(1)],
        _NO_RUN | {"terminal_days_since_genuine": 0.5},
    ),
    Case(
        "a fraud after a genuine one: whole calendar days",
        [_a, _b, answer(_b, "fraud", 8.0), pay(8.1)],
        _run(1, 7, 8, 7.6),
    ),
    Case(
        "a label counts from exactly its time on",
        [_a, _b, answer(_b, "fraud", 8.0), pay(8.0)],
        _run(1, 7, 8, 7.5),
    ),
    Case(
        "a millisecond before its time it does not",
        [_a, answer(_a, "fraud", 1.0), pay(1.0, plus_ms=-1)],
        _NO_RUN | {"terminal_days_since_genuine": 99.0},
    ),
    Case(
        "calendar days turn at midnight UTC",
        [_d, answer(_d, "fraud", 3.95), pay(4.0)],
        _run(1, 1, 200, 99.0),
    ),
    Case(
        "a millisecond before midnight it is the same day",
        [_d, answer(_d, "fraud", 3.95), pay(4.0, plus_ms=-1)],
        _run(1, 0, 200, 99.0),
    ),
    Case(
        "a run counts back over what is not confirmed, to the first genuine",
        [_a, _b, _c, pay(2.5), _d, *_answers(4, genuine=[_a], fraud=[_b, _d]), pay(5)],
        _run(2, 4, 5, 4.5),
    ),
    Case(
        "a genuine one after the fraud ends the run",
        [_a, _b, answer(_a, "fraud", 2), answer(_b, "genuine", 2), pay(3)],
        _NO_RUN | {"terminal_days_since_genuine": 1.75},
    ),
    Case(
        "unsure counts as no label",
        [_a, answer(_a, "unsure", 1), pay(2)],
        _NO_RUN | {"terminal_days_since_genuine": 99.0},
    ),
    Case(
        "unsure takes a fraud back; after 7 days it is genuine",
        [_a, answer(_a, "fraud", 1), answer(_a, "unsure", 2), pay(7.5)],
        _NO_RUN | {"terminal_days_since_genuine": 7.0},
    ),
    Case(
        "fraud, corrected to genuine, corrected to fraud: the last in force counts",
        [
            _a,
            answer(_a, "fraud", 1),
            answer(_a, "genuine", 2),
            answer(_a, "fraud", 3),
            pay(3),
        ],
        _run(1, 3, 200, 99.0),
    ),
    Case(
        "a correction that is not yet in force does not count",
        [_a, answer(_a, "fraud", 1), answer(_a, "genuine", 3), pay(2)],
        _run(1, 2, 200, 99.0),
    ),
    Case(
        "the later labelled_at wins, whatever comes first in the topic",
        [_a, answer(_a, "genuine", 2), answer(_a, "fraud", 1), pay(3)],
        _NO_RUN | {"terminal_days_since_genuine": 2.5},
    ),
    Case(
        "at equal labelled_at the later in the topic wins",
        [_a, answer(_a, "genuine", 1), answer(_a, "fraud", 1), pay(3)],
        _run(1, 3, 200, 99.0),
    ),
    Case(
        "a label may come before its transaction",
        [answer(_a, "fraud", 0.5), _a, pay(1)],
        _run(1, 1, 200, 99.0),
    ),
    Case(
        "a label with another event time is of another transaction",
        [_a, answer(pay(0.5, name=_a.transaction_id, plus_ms=1), "fraud", 0.75), pay(1)],
        _NO_RUN | {"terminal_days_since_genuine": 99.0},
    ),
    Case(
        "a fraud of more than 220.00 is explained and skipped",
        [_a, _expensive, *_answers(2, genuine=[_a], fraud=[_expensive]), pay(3)],
        _NO_RUN | {"terminal_days_since_genuine": 2.5},
    ),
    Case(
        "a fraud with a ratio above 2.5 is explained and skipped",
        [_a, _unusual, _b, *_answers(2, genuine=[_a], fraud=[_unusual, _b]), pay(3)],
        _run(1, 2, 3, 2.5),
    ),
    Case(
        "a fraud with a ratio of exactly 2.5 is not explained",
        [_a, _just_usual, *_answers(2, genuine=[_a], fraud=[_just_usual]), pay(3)],
        _run(1, 2, 3, 2.5),
    ),
    Case(
        "what is 60 days old to the millisecond is forgotten",
        [_a, pay(60.5)],
        _NO_RUN | {"terminal_days_since_genuine": 99.0},
    ),
    Case(
        "a millisecond younger it is known",
        [_a, pay(60.5, plus_ms=-1)],
        _NO_RUN | {"terminal_days_since_genuine": 60 - 1 / DAY_MS},
    ),
    Case(
        "nor does a fraud of then begin a run",
        [_a, answer(_a, "fraud", 2), pay(60.5)],
        _NO_RUN | {"terminal_days_since_genuine": 99.0},
    ),
    Case(
        "a millisecond later it does",
        [
            pay(0.5, name=_a.transaction_id, plus_ms=1),
            answer(pay(0.5, name=_a.transaction_id, plus_ms=1), "fraud", 2),
            pay(60.5),
        ],
        _run(1, 60, 200, 99.0),
    ),
    Case(
        "a late transaction does not see what came after it",
        [_a, _c, answer(_a, "genuine", 1), answer(_c, "fraud", 2), pay(3), pay(1.5)],
        _NO_RUN | {"terminal_days_since_genuine": 1.0},
    ),
    Case(
        "a late fraud finds its place in the run",
        [
            _c,
            _b,
            _a,
            *_answers(3, genuine=[_a], fraud=[_b, _c]),
            pay(4),
        ],
        _run(2, 3, 4, 3.5),
    ),
    Case(
        "a duplicate is not a second visit",
        [_once, _once, answer(_once, "fraud", 2), pay(3)],
        _run(1, 2, 200, 99.0),
    ),
]

CASES = _CUSTOMER + _TIES + _TERMINAL
