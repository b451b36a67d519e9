"""Images: convolutions, pools and changes of size, each image for itself."""

from typing import Any

import numpy as np
import pytest

from tests.unit.model.batching.proofkit import (
    FLOAT,
    IMAGE,
    INT64,
    SHAPE_OF,
    WORDS,
    ZERO,
    Case,
    Inputs,
    N,
    ints,
    keep_apart,
    meet,
    proof,
    reals,
)

test_of_these_graphs_it_is_proven_that_rows_keep_apart = keep_apart(
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
        "an image twice as large",
        N("Resize", ["x", "", "f"], ["y"]),
        inputs=IMAGE,
        stored={"f": reals(4) * 0 + [1, 1, 2, 2]},
    ),
)


test_of_these_graphs_nothing_is_proven_and_the_reason_is_told = meet(
    Case("filters from a caller", N("Conv", ["x", "w"], ["y"]), inputs={**IMAGE, "w": (FLOAT, ["N", 3, 3, 3])}),
    Case(
        "a place among all images",
        N("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2]),
        inputs=IMAGE,
        outputs=("y", "i"),
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
)


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


def test_an_image_that_is_given_the_size_of_the_batch_is_not_the_same_in_every_run() -> None:
    nodes = [
        *SHAPE_OF,
        N("Concat", ["two", "n", "n"], ["to"], axis=0),
        N("Resize", ["w", "", "", "to"], ["r"], mode="linear"),
        N("ReduceMean", ["r"], ["m"], keepdims=0),
        N("Add", ["x", "m"], ["y"]),
    ]
    assert not proof(*nodes, stored={**ZERO, "two": ints(1, 1), "w": reals(1, 1, 2, 2)}).holds


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


def test_a_table_that_is_resized_as_an_image_blends_its_rows() -> None:
    """ONNX Runtime adds zero times the next row, which is NaN where that row has one."""
    stored = {"f": np.array([1, 1, 2], np.float32), "g": np.array([1, 1, 2, 2], np.float32)}
    for mode, of_words, of_images in (("nearest", True, True), ("linear", False, True), ("cubic", False, True)):
        words = proof(N("Resize", ["x", "", "f"], ["y"], mode=mode), inputs=WORDS, stored=stored)
        images = proof(N("Resize", ["x", "", "g"], ["y"], mode=mode), inputs=IMAGE, stored=stored)
        assert (words.holds, images.holds) == (of_words, of_images), mode
