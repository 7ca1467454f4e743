"""What scores and features were like when a model was trained: histograms, and how far others are from them.

PSI, the population stability index, is sum((q - p) ln(q / p)) over the bins, p and q being the shares before
and now (Siddiqi, Credit Risk Scorecards, 2006). KS is the largest difference of the two cumulated shares
(Kolmogorov-Smirnov) at the edges of the bins: that between edges may be larger.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

BINS = 10
NEAR = 1e-6
"""Values above the largest by less than such a share of it are in its bin."""
Counts = NDArray[np.int64]


class Bins(msgspec.Struct, frozen=True):
    """A histogram: upper edges of all bins but the last, and how many values each bin has.

    Edges lie between values, not on them: a score may come out a float32 higher or lower than at training.
    """

    edges: list[float]
    counts: list[int]


class Reference(msgspec.Struct, frozen=True):
    """The newest traffic at the time of a training: scores, and features by name."""

    scores: Bins
    features: dict[str, Bins]


def bins_of(values: NDArray[np.floating], most: int = BINS) -> Bins:
    """Return bins with about the same share, 1 / `most`, of `values` (float [N], N >= 1, finite) each.

    A value that a bin's share of the rows have, as 0 or a sentinel, has edges on both sides: with quantiles
    alone a feature that is 99, its largest value, for most rows would have one bin for all values.
    """
    shares = np.linspace(0, 1, most + 1)[1:-1]
    found, rows = np.unique(values, return_counts=True)
    shared = np.flatnonzero(rows >= len(values) / most)
    alone = np.concatenate([found[shared], found[shared[shared > 0] - 1]])
    quantiles = np.quantile(values, shares, method="inverted_cdf")
    highest = np.unique(np.concatenate([quantiles, alone]))
    beyond = found[-1] + 2 * NEAR * max(abs(float(found[-1])), 1.0)
    above = np.append(found.astype(float), beyond)[np.searchsorted(found, highest) + 1]
    edges = (highest + above) / 2
    return Bins(edges.astype(float).tolist(), counted(edges, values).tolist())


def reference_of(
    scores: NDArray[np.floating], features: NDArray[np.floating], names: Sequence[str]
) -> Reference:
    """Return the reference of traffic: `scores` float [N], `features` float [N, F] with their F `names`."""
    columns = zip(names, features.T, strict=True)
    return Reference(bins_of(scores), {name: bins_of(values) for name, values in columns})


def counted(edges: Sequence[float] | NDArray[np.floating], values: NDArray[np.floating]) -> Counts:
    """Return how many of `values` (float [N]) fall into each of the len(edges) + 1 bins, int64."""
    return np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1)


def psi(before: Sequence[int] | Counts, now: Sequence[int] | Counts) -> float:
    """Return the population stability index of two histograms with the same bins.

    Half a value is added to each bin, so that an empty one does not make it infinite.
    """
    p, q = (_shares(np.asarray(counts) + 0.5) for counts in (before, now))
    return float(((q - p) * np.log(q / p)).sum())


def ks(before: Sequence[int] | Counts, now: Sequence[int] | Counts) -> float:
    """Return the largest difference of the cumulated shares of two histograms with the same bins."""
    p, q = (_shares(np.asarray(counts, float)) for counts in (before, now))
    return float(np.abs(np.cumsum(p) - np.cumsum(q)).max())


def _shares(counts: NDArray[np.floating]) -> NDArray[np.float64]:
    total = counts.sum()
    return np.asarray(counts / total if total else counts, np.float64)
