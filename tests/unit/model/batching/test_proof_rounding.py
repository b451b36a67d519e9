"""How much of a proof holds to the last bit, and what jumps by it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.unit.model.batching.proofkit import BOOL, FLOAT, INT64, ZERO, N, ints, proof, reals

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


def test_what_is_rounded_in_half_precision_is_not_within_the_rounding_of_single() -> None:
    half = [N("Cast", ["s"], ["h"], to=TensorProto.FLOAT16), N("Cast", ["h"], ["y"], to=FLOAT)]
    assert not proof(N("Softmax", ["x"], ["s"]), *half).holds
    assert proof(N("Relu", ["x"], ["s"]), *half).strength == "Exact"
