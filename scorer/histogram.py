"""A histogram that one thread adds to while another one reads it."""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Buckets = list[tuple[str, float]]
"""Cumulative counts by upper edge, "+Inf" last, as Prometheus has them."""


class Histogram:
    """Counts of values up to each edge, inclusive; their sum."""

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = np.array(edges, np.float64)
        self._edges_listed = self._edges.tolist()
        self._counts: NDArray[np.int64] = np.zeros(len(edges) + 1, np.int64)
        self._singles = [0] * (len(edges) + 1)
        self._sum = 0.0

    def add(self, values: NDArray[np.floating]) -> None:
        """Count float [N] values; in a new array, since the old may be being read."""
        places = self._edges.searchsorted(values)
        self._counts = self._counts + np.bincount(places, minlength=len(self._counts))
        self._sum += float(np.add.reduce(values))  # half of what values.sum() takes

    def add_one(self, value: float, times: int = 1) -> None:
        """Count one value so many times: a tenth of what an array costs, whatever its size."""
        self._singles[bisect_left(self._edges_listed, value)] += times
        self._sum += times * value

    def read(self, unit: float = 1.0) -> tuple[Buckets, float]:
        """Return buckets and sum, edges and sum divided by `unit`."""
        edges = [f"{edge / unit:g}" for edge in self._edges.tolist()] + ["+Inf"]
        counts = np.cumsum(self._counts + np.array(self._singles)).astype(float).tolist()
        return list(zip(edges, counts, strict=True)), self._sum / unit
