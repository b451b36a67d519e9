"""Well-formed models of every kind, from which mutants are made."""

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
from modelkit import linear, model, tensor, value
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

INT64, BOOL = TensorProto.INT64, TensorProto.BOOL
_MAX_SEED = 64 << 10
_STORED = Path(onnx.backend.test.__file__).parent / "data"


def light() -> list[bytes]:
    """The light networks that the onnx package brings, as far as they are small."""
    folder = Path(onnx.__file__).parent / "backend/test/data"
    files = sorted((*folder.glob("light/*.onnx"), *folder.glob("simple/*/model.onnx")))
    return [each.read_bytes() for each in files if each.stat().st_size <= _MAX_SEED]


def made() -> list[bytes]:
    """One model of each kind of structure."""
    kinds = (linear, old, trees, branches, loop, scan, functions, sparse, external, quantized)
    return [each().SerializeToString() for each in kinds]


def old() -> onnx.ModelProto:
    """Of IR 3, with its weights among its inputs."""
    return model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        inputs=[value("x"), value("w", (4, 4))],
        initializers=[tensor("w", 4, 4)],
        opsets=[("", 8)],
        ir_version=3,
    )


def trees() -> onnx.ModelProto:
    """A regressor of one tree."""
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[1.0, 2.0],
    )
    return model([node], outputs=[value("y", ("N", 1))], opsets=[("", 17), ("ai.onnx.ml", 3)])


def branches() -> onnx.ModelProto:
    """An If, whose branches read what is around them."""
    then = helper.make_graph([helper.make_node("Relu", ["x"], ["t"])], "then", [], [value("t")])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["e"])], "else", [], [value("e")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    return model([node], inputs=[value("x"), value("c", (), BOOL)])


def loop() -> onnx.ModelProto:
    """A Loop of three turns."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["ci"], ["co"]), helper.make_node("Add", ["vi", "vi"], ["vo"])],
        "body",
        [value("i", (), INT64), value("ci", (), BOOL), value("vi")],
        [value("co", (), BOOL), value("vo")],
    )
    turns = numpy_helper.from_array(np.array(3, np.int64), "turns")
    return model([helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)], initializers=[turns])


def scan() -> onnx.ModelProto:
    """A Scan that adds up rows."""
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "r"], ["so"]), helper.make_node("Identity", ["so"], ["ro"])],
        "body",
        [value("s", (4,)), value("r", (4,))],
        [value("so", (4,)), value("ro", (4,))],
    )
    node = helper.make_node("Scan", ["w", "x"], ["last", "y"], body=body, num_scan_inputs=1)
    return model([node], initializers=[tensor("w", 4)])


def functions() -> onnx.ModelProto:
    """A function that calls another, with an attribute handed down."""
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    inner = helper.make_function("my", "Inner", ["a"], ["b"], [leaky], [helper.make_opsetid("", 17)], ["slope"])
    call = helper.make_node("Inner", ["a"], ["b"], domain="my", slope=0.5)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    outer = helper.make_function("my", "Outer", ["a"], ["b"], [call], imports)
    return model(
        [helper.make_node("Outer", ["x"], ["y"], domain="my")],
        opsets=[("", 17), ("my", 1)],
        functions=[inner, outer],
    )


def sparse() -> onnx.ModelProto:
    """A sparse weight."""
    result = model([helper.make_node("Add", ["x", "w"], ["y"])])
    numbers = numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "w")
    result.graph.sparse_initializer.append(
        helper.make_sparse_tensor(numbers, numpy_helper.from_array(np.array([0, 3], np.int64)), [4])
    )
    return result


def external(location: str = "w.bin", offset: str = "0", length: str = "64") -> onnx.ModelProto:
    """A weight in a file beside the model."""
    result = linear(4)
    weight = result.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", offset), ("length", length)):
        weight.external_data.add(key=key, value=text)
    return result


def quantized() -> onnx.ModelProto:
    """To 8 bits and back."""
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "s")
    zero = numpy_helper.from_array(np.array(3, np.uint8), "z")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    return model(nodes, initializers=[scale, zero])


@cache
def models() -> dict[str, bytes]:
    """Every model that the package holds or generates, by name; generated ones have no folder in theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {case.name: case.model.SerializeToString() for case in load_model_tests(kind="node")}
    for path in sorted(_STORED.rglob("*.onnx")):
        name = path.relative_to(_STORED)
        found[(name.parent if name.stem == "model" else name.with_suffix("")).as_posix()] = path.read_bytes()
    return found
