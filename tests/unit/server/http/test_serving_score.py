"""``/score`` takes the JSON that people write and answers with JSON that people read."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from onnx_operator.server.errors import RequestError
from tests.unit.server.serving import ask_score, identity, linear, load_bytes, model_bytes, node, value


def two_inputs() -> bytes:
    return model_bytes(
        [node("Cast", ["b"], ["f"], to=TensorProto.FLOAT), node("Add", ["data", "f"], ["sum"])],
        [value("data", TensorProto.FLOAT, ["N"]), value("b", TensorProto.INT64, ["N"])],
        [value("sum", TensorProto.FLOAT, ["N"])],
    )


@pytest.mark.parametrize(
    "body", [{"data": [[1, 0, 0, 0]]}, {"data": {"X": [[1, 0, 0, 0]]}}, {"X": [[True, 0, 0.0, 0]]}]
)
def test_all_three_forms_are_understood(body: Any) -> None:
    answer = ask_score(load_bytes(linear()), body)
    assert answer["label"] == [2]
    np.testing.assert_allclose(answer["logits"], [[0, 0.1, 0.2]], rtol=1e-6)


def test_an_input_may_be_called_data() -> None:
    model = load_bytes(two_inputs())
    assert ask_score(model, {"data": [1.5], "b": [2]}) == {"sum": [3.5]}
    assert ask_score(model, {"data": {"data": [1.5], "b": [2.0]}}) == {"sum": [3.5]}
    assert ask_score(load_bytes(identity(name="data")), {"data": [1.5]}) == {"y": [1.5]}


def test_missing_values_are_nan_both_ways() -> None:
    assert ask_score(load_bytes(identity()), {"data": [None, "NaN", 1]}) == {"y": ["NaN", "NaN", 1.0]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, 'name the inputs, as in {"data": {"NAME": [...]}}; the model takes X (FP32 [N, 4])'),
        ({"data": [1, 2, 3, 4]}, "expected shape [N, 4], got [4]; a single row goes into a list of its own"),
        ({"data": [[1, 2, 3]]}, "input X: expected shape [N, 4], got [1, 3]"),
        ({"data": [[1, 2, 3], [1]]}, "input X: data is ragged"),
        ({"data": {"Z": [[1]]}}, "unknown input 'Z'; the model takes X"),
        ({"data": [["a", 1, 1, 1]]}, "input X: element 0 is 'a', expected a number"),
        ({"X": {"a": 1}}, "input X: expected nested lists for FP32 [N, 4], got an object"),
    ],
)
def test_refusals_say_what_was_expected(body: Any, message: str) -> None:
    with pytest.raises(RequestError) as refusal:
        ask_score(load_bytes(linear()), body)
    assert refusal.value.status == 400
    assert message in refusal.value.message


def test_several_inputs_must_be_named() -> None:
    with pytest.raises(RequestError, match="name the inputs") as refusal:
        ask_score(
            load_bytes(
                model_bytes(
                    [node("Add", ["a", "b"], ["sum"])],
                    [value("a", TensorProto.FLOAT, ["N"]), value("b", TensorProto.FLOAT, ["N"])],
                    [value("sum", TensorProto.FLOAT, ["N"])],
                )
            ),
            {"data": [1]},
        )
    assert "a (FP32 [N]), b (FP32 [N])" in refusal.value.message
