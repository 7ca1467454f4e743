"""What a model says of itself: the contract inside its ONNX file, and its version in the registry."""

import msgspec
import numpy as np
import numpy.typing as npt

from fraudstream.core.errors import Refused
from fraudstream.core.reference import Reference

FloatArray = npt.NDArray[np.float32]

CONTRACT_KEY = "fraudstream.contract"
"""Key of the contract in the `metadata_props` of the ONNX file."""
INPUT_NAME = "features"
OUTPUT_NAME = "probabilities"
"""One float32 [N, 2] output; column 1 is the probability of fraud."""

CARD_METRICS = (
    "average_precision",
    "average_precision_low",
    "average_precision_high",
    "chance",
    "roc_auc",
    "card_precision_100",
    "alerts_per_1000",
    "alert_precision",
    "alert_recall",
)
"""What a model card tells of a version; `Contract.metrics` has each."""

CHAMPION = "champion"
PREVIOUS = "previous"


class DataWindow(msgspec.Struct, frozen=True, kw_only=True):
    """Event times (UTC milliseconds) and numbers of the transactions a model was fitted and validated on."""

    from_ms: int
    split_ms: int
    to_ms: int
    as_of_ms: int
    fit_rows: int
    fit_frauds: int
    validation_rows: int
    validation_frauds: int


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a scorer must check before it trusts an ONNX file, and what people want to know of it.

    `golden_inputs` float32 [G, F] and `golden_outputs` float32 [G] are compared bit for bit;
    `usual` and `spread` float32 [F] are what a feature of a genuine transaction is like (for reasons),
    `reference` is what the newest traffic was like (for drift; versions of former releases have none).
    A transaction is an alert from a score of `threshold` on.
    """

    v: int = 1
    feature_set: str
    features: tuple[str, ...]
    threshold: float
    golden_inputs: list[list[float]]
    golden_outputs: list[float]
    usual: list[float]
    spread: list[float]
    window: DataWindow
    metrics: dict[str, float]
    created_at_ms: int
    reference: Reference | None = None


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version as the registry has it; `threshold` None means the contract's own applies.

    An empty `sha256` or `feature_set` marks a version that was not published by fraudstream.
    """

    name: str
    version: str
    sha256: str
    feature_set: str
    threshold: float | None
    average_precision: float | None
    created_at_ms: int
    description: str
    aliases: tuple[str, ...] = ()


def model_name(environment: str) -> str:
    """Return the name of the registered model of one environment."""
    return f"{environment}-fraud"


def encode_contract(contract: Contract) -> str:
    """Return the contract as JSON; float32 values survive the round trip bit for bit."""
    return msgspec.json.encode(contract).decode()


def decode_contract(text: str) -> Contract:
    """Return the contract in a JSON text.

    Raises:
        Refused: the text is no contract of a known version.
    """
    try:
        contract = msgspec.json.decode(text, type=Contract)
    except msgspec.DecodeError as exc:
        raise Refused(f"the model's contract ({CONTRACT_KEY}) cannot be read: {exc}") from exc
    if contract.v != 1:
        raise Refused(f"the model's contract has version {contract.v}; this release knows 1")
    return contract


def usual_values(features: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return median and mean absolute deviation from it, float32 [F] each, of `features` [N, F], N >= 1.

    The mean (not median) deviation, since most features are constant for most transactions; it is 1
    where a feature never varies.
    """
    median = np.median(features, axis=0).astype(np.float32)
    spread = np.abs(features - median).mean(axis=0, dtype=np.float64).astype(np.float32)
    return median, np.where(spread > 0, spread, np.float32(1))
