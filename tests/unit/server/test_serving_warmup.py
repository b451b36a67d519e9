"""Ready means the model answered, so inputs are made up until it does, or it is refused with its words."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnx_operator.server.dataplane.tensors import TensorInfo
from onnx_operator.server.runtime.session import LoadError
from onnx_operator.server.runtime.warmup import Guess, guesses, make_feed, warm_up
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
    assert next(iter(guesses([info("x", ["N", 4])]))) == Guess()
    assert len(list(guesses([info("x", [1, 4])]))) == 2


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


def test_a_model_that_answers_nothing_is_refused_naming_the_node() -> None:
    content = model_bytes(
        [node("Add", ["x", "c"], ["i"]), node("Gather", ["table", "i"], ["y"], name="look-up")],
        [value("x", INT64, ["N"])],
        [value("y", FLOAT, None)],
        {"table": np.zeros(3, dtype=np.float32), "c": np.array([107])},
    )
    with pytest.raises(LoadError, match=r"answered no warm-up inference: .*look-up.*idx=107"):
        warm_up(load_bytes(content))
