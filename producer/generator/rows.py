"""Transactions in the making: equally long arrays, in any order until the table is made."""

from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Columns = TypeVar("Columns", bound=msgspec.Struct)

FRAUDS = ("card_testing", "draining", "takeover", "high_value", "compromised_terminal")
LOOK_ALIKES = ("holiday", "big_purchase", "popular_shop", "small_purchases")
NEW_FRAUDS, NEW_LOOK_ALIKES = ("shell_merchant",), ("new_shop",)
"""Those of the merchants that open during the stream (newcomers.py)."""
BEHAVIOURS = ("", *FRAUDS, *LOOK_ALIKES, *NEW_FRAUDS, *NEW_LOOK_ALIKES)
CODE = {name: code for code, name in enumerate(BEHAVIOURS)}


class Rows(msgspec.Struct, frozen=True):
    """N transactions: indices of customer and terminal, time in ms since the start, amount in major units.

    `odds` is P(fraud | hidden state) as of the simulator, before its coin flips; `behaviour` indexes
    `BEHAVIOURS`.
    """

    customer: Ints
    terminal: Ints
    time_ms: Ints
    amount: Floats
    fraud: NDArray[np.bool_]
    behaviour: NDArray[np.uint8]
    odds: Floats


def make_rows(
    customer: Ints, terminal: Ints, time_ms: Ints, amount: Floats, *, behaviour: str
) -> Rows:
    """Return rows of one behaviour; those of thieves are fraud with odds 1."""
    code = CODE[behaviour]
    is_fraud = behaviour in FRAUDS + NEW_FRAUDS
    return Rows(
        customer,
        terminal,
        time_ms,
        amount,
        np.full(len(customer), is_fraud),
        np.full(len(customer), code, dtype=np.uint8),
        np.full(len(customer), float(is_fraud)),
    )


def joined(parts: list[Columns]) -> Columns:
    """Return everything in `parts`, structs of equally long arrays, one part after the other."""
    columns = zip(*map(msgspec.structs.astuple, parts), strict=True)
    return type(parts[0])(*map(np.concatenate, columns))


def chosen(rows: Rows, index: Ints | NDArray[np.bool_]) -> Rows:
    """Return the rows at `index`."""
    return Rows(*(column[index] for column in _columns(rows)))


def _columns(rows: Rows) -> tuple[NDArray[Any], ...]:
    return msgspec.structs.astuple(rows)
