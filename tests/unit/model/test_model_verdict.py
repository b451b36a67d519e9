import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelkit import CAPABILITIES, linear, message, model, reason, tensor, value, verdict
from onnx import TensorProto, helper, numpy_helper

from onnx_operator.api.report import interface_hash

LIGHT = sorted((Path(onnx.backend.test.__file__).parent / "data" / "light").glob("light_*.onnx"))
node = helper.make_node
VALID = linear(64).SerializeToString()


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            # A fixed time, for test ids are made of the bytes.
            archive.writestr(zipfile.ZipInfo(name), b"data")
    return out.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "HTML"),
        (b"\xef\xbb\xbf\n <html>", "HTML"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "object store"),
        (b"Because this is a text.\n", "text"),
        ("Äpfel sind ein Text.\n".encode(), "text"),
        (b'{"a": 1}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS"),
        (gzip.compress(VALID, mtime=0), "gzip"),
        (zipped("archive/data.pkl", "archive/data/0"), "PyTorch"),
        (zipped("config.json", "model.weights.h5"), "Keras"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (safetensors(), "safetensors"),
        (b"\x0a\x20\x0a\x01x\x12\x0bPlaceholder" + bytes(20), "TensorFlow graph"),
        (b"\x1c\0\0\0TFL3" + bytes(50), "TensorFlow Lite"),
        (numpy_helper.from_array(np.zeros((2, 2), np.float32), "t").SerializeToString(), "TensorProto"),
        (b"\x93NUMPY\x01\0", "NumPy"),
        (b"\x7fELF" + bytes(60), "program"),
        (bytes(1000), "file of zeros"),
        (b"\xff" * 1000, "unknown"),
    ],
)
def test_what_is_no_model_is_named(data: bytes, words: str) -> None:
    assert reason(data) == "NotOnnx"
    assert words in message(data)


def test_a_file_that_was_cut_is_corrupt_wherever_that_was() -> None:
    for end in range(4, len(VALID) - 1):
        cut = VALID[:end]
        assert reason(cut) == "Corrupt", end
    assert reason(VALID) == "Accepted"


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_models(path: Path) -> None:
    data = path.read_bytes()
    result = verdict(data)
    assert result.outcome == "Accepted"
    assert result.report is not None
    assert len(result.report.inputs) == len(result.report.outputs) == 1
    assert result.report.inputs[0].shape == [1, 3, 224, 224]
    for part in (0.01, 0.3, 0.7, 0.999):
        assert reason(data[: int(len(data) * part)]) == "Corrupt"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_bytes_give_a_verdict(changes: list[tuple[int, int]]) -> None:
    data = bytearray(VALID)
    for at, byte in changes:
        data[at] = byte
    verdict(bytes(data))


HEADLESS = VALID[:80]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(HEADLESS) - 1), st.integers(0, 7))
def test_flipped_bits_in_the_structure_give_a_verdict(at: int, bit: int) -> None:
    # The graph comes first, so that this is where names, types and lengths lie.
    data = bytearray(VALID)
    data[at] ^= 1 << bit
    verdict(bytes(data))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_verdict(data: bytes) -> None:
    assert verdict(data).outcome == "Refused"
    verdict(b"\x08\x08" + data)


def test_the_report() -> None:
    m = linear()
    m.producer_version = "1.2"
    helper.set_model_props(m, {"author": "me"})
    result = verdict(m)
    report = result.report
    assert report is not None
    assert report.producer == "tests 1.2"
    assert report.opsets == {"ai.onnx": 17}
    assert report.ir_version == 8
    assert report.metadata == {"author": "me"}
    assert [(t.name, t.datatype, t.shape) for t in report.inputs] == [("x", "FP32", ["N", 4])]
    assert [(t.name, t.datatype, t.shape) for t in report.outputs] == [("y", "FP32", ["N", 4])]
    assert report.memory.weights_bytes == 64
    assert result.interface == interface_hash(report.inputs, report.outputs)
    assert not report.truncated


