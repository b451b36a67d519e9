"""Every element type of ONNX, as input and as output: carried by each protocol, or told beforehand that it is not.

What callers meet is compared with what the report of an inspection has said, on the real runtime.
"""

import ctypes
import json
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, TypeProto, helper

from onnx_operator.model.elements import NAMES, Element, bits
from onnx_operator.server.dataplane.batching import run
from onnx_operator.server.dataplane.tensors import datatype_of
from onnx_operator.server.errors import RequestError
from onnx_operator.server.rpc import inference_pb2 as pb
from onnx_operator.server.rpc.codec import decode_request, encode_response
from tests.unit.model.runtimekit import judged
from tests.unit.server.serving import Served, infer, node, value

NUMBERS = {Element.FLOAT16, Element.FLOAT, Element.DOUBLE, *range(Element.UINT8, Element.BOOL), Element.UINT32}
JSON = {*NUMBERS, Element.UINT64, Element.BOOL, Element.STRING}
RAW = {
    *(Element.BFLOAT16, Element.FLOAT8E4M3FN, Element.FLOAT8E4M3FNUZ, Element.FLOAT8E5M2, Element.FLOAT8E5M2FNUZ),
    Element.FLOAT8E8M0,
}
"""Carried as raw bytes only."""
PACKED = {Element.UINT4, Element.INT4, Element.UINT2, Element.INT2}
"""Of fewer bits than a byte: the runtime takes and gives them, no protocol does."""
UNKNOWN = {*(Element.COMPLEX64, Element.COMPLEX128, Element.FLOAT4E2M1, Element.FLOAT6E2M3, Element.FLOAT6E3M2)}
"""No Cast of this runtime knows them: no model with them loads."""
FLOAT = TensorProto.FLOAT


def cast(before: int, after: int) -> bytes:
    graph = helper.make_graph(
        [node("Cast", ["x"], ["y"], to=after)], "g", [value("x", before, ["N"])], [value("y", after, ["N"])]
    )
    opset, version = (25, 13) if {before, after} & {Element.UINT2, Element.INT2, Element.FLOAT8E8M0} else (21, 10)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=version
    ).SerializeToString()


def name_of(element: int) -> str:
    """The datatype that callers say."""
    found = datatype_of(f"tensor({NAMES[element].lower()})")
    assert found is not None
    return found


def plain(element: int) -> Any:
    """A one, as JSON has it."""
    return "1" if element == Element.STRING else element == Element.BOOL or 1


def raw_ones(element: int, count: int) -> bytes:
    """What the runtime itself makes of ones."""
    session = ort.InferenceSession(cast(FLOAT, element), providers=["CPUExecutionProvider"])
    ones = ort.OrtValue.ortvalue_from_numpy(np.ones(count, np.float32))
    (made,) = session.run_with_ort_values(["y"], {"x": ones})

    return ctypes.string_at(made.data_ptr(), made.tensor_size_in_bytes())


def rest_json(served: Served, datatype: str, data: Any) -> Any:
    return infer(served, {"inputs": [{"name": "x", "datatype": datatype, "shape": [2], "data": data}]})


def rest_binary(served: Served, datatype: str, content: bytes) -> bytes:
    head = json.dumps(
        {
            "inputs": [
                {"name": "x", "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": len(content)}}
            ],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    inference, form = served.codec.read(head + content, str(len(head)).encode())
    body, length = served.codec.write(form, run(served.model, inference))
    return bytes(body[length:])


def grpc_raw(served: Served, datatype: str, content: bytes) -> bytes:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[content])
    request.inputs.add(name="x", datatype=datatype, shape=[2])
    inference, raw = decode_request(request, served.model)
    answer = encode_response(request, served.model, "", inference.outputs, run(served.model, inference), raw)
    (found,) = pb.ModelInferResponse.FromString(answer).raw_output_contents
    return bytes(found)


def test_every_type_is_in_the_table_once() -> None:
    groups = [JSON, RAW, PACKED, UNKNOWN]
    assert sorted(element for group in groups for element in group) == list(range(1, len(NAMES)))


@pytest.mark.parametrize("element", sorted(JSON), ids=lambda each: NAMES[each])
def test_types_of_the_protocol_come_and_go_as_json_and_as_raw_bytes(element: int) -> None:
    datatype = name_of(element)
    for content in (cast(element, FLOAT), cast(FLOAT, element)):
        found = judged(content)
        assert found.report is not None, found.refusal
        assert found.report.notes == []
    taken, given = Served(cast(element, FLOAT)), Served(cast(FLOAT, element))
    ones = np.ones(2, "<f4").tobytes()

    assert rest_json(taken, datatype, [plain(element)] * 2)["outputs"][0]["data"] == [1, 1]
    assert rest_json(given, "FP32", [1, 1])["outputs"][0]["data"] == [plain(element)] * 2
    raw = b"\1\0\0\0001" * 2 if element == Element.STRING else raw_ones(element, 2)
    for ask in (rest_binary, grpc_raw):
        assert ask(taken, datatype, raw) == ones
        assert ask(given, "FP32", ones) == raw


