"""Histograms of where the time of scores went, from the same figures that stand in each score."""

from collections.abc import Iterator, Sequence

from fraudstream.core.scores import Score, Stages
from scorer.histogram import Buckets, Histogram

EDGES_MS = (
    *(1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0),
    *(1_000.0, 2_500.0, 5_000.0, 10_000.0),
)
"""Upper edges, inclusive, of all buckets but the last."""
MS_PER_S = 1_000.0


class StageTimes:
    """Counts by stage and bucket over all committed scores; read by another thread than the one that adds."""

    def __init__(self) -> None:
        self._stages = {name: Histogram(EDGES_MS) for name in Stages.__struct_fields__}

    def add(self, scores: Sequence[Score]) -> None:
        """Add the scores of one batch: each waited for itself, the hops they went through together."""
        if not scores:
            return
        self._stages["waiting"].add([score.stages.waiting for score in scores])
        first = scores[0].stages
        for name in ("features", "model", "until_produce"):
            self._stages[name].add_one(getattr(first, name), len(scores))

    def histograms(self) -> Iterator[tuple[str, Buckets, float]]:
        """Yield stage, cumulative counts by upper edge in seconds, and sum in seconds."""
        for name, histogram in self._stages.items():
            yield name, *histogram.read(MS_PER_S)
