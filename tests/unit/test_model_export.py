"""The exported file decides on raw values as the trees did on their grid, for values never seen as well."""

import dataclasses

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier

from fraudstream.clients.inference import open_session, run
from fraudstream.core.errors import Refused
from fraudstream.core.model import FloatArray
from tests.model_samples import WIDTH, rows, sample
from trainer.export import PARITY_TOLERANCE, check_parity, convert
from trainer.fit import MAX_EDGES, learn_grid

session = open_session(sample().exported.onnx_bytes)


def test_onnx_agrees_with_scikit_learn_on_unseen_rows() -> None:
    features, _ = rows(5_000, seed=23)

    assert check_parity(convert(sample().fitted), sample().fitted, features) <= PARITY_TOLERANCE


def at_edges() -> FloatArray:
    """Return rows whose values are the edges themselves and their neighbours among the floats."""
    edges = sample().fitted.grid.edges
    columns = [np.resize(column, 3 * MAX_EDGES) for column in edges]
    exact = np.stack(columns, axis=1)
    return np.concatenate([exact, np.nextafter(exact, -np.inf), np.nextafter(exact, np.inf)])


def test_onnx_agrees_with_scikit_learn_at_every_edge_of_the_grid() -> None:
    check_parity(convert(sample().fitted), sample().fitted, at_edges().astype(np.float32))


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=WIDTH, max_size=WIDTH))
def test_onnx_agrees_with_scikit_learn_on_any_float(values: list[float]) -> None:
    row = np.array([values], np.float32)

    difference = abs(run(session, row)[0] - sample().fitted.probabilities(row)[0])

    assert difference <= PARITY_TOLERANCE


def test_an_export_with_one_wrong_threshold_is_refused() -> None:
    converted = convert(sample().fitted)
    (tree,) = converted.graph.node
    values = next(attribute for attribute in tree.attribute if attribute.name == "nodes_values")
    values.floats[0] = values.floats[0] * 2 + 1

    with pytest.raises(Refused, match="the ONNX model differs from scikit-learn by"):
        check_parity(converted, sample().fitted, sample().features)


def test_categorical_features_are_refused() -> None:
    features, labels = rows(500, seed=2)
    features[:, 5] = np.minimum(features[:, 5], 3)
    classifier = HistGradientBoostingClassifier(max_iter=2, categorical_features=[5])
    classifier.fit(features, labels)

    with pytest.raises(Refused, match="categorical features"):
        convert(dataclasses.replace(sample().fitted, classifier=classifier))


def test_the_file_has_probabilities_as_its_only_output() -> None:
    model = onnx.load_from_string(sample().exported.onnx_bytes)

    assert [output.name for output in model.graph.output] == ["probabilities"]


def test_a_grid_has_at_most_255_cells_and_resolves_where_the_frauds_are() -> None:
    features, labels = rows(20_000, seed=3)

    grid = learn_grid(features, labels)

    assert all(len(edges) <= MAX_EDGES for edges in grid.edges)
    assert all((np.diff(edges) > 0).all() for edges in grid.edges)
    cells_of_frauds = len(np.unique(grid.cells(features)[labels, 1]))
    assert cells_of_frauds > 100


def test_a_feature_with_few_values_keeps_each_of_them_apart() -> None:
    features, labels = rows(1_000, seed=3)

    cells = learn_grid(features, labels).cells(features)[:, 5]

    assert (cells == features[:, 5]).all()
