"""Sums, means and normalizations: within a row, never over the rows."""

import numpy as np

from tests.unit.model.batching.proofkit import IMAGE, INT64, WORDS, ZERO, Case, N, X, keep_apart, meet, proof, reals

test_of_these_graphs_it_is_proven_that_rows_keep_apart = keep_apart(
    Case("softmax over the classes", N("Softmax", ["x"], ["y"], axis=1)),
    Case("softmax of old opsets over the rest", N("Softmax", ["x"], ["y"], axis=1), opset=11),
    Case("the mean of each row", N("ReduceMean", ["x", "one"], ["y"]), stored=ZERO),
    Case("layer normalization", N("LayerNormalization", ["x", "s"], ["y"]), stored={"s": reals(4)}),
)


test_of_these_graphs_nothing_is_proven_and_the_reason_is_told = meet(
    Case("a scale from the rows", N("ReduceMax", ["x"], ["m"], keepdims=0), N("Div", ["x", "m"], ["y"])),
    Case(
        "batch normalization in training mode",
        N("BatchNormalization", ["x", *"smbv"[:4]], ["y"], training_mode=1),
        inputs=IMAGE,
        stored={name: reals(3) for name in "smbv"},
    ),
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
    Case("a mean over the rows", N("ReduceMean", ["x", "zero"], ["y"]), stored=ZERO),
    Case("a mean over everything", N("ReduceMean", ["x"], ["y"])),
    Case("a mean over axes from a caller", N("ReduceSum", ["x", "a"], ["y"]), inputs={**X, "a": (INT64, ["N"])}),
    Case("a sum along the rows", N("CumSum", ["x", "a"], ["y"]), stored={"a": np.int64(0)}),
    Case("a mean over images", N("MeanVarianceNormalization", ["x"], ["y"]), inputs=IMAGE),
)


def test_a_mean_over_axes_that_are_left_empty_is_one_over_all() -> None:
    node = N("MeanVarianceNormalization", ["t"], ["n"], axes=[4])
    del node.attribute[0].ints[:]
    nodes = [N("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node, N("Transpose", ["n"], ["y"], perm=[1, 0, 2])]
    assert not proof(*nodes, inputs=WORDS).holds
