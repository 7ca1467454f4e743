"""A histogram that one thread adds to while another one reads it."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Buckets = list[tuple[str, float]]
"""Cumulative counts by upper edge, "+Inf" last, as Prometheus has them."""

GATHERED = 512
"""So many values are counted at once: an array costs some 5 us, however few values are in it."""


class State(NamedTuple):
    """What is counted and what waits to be: replaced as a whole, so that a reader sees each value once."""

    counts: NDArray[np.int64]
    sum: float
    waiting: list[float]


class Histogram:
    """Counts of values up to each edge, inclusive; their sum."""

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = np.array(edges, np.float64)
        self._edges_listed = self._edges.tolist()
        self._state = State(np.zeros(len(edges) + 1, np.int64), 0.0, [])
        self._singles = [0] * (len(edges) + 1)
        self._sum_of_singles = 0.0

    def add(self, values: Iterable[float]) -> None:
        """Count values, each by itself."""
        waiting = self._state.waiting
        waiting.extend(values)
        if len(waiting) >= GATHERED:
            self._state = State(*self._counted(self._state), [])

    def add_one(self, value: float, times: int = 1) -> None:
        """Count one value so many times, at once."""
        self._singles[bisect_left(self._edges_listed, value)] += times
        self._sum_of_singles += times * value

    def read(self, unit: float = 1.0) -> tuple[Buckets, float]:
        """Return buckets and sum, edges and sum divided by `unit`."""
        edges = [f"{edge / unit:g}" for edge in self._edges_listed] + ["+Inf"]
        counted, total = self._counted(self._state)
        counts = np.cumsum(counted + np.array(self._singles)).astype(float).tolist()
        return list(zip(edges, counts, strict=True)), (total + self._sum_of_singles) / unit

    def _counted(self, state: State) -> tuple[NDArray[np.int64], float]:
        """Return counts and sum with what waits; a copy of it, since it may be added to meanwhile."""
        values = np.array(state.waiting.copy())
        counts = np.bincount(self._edges.searchsorted(values), minlength=len(state.counts))
        return state.counts + counts, state.sum + float(np.add.reduce(values))