def test_many_inputs_are_cut_in_the_report_but_count_in_the_interface() -> None:
    names = [f"x{i}" for i in range(100)]
    m = model([node("Sum", names, ["y"])], inputs=[value(name) for name in names])
    result = verdict(m)
    assert result.report is not None
    assert result.report.truncated
    assert len(result.report.inputs) < 100
    m.graph.input[99].type.tensor_type.shape.dim[0].dim_param = "M"
    other = verdict(m)
    assert other.report is not None
    assert other.report.inputs == result.report.inputs
    assert other.interface != result.interface


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (TensorProto.BOOL, "BOOL"),
        (TensorProto.UINT8, "UINT8"),
        (TensorProto.INT64, "INT64"),
        (TensorProto.FLOAT16, "FP16"),
        (TensorProto.DOUBLE, "FP64"),
        (TensorProto.BFLOAT16, "BF16"),
        (TensorProto.STRING, "BYTES"),
        (TensorProto.FLOAT8E4M3FN, "tensor(float8e4m3fn)"),
    ],
)
def test_datatypes(kind: int, name: str) -> None:
    m = model([node("Identity", ["x"], ["y"])], [value("x", (1,), kind)], [value("y", (1,), kind)], opsets=[("", 21)])
    m.ir_version = 10
    report = verdict(m).report
    assert report is not None
    assert (report.inputs[0].datatype, report.outputs[0].datatype) == (name, name)


def test_a_sequence_of_maps_is_named_by_its_type() -> None:
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    m = model(
        [node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3])],
        outputs=[helper.make_value_info("y", kind)],
        opsets=[("", 17), ("ai.onnx.ml", 3)],
    )
    found = verdict(m)
    assert found.report is not None
    assert found.report.outputs[0].datatype == "seq(map(int64,tensor(float)))"
    # Servers answer with a tensor of scores: that is no change of the model, which would hold every classifier.
    assert found.interface == "7d10015e9b87"


def test_shapes() -> None:
    m = model(
        [node("Identity", ["x"], ["y"]), node("Shape", ["x"], ["s"])],
        inputs=[value("x", ("N", None, 3))],
        outputs=[helper.make_tensor_value_info("y", TensorProto.FLOAT, None), value("s", (7,), TensorProto.INT64)],
    )
    report = verdict(m).report
    assert report is not None
    assert report.inputs[0].shape == ["N", -1, 3]
    assert report.outputs[0].shape == ["N", -1, 3]
    # The declared 7 is wrong, and the runtime goes on with 3.
    assert report.outputs[1].shape == [3]


@pytest.mark.parametrize("ir_version", [3, 8])
def test_initializers_among_the_inputs_are_no_inputs(ir_version: int) -> None:
    m = linear(64)
    m.ir_version = ir_version
    m.graph.input.append(value("w", (64, 64)))
    report = verdict(m).report
    assert report is not None
    assert [spec.name for spec in report.inputs] == ["x"]


def test_a_newer_ir_version() -> None:
    m = linear()
    m.ir_version = 99
    assert reason(m) == "UnsupportedIRVersion"
    assert "99" in message(m)
    assert "at most 14" in message(m)


@pytest.mark.parametrize("domain", ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"])
def test_a_newer_opset(domain: str) -> None:
    m = linear()
    if domain in ("", "ai.onnx"):
        m.opset_import[0].domain = domain
        m.opset_import[0].version = 99
    else:
        m.opset_import.append(helper.make_opsetid(domain, 99))
    assert reason(m) == "UnsupportedOpset"
    assert "opset 99" in message(m)
    assert "lower" in message(m)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (node("Frobnicate", ["x"], ["y"], name="n1"), ['"n1"', "Frobnicate", "opset 17"]),
        (node("Frobnicate", ["x"], ["y"]), ['makes "y"']),
        (node("Swish", ["x"], ["y"], name="n1"), ["opset 24"]),
        (node("Upsample", ["x", "x"], ["y"], name="n1"), ["removed in opset 10"]),
        (node("Thing", ["x"], ["y"], name="n1", domain="my.own"), ["my.own", "function"]),
        (node("Unheard", ["x"], ["y"], name="n1", domain="com.microsoft"), ["com.microsoft"]),
    ],
)
def test_unknown_operators(made: onnx.NodeProto, words: list[str]) -> None:
    m = model([made], opsets=[("", 17), ("my.own", 1), ("com.microsoft", 1)])
    assert reason(m) == "UnknownOperator"
    assert all(word in message(m) for word in words), message(m)


def branch(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "branch", [], [value("b", None)])


