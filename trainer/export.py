"""Hop 5 of training: the trees become one ONNX file that takes raw features and carries its contract."""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
import onnx
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType

from fraudstream.clients.inference import open_session, run
from fraudstream.core.errors import Refused
from fraudstream.core.model import (
    CONTRACT_KEY,
    INPUT_NAME,
    OUTPUT_NAME,
    Contract,
    FloatArray,
    encode_contract,
)
from trainer.fit import Fitted, Grid

GOLDEN_ROWS = 64
PARITY_TOLERANCE = 5e-6
"""Trees are summed in float32 by onnxruntime, in float64 by scikit-learn: up to 1e-6 apart on the
Handbook data. One wrong branch moves a score by 1e-3 and more."""
_OPSETS = {"": 18, "ai.onnx.ml": 3}

Served = Callable[[FloatArray], FloatArray]
"""Features float32 [N, F] to probabilities float32 [N]."""


@dataclass(frozen=True)
class Exported:
    """The ONNX file, its digest and the contract that it carries."""

    onnx_bytes: bytes
    sha256: str
    contract: Contract


def convert(fitted: Fitted) -> onnx.ModelProto:
    """Return the trees as ONNX with float32 [N, F] `features` in, float32 [N, 2] `probabilities` out.

    Raises:
        Refused: the classifier has categorical features, or skl2onnx wrote a tree of another shape.
    """
    if getattr(fitted.classifier, "is_categorical_", None) is not None:
        raise Refused(
            "the classifier has categorical features, which skl2onnx converts to wrong results: "
            "leave categorical_features unset"
        )
    width = len(fitted.grid.edges)
    with warnings.catch_warnings():
        # skl2onnx 1.20 hands booleans to protobuf where integers are due; protobuf < 7 takes them.
        warnings.filterwarnings(
            "ignore", message="Field onnx.AttributeProto", category=DeprecationWarning
        )
        converted: onnx.ModelProto = to_onnx(
            fitted.classifier,
            initial_types=[(INPUT_NAME, FloatTensorType([None, width]))],
            options={"zipmap": False},
            target_opset=_OPSETS,
        )
    _thresholds_on_raw_values(converted, fitted.grid)
    unused = [output for output in converted.graph.output if output.name != OUTPUT_NAME]
    for output in unused:
        converted.graph.output.remove(output)
    return converted


def scoring(converted: onnx.ModelProto) -> Served:
    """Return how a scorer computes probabilities: by the exported trees, in the session that serves."""
    return partial(run, open_session(converted.SerializeToString()))


def check_parity(converted: onnx.ModelProto, fitted: Fitted, features: FloatArray) -> float:
    """Return the largest difference between ONNX on raw and scikit-learn on gridded `features` [N, F].

    Raises:
        Refused: it is above PARITY_TOLERANCE.
    """
    scores = scoring(converted)(features)
    difference = float(np.abs(scores - fitted.probabilities(features)).max())
    if not difference <= PARITY_TOLERANCE:
        raise Refused(
            f"the ONNX model differs from scikit-learn by {difference:.2g} on {len(features):,} rows, "
            f"at most {PARITY_TOLERANCE} is allowed: do not publish it, check the versions of skl2onnx "
            "and onnxruntime against requirements.lock"
        )
    return difference


def golden_rows(features: FloatArray, scores: FloatArray) -> FloatArray:
    """Return GOLDEN_ROWS rows of `features` float32 [N, F], evenly from the lowest to the highest score."""
    ranks = np.linspace(0, len(scores) - 1, min(GOLDEN_ROWS, len(scores))).astype(np.intp)
    return features[np.argsort(scores, kind="stable")[ranks]]


def seal(converted: onnx.ModelProto, contract: Contract) -> Exported:
    """Return the file with `contract` inside, its golden outputs computed by the very session that serves."""
    outputs = scoring(converted)(np.array(contract.golden_inputs, np.float32))
    contract = msgspec.structs.replace(contract, golden_outputs=outputs.tolist())
    sealed = onnx.ModelProto()
    sealed.CopyFrom(converted)
    onnx.helper.set_model_props(sealed, {CONTRACT_KEY: encode_contract(contract)})
    onnx_bytes = sealed.SerializeToString()
    return Exported(onnx_bytes, hashlib.sha256(onnx_bytes).hexdigest(), contract)


def _thresholds_on_raw_values(converted: onnx.ModelProto, grid: Grid) -> None:
    """Replace each threshold t on cell numbers by the upper edge of cell floor(t).

    cell(x) <= t is the same as x <= edges[floor(t)], so the decisions are those of the classifier for
    every float32, not only for those seen in training.
    """
    (tree,) = [node for node in converted.graph.node if node.op_type == "TreeEnsembleClassifier"]
    attributes = {attribute.name: attribute for attribute in tree.attribute}
    modes = attributes["nodes_modes"].strings
    if not set(modes) <= {b"BRANCH_LEQ", b"LEAF"}:
        raise Refused(
            f"skl2onnx wrote tree nodes {sorted(set(modes))}; only BRANCH_LEQ is understood"
        )
    values = attributes["nodes_values"].floats
    columns = attributes["nodes_featureids"].ints
    for index, (mode, column) in enumerate(zip(modes, columns, strict=True)):
        if mode == b"BRANCH_LEQ":
            values[index] = float(grid.edges[column][int(np.floor(values[index]))])
