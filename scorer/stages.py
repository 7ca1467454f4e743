"""Histograms of where the time of scores went, from the same figures that stand in each score."""

from collections.abc import Iterator, Sequence

import numpy as np

from fraudstream.core.scores import Score, Stages

EDGES_MS = (
    1.0,
    2.5,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
)
"""Upper edges, inclusive, of all buckets but the last."""


class StageTimes:
    """Counts by stage and bucket over all committed scores; read by another thread than the one that adds."""

    def __init__(self) -> None:
        self._counts = {
            name: np.zeros(len(EDGES_MS) + 1, np.int64) for name in Stages.__struct_fields__
        }
        self._sums_ms = dict.fromkeys(Stages.__struct_fields__, 0.0)

    def add(self, scores: Sequence[Score]) -> None:
        """Add the scores of one batch: each waited for itself, the hops they went through together."""
        if not scores:
            return
        waited = np.array([score.stages.waiting for score in scores])
        self._add("waiting", waited, np.ones(len(scores), np.int64))
        first = scores[0].stages
        for name in ("features", "model", "until_produce"):
            self._add(name, np.array([getattr(first, name)]), np.array([len(scores)]))

    def histograms(self) -> Iterator[tuple[str, list[tuple[str, float]], float]]:
        """Yield stage, cumulative counts by upper edge in seconds ("+Inf" last), and sum in seconds."""
        edges = [f"{edge / 1_000:g}" for edge in EDGES_MS] + ["+Inf"]
        for name, counts in self._counts.items():
            sums = np.cumsum(counts).astype(float).tolist()
            yield name, list(zip(edges, sums, strict=True)), self._sums_ms[name] / 1_000

    def _add(self, name: str, values_ms: np.ndarray, times: np.ndarray) -> None:
        """Count float64 [N] values, each int64 [N] times; in new arrays, since they may be being read."""
        places = np.searchsorted(EDGES_MS, values_ms)
        added = np.bincount(places, times, len(EDGES_MS) + 1).astype(np.int64)
        self._counts[name] = self._counts[name] + added
        self._sums_ms[name] += float(values_ms @ times)
