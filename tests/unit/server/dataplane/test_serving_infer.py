"""The Open Inference Protocol, answered as ONNX Runtime itself answers."""

import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from onnx_operator.server.dataplane.call import Call, Cancelled
from onnx_operator.server.dataplane.tensors import DTYPES, decode, encode, encode_nested
from onnx_operator.server.errors import RequestError
from onnx_operator.server.runtime.session import LoadError
from tests.unit.server.serving import (
    ask_score,
    identity,
    infer,
    linear,
    load_bytes,
    metadata,
    model_bytes,
    node,
    plane,
    slow,
    tensor,
    value,
)

RANDOM = {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
RANDOM |= {"RandomUniformLike"}


def carriable(infos: Any) -> bool:
    return all(info.datatype in DTYPES for info in infos)


def test_answers_equal_those_of_bare_onnx_runtime() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    random.Random(20261).shuffle(cases)
    seen: set[str] = set()
    checked = 0
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for case in cases:
        if checked == 200:
            break
        content = case.model.SerializeToString()
        if RANDOM & {n.op_type for n in case.model.graph.node}:
            continue
        try:
            served = plane(content)
        except LoadError:
            continue
        model = served.model
        data = case.data_sets[0][0]
        if not (carriable(model.inputs) and carriable(model.outputs)) or len(data) != len(model.inputs):
            continue
        arrays = [numpy_helper.to_array(v) if isinstance(v, TensorProto) else np.asarray(v) for v in data]
        feed = dict(zip([i.name for i in model.inputs], arrays, strict=True))
        expected = ort.InferenceSession(content, options).run(None, feed)
        tensors = [tensor(i.name, str(i.datatype), feed[i.name].shape, encode(feed[i.name])) for i in model.inputs]
        answer = infer(served, {"inputs": tensors})
        for output, array, info in zip(answer["outputs"], expected, model.outputs, strict=True):
            back = decode(output["data"], output["datatype"], output["shape"], info.name)
            assert back.dtype == np.asarray(array).dtype, case.name
            np.testing.assert_array_equal(back, array, err_msg=case.name)
        plain = {i.name: json.loads(json.dumps(encode_nested(feed[i.name]))) for i in model.inputs}
        if all(feed[i.name].size for i in model.inputs):
            scored = ask_score(model, {"data": plain})
            for info, array in zip(model.outputs, expected, strict=True):
                assert scored[info.name] == encode_nested(np.asarray(array)), case.name
        seen |= {str(info.datatype) for info in (*model.inputs, *model.outputs)}
        checked += 1
    assert checked == 200
    assert {"FP32", "FP16", "FP64", "INT64", "INT32", "BOOL", "UINT8"} <= seen


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_every_type_passes_through_a_model(datatype: str) -> None:
    elements = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BYTES": "STRING"}
    served = plane(identity(TensorProto.DataType.Value(elements.get(datatype, datatype)), ["N", 2]))
    data: list[Any] = ["é\0", "", "a", "b"] if datatype == "BYTES" else [1, 0, 1, 1]
    data = [True, False, True, True] if datatype == "BOOL" else data
    for sent in (data, [data[:2], data[2:]]):
        answer = infer(served, {"id": "q", "inputs": [tensor("x", datatype, [2, 2], sent)]})
        assert answer == {
            "model_name": "m",
            "id": "q",
            "outputs": [{"name": "y", "datatype": datatype, "shape": [2, 2], "data": data}],
        }


def test_extremes_come_back() -> None:
    served = plane(identity(TensorProto.UINT64))
    assert infer(served, {"inputs": [tensor("x", "UINT64", [1], [2**64 - 1])]})["outputs"][0]["data"] == [2**64 - 1]
    data = ["NaN", "Infinity", "-Infinity", 1.5]
    served = plane(identity())
    assert infer(served, {"inputs": [tensor("x", "FP32", [4], data)]})["outputs"][0]["data"] == data


@pytest.mark.parametrize(
    ("shape", "sent", "data"), [([], [], 7.0), (["N", 4], [0, 4], []), (["N", 0], [2, 0], [[], []])]
)
def test_scalars_and_empty_tensors(shape: list[Any], sent: list[int], data: Any) -> None:
    served = plane(identity(TensorProto.FLOAT, shape))
    (output,) = infer(served, {"inputs": [tensor("x", "FP32", sent, data)]})["outputs"]
    assert output["shape"] == sent
    assert output["data"] == ([7.0] if sent == [] else [])


def test_metadata_tells_names_types_and_shapes() -> None:
    assert metadata(linear(), "7") == {
        "name": "m",
        "versions": ["7"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [-1]},
            {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }


def test_outputs_are_chosen_in_the_order_asked_for() -> None:
    served = plane(linear(), "7")
    request = {
        "parameters": {"priority": 1},
        "inputs": [{**tensor("X", "FP32", [1, 4], [1, 2, 3, 4]), "parameters": {"content_type": "np"}}],
        "outputs": [{"name": "logits", "parameters": {}}, {"name": "label"}],
    }
    answer = infer(served, request)
    assert [output["name"] for output in answer["outputs"]] == ["logits", "label"]
    assert answer["model_version"] == "7"
    assert "id" not in answer
    request["outputs"] = [{"name": "label"}]
    assert [output["name"] for output in infer(served, request)["outputs"]] == ["label"]


GOOD = tensor("X", "FP32", [1, 4], [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("request_body", "message"),
    [
        ({}, '"inputs" must be a list of tensors with name, shape, datatype and data; it is missing'),
        ({"inputs": {}}, "got an object"),
        ({"inputs": []}, "missing input: X (FP32 [N, 4])"),
        ({"inputs": [3]}, 'inputs[0] must be an object with a "name"'),
        ({"inputs": [{**GOOD, "name": "Y"}]}, "unknown input 'Y'; the model takes X"),
        ({"inputs": [GOOD, GOOD]}, "input X is given twice"),
        ({"inputs": [{**GOOD, "datatype": "FP64"}]}, "input X: expected datatype FP32, got 'FP64'"),
        ({"inputs": [{**GOOD, "shape": [1, 5]}]}, "input X: expected shape [N, 4], got [1, 5]"),
        ({"inputs": [{**GOOD, "shape": [4]}]}, "input X: expected shape [N, 4], got [4]"),
        ({"inputs": [{**GOOD, "shape": [-1, 4]}]}, 'input X: "shape" must be a list of sizes'),
        ({"inputs": [{**GOOD, "shape": [True, 4]}]}, 'input X: "shape" must be a list of sizes'),
        ({"inputs": [{**GOOD, "data": [1, 2, 3]}]}, "input X: shape [1, 4] needs 4 elements, data holds 3"),
        ({"inputs": [{**GOOD, "data": [1, 2, 3, "4"]}]}, "input X: element 3 is '4', expected a number"),
        ({"inputs": [{"name": "X", "shape": [1, 4]}]}, 'input X: "datatype" is missing; the model expects FP32 [N, 4]'),
        ({"inputs": [GOOD], "outputs": [{"name": "z"}]}, "unknown output 'z'; the model gives label, logits"),
        ({"inputs": [GOOD], "outputs": [{"name": "label"}] * 2}, "output label is asked for twice"),
        ({"inputs": [GOOD], "outputs": "label"}, '"outputs" must be a list of objects'),
        ({"inputs": [GOOD], "outputs": ["label"]}, 'outputs[0] must be an object with a "name"'),
        ({"inputs": [GOOD], "id": 5}, '"id" must be a string, got 5'),
    ],
)
def test_a_wrong_request_is_told_what_was_expected(request_body: Any, message: str) -> None:
    with pytest.raises(RequestError) as refusal:
        infer(plane(linear()), request_body)
    assert refusal.value.status == 400
    assert message in refusal.value.message


def test_names_may_hold_any_characters() -> None:
    name = 'a/b:0 "ü" {}'
    served = plane(identity(name=name))
    assert infer(served, {"inputs": [tensor(name, "FP32", [1], [1])]})["outputs"][0]["data"] == [1.0]


def test_inputs_with_a_default_may_be_left_out() -> None:
    content = model_bytes(
        [node("Add", ["x", "bias"], ["y"])],
        [value("x", TensorProto.FLOAT, ["N"]), value("bias", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, ["N"])],
        {"bias": np.array([10], dtype=np.float32)},
    )
    served = plane(content)
    x = tensor("x", "FP32", [1], [1])
    assert infer(served, {"inputs": [x]})["outputs"][0]["data"] == [11.0]
    assert infer(served, {"inputs": [x, tensor("bias", "FP32", [1], [1])]})["outputs"][0]["data"] == [2.0]


def test_bf16_is_refused_by_name_and_others_can_be_chosen() -> None:
    content = model_bytes(
        [node("Cast", ["x"], ["half"], to=TensorProto.BFLOAT16), node("Identity", ["x"], ["same"])],
        [value("x", TensorProto.FLOAT, ["N"])],
        [value("half", TensorProto.BFLOAT16, ["N"]), value("same", TensorProto.FLOAT, ["N"])],
    )
    served = plane(content)
    request: dict[str, Any] = {"inputs": [tensor("x", "FP32", [1], [1])]}
    with pytest.raises(RequestError, match="output half has datatype BF16, which JSON cannot carry"):
        infer(served, request)
    request["outputs"] = [{"name": "same"}]
    assert infer(served, request)["outputs"][0]["data"] == [1.0]
    content = model_bytes(
        [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
        [value("x", TensorProto.BFLOAT16, ["N"])],
        [value("y", TensorProto.FLOAT, ["N"])],
    )
    with pytest.raises(RequestError, match="input x has datatype BF16, which JSON cannot carry"):
        infer(plane(content), {"inputs": [tensor("x", "BF16", [1], [1])]})


def split() -> bytes:
    from onnx import helper

    parts = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 1]))
    return model_bytes(
        [node("SplitToSequence", ["x"], ["parts"], axis=1), node("Identity", ["x"], ["same"])],
        [value("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_value_info("parts", parts), value("same", TensorProto.FLOAT, ["N", 2])],
    )


def test_sequences_are_left_to_score() -> None:
    served = plane(split())
    assert [output["name"] for output in metadata(split())["outputs"]] == ["same"]
    request: dict[str, Any] = {"inputs": [tensor("x", "FP32", [1, 2], [0.25, 0.75])]}
    assert [output["name"] for output in infer(served, request)["outputs"]] == ["same"]
    with pytest.raises(RequestError, match=r"output parts is seq.*not a tensor.*POST /score returns it"):
        infer(served, {**request, "outputs": [{"name": "parts"}]})
    assert ask_score(served.model, {"data": [[0.25, 0.75]]}) == {"parts": [[[0.25]], [[0.75]]], "same": [[0.25, 0.75]]}


def test_what_the_model_refuses_is_told_in_its_words() -> None:
    content = model_bytes(
        [node("Gather", ["table", "i"], ["y"], name="look-up")],
        [value("i", TensorProto.INT64, ["N"])],
        [value("y", TensorProto.FLOAT, ["N"])],
        {"table": np.zeros(3, dtype=np.float32)},
    )
    with pytest.raises(RequestError, match=r"look-up.*idx=5 must be within") as refusal:
        infer(plane(content), {"inputs": [tensor("i", "INT64", [1], [5])]})
    assert refusal.value.status == 400
    assert "onnxruntime_src" not in refusal.value.message


def test_inputs_that_disagree_on_a_shared_size_are_the_callers_fault_when_the_model_cannot_do_with_them() -> None:
    content = model_bytes(
        [node("Add", ["a", "b"], ["y"], name="sum")],
        [value("a", TensorProto.FLOAT, ["N"]), value("b", TensorProto.FLOAT, ["N"])],
        [value("y", TensorProto.FLOAT, ["N"])],
    )
    served = plane(content)
    with pytest.raises(RequestError, match="N is 2 and 3") as refusal:
        infer(served, {"inputs": [tensor("a", "FP32", [2], [1, 2]), tensor("b", "FP32", [3], [1, 2, 3])]})
    assert refusal.value.status == 400
    # A size of one broadcasts: what the model can compute is answered.
    broadcast = {"inputs": [tensor("a", "FP32", [2], [1, 2]), tensor("b", "FP32", [1], [3])]}
    assert infer(served, broadcast)["outputs"][0]["data"] == [4.0, 5.0]


def test_strings_that_are_not_utf8_are_an_error_that_says_so() -> None:
    content = model_bytes(
        [node("Constant", [], ["s"], value_strings=[b"\xff\xfe"]), node("Identity", ["x"], ["y"])],
        [value("x", TensorProto.FLOAT, [1])],
        [value("s", TensorProto.STRING, [1]), value("y", TensorProto.FLOAT, [1])],
    )
    served = plane(content)
    request: dict[str, Any] = {"inputs": [tensor("x", "FP32", [1], [1])]}
    with pytest.raises(RequestError, match="not UTF-8") as refusal:
        infer(served, request)
    assert refusal.value.status == 500
    assert infer(served, {**request, "outputs": [{"name": "y"}]})["outputs"][0]["data"] == [1.0]


def test_a_call_given_up_never_starts_and_a_running_one_ends() -> None:
    import threading

    model = load_bytes(slow())
    feed = {"n": np.array([10**9])}
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        model.run(["total"], feed, call)
    running = Call()
    timer = threading.Timer(0.2, running.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        model.run(["total"], feed, running)
    timer.join()


def test_the_zoo_model_of_the_onnx_package_answers() -> None:
    import onnx

    path = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"
    served = plane(path.read_bytes())
    info = served.model.inputs[0]
    request = tensor(info.name, "FP32", info.shape, np.zeros(info.shape, dtype=np.float32).ravel().tolist())  # type: ignore[arg-type]
    (output,) = infer(served, {"inputs": [request]})["outputs"]
    assert output["shape"] == [1, 1000, 1, 1]
