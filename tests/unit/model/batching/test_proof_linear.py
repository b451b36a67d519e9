"""Products of matrices and attention: no row may be summed with another."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnx_operator.model.batching.graph_pb2 import Model
from onnx_operator.model.batching.kernels import Kernels
from onnx_operator.model.batching.proof import prove
from tests.unit.model.batching.proofkit import FLOAT, WORDS, Case, N, X, keep_apart, meet, model, proof, reals

test_of_these_graphs_it_is_proven_that_rows_keep_apart = keep_apart(
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
        "einsum with a letter for the rows",
        N("Einsum", ["x", "w"], ["y"], equation="nk,km->nm"),
        stored={"w": reals(4, 3)},
    ),
)


test_of_these_graphs_nothing_is_proven_and_the_reason_is_told = meet(
    Case("rows times rows", N("Transpose", ["x"], ["t"]), N("MatMul", ["x", "t"], ["y"])),
    Case("rows times rows in a linear layer", N("Gemm", ["x", "x"], ["y"], transB=1)),
    Case("a sum over the rows in a product", N("MatMul", ["w", "x"], ["y"]), stored={"w": reals(1, 3)}),
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
)


def test_in_double_precision_and_on_a_gpu_products_are_rounded_by_the_number_of_rows() -> None:
    product = N("MatMul", ["x", "w"], ["y"])
    double = {"inputs": {"x": (TensorProto.DOUBLE, ["N", 4])}, "stored": {"w": reals(4, 3).astype(np.float64)}}

    assert proof(product, **double).strength == "Tolerant"
    assert (
        proof(product, stored={"w": reals(4, 3)}, kernels=Kernels(measured=False, copies=False)).strength == "Tolerant"
    )


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


def test_sums_within_rows_hold_to_the_bit_where_they_are_short() -> None:
    for size, strength in ((64, "Exact"), (128, "Exact"), (129, "Tolerant")):
        nodes = [N("Transpose", ["x"], ["t"], perm=[0, 2, 1]), N("MatMul", ["x", "t"], ["y"])]
        assert proof(*nodes, inputs={"x": (FLOAT, ["N", "S", size])}).strength == strength
