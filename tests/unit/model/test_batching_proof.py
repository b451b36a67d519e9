"""No caller meets another: requests share a run only where the graph proves that rows keep apart."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_operator.api.report import RowsProof
from onnx_operator.model.batching.graph_pb2 import Model
from onnx_operator.model.batching.kernels import BUNDLED, Kernels
from onnx_operator.model.batching.proof import FAILED, Proof, prove
from onnx_operator.model.batching.reading import UnreadableError, read_model
from onnx_operator.model.batching.rules.movement import _places
from onnx_operator.model.judge import judge
from onnx_operator.model.reading.folder import MemoryFolder
from tests.unit.model.modelkit import CAPABILITIES, verdict

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Shape = Sequence[int | str | None]
Inputs = dict[str, tuple[int, Shape]]
X: Inputs = {"x": (FLOAT, ["N", 4])}
N = helper.make_node


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Inputs | None = None,
    stored: dict[str, Any] | None = None,
    opset: int = 21,
    outputs: Sequence[str] = ("y",),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A model of which the types of outputs are left open."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in (inputs or X).items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (stored or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    imports += [helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def proof(*nodes: onnx.NodeProto, kernels: Kernels = BUNDLED, **rest: Any) -> Proof:
    """What is proven of a model."""
    return prove(Model.FromString(model(nodes, **rest).SerializeToString()), kernels)


def judged(built: onnx.ModelProto) -> RowsProof:
    """What the report of an inspection says."""
    report = verdict(built).report
    assert report is not None
    assert report.batching is not None
    return report.batching


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def reals(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


class Case:
    """A graph, with what the test calls it."""

    def __init__(self, name: str, *nodes: onnx.NodeProto, **rest: Any) -> None:
        self.name, self.nodes, self.rest = name, nodes, rest


def named(cases: Sequence[Case]) -> Any:
    return pytest.mark.parametrize("case", [pytest.param(each, id=each.name) for each in cases])


IMAGE: Inputs = {"x": (FLOAT, ["N", 3, 8, 8])}
WORDS: Inputs = {"x": (FLOAT, ["N", "S", 4])}
IDS: Inputs = {"x": (INT64, ["N", "S"])}
SCALE = {"s": np.float32(0.1), "z": np.uint8(3)}
SHAPE_OF = [N("Shape", ["x"], ["d"]), N("Gather", ["d", "zero"], ["n"])]
ZERO = {"zero": ints(0), "one": ints(1)}

APART = [
    Case("element by element", N("Relu", ["x"], ["a"]), N("Add", ["a", "b"], ["y"]), stored={"b": reals(4)}),
    Case("a bias with a dimension of one for the rows", N("Add", ["x", "b"], ["y"]), stored={"b": reals(1, 4)}),
    Case("two inputs, row by row", N("Mul", ["x", "z"], ["y"]), inputs={**X, "z": (FLOAT, ["N", 1])}),
    Case("a matrix of weights", N("MatMul", ["x", "w"], ["y"]), stored={"w": reals(4, 3)}),
    Case("a vector of weights", N("MatMul", ["x", "w"], ["y"]), stored={"w": reals(4)}),
    Case("a linear layer", N("Gemm", ["x", "w", "b"], ["y"], transB=1), stored={"w": reals(3, 4), "b": reals(3)}),
    Case(
        "attention within each row",
        N("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        N("MatMul", ["x", "t"], ["a"]),
        N("Softmax", ["a"], ["p"], axis=-1),
        N("MatMul", ["p", "x"], ["y"]),
        inputs=WORDS,
    ),
    Case(
        "a convolution and what follows it",
        N("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        N("MaxPool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        N("GlobalAveragePool", ["p"], ["q"]),
        N("Flatten", ["q"], ["y"]),
        inputs=IMAGE,
        stored={"w": reals(5, 3, 3, 3)},
    ),
    Case(
        "a constant shape that fits the size of the images",
        N("Conv", ["x", "w"], ["c"]),
        N("Reshape", ["c", "to"], ["y"]),
        inputs=IMAGE,
        stored={"w": reals(2, 3, 3, 3), "to": ints(-1, 72)},
    ),
    Case("softmax over the classes", N("Softmax", ["x"], ["y"], axis=1)),
    Case("softmax of old opsets over the rest", N("Softmax", ["x"], ["y"], axis=1), opset=11),
    Case("the mean of each row", N("ReduceMean", ["x", "one"], ["y"]), stored=ZERO),
    Case("layer normalization", N("LayerNormalization", ["x", "s"], ["y"]), stored={"s": reals(4)}),
    Case("words looked up in a table", N("Gather", ["table", "x"], ["y"]), inputs=IDS, stored={"table": reals(9, 4)}),
    Case("a column of each row", N("Gather", ["x", "i"], ["y"], axis=1), stored={"i": ints(2, 0)}),
    Case(
        "an index of each row into itself",
        N("ArgMax", ["x"], ["i"], axis=1),
        N("GatherElements", ["x", "i"], ["y"], axis=1),
    ),
    Case(
        "heads taken apart and put together by computed shapes",
        *SHAPE_OF,
        N("Gather", ["d", "one"], ["s"]),
        N("Concat", ["n", "s", "heads"], ["to"], axis=0),
        N("Reshape", ["x", "to"], ["a"]),
        N("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3]),
        N("Transpose", ["b"], ["c"], perm=[0, 2, 1, 3]),
        N("Concat", ["n", "s", "rest"], ["back"], axis=0),
        N("Reshape", ["c", "back"], ["y"]),
        inputs=WORDS,
        stored={**ZERO, "heads": ints(2, 2), "rest": ints(-1)},
    ),
    Case(
        "words of all rows beside each other, and back",
        N("Reshape", ["x", "flat"], ["a"]),
        N("MatMul", ["a", "w"], ["b"]),
        N("Shape", ["x"], ["d"]),
        N("Reshape", ["b", "d"], ["y"]),
        inputs=WORDS,
        stored={"flat": ints(-1, 4), "w": reals(4, 4)},
    ),
    Case(
        "a mask that is expanded as PyTorch exports it",
        N("Shape", ["x"], ["d"]),
        N("Gather", ["d", "zero"], ["n"]),
        N("Gather", ["d", "one"], ["s"]),
        N("Concat", ["n", "one", "s", "s"], ["to"], axis=0),
        N("Shape", ["to"], ["four"]),
        N("ConstantOfShape", ["four"], ["ones"], value=helper.make_tensor("v", INT64, [1], [1])),
        N("Mul", ["ones", "minus"], ["minuses"]),
        N("Equal", ["to", "minuses"], ["same"]),
        N("Where", ["same", "ones", "to"], ["where"]),
        N("Unsqueeze", ["x", "axes"], ["u"]),
        N("Expand", ["u", "where"], ["y"]),
        inputs=IDS,
        stored={**ZERO, "minus": np.int64(-1), "axes": ints(1, 2)},
    ),
    Case("zeros for each row", *SHAPE_OF, N("ConstantOfShape", ["n"], ["y"]), stored=ZERO),
    Case(
        "a recurrent net with the batch at axis 1",
        N("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        N("LSTM", ["t", "w", "r"], ["", "h"], hidden_size=3),
        N("Squeeze", ["h", "zero"], ["y"]),
        inputs=WORDS,
        stored={**ZERO, "w": reals(1, 12, 4), "r": reals(1, 12, 3)},
    ),
    Case(
        "a state of zeros for each row",
        *SHAPE_OF,
        N("Concat", ["one", "n", "hidden"], ["to"], axis=0),
        N("ConstantOfShape", ["to"], ["h0"]),
        N("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        N("GRU", ["t", "w", "r", "", "", "h0"], ["", "h"], hidden_size=3),
        N("Squeeze", ["h", "zero"], ["y"]),
        inputs=WORDS,
        stored={**ZERO, "hidden": ints(3), "w": reals(1, 9, 4), "r": reals(1, 9, 3)},
    ),
    Case(
        "stored scales",
        N("QuantizeLinear", ["x", "s", "z"], ["q"]),
        N("DequantizeLinear", ["q", "s", "z"], ["y"]),
        stored=SCALE,
    ),
    Case(
        "an image twice as large",
        N("Resize", ["x", "", "f"], ["y"]),
        inputs=IMAGE,
        stored={"f": reals(4) * 0 + [1, 1, 2, 2]},
    ),
    Case(
        "einsum with a letter for the rows",
        N("Einsum", ["x", "w"], ["y"], equation="nk,km->nm"),
        stored={"w": reals(4, 3)},
    ),
    Case("half of each row", N("Slice", ["x", "zero", "two", "one"], ["y"]), stored={**ZERO, "two": ints(2)}),
    Case(
        "all rows, cut to all rows",
        N("Slice", ["x", "zero", "end", "zero"], ["y"]),
        stored={**ZERO, "end": ints(2**63 - 1)},
    ),
    Case("columns beside each other", N("Concat", ["x", "x"], ["y"], axis=1)),
    Case("halves of columns", N("Split", ["x"], ["y", "b"], axis=1, num_outputs=2)),
    Case(
        "a branch by a stored condition",
        N(
            "If",
            ["c"],
            ["b"],
            then_branch=helper.make_graph(
                [N("Identity", ["w"], ["o"])], "t", [], [helper.make_tensor_value_info("o", FLOAT, None)]
            ),
            else_branch=helper.make_graph(
                [N("Identity", ["w"], ["p"])], "e", [], [helper.make_tensor_value_info("p", FLOAT, None)]
            ),
        ),
        N("Relu", ["x"], ["y"]),
        stored={"c": np.bool_(True), "w": reals(4)},
    ),
]

MEET = [
    Case(
        "a scale made at run time",
        N("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        N("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ),
    Case("a scale from the rows", N("ReduceMax", ["x"], ["m"], keepdims=0), N("Div", ["x", "m"], ["y"])),
    Case(
        "a scale for each row of a fixed number", N("QuantizeLinear", ["x", "s"], ["y"], axis=0), stored={"s": reals(3)}
    ),
    Case(
        "batch normalization in training mode",
        N("BatchNormalization", ["x", *"smbv"[:4]], ["y"], training_mode=1),
        inputs=IMAGE,
        stored={name: reals(3) for name in "smbv"},
    ),
    Case(
        "dropout in training mode",
        N("Dropout", ["x", "r", "t"], ["y"]),
        stored={"r": np.float32(0.5), "t": np.bool_(True)},
    ),
    Case(
        "dropout whose mode a caller gives",
        N("Dropout", ["x", "r", "t"], ["y"]),
        inputs={**X, "t": (BOOL, ["N"])},
        stored={"r": np.float32(0.5)},
    ),
    *(
        Case(f"random numbers of {name}", N(name, ["x"], ["y"], **rest))
        for name, rest in (
            ("RandomNormalLike", {"seed": 1.0}),
            ("RandomUniformLike", {}),
            ("Bernoulli", {"seed": 1.0}),
            ("Multinomial", {"seed": 1.0}),
        )
    ),
    Case(
        "a random bias that is the same shape in each run",
        N("RandomNormal", [], ["r"], shape=[4]),
        N("Add", ["x", "r"], ["y"]),
    ),
    Case("rows times rows", N("Transpose", ["x"], ["t"]), N("MatMul", ["x", "t"], ["y"])),
    Case("rows times rows in a linear layer", N("Gemm", ["x", "x"], ["y"], transB=1)),
    Case("a sum over the rows in a product", N("MatMul", ["w", "x"], ["y"]), stored={"w": reals(1, 3)}),
    Case("filters from a caller", N("Conv", ["x", "w"], ["y"]), inputs={**IMAGE, "w": (FLOAT, ["N", 3, 3, 3])}),
    Case("the batch as a table", N("Gather", ["x", "i"], ["y"]), stored={"i": ints(0)}),
    Case(
        "the batch as a table for its own indices",
        N("Gather", ["x", "i"], ["y"], axis=0),
        inputs={**X, "i": (INT64, ["N"])},
    ),
    Case(
        "columns by the rows of another",
        N("GatherElements", ["w", "x"], ["y"], axis=1),
        inputs={"x": (INT64, ["N", 2])},
        stored={"w": reals(9, 9)},
    ),
    Case(
        "features of the batch as one row",
        N("ArrayFeatureExtractor", ["x", "i"], ["y"], domain="ai.onnx.ml"),
        inputs={"x": (FLOAT, ["N"])},
        stored={"i": ints(0)},
    ),
    Case(
        "features by indices of a caller",
        N("ArrayFeatureExtractor", ["x", "i"], ["y"], domain="ai.onnx.ml"),
        inputs={**X, "i": (INT64, ["N"])},
    ),
    Case(
        "scattered elements",
        N("ScatterElements", ["x", "i", "u"], ["y"]),
        stored={"i": ints(0).reshape(1, 1), "u": reals(1, 1)},
    ),
    Case(
        "scattered slices",
        N("ScatterND", ["x", "i", "u"], ["y"]),
        stored={"i": ints(0).reshape(1, 1), "u": reals(1, 4)},
    ),
    Case("tuples into the batch", N("GatherND", ["x", "i"], ["y"]), inputs={**X, "i": (INT64, ["N", 1])}),
    Case("rows merged by an inferred size", N("Reshape", ["x", "to"], ["y"]), stored={"to": ints(-1, 8)}),
    Case("rows merged into columns", N("Reshape", ["x", "to"], ["y"]), stored={"to": ints(1, -1)}),
    Case(
        "rows merged behind a copied size",
        N("Reshape", ["x", "to"], ["y"]),
        inputs=WORDS,
        stored={"to": ints(4, 0, -1)},
    ),
    Case("a size of zero that is meant", N("Reshape", ["x", "to"], ["y"], allowzero=1), stored={"to": ints(0, 4)}),
    Case(
        "an inferred size of images of any size",
        N("Reshape", ["x", "to"], ["y"]),
        inputs={"x": (FLOAT, ["N", 3, "h", "w"])},
        stored={"to": ints(-1, 192)},
    ),
    Case(
        "expanded twice by the number of rows",
        *SHAPE_OF,
        N("Concat", ["n", "n"], ["to"], axis=0),
        N("Expand", ["v", "to"], ["y"]),
        stored={**ZERO, "v": reals(1, 1)},
    ),
    Case("repeated rows", N("Tile", ["x", "t"], ["y"]), stored={"t": ints(2, 1)}),
    Case(
        "repeated by the number of rows",
        *SHAPE_OF,
        N("Concat", ["one", "n"], ["to"], axis=0),
        N("Tile", ["x", "to"], ["y"]),
        stored=ZERO,
    ),
    Case("the first row", N("Slice", ["x", "zero", "one", "zero"], ["y"]), stored=ZERO),
    Case("all but the last row", N("Slice", ["x", "zero", "end", "zero"], ["y"]), stored={**ZERO, "end": ints(-1)}),
    Case(
        "rows backwards",
        N("Slice", ["x", "zero", "end", "zero", "step"], ["y"]),
        stored={**ZERO, "end": ints(-(2**63)), "step": ints(-1)},
    ),
    Case("as many columns as rows", *SHAPE_OF, N("Slice", ["x", "zero", "n", "one"], ["y"]), stored=ZERO),
    Case("a row put before", N("Pad", ["x", "p"], ["y"]), stored={"p": ints(1, 0, 0, 0)}),
    Case(
        "a number for each row",
        *SHAPE_OF,
        N("Squeeze", ["n"], ["e"]),
        N("Range", ["a", "e", "b"], ["y"]),
        stored={**ZERO, "a": np.int64(0), "b": np.int64(1)},
    ),
    Case(
        "a mean by the size of the batch",
        N("Size", ["x"], ["s"]),
        N("Cast", ["s"], ["f"], to=FLOAT),
        N("Div", ["x", "f"], ["y"]),
    ),
    Case("the number of rows itself", *SHAPE_OF, N("Identity", ["n"], ["y"]), stored=ZERO),
    Case("rows that meet columns", N("Add", ["x", "v"], ["y"]), inputs={"x": (FLOAT, ["N", "M"]), "v": (FLOAT, ["N"])}),
    Case("a stored number for each row", N("Add", ["x", "b"], ["y"]), stored={"b": reals(2, 4)}),
    Case(
        "axes moved, mixed, and moved back",
        N("Transpose", ["x"], ["t"]),
        N("Softmax", ["t"], ["s"], axis=-1),
        N("Transpose", ["s"], ["y"]),
    ),
    Case("axes moved and left there", N("Transpose", ["x"], ["y"])),
    Case("softmax over the rows", N("Softmax", ["x"], ["y"], axis=0)),
    Case("softmax of old opsets over all that follows", N("Softmax", ["x"], ["y"], axis=0), opset=12),
    Case(
        "softmax of old opsets behind a moved axis",
        N("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        N("Softmax", ["t"], ["s"], axis=1),
        N("Transpose", ["s"], ["y"], perm=[1, 0, 2]),
        inputs=WORDS,
        opset=11,
    ),
    Case("everything in one row", N("Flatten", ["x"], ["y"], axis=0)),
    Case("everything in one row, of old opsets", N("Flatten", ["x"], ["y"], axis=0), opset=9),
    Case("words and rows in one dimension", N("Flatten", ["x"], ["y"], axis=2), inputs=WORDS),
    Case("the only row", N("Squeeze", ["x", "zero"], ["y"]), stored=ZERO),
    Case("every dimension of one", N("Squeeze", ["x"], ["y"])),
    Case("parts of the batch", N("Split", ["x"], ["y", "b"], axis=0, num_outputs=2)),
    Case("rows behind rows", N("Concat", ["x", "x"], ["y"], axis=0)),
    Case("a row that is stored, behind them", N("Concat", ["x", "w"], ["y"], axis=0), stored={"w": reals(1, 4)}),
    Case(
        "columns that are stored for a number of rows",
        N("Concat", ["x", "w"], ["y"], axis=1),
        stored={"w": reals(2, 4)},
    ),
    Case("places of what is not zero", N("NonZero", ["x"], ["y"])),
    Case("what a condition chooses", N("Compress", ["x", "c"], ["y"], axis=0), stored={"c": np.array([True])}),
    Case("what is there but once", N("Unique", ["x"], ["y"], axis=0)),
    Case(
        "the best of all boxes",
        N("NonMaxSuppression", ["x", "c"], ["y"]),
        inputs={"x": (FLOAT, ["N", "S", 4]), "c": (FLOAT, ["N", 1, "S"])},
    ),
    Case("words of all rows", N("StringNormalizer", ["x"], ["y"]), inputs={"x": (TensorProto.STRING, ["N"])}),
    Case("a mean over the rows", N("ReduceMean", ["x", "zero"], ["y"]), stored=ZERO),
    Case("a mean over everything", N("ReduceMean", ["x"], ["y"])),
    Case("a mean over axes from a caller", N("ReduceSum", ["x", "a"], ["y"]), inputs={**X, "a": (INT64, ["N"])}),
    Case("a sum along the rows", N("CumSum", ["x", "a"], ["y"]), stored={"a": np.int64(0)}),
    Case("a mean over images", N("MeanVarianceNormalization", ["x"], ["y"]), inputs=IMAGE),
    Case("the best rows", N("TopK", ["x", "one"], ["y", "i"], axis=0), stored=ZERO),
    Case("as many of the best as there are rows", *SHAPE_OF, N("TopK", ["x", "n"], ["y", "i"]), stored=ZERO),
    Case(
        "a place among all images",
        N("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2]),
        inputs=IMAGE,
        outputs=("y", "i"),
    ),
    Case(
        "rows as a sequence",
        N("LSTM", ["x", "w", "r"], ["s"], hidden_size=3),
        N("Squeeze", ["s", "one"], ["y"]),
        inputs=WORDS,
        stored={**ZERO, "w": reals(1, 12, 4), "r": reals(1, 12, 3)},
    ),
    Case(
        "sequences by the layout of batches",
        N("LSTM", ["x", "w", "r"], ["s"], hidden_size=3, layout=1),
        N("Squeeze", ["s", "one"], ["y"]),
        inputs=WORDS,
        stored={**ZERO, "w": reals(1, 12, 4), "r": reals(1, 12, 3)},
    ),
    *(
        Case(
            name,
            N("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
            N("GRU", ["t", "w", "r", "", lengths, state], ["", "h"], hidden_size=3),
            N("Squeeze", ["h", "zero"], ["y"]),
            inputs={**WORDS, "l": (TensorProto.INT32, ["N"])},
            stored={**ZERO, "w": reals(1, 9, 4), "r": reals(1, 9, 3), "h0": reals(1, 1, 3)},
        )
        for name, lengths, state in (("lengths of sequences", "l", ""), ("a state for a number of rows", "", "h0"))
    ),
    Case(
        "the batch resized",
        N("Resize", ["x", "", "f"], ["y"]),
        inputs=IMAGE,
        stored={"f": np.array([2, 1, 1, 1], np.float32)},
    ),
    Case("sizes from the rows", N("Resize", ["x", "", "", "x2"], ["y"]), inputs={**IMAGE, "x2": (INT64, ["N"])}),
    Case(
        "regions by the number of an image",
        N("RoiAlign", ["x", "b", "i"], ["y"]),
        inputs={**IMAGE, "b": (FLOAT, ["N", 4]), "i": (INT64, ["N"])},
    ),
    Case("a grid of places", N("GridSample", ["x", "g"], ["y"]), inputs={**IMAGE, "g": (FLOAT, ["N", 2, 2, 2])}),
    Case(
        "attention of the runtime's own",
        N("MultiHeadAttention", ["x", "x", "x"], ["y"], num_heads=2, domain="com.microsoft"),
        inputs=WORDS,
    ),
    Case(
        "attention with lengths",
        N(
            "GroupQueryAttention",
            ["x", "x", "x", "", "", "l", "t"],
            ["y", "k", "v"],
            num_heads=1,
            kv_num_heads=1,
            domain="com.microsoft",
        ),
        inputs={**WORDS, "l": (TensorProto.INT32, ["N"])},
        stored={"t": np.int32(4)},
    ),
    Case(
        "attention of the standard with a mask",
        N("Attention", ["x", "x", "x", "m"], ["y"]),
        inputs={"x": (FLOAT, ["N", 2, "S", 4]), "m": (FLOAT, ["N", "S"])},
        opset=23,
    ),
    Case("einsum over the rows", N("Einsum", ["x", "x"], ["y"], equation="nk,mk->nm")),
    Case("einsum with the rows gone", N("Einsum", ["x", "w"], ["y"], equation="nk,nm->km"), stored={"w": reals(2, 3)}),
    Case("an optional value", N("Optional", ["x"], ["o"]), N("OptionalGetElement", ["o"], ["y"])),
    Case("a sequence", N("SequenceConstruct", ["x"], ["o"]), N("ConcatFromSequence", ["o"], ["y"], axis=0)),
    Case("an operator of strangers", N("Mystery", ["x"], ["y"], domain="strange")),
    Case("inputs of other first dimensions", N("Add", ["x", "z"], ["y"]), inputs={**X, "z": (FLOAT, ["M", 4])}),
    Case("a first dimension that is another one too", N("Relu", ["x"], ["y"]), inputs={"x": (FLOAT, ["N", "N"])}),
    Case("an input of which no dimension is declared", N("Relu", ["x"], ["y"]), inputs={"x": (FLOAT, None)}),
    Case("always one row", N("Relu", ["x"], ["y"]), inputs={"x": (FLOAT, [1, 4])}),
]


@named(APART)
def test_of_these_graphs_it_is_proven_that_rows_keep_apart(case: Case) -> None:
    found = proof(*case.nodes, **case.rest)

    assert found.holds, found


@named(MEET)
def test_of_these_graphs_nothing_is_proven_and_the_reason_is_told(case: Case) -> None:
    found = proof(*case.nodes, **case.rest)

    assert not found.holds
    assert found.reason


def _branch(name: str, source: str) -> onnx.GraphProto:
    return helper.make_graph(
        [N("Identity", [source], [name])], name, [], [helper.make_tensor_value_info(name, FLOAT, None)]
    )


def _body(nodes: list[onnx.NodeProto], state: str = "s") -> onnx.GraphProto:
    inputs = [("i", INT64, []), ("c", BOOL, []), (state, FLOAT, None)]
    outputs = [("c_out", BOOL, []), ("s_out", FLOAT, None)]
    return helper.make_graph(
        [N("Identity", ["c"], ["c_out"]), *nodes],
        "body",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
    )


@named(
    [
        Case(
            "a condition of the rows",
            N("ReduceMax", ["x"], ["m"], keepdims=0),
            N("Greater", ["m", "t"], ["c"]),
            N("If", ["c"], ["y"], then_branch=_branch("a", "x"), else_branch=_branch("b", "x")),
            stored={"t": np.float32(3)},
        ),
        Case(
            "a condition of the number of rows",
            *SHAPE_OF,
            N("Equal", ["n", "one"], ["e"]),
            N("Squeeze", ["e"], ["c"]),
            N("If", ["c"], ["y"], then_branch=_branch("a", "x"), else_branch=_branch("b", "x")),
            stored=ZERO,
        ),
        Case(
            "rows in a loop",
            N("Loop", ["t", "c", "x"], ["y"], body=_body([N("Relu", ["s"], ["s_out"])])),
            stored={"t": np.int64(2), "c": np.bool_(True)},
        ),
        Case(
            "rows that a loop reads of the graph around it",
            N("Loop", ["t", "c", "w"], ["y"], body=_body([N("Add", ["s", "x"], ["s_out"])])),
            stored={"t": np.int64(2), "c": np.bool_(True), "w": np.float32(1)},
        ),
        Case(
            "as many turns as rows",
            *SHAPE_OF,
            N("Squeeze", ["n"], ["t"]),
            N("Loop", ["t", "c", "w"], ["l"], body=_body([N("Relu", ["s"], ["s_out"])])),
            N("Add", ["x", "l"], ["y"]),
            stored={**ZERO, "c": np.bool_(True), "w": np.float32(1)},
        ),
        Case(
            "random numbers in a loop",
            N("Loop", ["t", "c", "w"], ["l"], body=_body([N("RandomNormalLike", ["s"], ["s_out"])])),
            N("Add", ["x", "l"], ["y"]),
            stored={"t": np.int64(2), "c": np.bool_(True), "w": np.float32(1)},
        ),
    ]
)
def test_what_rows_decide_or_pass_through_is_not_proven(case: Case) -> None:
    assert not proof(*case.nodes, **case.rest).holds


LATER = [N("ReduceMax", ["x"], ["v"], keepdims=0)]
"""ONNX Runtime takes nodes in any order."""


@named(
    [
        Case("read by a node", N("Add", ["x", "v"], ["y"]), *LATER),
        Case(
            "captured by a branch",
            N("If", ["c"], ["m"], then_branch=_branch("a", "v"), else_branch=_branch("b", "w")),
            N("Add", ["x", "m"], ["y"]),
            *LATER,
        ),
        Case(
            "given out by a branch",
            N(
                "If",
                ["c"],
                ["m"],
                then_branch=helper.make_graph([], "a", [], [helper.make_tensor_value_info("v", FLOAT, None)]),
                else_branch=_branch("b", "w"),
            ),
            N("Add", ["x", "m"], ["y"]),
            *LATER,
        ),
        Case(
            "captured by one branch, and made by the other under the same name",
            N("If", ["c"], ["m"], then_branch=_branch("a", "v"), else_branch=_branch("v", "w")),
            N("Add", ["x", "m"], ["y"]),
            *LATER,
        ),
        Case(
            "captured by a branch within a loop",
            N(
                "Loop",
                ["t", "c", "w"],
                ["m"],
                body=_body([N("If", ["c"], ["s_out"], then_branch=_branch("a", "v"), else_branch=_branch("b", "s"))]),
            ),
            N("Add", ["x", "m"], ["y"]),
            *LATER,
        ),
        Case("made twice", N("Identity", ["w"], ["v"]), N("Add", ["x", "v"], ["y"]), *LATER, outputs=("v",)),
    ]
)
def test_what_is_made_later_is_not_the_same_in_every_run(case: Case) -> None:
    stored = {"c": np.bool_(True), "w": np.float32(1), "t": np.int64(2)}
    found = proof(*case.nodes, stored=stored, **case.rest)

    assert not found.holds
    assert "make" in found.reason


def test_a_subgraph_may_read_what_it_and_those_around_it_make() -> None:
    inner = N("If", ["c"], ["s_out"], then_branch=_branch("a", "s"), else_branch=_branch("b", "w"))
    loop = N("Loop", ["t", "c", "w"], ["m"], body=_body([inner]))
    stored = {"c": np.bool_(True), "w": np.float32(1), "t": np.int64(2)}
    assert proof(loop, N("Relu", ["x"], ["y"]), stored=stored).holds


def test_a_function_that_has_the_name_of_an_operator_may_draw_random_numbers_in_a_branch() -> None:
    body = [N("RandomUniformLike", ["a"], ["b"])]
    function = helper.make_function("", "Twin", ["a"], ["b"], body, [helper.make_opsetid("", 21)])
    branch = helper.make_graph([N("Twin", ["w"], ["a"])], "t", [], [helper.make_tensor_value_info("a", FLOAT, None)])
    nodes = [N("If", ["c"], ["m"], then_branch=branch, else_branch=_branch("b", "w")), N("Sum", ["x", "m"], ["y"])]
    stored = {"c": np.bool_(True), "w": reals(1)}
    assert not proof(*nodes, stored=stored, functions=[function]).holds


def _same(a: str, b: str) -> list[onnx.NodeProto]:
    """An axis of which it would follow that it is 1 if ``a`` were ``b``, else 0: that of the rows."""
    return [N("Equal", [a, b], ["e"]), N("Cast", ["e"], ["a"], to=INT64), N("CumSum", ["x", "a"], ["y"])]


INT32, UINT8 = TensorProto.INT32, TensorProto.UINT8
WRAPPED = [
    Case(
        "a cast to fewer bits",
        N("Cast", ["k"], ["a"], to=INT32),
        N("CumSum", ["x", "a"], ["y"]),
        stored={"k": np.int64(2**32 + 1)},
    ),
    Case(
        "a product as an axis",
        N("Mul", ["k", "k"], ["p"]),
        N("Add", ["p", "i1"], ["a"]),
        N("CumSum", ["x", "a"], ["y"]),
        stored={"k": np.int32(2**16), "i1": np.int32(1)},
    ),
    Case(
        "a number that is none",
        N("Identity", ["k"], ["p"]),
        *_same("p", "p"),
        stored={"k": np.float32(np.nan)},
    ),
    Case(
        "a product of rounded numbers",
        N("Identity", ["k"], ["i"]),
        N("Identity", ["j"], ["l"]),
        N("Mul", ["i", "l"], ["p"]),
        N("Cast", ["p"], ["pc"], to=INT64),
        N("Cast", ["i"], ["ic"], to=INT64),
        N("Cast", ["l"], ["lc"], to=INT64),
        N("Mul", ["ic", "lc"], ["q"]),
        *_same("pc", "q"),
        stored={"k": np.float32(0.5), "j": np.float32(2)},
    ),
    Case(
        "a product of bytes",
        N("Identity", ["k"], ["i"]),
        N("Identity", ["j"], ["l"]),
        N("Mul", ["i", "l"], ["p"]),
        N("Div", ["p", "l"], ["q"]),
        N("Cast", ["q"], ["qc"], to=INT64),
        N("Cast", ["i"], ["ic"], to=INT64),
        *_same("qc", "ic"),
        stored={"k": np.uint8(200), "j": np.uint8(2)},
    ),
    Case(
        "a product of what is not known and what is large",
        N("Cast", ["k"], ["i"], to=INT64),
        N("Add", ["i", "zero"], ["j"]),
        N("Mul", ["j", "four"], ["p"]),
        N("Div", ["p", "four"], ["q"]),
        *_same("q", "j"),
        stored={"k": np.float32(2**62), "four": np.int64(4), "zero": np.int64(0)},
    ),
    Case(
        "a product of long dimensions",
        N("Shape", ["x"], ["d"]),
        N("Gather", ["d", "one"], ["s"]),
        N("Squeeze", ["s"], ["s1"]),
        N("Mul", ["s1", "s1"], ["s2"]),
        N("Mul", ["s2", "s2"], ["s4"]),
        N("Div", ["s4", "s2"], ["q"]),
        *_same("q", "s2"),
        inputs=WORDS,
        stored={"one": ints(1)},
    ),
    Case(
        "a product that is none",
        N("ReduceProd", ["k"], ["p"], noop_with_empty_axes=1),
        N("Gather", ["p", "z"], ["f"]),
        N("Sub", ["f", "one"], ["a"]),
        N("CumSum", ["x", "a"], ["y"]),
        stored={"k": ints(1, 2), "z": np.int64(0), "one": np.int64(1)},
    ),
]


@named(WRAPPED)
def test_numbers_are_followed_only_as_far_as_their_type_computes_with_them(case: Case) -> None:
    """Each of these graphs sums over the rows, or may."""
    assert not proof(*case.nodes, **case.rest).holds


def test_axes_that_are_not_there_are_not_counted_around() -> None:
    for axis in (3, -3, 2**32 + 1):
        stored = {"a": np.int64(axis), "v": ints(axis)}
        for node in (
            N("CumSum", ["x", "a"], ["y"]),
            N("ReduceSum", ["x", "v"], ["y"]),
            N("Unsqueeze", ["x", "v"], ["y"]),
            N("Slice", ["x", "v", "v", "v"], ["y"]),
        ):
            assert not proof(node, stored=stored).holds or (axis == -3 and node.op_type == "Unsqueeze")


def test_a_shape_with_a_number_that_may_be_none_does_not_keep_what_it_seems_to() -> None:
    """0 copies a size, and -1 takes what is left."""
    nodes = [
        N("Cast", ["k"], ["u"], to=INT64),
        N("Add", ["u", "zero"], ["v"]),
        *SHAPE_OF,
        N("Concat", ["n", "two", "v"], ["to"], axis=0),
        N("Reshape", ["x", "to"], ["a"]),
        N("Transpose", ["a"], ["b"], perm=[1, 2, 0]),
        N("Concat", ["v", "two", "minus"], ["again"], axis=0),
        N("Reshape", ["b", "again"], ["c"]),
        N("Transpose", ["c"], ["d2"], perm=[2, 0, 1]),
        N("Concat", ["n", "minus"], ["flat"], axis=0),
        N("Reshape", ["d2", "flat"], ["y"]),
    ]
    stored = {**ZERO, "k": np.zeros(1, np.float32), "two": ints(2), "minus": ints(-1)}
    assert not proof(*nodes, inputs={"x": (FLOAT, ["N", 2, 4])}, stored=stored).holds


def test_filters_of_unknown_size_do_not_count_as_none_at_all() -> None:
    """Of 8 places a filter of 3 leaves 6, and the sum is over the rows where 6 are left."""
    filters = [N("Cast", ["f"], ["end"], to=INT64), N("Slice", ["w", "zero", "end", "two"], ["cut"])]
    made = [*filters, N("Conv", ["x", "cut"], ["c"])]
    counted = [
        N("Shape", ["c"], ["d"]),
        N("Gather", ["d", "two"], ["n"]),
        N("Equal", ["n", "six"], ["e"]),
        N("Cast", ["e"], ["i"], to=INT64),
        N("Sub", ["one", "i"], ["a"]),
        N("CumSum", ["c", "a"], ["y"]),
    ]
    stored = {**ZERO, "w": reals(1, 1, 9), "f": np.array([3.5], np.float32), "two": ints(2), "six": ints(6)}
    assert not proof(*made, *counted, inputs={"x": (FLOAT, ["N", 1, 8])}, stored=stored).holds
    long = {**stored, "w": reals(1, 1, 900), "f": np.array([800], np.float32)}
    conv = N("Conv", ["x", "cut"], ["y"])
    assert proof(*filters, conv, inputs={"x": (FLOAT, ["N", 1, 1000])}, stored=long).strength == "Tolerant"


def test_a_mean_over_axes_that_are_left_empty_is_one_over_all() -> None:
    node = N("MeanVarianceNormalization", ["t"], ["n"], axes=[4])
    del node.attribute[0].ints[:]
    nodes = [N("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node, N("Transpose", ["n"], ["y"], perm=[1, 0, 2])]
    assert not proof(*nodes, inputs=WORDS).holds


JUMPING: list[tuple[str, dict[str, Any]]] = [
    ("SVMRegressor", {"one_class": 1}),
    ("SVMRegressor", {"post_transform": "PROBIT"}),
    ("LinearRegressor", {"post_transform": "SOFTMAX_ZERO"}),
    ("LinearClassifier", {"post_transform": "PROBIT"}),
]


@pytest.mark.parametrize(("operator", "attributes"), JUMPING)
def test_what_jumps_within_a_model_of_rounded_sums_is_not_proven(operator: str, attributes: dict[str, Any]) -> None:
    outputs = ["l", "y"] if operator.endswith("Classifier") else ["y"]

    def of(attributes: dict[str, Any]) -> Proof:
        return proof(N(operator, ["x"], outputs, domain="ai.onnx.ml", coefficients=[1.0] * 4, **attributes))

    assert not of(attributes).holds
    assert of({}).strength == "Tolerant"


def test_a_recurrent_net_with_a_threshold_inside_jumps() -> None:
    def net(activation: str) -> Proof:
        nodes = [
            N("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
            N("RNN", ["t", "w", "r"], ["", "h"], hidden_size=3, activations=[activation]),
            N("Squeeze", ["h", "zero"], ["y"]),
        ]
        return proof(*nodes, inputs=WORDS, stored={**ZERO, "w": reals(1, 3, 4), "r": reals(1, 3, 3)})

    assert net("Tanh").holds
    assert not net("ThresholdedRelu").holds


def test_what_a_function_takes_counts_with_every_call() -> None:
    """So that calls of one with very many inputs do not keep an operator busy."""
    inputs = [f"a{i}" for i in range(50_000)]
    opset = [helper.make_opsetid("", 21)]
    wide = helper.make_function("local", "F", inputs, ["o"], [N("Identity", ["a0"], ["o"])], opset)
    calls = [N("F", ["x" if i == 0 else f"v{i}"], [f"v{i + 1}"], domain="local") for i in range(5)]
    found = proof(*calls, N("Identity", ["v5"], ["y"]), functions=[wide])
    assert "more nodes than are looked at" in found.reason


SMALL = {"eps": np.float32(1e-5), "two": np.float32(2), "half": np.float32(0.5), "three": np.float32(3), **ZERO}
CENTRED = [N("ReduceMean", ["x", "one"], ["m"]), N("Sub", ["x", "m"], ["d"])]
NOT_BELOW_ZERO = {
    "squares": [N("Mul", ["d", "d"], ["q"]), N("ReduceMean", ["q", "one"], ["s"])],
    "even powers": [N("Pow", ["d", "two"], ["q"]), N("ReduceMean", ["q", "one"], ["s"])],
    "a sum of squares": [N("ReduceSumSquare", ["d", "one"], ["s"])],
    "squares and a little more": [N("Pow", ["d", "two"], ["q"]), N("Add", ["q", "eps"], ["s"])],
    "no less than a little": [N("Max", ["d", "eps"], ["s"])],
    "no less than a little, cut": [N("Clip", ["d", "eps"], ["s"])],
    "probabilities": [
        N("Softmax", ["d"], ["p"]),
        N("Unsqueeze", ["p", "one"], ["u"]),
        N("Squeeze", ["u", "one"], ["s"]),
    ],
    "softplus": [N("Softplus", ["d"], ["s"])],
    "squares of more digits": [
        N("Mul", ["d", "d"], ["q"]),
        N("Cast", ["q"], ["t"], to=TensorProto.DOUBLE),
        N("Cast", ["t"], ["s"], to=FLOAT),
    ],
}
MAY_BE_BELOW_ZERO = {
    "a difference": [N("Identity", ["d"], ["s"])],
    "a mean of squares less the square of a mean": [
        N("Mul", ["x", "x"], ["q"]),
        N("ReduceMean", ["q", "one"], ["e"]),
        N("Mul", ["m", "m"], ["o"]),
        N("Sub", ["e", "o"], ["s"]),
    ],
    "an odd power": [N("Pow", ["d", "three"], ["s"])],
    "a difference and a little more": [N("Add", ["d", "eps"], ["s"])],
    "the least of two": [N("Abs", ["d"], ["a"]), N("Min", ["a", "d"], ["s"])],
    "cut above": [N("Clip", ["d", "", "eps"], ["s"])],
    "a product of two": [N("Mul", ["d", "m"], ["s"])],
    "a square that may have wrapped": [
        N("Cast", ["x"], ["i"], to=INT64),
        N("Mul", ["i", "i"], ["j"]),
        N("Cast", ["j"], ["f"], to=FLOAT),
        N("Abs", ["d"], ["a"]),
        N("Add", ["a", "f"], ["s"]),
    ],
}


@pytest.mark.parametrize(
    "root",
    [
        N("Sqrt", ["s"], ["y"]),
        N("Log", ["s"], ["y"]),
        N("Pow", ["s", "half"], ["y"]),
        N("ReduceLogSum", ["s", "one"], ["y"]),
    ],
    ids=lambda node: node.op_type,
)
def test_roots_and_logarithms_are_proven_only_of_what_rounding_does_not_bring_below_zero(root: onnx.NodeProto) -> None:
    """It would be no number for one number of rows, and one for another."""
    for name, nodes in NOT_BELOW_ZERO.items():
        assert proof(*CENTRED, *nodes, root, stored=SMALL).strength == "Tolerant", name
    for name, nodes in MAY_BE_BELOW_ZERO.items():
        assert not proof(*CENTRED, *nodes, root, stored=SMALL).holds, name
    exact = proof(N("Identity", ["x"], ["s"]), root, stored=SMALL)
    assert exact.holds == (root.op_type != "ReduceLogSum"), "below zero it is so for any number of rows"


def test_whole_powers_are_defined_below_zero() -> None:
    assert proof(*CENTRED, N("Pow", ["d", "three"], ["y"]), stored=SMALL).holds


def test_a_tensor_without_elements_keeps_no_rows_when_it_is_flattened() -> None:
    nodes = [N("Slice", ["x", "zero", "zero", "one"], ["e"]), N("Flatten", ["e"], ["y"], axis=2)]
    assert not proof(*nodes, stored=ZERO).holds


def test_a_report_names_the_node_that_lets_rows_meet() -> None:
    found = proof(
        N("Relu", ["x"], ["r"]), N("Softmax", ["r"], ["s"], name="/head/Softmax", axis=0), N("Neg", ["s"], ["y"])
    )

    assert found.node == 'node "/head/Softmax" (Softmax)'
    assert "all rows" in found.reason


def test_what_no_output_needs_does_not_count() -> None:
    assert proof(N("NonZero", ["x"], ["unused"]), N("Relu", ["x"], ["y"])).holds


def test_functions_of_the_model_are_looked_into() -> None:
    def function(axis: int) -> onnx.FunctionProto:
        node = N("Softmax", ["a"], ["b"], axis=axis)
        return helper.make_function("local", "F", ["a"], ["b"], [node], [helper.make_opsetid("", 21)])

    call = N("F", ["x"], ["y"], domain="local")

    assert proof(call, functions=[function(1)]).holds
    assert not proof(call, functions=[function(0)]).holds


def test_attributes_that_a_call_gives_to_a_function_count() -> None:
    node = N("Softmax", ["a"], ["b"])
    node.attribute.append(onnx.AttributeProto(name="axis", ref_attr_name="over", type=onnx.AttributeProto.INT))
    function = helper.make_function("local", "F", ["a"], ["b"], [node], [helper.make_opsetid("", 21)], ["over"])

    assert proof(N("F", ["x"], ["y"], domain="local", over=1), functions=[function]).holds
    assert not proof(N("F", ["x"], ["y"], domain="local", over=0), functions=[function]).holds
    assert proof(N("F", ["x"], ["y"], domain="local"), functions=[function]).holds, "the operator's own default"


def test_functions_that_call_each_other_again_and_again_end() -> None:
    opset = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    functions = [
        helper.make_function(
            "local",
            f"F{i}",
            ["a"],
            ["c"],
            [N(f"F{i + 1}", ["a"], ["b"], domain="local"), N(f"F{i + 1}", ["b"], ["c"], domain="local")],
            opset,
        )
        for i in range(14)
    ]
    functions.append(helper.make_function("local", "F14", ["a"], ["b"], [N("Relu", ["a"], ["b"])], opset))

    assert proof(N("F0", ["x"], ["y"], domain="local"), functions=functions) is not None
    itself = helper.make_function("local", "F", ["a"], ["b"], [N("F", ["a"], ["b"], domain="local")], opset)
    assert not proof(N("F", ["x"], ["y"], domain="local"), functions=[itself]).holds


@pytest.mark.parametrize(
    ("nodes", "strength"),
    [
        ([N("Relu", ["x"], ["y"])], "Exact"),
        ([N("MatMul", ["x", "w"], ["y"])], "Exact"),
        ([N("Sin", ["x"], ["y"])], "Tolerant"),
        ([N("Softmax", ["x"], ["s"], axis=1), N("MatMul", ["s", "w"], ["y"])], "Tolerant"),
        ([N("MatMul", ["x", "w"], ["a"]), N("ArgMax", ["a"], ["y"], axis=1)], "Exact"),
    ],
)
def test_a_proof_tells_whether_the_last_bits_hold(nodes: list[onnx.NodeProto], strength: str) -> None:
    assert proof(*nodes, stored={"w": reals(4, 3)}).strength == strength


@pytest.mark.parametrize(
    "jump",
    [
        N("Round", ["s"], ["y"]),
        N("Floor", ["s"], ["y"]),
        N("Cast", ["s"], ["y"], to=INT64),
        N("Cast", ["s"], ["y"], to=BOOL),
        N("ArgMax", ["s"], ["y"], axis=1),
        N("TopK", ["s", "one"], ["y", "i"]),
        N("Greater", ["s", "t"], ["y"]),
        N("Equal", ["s", "x"], ["y"]),
        N("Sign", ["s"], ["y"]),
        N("QuantizeLinear", ["s", "t"], ["y"]),
        N("Hardmax", ["s"], ["y"], axis=1),
        N("TreeEnsembleRegressor", ["s"], ["y"], domain="ai.onnx.ml", nodes_treeids=[0]),
    ],
    ids=lambda node: node.op_type,
)
def test_what_jumps_behind_a_kernel_that_rounds_by_the_number_of_rows_is_not_proven(jump: onnx.NodeProto) -> None:
    stored = {"t": np.float32(0.5), "one": ints(1)}

    assert not proof(N("Sin", ["x"], ["s"]), jump, stored=stored).holds
    assert proof(N("Relu", ["x"], ["s"]), jump, stored=stored).holds


def test_in_double_precision_and_on_a_gpu_products_are_rounded_by_the_number_of_rows() -> None:
    product = N("MatMul", ["x", "w"], ["y"])
    double = {"inputs": {"x": (TensorProto.DOUBLE, ["N", 4])}, "stored": {"w": reals(4, 3).astype(np.float64)}}

    assert proof(product, **double).strength == "Tolerant"
    assert (
        proof(product, stored={"w": reals(4, 3)}, kernels=Kernels(measured=False, copies=False)).strength == "Tolerant"
    )


def test_many_trees_are_summed_in_another_order_for_many_rows_so_that_no_label_is_proven_of_them() -> None:
    def trees(count: int) -> onnx.NodeProto:
        return N("TreeEnsembleClassifier", ["x"], ["y", "p"], domain="ai.onnx.ml", nodes_treeids=list(range(count)))

    assert proof(trees(10)).strength == "Exact"
    assert proof(trees(300), outputs=("p",)).strength == "Tolerant"
    assert not proof(trees(300), outputs=("y",)).holds


def test_a_fixed_number_of_rows_is_a_batch_as_well() -> None:
    fixed: Inputs = {"x": (FLOAT, [3, 4])}

    assert proof(N("MatMul", ["x", "w"], ["y"]), inputs=fixed, stored={"w": reals(4, 2)}).holds
    assert proof(N("Reshape", ["x", "to"], ["y"]), inputs=fixed, stored={"to": ints(3, 2, 2)}).holds
    assert not proof(N("Add", ["x", "b"], ["y"]), inputs=fixed, stored={"b": reals(3, 4)}).holds
    assert not proof(N("Reshape", ["x", "to"], ["y"]), inputs=fixed, stored={"to": ints(2, 6)}).holds


def test_whatever_attributes_a_file_holds_the_proof_ends() -> None:
    for name in ("Reshape", "Slice", "Gather", "Concat", "Softmax", "Conv", "Transpose", "Gemm", "Split", "ReduceSum"):
        for axis in (-99, 99):
            for inputs in ([], ["x"], ["x", "x"], ["w", "x"], ["x", "w", "w", "w"]):
                node = N(name, inputs, ["y"], axis=axis, perm=[5, 5], strides=[0], axes=[axis], kernel_shape=[-1])
                assert proof(node, stored={"w": np.float32(1)}) is not None


def test_what_is_proven_does_not_depend_on_weights_that_are_left_out() -> None:
    built = model([N("MatMul", ["x", "w"], ["a"]), N("Softmax", ["a"], ["y"])], stored={"w": reals(4, 4000)})

    found = judged(built)

    assert (found.proof, found.node, found.reason) == ("Tolerant", "", "")


def test_a_report_tells_why_requests_of_a_model_run_alone() -> None:
    found = judged(model([N("Softmax", ["x"], ["y"], name="over", axis=0)]))

    assert found.proof == "Unproven"
    assert found.node == 'node "over" (Softmax)'
    assert "all rows" in found.reason


def test_the_file_of_a_server_and_the_skeleton_of_an_inspection_are_judged_alike(tmp_path: Path) -> None:
    built = model(
        [N("Reshape", ["x", "to"], ["a"]), N("MatMul", ["a", "w"], ["y"])],
        stored={"to": ints(0, 4), "w": reals(4, 4000)},
    )
    path = tmp_path / "model.onnx"
    onnx.save_model(built, path, save_as_external_data=True, location="weights", size_threshold=1024)

    folder = MemoryFolder({each.name: each.read_bytes() for each in tmp_path.iterdir()})
    report = judge(folder, "model.onnx", capabilities=CAPABILITIES).report
    assert report is not None
    assert report.batching == RowsProof(proof="Exact")
    assert prove(read_model(path)).strength == "Exact"


def test_a_file_that_is_no_model_proves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for content in (b"", b"\xff" * 99, b"\x3a\xff\xff\xff\x7f"):
        path.write_bytes(content)
        with pytest.raises(UnreadableError):
            read_model(path)


MEETS_BY_A_PARAMETER = {
    "a reshaped constant": [N("Reshape", ["w", "v"], ["c"])],
    "a stretched constant": [N("Expand", ["f", "v"], ["c"])],
    "a filled tensor": [N("ConstantOfShape", ["v"], ["c"])],
    "a repeated constant": [N("Tile", ["f", "v"], ["c"])],
    "a part of a constant": [N("Slice", ["w", "i", "v"], ["c"])],
    "a dimension put in": [N("Unsqueeze", ["w", "v"], ["c"])],
    "a dimension taken away": [N("Squeeze", ["w", "v"], ["c"])],
    "a sum along an axis": [N("CumSum", ["w", "v"], ["c"])],
    "a choice of the largest": [N("TopK", ["f", "v"], ["c", "p"])],
    "a padded constant": [N("Pad", ["f", "vv"], ["c"])],
    "a resized constant": [N("Resize", ["f", "", "", "v"], ["c"])],
    "a counted vector": [N("Range", ["i0", "s", "i1"], ["c"])],
    "a triangle of a constant": [N("Trilu", ["w", "s"], ["c"])],
}
"""What is made of a constant by a number that is taken of all rows."""


@pytest.mark.parametrize("nodes", MEETS_BY_A_PARAMETER.values(), ids=MEETS_BY_A_PARAMETER)
@pytest.mark.parametrize("axis", [None, 1])
def test_a_constant_that_is_given_its_form_by_rows_is_none(nodes: list[onnx.NodeProto], axis: int | None) -> None:
    """Whether the number is taken of all rows, or of each: neither is the same in every run."""
    rows = [N("Cast", ["x"], ["xi"], to=INT64), N("ReduceMax", ["xi", "axis"] if axis else ["xi"], ["m"], keepdims=0)]
    more = [N("Reshape", ["m", "flat"], ["v"]), N("Concat", ["v", "v"], ["vv"], axis=0), N("Identity", ["m"], ["s"])]
    used = [N("ReduceMax", ["c"], ["k"], keepdims=0), N("Cast", ["k"], ["kf"], to=FLOAT), N("Add", ["x", "kf"], ["y"])]
    stored = {
        "w": reals(2, 2),
        "f": reals(4),
        "flat": ints(-1),
        "axis": ints(1),
        "i": ints(0),
        "i0": np.int64(0),
        "i1": np.int64(1),
    }
    assert not proof(*rows, *more, *nodes, *used, stored=stored).holds


@pytest.mark.parametrize("index", [2, 3])
def test_a_zero_point_that_rows_make_meets_them_in_a_product_of_constants(index: int) -> None:
    inputs = ["q", "q", "", ""]
    inputs[index] = "zero"
    nodes = [
        N("ReduceMax", ["x"], ["m"], keepdims=0),
        N("Cast", ["m"], ["zero"], to=TensorProto.UINT8),
        N("MatMulInteger", inputs[: index + 1], ["p"]),
        N("ReduceMax", ["p"], ["k"], keepdims=0),
        N("Cast", ["k"], ["kf"], to=FLOAT),
        N("Add", ["x", "kf"], ["y"]),
    ]
    assert not proof(*nodes, stored={"q": np.ones((2, 2), np.uint8)}).holds


def test_an_image_that_is_given_the_size_of_the_batch_is_not_the_same_in_every_run() -> None:
    nodes = [
        *SHAPE_OF,
        N("Concat", ["two", "n", "n"], ["to"], axis=0),
        N("Resize", ["w", "", "", "to"], ["r"], mode="linear"),
        N("ReduceMean", ["r"], ["m"], keepdims=0),
        N("Add", ["x", "m"], ["y"]),
    ]
    assert not proof(*nodes, stored={**ZERO, "two": ints(1, 1), "w": reals(1, 1, 2, 2)}).holds


PRODUCTS = {
    "MatMul": [N("MatMul", ["x", "w"], ["y"])],
    "Gemm": [N("Gemm", ["x", "w"], ["y"])],
    "of a transposed matrix": [N("Transpose", ["w"], ["t"]), N("Gemm", ["x", "t"], ["y"])],
}


@pytest.mark.parametrize("nodes", PRODUCTS.values(), ids=PRODUCTS)
def test_products_hold_to_the_bit_only_with_weights_that_no_caller_can_replace(nodes: list[onnx.NodeProto]) -> None:
    """Others are not arranged when loading, and for one row summed by a kernel of their own."""
    stored = {"w": reals(4, 4)}
    replaceable = {**X, "w": (FLOAT, [4, 4])}
    assert proof(*nodes, stored=stored).strength == "Exact"
    assert proof(*nodes, inputs=replaceable, stored=stored).strength == "Tolerant"
    of_old = model(nodes, inputs=replaceable, stored=stored, opset=11)
    of_old.ir_version = 3
    assert prove(Model.FromString(of_old.SerializeToString())).strength == "Exact", "there they are constants"
    made = [N("DequantizeLinear", ["q", "s"], ["w"]), *nodes]
    assert proof(*made, stored={"q": np.ones((4, 4), np.uint8), "s": np.float32(1)}).strength == "Tolerant"


CONVOLUTIONS = [
    (reals(6, 3, 5, 5), "Exact"),
    (reals(6, 64, 3, 3), "Exact"),
    (reals(6, 33, 1, 1), "Exact"),
    (reals(6, 33, 3, 3), "Tolerant"),
    (reals(6, 64, 3), "Tolerant"),
    (reals(6, 8, 3, 3, 3), "Tolerant"),
]


@pytest.mark.parametrize(("filters", "strength"), CONVOLUTIONS, ids=[str(each[0].shape) for each in CONVOLUTIONS])
def test_long_sums_of_convolutions_hold_to_the_bit_in_blocks_of_channels(filters: Any, strength: str) -> None:
    inputs: Inputs = {"x": (FLOAT, ["N", filters.shape[1], *(30 for _ in filters.shape[2:])])}
    assert proof(N("Conv", ["x", "w"], ["y"]), inputs=inputs, stored={"w": filters}).strength == strength


def test_sums_within_rows_hold_to_the_bit_where_they_are_short() -> None:
    for size, strength in ((64, "Exact"), (128, "Exact"), (129, "Tolerant")):
        nodes = [N("Transpose", ["x"], ["t"], perm=[0, 2, 1]), N("MatMul", ["x", "t"], ["y"])]
        assert proof(*nodes, inputs={"x": (FLOAT, ["N", "S", size])}).strength == strength


def test_labels_of_linear_models_are_not_proven_as_their_scores_are_rounded_by_the_number_of_rows() -> None:
    scores = {"coefficients": [1.0] * 8, "intercepts": [0.0, 1.0]}
    model_of_two = N("LinearClassifier", ["x"], ["l", "y"], domain="ai.onnx.ml", classlabels_ints=[0, 1], **scores)
    regressor = N("LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", targets=2, **scores)
    assert proof(model_of_two).strength == "Tolerant"
    assert not proof(model_of_two, outputs=("l",)).holds
    assert proof(regressor).strength == "Tolerant"


def test_the_sum_of_trees_holds_to_the_bit_for_as_many_rows_as_are_summed_alike() -> None:
    stumps = range(10)
    trees = N(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        nodes_treeids=list(stumps),
        nodes_nodeids=[0 for _ in stumps],
        nodes_modes=["LEAF" for _ in stumps],
        n_targets=1,
    )
    assert proof(trees).strength == "Exact"
    assert proof(trees, kernels=Kernels(measured=True, most_rows=64)).strength == "Tolerant"


def test_the_largest_of_three_holds_but_for_the_sign_of_zeros() -> None:
    for name in ("Max", "Min"):
        assert proof(N(name, ["x", "b"], ["y"]), stored={"b": reals(4)}).strength == "Exact"
        assert proof(N(name, ["x", "b", "b"], ["y"]), stored={"b": reals(4)}).strength == "Tolerant"


def test_what_is_rounded_in_half_precision_is_not_within_the_rounding_of_single() -> None:
    half = [N("Cast", ["s"], ["h"], to=TensorProto.FLOAT16), N("Cast", ["h"], ["y"], to=FLOAT)]
    assert not proof(N("Softmax", ["x"], ["s"]), *half).holds
    assert proof(N("Relu", ["x"], ["s"]), *half).strength == "Exact"


@pytest.mark.parametrize("axes", [[], [N("Shape", ["scalar"], ["axes"])]])
def test_no_axes_at_all_are_all_of_one_to_a_squeeze(axes: list[onnx.NodeProto]) -> None:
    stored = {"scalar": np.float32(1)} if axes else {"axes": ints(*())}
    assert not proof(*axes, N("Squeeze", ["x", "axes"], ["y"]), stored=stored).holds


def test_a_table_that_is_resized_as_an_image_blends_its_rows() -> None:
    """ONNX Runtime adds zero times the next row, which is NaN where that row has one."""
    stored = {"f": np.array([1, 1, 2], np.float32), "g": np.array([1, 1, 2, 2], np.float32)}
    for mode, of_words, of_images in (("nearest", True, True), ("linear", False, True), ("cubic", False, True)):
        words = proof(N("Resize", ["x", "", "f"], ["y"], mode=mode), inputs=WORDS, stored=stored)
        images = proof(N("Resize", ["x", "", "g"], ["y"], mode=mode), inputs=IMAGE, stored=stored)
        assert (words.holds, images.holds) == (of_words, of_images), mode


def test_two_opsets_of_one_domain_prove_nothing() -> None:
    built = model([N("Softmax", ["x"], ["y"], axis=1)])
    built.opset_import.append(helper.make_opsetid("ai.onnx", 11))
    assert not prove(Model.FromString(built.SerializeToString())).holds


def test_a_vector_that_was_left_out_for_its_size_is_not_taken_for_an_empty_one() -> None:
    node = N("Constant", [], ["c"], value_floats=[1.0] * 3000)
    skeleton = Model.FromString(model([node, N("Add", ["x", "c"], ["y"])]).SerializeToString())
    assert prove(skeleton).holds
    del skeleton.graph.node[0].attribute[0].floats[:]
    assert prove(skeleton).holds


def test_tables_of_positions_are_followed_that_graphs_make_of_constants() -> None:
    """As detectors of objects and transformers do, so that they may share runs."""
    nodes = [
        N("Shape", ["x"], ["d"]),
        N("Gather", ["d", "one"], ["s"]),
        N("Squeeze", ["s"], ["n"]),
        N("Range", ["from", "n", "step"], ["r"]),
        N("Cast", ["r"], ["rf"], to=FLOAT),
        N("Einsum", ["rf", "f"], ["e"], equation="i,j->ij"),
        N("Concat", ["e", "e"], ["p"], axis=1),
        N("Add", ["x", "p"], ["y"]),
    ]
    stored = {**ZERO, "from": np.int64(0), "step": np.int64(1), "f": reals(2)}
    assert proof(*nodes, inputs=WORDS, stored=stored).holds
    rows = [N("Shape", ["x"], ["d"]), N("Gather", ["d", "zero"], ["s"]), *nodes[2:]]
    assert not proof(*rows, inputs=WORDS, stored=stored).holds


@pytest.mark.parametrize("size", range(4))
def test_sizes_of_slices_are_those_of_the_runtime(size: int) -> None:
    ends = [-9, -3, -2, -1, 0, 1, 2, 3, 9, -(2**62), 2**62]
    built = model(
        [N("Slice", ["x", "s", "e", "a", "t"], ["y"])],
        {"x": (FLOAT, [size]), "s": (INT64, [1]), "e": (INT64, [1]), "t": (INT64, [1])},
        {"a": ints(0)},
    )
    session = ort.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])
    for start, end, step in itertools.product(ends, ends, (-3, -2, -1, 1, 2, 3)):
        feed = {"x": np.zeros(size, np.float32), "s": ints(start), "e": ints(end), "t": ints(step)}
        assert len(_places(size, start, end, step)) == len(session.run(None, feed)[0]), (start, end, step)


def test_double_precision_is_seen_where_a_function_hands_on_the_type() -> None:
    cast = N("Cast", ["x"], ["d"])
    cast.attribute.append(onnx.AttributeProto(name="to", type=onnx.AttributeProto.INT, ref_attr_name="kind"))
    body = [cast, N("Sigmoid", ["d"], ["y"])]
    function = helper.make_function("local", "F", ["x"], ["y"], body, [helper.make_opsetid("", 21)], ["kind"])
    single = proof(N("F", ["x"], ["y"], domain="local", kind=FLOAT), functions=[function])
    double = proof(N("F", ["x"], ["y"], domain="local", kind=TensorProto.DOUBLE), functions=[function])
    assert single.strength == "Exact"
    assert double.strength != "Exact"


def test_the_numbers_of_a_constant_node_are_known_in_each_of_its_forms() -> None:
    tensor = numpy_helper.from_array(ints(-1, 2, 2))
    for given in ({"value_ints": [-1, 2, 2]}, {"value": tensor}):
        found = proof(N("Constant", [], ["s"], **given), N("Reshape", ["x", "s"], ["r"]), N("Relu", ["r"], ["y"]))
        assert found.strength == "Exact", found
    scaled = proof(N("Constant", [], ["s"], value_floats=[1.0, 2.0, 3.0, 4.0]), N("Mul", ["x", "s"], ["y"]))
    assert scaled.strength == "Exact", scaled


def test_a_fault_of_ours_is_no_proof_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise NameError("kind")

    monkeypatch.setattr("onnx_operator.model.batching.proof._prove", faulty)
    found = proof(N("Relu", ["x"], ["y"]))
    assert (found.strength, found.reason) == ("Unproven", f"{FAILED} (NameError)")
