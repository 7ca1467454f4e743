"""Known answers of windows and the other kinds, worked out by hand, for the set of this file.

A case is a stream and what some features of its last transaction must be. Unless it says otherwise a
transaction is of 53.00 by the customer `me` at the terminal `shop`.
"""

from fraudstream.core.feature_set import DAY_MS, id_digest, parse
from fraudstream.core.transaction import Transaction
from tests.feature_cases import HOUR, Case, answer, pay

KINDS = parse(
    """
[parameters]
lateness = "3d"
label_delay = "2d"

[features]
count = { entity = "customer", window = "1d", aggregate = "count" }
sum = { entity = "customer", window = "1d", aggregate = "sum" }
sum_10d = { entity = "customer", window = "10d", aggregate = "sum" }
mean = { entity = "customer", window = "1d", aggregate = "mean" }
max = { entity = "customer", window = "1d", aggregate = "max" }
min = { entity = "customer", window = "1d", aggregate = "min" }
std = { entity = "customer", window = "10d", aggregate = "std" }
terminals = { entity = "customer", window = "1d", aggregate = "distinct", of = "terminal" }
since_last = { entity = "customer", window = "1d", aggregate = "since_last" }
shop_count = { entity = "terminal", window = "1d", aggregate = "count" }
customers = { entity = "terminal", window = "1d", aggregate = "distinct", of = "customer" }
share = { entity = "terminal", profile = "fraud_share", window = "4d" }
my_share = { entity = "customer", profile = "fraud_share", window = "4d" }
age = { entity = "customer", profile = "age" }
shop_age = { entity = "terminal", profile = "age" }
""",
    "window_cases",
    "kinds",
)
MOST = 10**12


def me(
    day: float, amount: int = 5_300, *, terminal: str = "shop", name: str = "", plus_ms: int = 0
) -> Transaction:
    """Return a transaction of the customer that the case is about."""
    return pay(day, amount, customer="me", terminal=terminal, name=name, plus_ms=plus_ms)


_low, _high = sorted(("tie-a", "tie-b"), key=id_digest)
_a, _b, _c, _d = me(0), me(1), me(2), me(1.5, terminal="far")

