"""Which interval of its owner a moment lies in: one sorted search for all rows at once."""

import numpy as np
from numpy.typing import NDArray

from fraudstream.core.feature_set import DAY_MS

Ints = NDArray[np.int64]

SPAN_MS = 8_192 * DAY_MS
"""Wider than any simulated time plus margin, so that owner * SPAN_MS + time orders by both."""
_SHIFT_MS = 2_048 * DAY_MS


def key(owner: Ints, time_ms: Ints) -> Ints:
    """Return int64 keys in order of (owner, time); times in [-2048, 6144) days, owners < 10 million."""
    return owner.astype(np.int64) * SPAN_MS + time_ms + _SHIFT_MS


def latest_interval(
    owner: Ints, start_ms: Ints, end_ms: Ints, *, of_owner: Ints, at_ms: Ints
) -> Ints:
    """Return for each moment the index of the interval [start, end) of its owner, or -1; int64 [N].

    Where intervals of one owner overlap, the one that started last decides.
    """
    if not len(owner):
        return np.full(len(of_owner), -1, dtype=np.int64)
    keys = key(owner, start_ms)
    order = np.argsort(keys, kind="stable")
    place = np.searchsorted(keys[order], key(of_owner, at_ms), side="right") - 1
    found = order[np.maximum(place, 0)]
    inside = (place >= 0) & (owner[found] == of_owner) & (at_ms < end_ms[found])
    return np.where(inside, found, -1)
