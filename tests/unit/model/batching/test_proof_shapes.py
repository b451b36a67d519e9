"""Computed shapes: numbers are followed as far as the runtime computes with them, and no further."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_operator.model.batching.graph_pb2 import Model
from onnx_operator.model.batching.proof import prove
from tests.unit.model.batching.proofkit import (
    FLOAT,
    IDS,
    IMAGE,
    INT64,
    SHAPE_OF,
    WORDS,
    ZERO,
    Case,
    N,
    ints,
    keep_apart,
    meet,
    model,
    named,
    proof,
    reals,
)

test_of_these_graphs_it_is_proven_that_rows_keep_apart = keep_apart(
    Case(
        "a constant shape that fits the size of the images",
        N("Conv", ["x", "w"], ["c"]),
        N("Reshape", ["c", "to"], ["y"]),
        inputs=IMAGE,
        stored={"w": reals(2, 3, 3, 3), "to": ints(-1, 72)},
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
)


test_of_these_graphs_nothing_is_proven_and_the_reason_is_told = meet(
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
)


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
    assert not case.proof().holds


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


def test_the_numbers_of_a_constant_node_are_known_in_each_of_its_forms() -> None:
    tensor = numpy_helper.from_array(ints(-1, 2, 2))
    for given in ({"value_ints": [-1, 2, 2]}, {"value": tensor}):
        found = proof(N("Constant", [], ["s"], **given), N("Reshape", ["x", "s"], ["r"]), N("Relu", ["r"], ["y"]))
        assert found.strength == "Exact", found
    scaled = proof(N("Constant", [], ["s"], value_floats=[1.0, 2.0, 3.0, 4.0]), N("Mul", ["x", "s"], ["y"]))
    assert scaled.strength == "Exact", scaled