CASES = [
    Case(
        "the first transaction is alone in every window",
        [me(0, 12_300)],
        {"count": 1, "sum": 123.0, "mean": 123.0, "max": 123.0, "min": 123.0, "std": 0.0}
        | {"terminals": 1, "since_last": 99.0, "shop_count": 1, "customers": 1}
        | {"share": 0.0, "my_share": 0.0, "age": 0.0, "shop_age": 0.0},
    ),
    Case(
        "what is exactly the window old is out",
        [me(0, 100), me(1, 200)],
        {"count": 1, "sum": 2.0, "max": 2.0, "min": 2.0, "since_last": 99.0, "shop_count": 1},
    ),
    Case(
        "a millisecond younger it is in",
        [me(0, 100, plus_ms=1), me(1, 200)],
        {"count": 2, "sum": 3.0, "mean": 1.5, "max": 2.0, "min": 1.0, "shop_count": 2}
        | {"since_last": 1 - 1 / DAY_MS},
    ),
    Case(
        "standard deviation of the population",
        [
            me(0, 200),
            me(1, 400),
            me(2, 400),
            me(3, 400),
            me(4, 500),
            me(5, 500),
            me(6, 700),
            me(7, 900),
        ],
        {"std": 2.0},
    ),
    Case(
        "the deviation of one minor unit between the largest amounts is not lost",
        [me(0, MOST), me(1, MOST - 2)],
        {"std": 0.01, "sum_10d": (2 * MOST - 2) / 100},
    ),
    Case(
        "the largest leaves and the second largest is it",
        [me(0, 900), me(0.5, 300), me(0.75, 700), me(1.0, 100)],
        {"max": 7.0, "min": 1.0, "count": 3},
    ),
    Case(
        "the smallest leaves and the second smallest is it",
        [me(0, 100), me(0.5, 700), me(0.75, 300), me(1.0, 900)],
        {"max": 9.0, "min": 3.0},
    ),
    Case(
        "the largest twice: it stays until the later one leaves",
        [me(0, 900), me(0.5, 900), me(1.25, 100)],
        {"max": 9.0, "count": 2},
    ),
    Case(
        "different terminals, each once, those that left not",
        [
            me(0, terminal="old"),
            me(0.5, terminal="a"),
            me(0.6, terminal="b"),
            me(0.7, terminal="a"),
            me(1),
        ],
        {"terminals": 3},
    ),
    Case(
        "different customers at the terminal",
        [pay(0.5, customer="x"), pay(0.6, customer="y"), pay(0.7, customer="x"), me(1)],
        {"customers": 3, "shop_count": 4, "count": 1},
    ),
    Case(
        "of two at the same time the one with the larger digest sees the other",
        [me(0, 100, name=_low), me(0, 200, name=_high)],
        {"count": 2, "sum": 3.0, "since_last": 0.0},
    ),
    Case(
        "of two at the same time the one with the smaller digest does not",
        [me(0, 100, name=_high), me(0, 200, name=_low)],
        {"count": 1, "sum": 2.0, "since_last": 99.0},
    ),
    Case(
        "and what comes later sees both",
        [me(0, 100, name=_high), me(0, 200, name=_low), me(0.5, 400)],
        {"count": 3, "sum": 7.0},
    ),
    Case(
        "a late transaction has the windows of its own time",
        [me(0, 100), me(0.5, 200), me(1.25, 400), me(0.75, 800)],
        {"count": 3, "sum": 11.0, "max": 8.0, "min": 1.0, "since_last": 0.25},
    ),
    Case(
        "a late one counts for those after it",
        [me(0, 100), me(1.25, 400), me(0.75, 800), me(1.5, 1_600)],
        {"count": 3, "sum": 28.0, "max": 16.0, "min": 4.0, "since_last": 0.25},
    ),
    Case(
        "a late one outside the window does not",
        [me(1.25, 400), me(0.25, 800), me(1.5, 1_600)],
        {"count": 2, "sum": 20.0, "sum_10d": 28.0},
    ),
    Case(
        "beyond retention a transaction has what is left, and counts for none",
        [me(0, 100), me(20, 200), me(7, 400), me(20.5, 800)],
        {"count": 2, "sum": 10.0, "sum_10d": 10.0},
    ),
    Case(
        "after a gap of months everything but the age is gone",
        [me(0, 100), me(0.5, 200), me(200, 400)],
        {"count": 1, "sum": 4.0, "max": 4.0, "min": 4.0, "std": 0.0, "since_last": 99.0}
        | {"age": 200.0, "shop_age": 200.0, "terminals": 1},
    ),
    Case(
        "a transaction sent twice is counted once",
        [me(0, 100, name="twice"), me(0, 100, name="twice"), me(HOUR, 200)],
        {"count": 2, "sum": 3.0, "shop_count": 2, "customers": 1},
    ),
    Case(
        "its second sending has the values of the first",
        [me(0, 100), me(HOUR, 200, name="twice"), me(HOUR, 200, name="twice")],
        {"count": 2, "sum": 3.0},
    ),
    Case(
        "the age of who was seen earlier than the first is nothing",
        [me(1), me(0.5)],
        {"age": 0.0, "shop_age": 0.0},
    ),
    Case("and counts from the earliest", [me(1), me(0.5), me(2)], {"age": 1.5, "shop_age": 1.5}),
    Case(
        "the share counts what ended a label delay ago, of its own entity",
        [_a, _b, _d, _c, answer(_a, "fraud", 2.5), me(3), me(4)],
        {"share": 1 / 3, "my_share": 1 / 4},
    ),
    Case(
        "what is exactly the delay old counts",
        [_a, answer(_a, "fraud", 0.5), me(2)],
        {"share": 1.0},
    ),
    Case(
        "a millisecond younger it does not",
        [_a, answer(_a, "fraud", 0.5), me(2, plus_ms=-1)],
        {"share": 0.0},
    ),
    Case(
        "what is exactly delay and window old does not",
        [_a, _b, answer(_a, "fraud", 2.5), me(6)],
        {"share": 0.0},
    ),
    Case(
        "a millisecond younger it counts",
        [_a, _b, answer(_a, "fraud", 2.5), me(6, plus_ms=-1)],
        {"share": 1 / 2},
    ),
    Case(
        "a label counts in the share from exactly its time on",
        [_a, _b, answer(_a, "fraud", 4.0), me(4)],
        {"share": 1 / 2},
    ),
    Case(
        "not a millisecond before",
        [_a, _b, answer(_a, "fraud", 4.0, plus_ms=1), me(4)],
        {"share": 0.0},
    ),
    Case(
        "a correction takes a fraud back",
        [_a, _b, answer(_a, "fraud", 2.5), answer(_a, "genuine", 3), answer(_b, "fraud", 3), me(4)],
        {"share": 1 / 2},
    ),
    Case(
        "a label before its transaction counts in the share",
        [answer(_a, "fraud", 0.5), _a, me(4)],
        {"share": 1.0},
    ),
    Case(
        "a label about no transaction of this time does not",
        [_a, answer(me(0.25, name="never"), "fraud", 0.5), me(4)],
        {"share": 0.0},
    ),
]
