"""Quantized numbers: scales and zero points are stored, not made of the rows."""

import numpy as np
import pytest
from onnx import TensorProto

from tests.unit.model.batching.proofkit import FLOAT, Case, N, keep_apart, meet, proof, reals

SCALE = {"s": np.float32(0.1), "z": np.uint8(3)}


test_of_these_graphs_it_is_proven_that_rows_keep_apart = keep_apart(
    Case(
        "stored scales",
        N("QuantizeLinear", ["x", "s", "z"], ["q"]),
        N("DequantizeLinear", ["q", "s", "z"], ["y"]),
        stored=SCALE,
    ),
)


test_of_these_graphs_nothing_is_proven_and_the_reason_is_told = meet(
    Case(
        "a scale made at run time",
        N("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        N("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ),
    Case(
        "a scale for each row of a fixed number", N("QuantizeLinear", ["x", "s"], ["y"], axis=0), stored={"s": reals(3)}
    ),
)


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
