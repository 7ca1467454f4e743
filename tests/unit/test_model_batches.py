"""A transaction scored again in another batch gets the same bits, or a redelivery would change its score."""

import numpy as np
import onnxruntime as ort
import pytest

from fraudstream.clients.inference import Model, load_model, run
from fraudstream.core.feature_set import NINE
from fraudstream.core.model import FloatArray
from tests.model_samples import rows, sample

BATCHES = (1, 2, 3, 7, 16, 17, 49, 50, 51, 127, 128, 129, 500)


@pytest.fixture(scope="module")
def model() -> Model:
    exported = sample().exported
    return load_model(exported.onnx_bytes, version="1", sha256=exported.sha256, feature_set=NINE)


@pytest.fixture(scope="module")
def features() -> FloatArray:
    return rows(3_000, seed=11)[0]


@pytest.mark.parametrize("size", BATCHES)
def test_a_row_has_the_same_score_in_a_batch_of_any_size(
    model: Model, features: FloatArray, size: int
) -> None:
    together = model.score(features)

    apart = [model.score(features[start : start + size]) for start in range(0, len(features), size)]

    assert np.concatenate(apart).tobytes() == together.tobytes()


def test_a_row_has_the_same_score_among_other_neighbours(
    model: Model, features: FloatArray
) -> None:
    order = np.random.default_rng(5).permutation(len(features))

    assert model.score(features[order]).tobytes() == model.score(features)[order].tobytes()


def test_two_threads_would_change_bits_with_the_size_of_the_batch(features: FloatArray) -> None:
    """The control: this is why inference.py asks for one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(
        sample().exported.onnx_bytes, options, providers=["CPUExecutionProvider"]
    )

    alone = np.concatenate([run(session, row[np.newaxis]) for row in features])
    pairs = [run(session, features[start : start + 2]) for start in range(0, len(features), 2)]

    assert alone.tobytes() != np.concatenate(pairs).tobytes()
