"""onnxruntime: an ONNX file becomes a model only after every check of its contract.

One thread is part of the contract: with two or more, onnxruntime sums the trees of a small batch in
another order, and the same row gets other bits in another batch (docs/models.md has the figures).
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import (
    onnxruntime_pybind11_state as ort_errors,
)

from fraudstream.core.environment_sets import EnvironmentSets
from fraudstream.core.errors import Refused
from fraudstream.core.feature_diff import definition_of, mismatch
from fraudstream.core.feature_set import FeatureSet
from fraudstream.core.model import (
    CONTRACT_KEY,
    INPUT_NAME,
    OUTPUT_NAME,
    Contract,
    FloatArray,
    ModelVersion,
    decode_contract,
)

if TYPE_CHECKING:
    from fraudstream.clients.model_registry import ModelRegistry

_ORT_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class Model:
    """A checked model, ready to score; scores of a row are the same bits in any batch."""

    def __init__(
        self, session: ort.InferenceSession, contract: Contract, *, version: str, threshold: float
    ) -> None:
        self.version = version
        self.threshold = threshold
        self.contract = contract
        self._session = session
        self._usual = np.array(contract.usual, np.float32)
        self._spread = np.array(contract.spread, np.float32)
        self._usual_text = [f"{value:.3g}" for value in contract.usual]

    def score(self, features: FloatArray) -> FloatArray:
        """Return the probability of fraud, float32 [N] in 0..1, of `features` float32 [N, F]."""
        return run(self._session, features)

    def reasons(self, features: FloatArray, top: int = 3) -> list[list[str]]:
        """Return per row of `features` float32 [N, F] (or one row [F]) the `top` least usual features.

        The distance is |value - median| / mean absolute deviation of genuine transactions; a feature
        at its usual value is never a reason. The most unusual comes first.
        """
        rows = np.atleast_2d(features)
        distance = np.abs(rows - self._usual) / self._spread
        order = np.argsort(-distance, axis=1, kind="stable")[:, :top]
        return [
            [self._reason(index, row[index]) for index in columns if far[index] > 0]
            for row, far, columns in zip(rows, distance, order, strict=True)
        ]

    def _reason(self, index: int, value: np.float32) -> str:
        return f"{self.contract.features[index]} {value:.3g} (usual {self._usual_text[index]})"


def load_model(
    onnx_bytes: bytes,
    *,
    version: str,
    sha256: str,
    feature_set: FeatureSet,
    known: Mapping[str, FeatureSet] | None = None,
    threshold: float | None = None,
) -> Model:
    """Return the model in `onnx_bytes` after all checks; `threshold` replaces the contract's own.

    `known` has definitions by hash, by which the difference from another set can be told.

    Raises:
        Refused: digest, contract, feature set, input, output, or a golden vector is not as it must
            be; the message names the version and the failed check.
    """
    try:
        check_digest(onnx_bytes, sha256)
        session = open_session(onnx_bytes)
        contract = _contract_of(session)
        _check_feature_set(contract, feature_set, known or {})
        _check_signature(session, len(contract.features))
        _check_golden(session, contract)
        chosen = contract.threshold if threshold is None else threshold
        _check_threshold(chosen)
    except Refused as exc:
        raise Refused(
            f"model version {version} is not used: {exc}; the model serving now goes on, "
            "publish a sound version with `fraudstream train`"
        ) from exc
    return Model(session, contract, version=version, threshold=chosen)


def load_version(
    registry: "ModelRegistry",
    version: ModelVersion,
    feature_set: FeatureSet,
    known: Mapping[str, FeatureSet] | None = None,
) -> Model:
    """Return a registered version, fetched and put through all checks, at its registered threshold.

    Raises:
        DependencyUnreachable: MLflow does not answer.
        Refused: as `load_model`.
    """
    return load_model(
        registry.fetch(version),
        version=version.version,
        sha256=version.sha256,
        feature_set=feature_set,
        known=known,
        threshold=version.threshold,
    )


def load_live_version(
    registry: "ModelRegistry", version: ModelVersion, sets: EnvironmentSets
) -> Model:
    """Return a registered version as `load_version` does, of whichever set of the environment is live.

    Raises:
        DependencyUnreachable: MLflow does not answer.
        Refused: as `load_model`; where its set is not live, how it differs from the first that is.
    """
    wanted = sets.live.get(version.feature_set) or next(iter(sets.live.values()))
    return load_version(registry, version, wanted, sets.known)


def check_digest(onnx_bytes: bytes, sha256: str) -> None:
    """Compare the SHA-256 of a file with the one expected.

    Raises:
        Refused: they differ.
    """
    found = hashlib.sha256(onnx_bytes).hexdigest()
    if found != sha256:
        raise Refused(f"digest: the file has SHA-256 {found}, the registry says {sha256!r}")


def open_session(onnx_bytes: bytes) -> ort.InferenceSession:
    """Return a session of one thread on the CPU.

    Raises:
        Refused: onnxruntime cannot load the file.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    except _ORT_ERRORS as exc:
        raise Refused(f"file: onnxruntime cannot load it ({exc})") from exc


