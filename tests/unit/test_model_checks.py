"""A model file is used only if every check holds; each check refuses what it is there for, and says so."""

import hashlib
import subprocess
import sys

import msgspec
import numpy as np
import onnx
import pytest

from fraudstream.clients.inference import Model, load_model
from fraudstream.core.errors import Refused
from fraudstream.core.feature_set import NINE, FeatureSet
from fraudstream.core.model import CONTRACT_KEY, decode_contract, encode_contract
from tests.model_samples import WIDTH, rows, sample, with_contract


def load(
    onnx_bytes: bytes,
    *,
    sha256: str | None = None,
    feature_set: FeatureSet = NINE,
    threshold: float | None = None,
) -> Model:
    digest = sha256 or hashlib.sha256(onnx_bytes).hexdigest()
    return load_model(
        onnx_bytes, version="7", sha256=digest, feature_set=feature_set, threshold=threshold
    )


def test_a_contract_survives_its_json_bit_for_bit() -> None:
    contract = sample().exported.contract

    assert decode_contract(encode_contract(contract)) == contract
    outputs = np.array(decode_contract(encode_contract(contract)).golden_outputs, np.float32)
    assert outputs.tobytes() == np.array(contract.golden_outputs, np.float32).tobytes()


def test_a_sound_file_loads_and_scores() -> None:
    exported = sample().exported

    model = load(exported.onnx_bytes, sha256=exported.sha256)

    scores = model.score(sample().features)
    assert scores.dtype == np.float32
    assert scores.shape == (len(sample().features),)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (model.version, model.threshold) == ("7", exported.contract.threshold)
    assert model.contract == exported.contract


def test_the_registrys_threshold_replaces_the_contracts() -> None:
    assert load(sample().exported.onnx_bytes, threshold=0.25).threshold == 0.25


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    with pytest.raises(Refused, match="version 7 is not used: threshold"):
        load(sample().exported.onnx_bytes, threshold=threshold)


def test_another_digest_is_refused() -> None:
    with pytest.raises(Refused, match="version 7 is not used: digest"):
        load(sample().exported.onnx_bytes, sha256="0" * 64)


def test_a_file_that_is_no_onnx_is_refused() -> None:
    with pytest.raises(Refused, match="file: onnxruntime cannot load it"):
        load(b"no model")


def test_another_feature_set_is_refused() -> None:
    other = msgspec.structs.replace(NINE, hot_ratio=4.0)

    with pytest.raises(Refused, match=f"feature set: .*{NINE.hash}.*{other.hash}"):
        load(sample().exported.onnx_bytes, feature_set=other)


def test_a_file_without_a_contract_is_refused() -> None:
    model = onnx.load_from_string(sample().exported.onnx_bytes)
    del model.metadata_props[:]

    with pytest.raises(Refused, match=f"carries no {CONTRACT_KEY}"):
        load(model.SerializeToString())


@pytest.mark.parametrize("text", ["{}", "no json", '{"v": "one"}'])
def test_a_contract_that_cannot_be_read_is_refused(text: str) -> None:
    model = onnx.load_from_string(sample().exported.onnx_bytes)
    onnx.helper.set_model_props(model, {CONTRACT_KEY: text})

    with pytest.raises(Refused, match="cannot be read"):
        load(model.SerializeToString())


def test_a_contract_of_a_later_version_is_refused() -> None:
    with pytest.raises(Refused, match="version 2; this release knows 1"):
        load(with_contract({"v": 2}).onnx_bytes)


def test_a_contract_without_golden_vectors_is_refused() -> None:
    with pytest.raises(Refused, match="golden inputs and outputs are missing"):
        load(with_contract({"golden_inputs": [], "golden_outputs": []}).onnx_bytes)


def test_golden_inputs_of_another_width_are_refused() -> None:
    contract = sample().exported.contract
    narrow = [row[:-1] for row in contract.golden_inputs]

    with pytest.raises(Refused, match=f"do not have {WIDTH} features"):
        load(with_contract({"golden_inputs": narrow}).onnx_bytes)


def test_a_golden_score_one_bit_off_is_refused() -> None:
    outputs = np.array(sample().exported.contract.golden_outputs, np.float32)
    outputs[3] = np.nextafter(outputs[3], np.float32(1))

    with pytest.raises(Refused, match="golden vectors: 1 of 64 scores differ, the first at row 3"):
        load(with_contract({"golden_outputs": outputs.tolist()}).onnx_bytes)


def test_another_input_shape_is_refused() -> None:
    model = onnx.load_from_string(sample().exported.onnx_bytes)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = WIDTH + 1

    with pytest.raises(Refused, match="input: "):
        load(model.SerializeToString())


def test_another_input_type_is_refused() -> None:
    model = onnx.load_from_string(sample().exported.onnx_bytes)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE

    with pytest.raises(Refused, match="input: "):
        load(model.SerializeToString())


def test_another_output_name_is_refused() -> None:
    model = onnx.load_from_string(sample().exported.onnx_bytes)
    model.graph.output[0].name = model.graph.node[0].output[1] = "scores"

    with pytest.raises(Refused, match="output: "):
        load(model.SerializeToString())


def test_reasons_name_the_least_usual_features_first() -> None:
    contract = sample().exported.contract
    model = load(sample().exported.onnx_bytes)
    row = np.array(contract.usual, np.float32)
    row[1] += 50 * contract.spread[1]
    row[0] += 5 * contract.spread[0]

    (reasons,) = model.reasons(row)

    assert reasons == [
        f"amount_ratio {row[1]:.3g} (usual {contract.usual[1]:.3g})",
        f"amount {row[0]:.3g} (usual {contract.usual[0]:.3g})",
    ]


def test_reasons_come_for_many_rows_at_once() -> None:
    model = load(sample().exported.onnx_bytes)
    features, _ = rows(40, seed=1)

    together = model.reasons(features, top=2)

    assert together == [model.reasons(row, top=2)[0] for row in features]
    assert all(len(reasons) == 2 for reasons in together)


def test_inference_imports_no_training_library() -> None:
    heavy = {"sklearn", "skl2onnx", "mlflow", "onnx", "pandas", "scipy"}
    code = (
        "import sys, msgspec, fraudstream.clients.inference, fraudstream.clients.model_registry;"
        "print(msgspec.json.encode(sorted({name.partition('.')[0] for name in sys.modules})).decode())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    loaded = set(msgspec.json.decode(done.stdout, type=list[str]))

    assert "onnxruntime" in loaded
    assert loaded & heavy == set()