def with_subgraph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    choice = node("If", ["c"], ["y"], then_branch=branch(*nodes), else_branch=branch(node("Neg", ["x"], ["b"])))
    return model([choice], inputs=[value("x"), value("c", (), TensorProto.BOOL)], outputs=[value("y", None)])


def test_operators_in_subgraphs() -> None:
    assert reason(with_subgraph(node("Abs", ["x"], ["b"]))) == "Accepted"
    assert reason(with_subgraph(node("Frobnicate", ["x"], ["b"]))) == "UnknownOperator"
    assert "missing" in message(with_subgraph(node("Abs", ["missing"], ["b"])))


def test_local_functions() -> None:
    def with_function(*body: onnx.NodeProto) -> onnx.ModelProto:
        function = helper.make_function("my.own", "Twice", ["a"], ["b"], list(body), [helper.make_opsetid("", 17)])
        made = node("Twice", ["x"], ["y"], domain="my.own")
        return model([made], opsets=[("", 17), ("my.own", 1)], functions=[function])

    assert reason(with_function(node("Add", ["a", "a"], ["b"]))) == "Accepted"
    assert reason(with_function(node("Frobnicate", ["a"], ["b"]))) == "UnknownOperator"
    assert reason(with_function(node("Add", ["a", "missing"], ["b"]))) == "InvalidGraph"


@pytest.mark.parametrize("imported", [True, False])
def test_operators_of_the_runtime_itself(imported: bool) -> None:
    m = model(
        [node("Gelu", ["x"], ["h"], domain="com.microsoft"), node("Relu", ["h"], ["y"])],
        opsets=[("", 17), ("com.microsoft", 1)] if imported else [("", 17)],
    )
    assert reason(m) == "Accepted"
    assert reason(m, CAPABILITIES.model_copy(update={"operators": {}})) in ("UnknownOperator", "InvalidGraph")


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("Relu", ["missing"], ["y"], name="n1")], ['"n1"', '"missing"']),
        ([node("Relu", ["x"], ["y"], name="n1"), node("Abs", ["x"], ["y"], name="n2")], ['"n1"', '"n2"', '"y"']),
        ([node("Add", ["x", "y"], ["y"], name="n1")], ['"n1"', "own output"]),
        ([node("Relu", ["x"], ["z"], name="n1")], ['output "y"']),
        ([node("Relu", [], ["y"], name="n1")], ["n1"]),
        ([node("Relu", ["x"], ["y"], name="n1", nonsense=1)], ["n1", "nonsense"]),
        ([node("Concat", ["x"], ["y"], name="n1")], ["n1", "axis"]),
        ([node("MatMul", ["x", "x"], ["y"], name="n1")], ["n1"]),
        ([node("And", ["x", "x"], ["y"], name="n1")], ["n1"]),
        ([node("Reshape", ["x", "x"], ["y"], name="n1")], ["n1"]),
    ],
)
def test_invalid_graphs_name_the_node(nodes: list[onnx.NodeProto], words: list[str]) -> None:
    m = model(nodes, inputs=[value("x", (3, 4))], outputs=[value("y", None)])
    assert reason(m) == "InvalidGraph"
    assert all(word in message(m) for word in words), message(m)


def without(what: str) -> onnx.ModelProto:
    m = model([node("Relu", ["x"], ["y"])])
    if what == "name":
        m.graph.ClearField("name")
    elif what == "type":
        m.graph.output[0].ClearField("type")
    else:
        getattr(m.graph, what)[0].type.tensor_type.ClearField("shape")
    return m


@pytest.mark.parametrize("what", ["name", "type", "input", "output"])
def test_what_the_runtime_does_without_may_be_missing(what: str) -> None:
    assert reason(without(what)) == "Accepted"


@pytest.mark.parametrize("shape", [(3,), ("N", 5), (1, 2, 3)])
def test_wrong_shapes_only_make_the_runtime_warn(shape: tuple[int | str, ...]) -> None:
    m = model([node("Relu", ["x"], ["h"]), node("Relu", ["h"], ["y"])], outputs=[value("y", shape)])
    m.graph.value_info.append(value("h", shape))
    report = verdict(m).report
    assert report is not None
    assert report.outputs[0].shape[-1] == 4


