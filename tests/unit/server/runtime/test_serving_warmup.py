"""Ready means the model answered, so inputs are made up until it does, or it is refused with its words."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnx_operator.model.batching.proof import Proof
from onnx_operator.server.dataplane.tensors import TensorInfo
from onnx_operator.server.runtime.assignment import Assignment
from onnx_operator.server.runtime.guessing import NOTHING, Guess, Search, make_feed
from onnx_operator.server.runtime.session import Model
from onnx_operator.server.runtime.warmup import warm_up
from tests.unit.server.serving import identity, linear, load_bytes, model_bytes, node, slow, value

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def info(name: str, shape: list[Any], datatype: str = "FP32") -> TensorInfo:
    return TensorInfo(name, "tensor(float)", datatype, tuple(shape))


def shapes(inputs: list[TensorInfo], guess: Guess) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in make_feed(inputs, guess).items()}


def test_equal_names_get_equal_sizes() -> None:
    inputs = [info("a", ["N", "L"]), info("b", ["L", None]), info("c", [])]
    assert shapes(inputs, Guess(batch=2, rest=5)) == {"a": (2, 5), "b": (5, 5), "c": ()}


@pytest.mark.parametrize(
    ("shape", "made_up"),
    [
        (["N", 3, "H", "W"], (1, 3, 224, 224)),
        (["N", "C", "H", "W"], (1, 3, 224, 224)),
        (["N", "H", "W", 3], (1, 224, 224, 3)),
        (["N", "L"], (1, 1)),
    ],
)
def test_four_dimensions_can_be_an_image(shape: list[Any], made_up: tuple[int, ...]) -> None:
    assert shapes([info("x", shape)], Guess(image=True)) == {"x": made_up}


def test_the_smallest_guess_comes_first_and_fixed_shapes_need_few() -> None:
    assert next(iter(Search([info("x", ["N", 4])], lambda: NOTHING))) == Guess()
    assert len(list(Search([info("x", [1, 4])], lambda: NOTHING))) == 2


def test_a_guess_beyond_reason_is_left_out() -> None:
    with pytest.raises(ValueError, match="elements"):
        make_feed([info("x", ["a", "b", "c", "d", "e"])], Guess(rest=224))


def pooling() -> bytes:
    return model_bytes(
        [node("Conv", ["x", "W"], ["c"]), node("MaxPool", ["c"], ["y"], kernel_shape=[9, 9])],
        [value("x", FLOAT, ["N", 3, "H", "W"])],
        [value("y", FLOAT, None)],
        {"W": np.zeros((2, 3, 3, 3), dtype=np.float32)},
    )


def splitting() -> bytes:
    """Only even lengths are possible."""
    return model_bytes(
        [node("Reshape", ["x", "to"], ["y"])],
        [value("x", FLOAT, ["L"])],
        [value("y", FLOAT, None)],
        {"to": np.array([-1, 2])},
    )


def counting() -> bytes:
    """Zero is impossible as a value."""
    return model_bytes(
        [node("Slice", ["data", "start", "end", "axis", "step"], ["y"])],
        [value("step", INT64, [1])],
        [value("y", FLOAT, None)],
        {
            "data": np.zeros(3, dtype=np.float32),
            "start": np.array([0]),
            "end": np.array([3]),
            "axis": np.array([0]),
        },
    )


def numbers_in_text() -> bytes:
    return model_bytes([node("Cast", ["x"], ["y"], to=FLOAT)], [value("x", STRING, ["N"])], [value("y", FLOAT, ["N"])])


def sequence_input() -> bytes:
    sequence = helper.make_tensor_sequence_value_info("x", FLOAT, [None])
    return model_bytes([node("SequenceLength", ["x"], ["y"])], [sequence], [value("y", INT64, [])])


def map_input() -> bytes:
    kind = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(FLOAT, []))
    return model_bytes(
        [node("DictVectorizer", ["x"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a", "b"])],
        [helper.make_value_info("x", kind)],
        [value("y", FLOAT, [1, 2])],
        ml=True,
    )


@pytest.mark.parametrize(
    "content",
    [
        linear(),
        slow(),
        identity(),
        identity(shape=[]),
        identity(shape=None),
        identity(STRING),
        identity(TensorProto.BFLOAT16),
        identity(TensorProto.BOOL, [0, 3]),
        pooling(),
        splitting(),
        counting(),
        numbers_in_text(),
        sequence_input(),
        map_input(),
    ],
    ids=lambda content: "",
)
def test_models_with_demands_of_their_own_are_warmed_up(content: bytes) -> None:
    warm_up(load_bytes(content))


def far_table(beyond: str = "x") -> bytes:
    """A look-up by ``x`` + 107 in a table of three rows; with another name for ``beyond``, by 107 whatever ``x`` is."""
    return model_bytes(
        [
            node("Mul", ["x", "zero"], ["nothing"]),
            node("Add", [beyond, "c"], ["i"]),
            node("Gather", ["table", "i"], ["y"], name="look-up"),
        ],
        [value("x", INT64, ["N"])],
        [value("y", FLOAT, None)],
        {"table": np.zeros(3, dtype=np.float32), "c": np.array([107]), "zero": np.array([0])},
    )


def test_an_index_is_moved_into_the_table_that_the_runtime_names() -> None:
    found = warm_up(load_bytes(far_table()))
    assert found.warmed
    assert found.feed["x"].tolist() == [-105]


def test_a_model_that_answers_no_made_up_input_serves_unwarmed_and_says_what_was_tried() -> None:
    found = warm_up(load_bytes(far_table("nothing")), 8)
    assert (found.warmed, found.batchable, found.inline) == (False, False, False)
    assert re.search(r"look-up.*idx=107", found.message)
    assert re.search(r"made-up inputs were tried in .* x \[1\] … x \[\d+\]", found.message)
    assert "testData" in found.message


def speech() -> bytes:
    """Convolutions that need at least 400 samples."""
    rng, last, channels = np.random.default_rng(0), "c0", 1
    nodes, weights = [node("Unsqueeze", ["x", "axis"], ["c0"])], {"axis": np.array([1])}
    for number, (kernel, stride) in enumerate([(10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2]):
        weights[f"w{number}"] = rng.normal(size=(4, channels, kernel)).astype(np.float32)
        nodes.append(node("Conv", [last, f"w{number}"], [f"c{number + 1}"], strides=[stride], name=f"conv{number}"))
        last, channels = f"c{number + 1}", 4
    return model_bytes(nodes, [value("x", FLOAT, ["batch", "samples"])], [value(last, FLOAT, None)], weights)


def whisper() -> bytes:
    """An encoder with a table of positions: 80 bands, two frames for each of 1,500 places, and no other sizes."""
    rng = np.random.default_rng(0)
    return model_bytes(
        [
            node("Conv", ["x", "w1"], ["c1"], pads=[1, 1], name="conv1"),
            node("Conv", ["c1", "w2"], ["c2"], pads=[1, 1], strides=[2], name="conv2"),
            node("Transpose", ["c2"], ["t"], perm=[0, 2, 1], name="turn"),
            node("Concat", ["t", "positions"], ["y"], axis=2, name="positions"),
        ],
        [value("x", FLOAT, ["batch", "bands", "frames"])],
        [value("y", FLOAT, None)],
        {
            "w1": rng.normal(size=(8, 80, 3)).astype(np.float32),
            "w2": rng.normal(size=(8, 8, 3)).astype(np.float32),
            "positions": rng.normal(size=(1, 1500, 8)).astype(np.float32),
        },
    )


def categories() -> bytes:
    """Two columns of text, each with categories of its own."""
    return model_bytes(
        [
            node("ArrayFeatureExtractor", ["x", "first"], ["a"], domain="ai.onnx.ml"),
            node("ArrayFeatureExtractor", ["x", "second"], ["b"], domain="ai.onnx.ml"),
            node("OneHotEncoder", ["a"], ["ah"], domain="ai.onnx.ml", cats_strings=["red", "blue"], zeros=0),
            node("OneHotEncoder", ["b"], ["bh"], domain="ai.onnx.ml", cats_strings=["S", "M"], zeros=0),
            node("Concat", ["ah", "bh"], ["y"], axis=-1),
        ],
        [value("x", STRING, ["N", 2])],
        [value("y", FLOAT, None)],
        {"first": np.array([0]), "second": np.array([1])},
        ml=True,
    )


def total_length() -> bytes:
    """A mask as long as what is past and what is new together."""
    return model_bytes(
        [
            node("Concat", ["past", "new"], ["all"], axis=1),
            node("Reshape", ["mask", "to"], ["m"]),
            node("Add", ["all", "m"], ["y"]),
        ],
        [
            value("new", FLOAT, ["b", "sequence"]),
            value("past", FLOAT, ["b", "past_sequence"]),
            value("mask", FLOAT, ["b", "past_sequence + sequence"]),
        ],
        [value("y", FLOAT, None)],
        {"to": np.array([1, 7])},
    )


@pytest.mark.parametrize(
    ("content", "shapes"),
    [
        (whisper(), {"x": (1, 80, 3000)}),
        (categories(), {"x": (1, 2)}),
    ],
)
def test_sizes_and_categories_that_only_the_graph_or_the_runtime_tells_are_found(
    content: bytes, shapes: dict[str, tuple[int, ...]]
) -> None:
    found = warm_up(load_bytes(content))
    assert found.warmed, found.message
    for name, shape in shapes.items():
        # Of two frames that make one place the last may be missing.
        assert found.feed[name].shape[:-1] == shape[:-1]
        assert shape[-1] - found.feed[name].shape[-1] in (0, 1)


def test_the_least_length_of_a_speech_model_is_found() -> None:
    found = warm_up(load_bytes(speech()))
    assert found.warmed, found.message
    assert found.feed["x"].shape[1] >= 400


def test_a_size_that_is_a_sum_of_others_follows_them() -> None:
    found = warm_up(load_bytes(total_length()))
    assert found.warmed, found.message
    assert found.feed["new"].shape[1] + found.feed["past"].shape[1] == found.feed["mask"].shape[1] == 7


def rowwise(*nodes: Any, rest: Any = 8, batch: Any = "N", element: int = FLOAT, **weights: Any) -> bytes:
    """From ``x`` to ``y`` with the nodes in between."""
    return model_bytes(
        list(nodes),
        [value("x", element, [batch, rest])],
        [value("y", FLOAT, None)],
        {"W": np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32), **weights},
    )


BATCHABLE = {
    "a classifier": linear(),
    "matrices": rowwise(node("MatMul", ["x", "W"], ["h"]), node("Softmax", ["h"], ["y"], axis=1)),
    "an open length": rowwise(node("LpNormalization", ["x"], ["y"], axis=1), rest="L"),
    "bytes of pixels": rowwise(node("Cast", ["x"], ["y"], to=FLOAT), element=TensorProto.UINT8),
    "16 bits": rowwise(node("Cast", ["x"], ["y"], to=FLOAT), element=TensorProto.BFLOAT16),
    "half precision": rowwise(node("Cast", ["x"], ["y"], to=FLOAT), element=TensorProto.FLOAT16),
    "numbers in text": rowwise(node("Cast", ["x"], ["y"], to=FLOAT), element=STRING),
    "identities": rowwise(node("Gather", ["W", "x"], ["y"]), element=INT64),
    "an unnamed batch": rowwise(node("Relu", ["x"], ["y"]), batch=None),
    "answers that hardly differ": rowwise(
        node("Mul", ["x", "small"], ["h"]),
        node("Add", ["h", "one"], ["y"]),
        small=np.array(2e-5, np.float32),
        one=np.array(1, np.float32),
    ),
    "thresholds far from zero": rowwise(
        node("Greater", ["x", "limit"], ["g"]), node("Cast", ["g"], ["y"], to=FLOAT), limit=np.array(3000, np.float32)
    ),
}


@pytest.mark.parametrize("content", BATCHABLE.values(), ids=BATCHABLE)
def test_requests_share_a_run_where_rows_know_nothing_of_each_other(content: bytes) -> None:
    found = warm_up(load_bytes(content), 6)
    assert (found.batchable, found.fixed_batch, found.reason) == (True, None, "")
    assert sorted(found.seconds) == [1, 2, 4, 6]


def two_inputs(first: Any, second: Any) -> bytes:
    return model_bytes(
        [node("Concat", ["a", "b"], ["y"], axis=1)],
        [value("a", FLOAT, first), value("b", FLOAT, second)],
        [value("y", FLOAT, None)],
    )


def test_inputs_with_one_batch_share_runs_and_inputs_with_two_do_not() -> None:
    assert warm_up(load_bytes(two_inputs(["N", 2], ["N", 3])), 4).batchable
    found = warm_up(load_bytes(two_inputs(["N", 2], ["M", 3])), 4)
    assert not found.batchable
    assert "differ in their first dimension" in found.reason


NOT_BATCHABLE = {
    "a mean over the batch": (
        rowwise(node("ReduceMean", ["x", "first"], ["m"]), node("Sub", ["x", "m"], ["y"]), first=np.array([0])),
        "depend on the other rows",
    ),
    "probabilities over the batch": (rowwise(node("Softmax", ["x"], ["y"], axis=0)), "depend on the other rows"),
    "sums over rows": (
        rowwise(node("CumSum", ["x", "axis"], ["y"]), axis=np.array(0)),
        "depend on the other rows",
    ),
    "one scale for all rows": (
        rowwise(
            node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])
        ),
        "depend on the other rows",
    ),
    "noise": (
        rowwise(node("RandomNormalLike", ["x"], ["n"]), node("Add", ["x", "n"], ["y"])),
        "depend on the other rows",
    ),
    "a sum of all": (rowwise(node("ReduceSum", ["x"], ["y"], keepdims=0)), r"output y has shape \[\] for"),
    "rows without end": (
        rowwise(node("Reshape", ["x", "to"], ["y"]), to=np.array([-1, 4])),
        r"output y has shape \[2, 4\] for 1 rows",
    ),
    "a square": (rowwise(node("Relu", ["x"], ["y"]), rest="N"), "open first dimension N is also another one"),
    "a faint trace of the batch": (
        rowwise(
            node("ReduceMean", ["x", "first"], ["m"]),
            node("Mul", ["m", "small"], ["h"]),
            node("Add", ["h", "one"], ["y1"]),
            node("Identity", ["x"], ["x1"]),
            node("Mul", ["x1", "zero"], ["z"]),
            node("Add", ["z", "y1"], ["y"]),
            first=np.array([0]),
            small=np.array(2e-5, np.float32),
            one=np.array(1, np.float32),
            zero=np.array(0, np.float32),
        ),
        "depend on the other rows|differ too little",
    ),
    "a constant answer": (
        rowwise(node("Mul", ["x", "zero"], ["y"]), zero=np.array(0, np.float32)),
        "differ too little to tell",
    ),
    "one row only": (rowwise(node("Relu", ["x"], ["y"]), batch=1), "first dimension is always 1"),
    "an unknown rank": (identity(shape=None), "no declared dimensions"),
    "a sequence": (sequence_input(), r"x is seq\(tensor\(float\)\)"),
}


@pytest.mark.parametrize(("content", "reason"), NOT_BATCHABLE.values(), ids=NOT_BATCHABLE)
def test_requests_run_alone_where_one_could_change_the_answer_of_another(content: bytes, reason: str) -> None:
    model = load_bytes(content)
    found = warm_up(model, 8, assume_independent_rows=True)
    assert (found.batchable, found.fixed_batch) == (False, None)
    assert re.search(reason, found.reason), found.reason
    assert list(found.seconds) == [1]
    assert not warm_up(model, 8).batchable


def test_rows_that_only_rare_values_let_meet_never_share_a_run_unless_the_owner_says_so() -> None:
    nodes = [
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Greater", ["m", "limit"], ["g"]),
        node("Cast", ["g"], ["f"], to=FLOAT),
        node("Add", ["x", "f"], ["y"]),
    ]
    model = load_bytes(rowwise(*nodes, limit=np.array(1e9, np.float32)))

    assert warm_up(model, 8, assume_independent_rows=True).batchable, "no made-up input shows it"
    found = warm_up(model, 8)
    assert (found.batchable, found.proof) == (False, "Unproven")
    assert 'the node (ReduceMax) that makes "m"' in found.reason


def test_a_measurement_that_contradicts_a_proof_is_told_as_an_error_and_wins(caplog: pytest.LogCaptureFixture) -> None:
    class TooTrusting(Model):
        def prove_rows(self, most_rows: int) -> Proof:
            return Proof("Exact")

    loaded = load_bytes(rowwise(node("Softmax", ["x"], ["y"], axis=0)))
    found = warm_up(TooTrusting(loaded.session, loaded.assignment), 8)

    assert (found.batchable, found.contradicted) == (False, True)
    assert [record.levelname for record in caplog.records if "proven" in record.message] == ["ERROR"]
    assert not warm_up(loaded, 8).contradicted


def test_a_model_that_makes_much_of_the_last_bits_shares_no_run_but_contradicts_no_proof() -> None:
    """Rounding depends on the number of rows here, for one is summed by another kernel: rows do not meet for that."""
    nodes = [
        node("MatMul", ["x", "stored"], ["a"]),
        node("MatMul", ["x", "replaceable"], ["b"]),
        node("Sub", ["a", "b"], ["difference"]),
        node("Mul", ["difference", "much"], ["y"]),
    ]
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    content = model_bytes(
        nodes,
        [value("x", FLOAT, ["N", 64]), value("replaceable", FLOAT, [64, 64])],
        [value("y", FLOAT, ["N", 64])],
        {"stored": weights, "replaceable": weights, "much": np.float32(1e6)},
    )
    found = warm_up(load_bytes(content), 8)
    assert (found.proof, found.batchable, found.contradicted) == ("Tolerant", False, False), found.reason
    assert "last bits" in found.reason


ROWWISE = [
    lambda a, b: [node("MatMul", [a, "W"], [b])],
    lambda a, b: [node("Tanh", [a], [b])],
    lambda a, b: [node("Softmax", [a], [b], axis=-1)],
    lambda a, b: [node("LayerNormalization", [a, "ones"], [b], axis=1)],
    lambda a, b: [node("ArgMax", [a], [f"{b}i"], axis=1, keepdims=0), node("Gather", ["W", f"{b}i"], [b])],
]
ACROSS_ROWS = [
    lambda a, b: [node("ReduceMax", [a, "first"], [f"{b}m"]), node("Sub", [a, f"{b}m"], [b])],
    lambda a, b: [node("LpNormalization", [a], [b], axis=0)],
    lambda a, b: [node("CumSum", [a, "zero"], [b])],
]


@given(st.lists(st.sampled_from(ROWWISE), min_size=1, max_size=5), st.none() | st.sampled_from(ACROSS_ROWS), st.data())
@settings(max_examples=60, deadline=None)
def test_one_operator_across_rows_anywhere_keeps_requests_apart(steps: list[Any], across: Any, data: Any) -> None:
    if across is not None:
        # After it a step that forgets magnitudes could hide it.
        steps = [*steps[: data.draw(st.integers(0, len(steps)))], across]
    names = ["x", *(f"h{number}" for number in range(1, len(steps))), "y"]
    nodes = [each for number, step in enumerate(steps) for each in step(names[number], names[number + 1])]
    constants = {"ones": np.ones(8, np.float32), "first": np.array([0]), "zero": np.array(0)}
    model = load_bytes(rowwise(*nodes, **constants))
    assert warm_up(model, 4, assume_independent_rows=True).batchable == (across is None)
    found = warm_up(model, 4)
    assert not found.contradicted
    if across is not None:
        assert not found.batchable


@pytest.mark.parametrize("inner", ["Relu", "Tanh"])
def test_a_fixed_batch_is_padded_where_rows_know_nothing_of_each_other(inner: str) -> None:
    found = warm_up(load_bytes(rowwise(node(inner, ["x"], ["y"]), batch=5)), 16)
    assert (found.batchable, found.fixed_batch) == (True, 5)
    assert list(found.seconds) == [5]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_fixed_batch_whose_rows_depend_on_each_other_is_never_padded(axis: int) -> None:
    found = warm_up(load_bytes(rowwise(node("Softmax", ["x"], ["y"], axis=axis), batch=4)), 16)
    assert found.batchable == (axis == 1)
    assert found.fixed_batch == (4 if axis == 1 else None)


def test_without_batching_nothing_is_tried() -> None:
    found = warm_up(load_bytes(linear()))
    assert (found.batchable, list(found.seconds), found.reason) == (False, [1], "batching is off")


def test_small_models_may_run_on_the_loop_and_loops_may_not() -> None:
    small = warm_up(load_bytes(linear()), 4)
    assert small.inline
    assert small.largest_elements >= 4 * 16
    assert not warm_up(load_bytes(slow()), 4).inline


class Stopwatch:
    """Each look at it is so many seconds later: every run seems to take them."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 0.0

    def __call__(self) -> float:
        self.now += self.seconds
        return self.now


def test_a_model_that_keeps_the_cpu_busy_by_itself_is_not_given_several_rows_at_a_time() -> None:
    found = warm_up(load_bytes(linear()), 64, clock=Stopwatch(0.06))
    assert (found.batchable, found.inline) == (False, False)
    assert "nothing is gained" in found.reason


def test_on_a_gpu_a_slow_model_is_tried_with_few_rows() -> None:
    model = load_bytes(linear())
    model.assignment = Assignment(["CUDAExecutionProvider"])
    found = warm_up(model, 64, clock=Stopwatch(1.0), assume_independent_rows=True)
    assert found.batchable
    assert list(found.seconds) == [1, 2]


def test_progress_is_told_by_batch() -> None:
    told: list[dict[str, object]] = []
    warm_up(load_bytes(linear()), 4, note=lambda **figures: told.append(figures))
    assert [each["batch"] for each in told] == [1, 2, 4]
