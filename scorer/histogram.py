"""A histogram that one thread adds to while another one reads it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Buckets = list[tuple[str, float]]
"""Cumulative counts by upper edge, "+Inf" last, as Prometheus has them."""


class Histogram:
    """Counts of values up to each edge, inclusive; their sum."""

    def __init__(self, edges: Sequence[float]) -> None:
        self._edges = np.array(edges)
        self._counts: NDArray[np.int64] = np.zeros(len(edges) + 1, np.int64)
        self._sum = 0.0

    def add(self, values: NDArray[np.floating], times: int = 1) -> None:
        """Count float [N] values, each so many times; in a new array, since the old may be being read."""
        places = np.searchsorted(self._edges, values)
        self._counts = self._counts + times * np.bincount(places, minlength=len(self._counts))
        self._sum += times * float(values.sum())

    def read(self, unit: float = 1.0) -> tuple[Buckets, float]:
        """Return buckets and sum, edges and sum divided by `unit`."""
        edges = [f"{edge / unit:g}" for edge in self._edges.tolist()] + ["+Inf"]
        counts = np.cumsum(self._counts).astype(float).tolist()
        return list(zip(edges, counts, strict=True)), self._sum / unit