@pytest.mark.parametrize("element", sorted(RAW), ids=lambda each: NAMES[each])
def test_types_without_a_form_in_json_come_and_go_as_raw_bytes(element: int) -> None:
    datatype, raw = name_of(element), raw_ones(element, 2)
    assert len(raw) == 2 * bits(element) // 8
    taken, given = Served(cast(element, FLOAT)), Served(cast(FLOAT, element))
    ones = np.ones(2, "<f4").tobytes()

    for ask in (rest_binary, grpc_raw):
        assert ask(taken, datatype, raw) == ones
        assert ask(given, "FP32", ones) == raw
    with pytest.raises(RequestError, match=f"input x has datatype {datatype}, which JSON cannot carry; send it as"):
        rest_json(taken, datatype, [1, 1])
    with pytest.raises(RequestError, match=f"output y has datatype {datatype}, which JSON cannot carry; ask for it"):
        rest_json(given, "FP32", [1, 1])


@pytest.mark.parametrize("element", sorted(RAW - {Element.BFLOAT16}), ids=lambda each: NAMES[each])
def test_a_report_tells_that_a_datatype_is_known_to_no_client(element: int) -> None:
    for content, side in ((cast(element, FLOAT), 'input "x"'), (cast(FLOAT, element), 'output "y"')):
        found = judged(content)
        assert found.report is not None, found.refusal
        (note,) = found.report.notes
        assert note.startswith(f"The {side} is a tensor({NAMES[element].lower()})")
        assert f"as raw bytes only, by the datatype {name_of(element)}" in note


@pytest.mark.parametrize("element", sorted(PACKED), ids=lambda each: NAMES[each])
def test_types_of_fewer_bits_than_a_byte_are_told_before_a_pod_is_made(element: int) -> None:
    """A model that needs such an input is refused; one that gives such an output says which to leave out."""
    refusal = judged(cast(element, FLOAT)).refusal
    assert refusal is not None
    assert f'The input "x" is a tensor({NAMES[element].lower()}), which no caller can send' in refusal.message

    found = judged(cast(FLOAT, element))
    assert found.report is not None, found.refusal
    (note,) = found.report.notes
    assert f'The output "y" is a tensor({NAMES[element].lower()}), which nothing returns' in note
    served = Served(cast(FLOAT, element))
    with pytest.raises(RequestError, match=f"output y has datatype {NAMES[element]}, which the protocol cannot carry"):
        rest_json(served, "FP32", [1, 1])


@pytest.mark.parametrize("element", sorted(UNKNOWN), ids=lambda each: NAMES[each])
def test_types_that_the_runtime_does_not_know_are_refused(element: int) -> None:
    for content in (cast(element, FLOAT), cast(FLOAT, element)):
        assert judged(content).refusal is not None


def wrapped(kind: str, side: str) -> bytes:
    """A model with a sequence or an optional on one side, made of a tensor or made into one."""
    tensor = helper.make_tensor_type_proto(FLOAT, ["N"])
    make = helper.make_sequence_type_proto if kind == "sequence" else helper.make_optional_type_proto
    there: TypeProto = make(tensor)
    special = helper.make_value_info("x" if side == "input" else "y", there)
    if side == "input":
        nodes = (
            [node("SequenceAt", ["x", "zero"], ["y"])]
            if kind == "sequence"
            else [node("OptionalGetElement", ["x"], ["y"])]
        )
        inputs, outputs = [special], [value("y", FLOAT, ["N"])]
    else:
        nodes = [node("SequenceConstruct" if kind == "sequence" else "Optional", ["x"], ["y"])]
        inputs, outputs = [value("x", FLOAT, ["N"])], [special]
    zero = helper.make_tensor("zero", TensorProto.INT64, [], [0])
    graph = helper.make_graph(nodes, "g", inputs, outputs, [zero] if kind == "sequence" else [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


@pytest.mark.parametrize("kind", ["sequence", "optional"])
def test_what_is_no_tensor_is_named_in_the_report(kind: str) -> None:
    text = "seq(tensor(float))" if kind == "sequence" else "optional(tensor(float))"
    taken, given = judged(wrapped(kind, "input")), judged(wrapped(kind, "output"))
    assert taken.report is not None, taken.refusal
    assert taken.report.notes == [
        f'The input "x" is a {text}, which no caller can send: only a scoring script can use the model.'
    ]
    assert given.report is not None, given.refusal
    assert given.report.notes == [
        f'The output "y" is a {text}, which only /score returns, as JSON lists and objects: the Open Inference Protocol'
        " has no form for it."
    ]
