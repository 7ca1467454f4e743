"""Hop 3 of training: gradient-boosted trees on a grid of at most 255 cells a feature."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from fraudstream.core.model import FloatArray

MAX_EDGES = 254
"""HistGradientBoosting keeps values apart exactly while there are at most 255 of them."""
_THREADS = 1
"""OpenMP's threads wait for each other by spinning: with the scorer and Kafka on the same 2 cores two
threads took 17-21 s for 115,000 rows, one took 2.4-3.0 s."""

_ROWS = 50_000
"""So many are asked for at once: scikit-learn takes 110 bytes a row for itself meanwhile."""


@dataclass(frozen=True)
class Grid:
    """Per feature its ascending float32 edges: x lies in cell k if edges[k-1] < x <= edges[k]."""

    edges: tuple[FloatArray, ...]

    def cells(self, features: FloatArray) -> FloatArray:
        """Return the cell numbers, float32 [N, F], of raw `features` float32 [N, F]."""
        found = np.empty(features.shape, np.float32)
        for index, edges in enumerate(self.edges):
            found[:, index] = np.searchsorted(edges, features[:, index])
        return found


@dataclass(frozen=True)
class Fitted:
    """A classifier of cell numbers with the grid that makes them."""

    grid: Grid
    classifier: HistGradientBoostingClassifier

    def probabilities(self, features: FloatArray) -> npt.NDArray[np.float64]:
        """Return the probability of fraud, float64 [N], of raw `features` float32 [N, F]."""
        found = np.empty(len(features), np.float64)
        with threadpool_limits(_THREADS):
            for first in range(0, len(features), _ROWS):
                cells = self.grid.cells(features[first : first + _ROWS])
                found[first : first + _ROWS] = self.classifier.predict_proba(cells)[:, 1]
        return found


def learn_grid(features: FloatArray, labels: npt.NDArray[np.bool_]) -> Grid:
    """Return a grid with half of the edges at quantiles of all values, half at those of the frauds' values.

    Quantiles of all values alone put few cells where the rare frauds are, and cost up to 0.08 of
    average precision (docs/models.md). A feature with at most 255 values keeps each of them.
    """
    return Grid(tuple(_edges(column, labels) for column in features.T))


def fit(
    features: FloatArray, labels: npt.NDArray[np.bool_], *, seed: int, trees: int = 150
) -> Fitted:
    """Return trees of 8 leaves fitted on `features` float32 [N, F] and `labels` bool [N].

    With L2: without it boosting blows up when positives are rare (ADR 0005). No categorical
    features, as skl2onnx converts them wrongly without saying so.
    """
    grid = learn_grid(features, labels)
    classifier = HistGradientBoostingClassifier(
        max_iter=trees,
        max_leaf_nodes=8,
        learning_rate=0.05,
        l2_regularization=10.0,
        max_bins=255,
        categorical_features=None,
        early_stopping=False,
        random_state=seed,
    )
    with threadpool_limits(_THREADS):
        classifier.fit(grid.cells(features), labels)
    return Fitted(grid, classifier)


def _edges(column: FloatArray, labels: npt.NDArray[np.bool_]) -> FloatArray:
    values = np.unique(column)
    if len(values) <= MAX_EDGES + 1:
        return values[:-1]
    ranks = np.linspace(0, 1, MAX_EDGES // 2 + 2)[1:-1]
    halves = [np.quantile(part, ranks, method="inverted_cdf") for part in (column, column[labels])]
    return np.unique(np.concatenate(halves)).astype(np.float32)
