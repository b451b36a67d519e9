"""Cutting, joining and moving axes: the dimension of the rows stays whole, and in its place."""

import itertools

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_operator.model.batching.rules.movement import _places
from tests.unit.model.batching.proofkit import (
    FLOAT,
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
    proof,
    reals,
)

test_of_these_graphs_it_is_proven_that_rows_keep_apart = keep_apart(
    Case("half of each row", N("Slice", ["x", "zero", "two", "one"], ["y"]), stored={**ZERO, "two": ints(2)}),
    Case(
        "all rows, cut to all rows",
        N("Slice", ["x", "zero", "end", "zero"], ["y"]),
        stored={**ZERO, "end": ints(2**63 - 1)},
    ),
    Case("columns beside each other", N("Concat", ["x", "x"], ["y"], axis=1)),
    Case("halves of columns", N("Split", ["x"], ["y", "b"], axis=1, num_outputs=2)),
)


test_of_these_graphs_nothing_is_proven_and_the_reason_is_told = meet(
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
        "axes moved, mixed, and moved back",
        N("Transpose", ["x"], ["t"]),
        N("Softmax", ["t"], ["s"], axis=-1),
        N("Transpose", ["s"], ["y"]),
    ),
    Case("axes moved and left there", N("Transpose", ["x"], ["y"])),
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
)


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


def test_a_tensor_without_elements_keeps_no_rows_when_it_is_flattened() -> None:
    nodes = [N("Slice", ["x", "zero", "zero", "one"], ["e"]), N("Flatten", ["e"], ["y"], axis=2)]
    assert not proof(*nodes, stored=ZERO).holds


@pytest.mark.parametrize("axes", [[], [N("Shape", ["scalar"], ["axes"])]])
def test_no_axes_at_all_are_all_of_one_to_a_squeeze(axes: list[onnx.NodeProto]) -> None:
    stored = {"scalar": np.float32(1)} if axes else {"axes": ints(*())}
    assert not proof(*axes, N("Squeeze", ["x", "axes"], ["y"]), stored=stored).holds


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