def run(session: ort.InferenceSession, features: FloatArray) -> FloatArray:
    """Return column 1 of the output, float32 [N], for `features` float32 [N, F]."""
    probabilities: FloatArray = session.run([OUTPUT_NAME], {INPUT_NAME: features})[0]
    return np.ascontiguousarray(probabilities[:, 1])


def read_contract(onnx_bytes: bytes) -> Contract:
    """Return the contract inside a file, whatever feature set it is of.

    Raises:
        Refused: onnxruntime cannot load the file, or it carries no sound contract.
    """
    return _contract_of(open_session(onnx_bytes))


def _contract_of(session: ort.InferenceSession) -> Contract:
    metadata = session.get_modelmeta().custom_metadata_map
    if CONTRACT_KEY not in metadata:
        raise Refused(f"contract: the file carries no {CONTRACT_KEY}")
    contract = decode_contract(metadata[CONTRACT_KEY])
    width = len(contract.features)
    rows = [contract.usual, contract.spread, *contract.golden_inputs]
    if not contract.golden_inputs or len(contract.golden_inputs) != len(contract.golden_outputs):
        raise Refused("contract: golden inputs and outputs are missing or differ in number")
    if any(len(row) != width for row in rows):
        raise Refused(f"contract: usual values or golden inputs do not have {width} features")
    return contract


def _check_feature_set(
    contract: Contract, feature_set: FeatureSet, known: Mapping[str, FeatureSet]
) -> None:
    if (contract.feature_set, contract.features) == (feature_set.hash, feature_set.features):
        return
    trained = definition_of(contract.feature_set, known)
    how = f"`fraudstream features fill {trained.name if trained else 'FILE'}`"
    raise Refused(
        f"feature set: the model was trained on {contract.feature_set}, "
        f"this worker computes {feature_set.hash} ({feature_set.name}); from the model's to this one: "
        f"{mismatch(contract.feature_set, contract.features, feature_set, known)}; to serve it, let its "
        f"set be live first: {how}"
    )


def _check_signature(session: ort.InferenceSession, width: int) -> None:
    inputs = [(node.name, node.type, node.shape[1:]) for node in session.get_inputs()]
    outputs = {node.name: (node.type, node.shape[1:]) for node in session.get_outputs()}
    if inputs != [(INPUT_NAME, "tensor(float)", [width])]:
        raise Refused(f"input: {inputs}; one float32 [N, {width}] named {INPUT_NAME} is expected")
    if outputs.get(OUTPUT_NAME) != ("tensor(float)", [2]):
        raise Refused(f"output: {outputs}; a float32 [N, 2] named {OUTPUT_NAME} is expected")


def _check_golden(session: ort.InferenceSession, contract: Contract) -> None:
    try:
        got = run(session, np.array(contract.golden_inputs, np.float32))
    except _ORT_ERRORS as exc:
        raise Refused(f"golden vectors: onnxruntime cannot score them ({exc})") from exc
    expected = np.array(contract.golden_outputs, np.float32)
    wrong = np.flatnonzero(got.view(np.uint32) != expected.view(np.uint32))
    if len(wrong):
        first = int(wrong[0])
        raise Refused(
            f"golden vectors: {len(wrong)} of {len(expected)} scores differ, the first at row {first} "
            f"({got[first]!r} instead of {expected[first]!r})"
        )


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise Refused(f"threshold: {threshold} is not between 0 and 1")
