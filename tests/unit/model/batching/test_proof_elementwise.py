"""Operators that work element by element: rows meet only where a caller's or a stored number stands for one."""

import numpy as np

from tests.unit.model.batching.proofkit import BOOL, FLOAT, Case, N, X, keep_apart, meet, proof, reals

test_of_these_graphs_it_is_proven_that_rows_keep_apart = keep_apart(
    Case("element by element", N("Relu", ["x"], ["a"]), N("Add", ["a", "b"], ["y"]), stored={"b": reals(4)}),
    Case("a bias with a dimension of one for the rows", N("Add", ["x", "b"], ["y"]), stored={"b": reals(1, 4)}),
    Case("two inputs, row by row", N("Mul", ["x", "z"], ["y"]), inputs={**X, "z": (FLOAT, ["N", 1])}),
)


test_of_these_graphs_nothing_is_proven_and_the_reason_is_told = meet(
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
    Case("rows that meet columns", N("Add", ["x", "v"], ["y"]), inputs={"x": (FLOAT, ["N", "M"]), "v": (FLOAT, ["N"])}),
    Case("a stored number for each row", N("Add", ["x", "b"], ["y"]), stored={"b": reals(2, 4)}),
)


def test_the_largest_of_three_holds_but_for_the_sign_of_zeros() -> None:
    for name in ("Max", "Min"):
        assert proof(N(name, ["x", "b"], ["y"]), stored={"b": reals(4)}).strength == "Exact"
        assert proof(N(name, ["x", "b", "b"], ["y"]), stored={"b": reals(4)}).strength == "Tolerant"
