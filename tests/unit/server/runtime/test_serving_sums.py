"""Sums of products of random sizes and threads: what is told to hold to the bit does, whatever the number of rows.

Kernels differ for one row and for more, share out work by the number of rows, and cut long sums by that share: the
list of what holds to the bit was measured with this, on the architecture for which the list is used.
"""

import platform
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_operator.model.batching.graph_pb2 import Model
from onnx_operator.model.batching.kernels import kernels_here
from onnx_operator.model.batching.proof import prove

MAX_ROWS = 32
N = helper.make_node
Made = tuple[list[NodeProto], tuple[int, ...], dict[str, Any]]
"""Nodes from ``x`` to ``y``, the shape of a row, and what is stored."""


class Dice:
    """Random choices."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def of(self, *values: Any) -> Any:
        return values[int(self.random.integers(len(values)))]

    def reals(self, *shape: int) -> Any:
        return self.random.normal(size=shape).astype(np.float32)


def convolution(dice: Dice) -> Made:
    rank, kernel, depth = dice.of(1, 1, 2, 2, 3), dice.of(1, 3, 5), dice.of(1, 3, 8, 16, 33, 64, 256)
    groups = depth if dice.of(0, 0, 0, 1) else 1
    filters = dice.of(1, 7, 16, 64) if groups == 1 else depth
    sizes = [int(dice.random.integers(kernel, kernel + {1: 300, 2: 30, 3: 8}[rank])) for _ in range(rank)]
    name = dice.of("Conv", "Conv", "ConvTranspose") if groups == 1 else "Conv"
    shape = (filters, depth // groups) if name == "Conv" else (depth, filters)
    weights = dice.reals(*shape, *(kernel for _ in sizes))
    return [N(name, ["x", "w"], ["y"], group=groups, strides=[dice.of(1, 2)] * rank)], (depth, *sizes), {"w": weights}


def product(dice: Dice) -> Made:
    terms, columns, words = dice.of(3, 64, 129, 300, 1000), dice.of(1, 2, 16, 64, 300), dice.of(1, 5, 40)
    weights = dice.reals(terms, columns)
    if dice.of(0, 1):
        return [N("MatMul", ["x", "w"], ["y"])], (words, terms), {"w": weights}
    turned = dice.of(0, 1)
    return [N("Gemm", ["x", "w"], ["y"], transB=turned)], (terms,), {"w": weights.T.copy() if turned else weights}


def within(dice: Dice) -> Made:
    words, terms = dice.of(1, 2, 10, 100), dice.of(5, 64, 128, 129, 400)
    nodes = [N("Transpose", ["x"], ["t"], perm=[0, 2, 1]), N("MatMul", dice.of(["x", "t"], ["t", "x"]), ["y"])]
    return nodes, (words, terms), {}


def recurrent(dice: Dice) -> Made:
    name, width, hidden, words, both = (
        dice.of("LSTM", "GRU"),
        dice.of(3, 200),
        dice.of(5, 64, 130),
        dice.of(1, 7),
        dice.of(1, 2),
    )
    gates = hidden * (4 if name == "LSTM" else 3)
    weights = {"w": dice.reals(both, gates, width) / 10, "r": dice.reals(both, gates, hidden) / 10}
    nodes = [
        N("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        N(name, ["t", "w", "r"], ["q"], hidden_size=hidden, direction="bidirectional" if both == 2 else "forward"),
        N("Transpose", ["q"], ["y"], perm=[2, 0, 1, 3]),
    ]
    return nodes, (words, width), weights


def trees(dice: Dice) -> Made:
    count, depth, targets, columns = dice.of(1, 30, 64, 100), dice.of(1, 3), dice.of(1, 3), 5
    inner, all_nodes = 2**depth - 1, 2 ** (depth + 1) - 1
    ids = [(tree, each) for tree in range(count) for each in range(all_nodes)]
    leaves = [(tree, each, k) for tree, each in ids if each >= inner for k in range(targets)]
    node = N(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=targets,
        nodes_treeids=[tree for tree, _ in ids],
        nodes_nodeids=[each for _, each in ids],
        nodes_featureids=[int(dice.random.integers(columns)) for _ in ids],
        nodes_values=[float(each) for each in dice.reals(len(ids))],
        nodes_modes=["BRANCH_LEQ" if each < inner else "LEAF" for _, each in ids],
        nodes_truenodeids=[2 * each + 1 if each < inner else 0 for _, each in ids],
        nodes_falsenodeids=[2 * each + 2 if each < inner else 0 for _, each in ids],
        target_treeids=[tree for tree, _, _ in leaves],
        target_nodeids=[each for _, each, _ in leaves],
        target_ids=[k for _, _, k in leaves],
        target_weights=[float(each) for each in dice.reals(len(leaves))],
    )
    return [node], (columns,), {}


def check_sum(seed: int) -> str:
    """Compare rows alone with rows among others, and return what is told of them."""
    dice = Dice(seed)
    nodes, row, weights = dice.of(convolution, convolution, product, within, recurrent, trees)(dice)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *row])],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(each, name) for name, each in weights.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    content = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
    strength = prove(Model.FromString(content), kernels_here(accelerated=False, most_rows=MAX_ROWS)).strength
    assert strength != "Unproven", (seed, nodes[-1].op_type)
    options = ort.SessionOptions()
    options.intra_op_num_threads = dice.of(1, 2, 4, 8)
    loaded = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    rows = dice.of(4, 9) if np.prod(row) > 2000 else MAX_ROWS
    x = dice.reals(rows, *row)
    (together,) = loaded.run(None, {"x": x})
    for a, b in ((0, 1), (1, 3), (rows - 1, rows), (0, rows - 1)):
        (alone,) = loaded.run(None, {"x": x[a:b]})
        if strength == "Exact":
            assert np.array_equal(alone, together[a:b]), (seed, nodes[-1].op_type, row, options.intra_op_num_threads)
        else:
            np.testing.assert_allclose(alone, together[a:b], rtol=1e-3, atol=1e-3)
    return strength


def check_sums(seeds: range) -> None:
    found = Counter(check_sum(seed) for seed in seeds)
    if platform.machine().lower() in ("x86_64", "amd64"):
        assert found["Exact"] > found["Tolerant"] > 0


def test_sums_that_are_told_to_hold_to_the_bit_do() -> None:
    check_sums(range(80))


@pytest.mark.soak
def test_thousands_of_sums_that_are_told_to_hold_to_the_bit_do() -> None:
    check_sums(range(80, 2080))
