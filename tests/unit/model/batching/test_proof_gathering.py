"""Picking and choosing: what is picked by an index, or chosen by a value, must be of the row itself."""

import numpy as np

from tests.unit.model.batching.proofkit import (
    FLOAT,
    IDS,
    INT64,
    SHAPE_OF,
    ZERO,
    Case,
    N,
    X,
    ints,
    keep_apart,
    meet,
    reals,
)

test_of_these_graphs_it_is_proven_that_rows_keep_apart = keep_apart(
    Case("words looked up in a table", N("Gather", ["table", "x"], ["y"]), inputs=IDS, stored={"table": reals(9, 4)}),
    Case("a column of each row", N("Gather", ["x", "i"], ["y"], axis=1), stored={"i": ints(2, 0)}),
    Case(
        "an index of each row into itself",
        N("ArgMax", ["x"], ["i"], axis=1),
        N("GatherElements", ["x", "i"], ["y"], axis=1),
    ),
)


test_of_these_graphs_nothing_is_proven_and_the_reason_is_told = meet(
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
    Case("places of what is not zero", N("NonZero", ["x"], ["y"])),
    Case("what a condition chooses", N("Compress", ["x", "c"], ["y"], axis=0), stored={"c": np.array([True])}),
    Case("what is there but once", N("Unique", ["x"], ["y"], axis=0)),
    Case(
        "the best of all boxes",
        N("NonMaxSuppression", ["x", "c"], ["y"]),
        inputs={"x": (FLOAT, ["N", "S", 4]), "c": (FLOAT, ["N", 1, "S"])},
    ),
    Case("the best rows", N("TopK", ["x", "one"], ["y", "i"], axis=0), stored=ZERO),
    Case("as many of the best as there are rows", *SHAPE_OF, N("TopK", ["x", "n"], ["y", "i"]), stored=ZERO),
)