def test_types_that_do_not_exist() -> None:
    m = model([node("Cast", ["x"], ["y"], name="n1", to=119)], outputs=[value("y", ("N", 4), 119)])
    assert reason(m) == "InvalidGraph"
    zero = tensor("v", 1)
    zero.data_type = 119
    m = model([node("ConstantOfShape", ["x"], ["y"], value=zero)], inputs=[value("x", (2,), TensorProto.INT64)])
    assert reason(m) == "InvalidGraph"


@pytest.mark.parametrize("equation", ["...ij -:...i", "bij, bjk$-> bi", "ij->i->j", "ij-i", "n..ii->...i"])
def test_malformed_equations_end_in_a_verdict(equation: str) -> None:
    m = model([node("Einsum", ["x"], ["y"], name="n1", equation=equation)], outputs=[value("y", None)])
    assert reason(m) == "InvalidGraph"
    assert '"n1"' in message(m)


def test_two_nodes_of_one_name() -> None:
    m = model([node("Relu", ["x"], ["h"], name="n1"), node("Relu", ["h"], ["y"], name="n1")])
    assert reason(m) == "InvalidGraph"
    assert '"n1"' in message(m)


def test_unsorted_nodes_are_accepted_as_the_runtime_does() -> None:
    nodes = [node("Abs", ["h"], ["y"]), node("Relu", ["x"], ["h"])]
    assert reason(model(nodes)) == "Accepted"


@pytest.mark.parametrize("size", [2, 200])
def test_weights_that_contradict_themselves(size: int) -> None:
    m = linear(size)
    m.graph.initializer[0].raw_data = m.graph.initializer[0].raw_data[:-4]
    assert reason(m) == "InvalidGraph"
    m = linear(size)
    m.graph.initializer.append(m.graph.initializer[0])
    assert reason(m) == "InvalidGraph"
    m = linear(size)
    m.graph.initializer[0].dims[0] = -size
    assert reason(m) == "InvalidGraph"


def test_a_weight_of_the_wrong_type_is_found_without_its_values() -> None:
    assert reason(linear(64, np.float32)) == "Accepted"
    assert reason(linear(64, np.float64)) == "InvalidGraph"


@pytest.mark.parametrize("where", ["initializer", "constant", "subgraph"])
def test_external_data_is_missing(where: str) -> None:
    outside = tensor("weights", 2)
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="model.bin")
    if where == "initializer":
        m = model([node("Add", ["x", "weights"], ["y"])])
        m.graph.initializer.append(outside)
    elif where == "constant":
        m = model([node("Constant", [], ["weights"], value=outside), node("Add", ["x", "weights"], ["y"])])
        m.graph.node[0].output[0] = m.graph.node[1].input[1] = "c"
    else:
        m = with_subgraph(node("Add", ["x", "weights"], ["b"]))
        m.graph.node[0].attribute[0].g.initializer.append(outside)
    assert reason(m) == "ExternalDataMissing"
    assert "weights" in message(m)
    assert "model.bin" in message(m)


def test_capabilities_decide() -> None:
    older = CAPABILITIES.model_copy(update={"opsets": {"ai.onnx": 16}})
    assert reason(linear(), older) == "UnsupportedOpset"


def test_messages_stay_short() -> None:
    m = model([node("Relu", ["missing" * 10], ["y"], name="n" * 5000)])
    assert len(message(m)) < 2000


@pytest.mark.parametrize("opset", [7, 8, 9, 13])
@pytest.mark.parametrize("ir_version", [3, 4, 8])
def test_constants_of_any_type_are_taken_in_old_files_as_the_runtime_takes_them(opset: int, ir_version: int) -> None:
    # Exports of Custom Vision hold their labels like this, those of PyTorch 1.0 the shapes for Reshape.
    labels = helper.make_tensor("labels", TensorProto.STRING, [2], [b"apple", b"pear"])
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 2])
    nodes = [
        helper.make_node("Constant", [], ["names"], value=labels),
        helper.make_node("Constant", [], ["to"], value=shape),
        helper.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    outputs = [value("y", ("N", 2)), value("names", (2,), TensorProto.STRING)]
    old = model(nodes, outputs=outputs, opsets=[("", opset)], ir_version=ir_version)
    result = verdict(old)
    assert result.refusal is None, result.refusal
    assert [i.name for i in result.report.inputs] == ["x"]
    ort.InferenceSession(old.SerializeToString(), providers=["CPUExecutionProvider"])
