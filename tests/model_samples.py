"""A small data set with fraud in it, and a sealed model trained on it, for the tests of models."""

import dataclasses
import functools
import hashlib
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import onnx

from fraudstream.core.feature_set import NINE
from fraudstream.core.model import (
    CARD_METRICS,
    CONTRACT_KEY,
    Contract,
    DataWindow,
    FloatArray,
    encode_contract,
    usual_values,
)
from trainer.export import Exported, convert, golden_rows, seal
from trainer.fit import Fitted, fit

WIDTH = len(NINE.features)
WINDOW = DataWindow(
    from_ms=1_532_476_800_000,
    split_ms=1_533_081_600_000,
    to_ms=1_533_340_800_000,
    as_of_ms=1_533_945_600_000,
    fit_rows=100,
    fit_frauds=20,
    validation_rows=50,
    validation_frauds=5,
)
METRICS = dict.fromkeys(CARD_METRICS, 0.5)


@dataclass(frozen=True)
class Sample:
    """Features float32 [N, 9], labels bool [N], the trees fitted on them and their sealed file."""

    features: FloatArray
    labels: npt.NDArray[np.bool_]
    fitted: Fitted
    exported: Exported


def rows(count: int, *, seed: int) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return `count` rows with long tails, float32 [N, 9], and labels bool [N], about 2 % fraud."""
    random = np.random.default_rng(seed)
    features = random.lognormal(0, 1.5, (count, WIDTH)).astype(np.float32)
    features[:, 5] = random.integers(0, 4, count)
    labels = features[:, 1] * (1 + features[:, 5]) + random.lognormal(0, 1, count) > 60
    return features, labels


@functools.cache
def sample() -> Sample:
    """Return the one sample of the session: 6,000 rows, 150 trees."""
    features, labels = rows(6_000, seed=7)
    fitted = fit(features, labels, seed=0)
    return Sample(
        features, labels, fitted, seal(convert(fitted), contract(features, labels, fitted))
    )


def contract(
    features: FloatArray, labels: npt.NDArray[np.bool_], fitted: Fitted, *, threshold: float = 0.5
) -> Contract:
    """Return a contract for `fitted`, its golden outputs still empty."""
    usual, spread = usual_values(features[~labels])
    scores = fitted.probabilities(features).astype(np.float32)
    return Contract(
        feature_set=NINE.hash,
        features=NINE.features,
        threshold=threshold,
        golden_inputs=golden_rows(features, scores).tolist(),
        golden_outputs=[],
        usual=usual.tolist(),
        spread=spread.tolist(),
        window=WINDOW,
        metrics=METRICS,
        created_at_ms=1_533_945_600_000,
    )


def with_contract(changes: dict[str, object]) -> Exported:
    """Return the sample's file with contract fields overwritten as they are, golden outputs included."""
    exported = sample().exported
    changed = msgspec.structs.replace(exported.contract, **changes)
    model = onnx.load_from_string(exported.onnx_bytes)
    onnx.helper.set_model_props(model, {CONTRACT_KEY: encode_contract(changed)})
    onnx_bytes = model.SerializeToString()
    digest = hashlib.sha256(onnx_bytes).hexdigest()
    return dataclasses.replace(exported, onnx_bytes=onnx_bytes, sha256=digest, contract=changed)
