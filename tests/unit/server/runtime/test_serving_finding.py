"""Whose input warms a model up: those of test data, what somebody says, those of the version before, then guesses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from onnx_operator.api.conditions import Reason
from onnx_operator.api.warm_up import WarmUpInputs
from onnx_operator.server.runtime.attempts import Attempts
from onnx_operator.server.runtime.failures import (
    FailedTestError,
    HeldLoadError,
    LoadError,
    UnwarmedLoadError,
)
from onnx_operator.server.runtime.finding import Found, NotFound, Sources, find_input
from onnx_operator.server.runtime.guessing import Guess, make_feed, run_once
from onnx_operator.server.runtime.warmup import warm_up
from tests.unit.server.serving import identity, linear, load_bytes, model_bytes, node, serving, value

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def only(batch: int, length: int) -> bytes:
    """Answers one size of its open dimensions, and no other: one that no search finds, for both must be right."""
    return model_bytes(
        [node("Reshape", ["x", "to"], ["r"], name="fold"), node("Gather", ["table", "r"], ["y"], name="look-up")],
        [value("x", INT64, ["batch", "length"])],
        [value("y", FLOAT, None)],
        {"to": np.array([batch, length, 1]), "table": np.zeros(3, np.float32)},
    )


def never(shape: Any = ("N",)) -> bytes:
    """Answers nothing."""
    return model_bytes(
        [node("Gather", ["table", "c"], ["g"], name="look-up"), node("Add", ["x", "g"], ["y"])],
        [value("x", FLOAT, list(shape))],
        [value("y", FLOAT, None)],
        {"table": np.zeros(3, np.float32), "c": np.array([107])},
    )


def found(content: bytes, **sources: Any) -> Found:
    answered = find_input(load_bytes(content), Sources(**sources))
    assert isinstance(answered, Found), answered
    return answered


def given(text: str) -> WarmUpInputs:
    return WarmUpInputs.model_validate_json(text)


def test_recorded_inputs_warm_a_model_up_that_no_guess_would(tmp_path: Path) -> None:
    x = np.tile(np.array([2, 1, 0], np.int64), (3, 9))[:, :25]
    (tmp_path / "input_0.pb").write_bytes(numpy_helper.from_array(x, "x").SerializeToString())
    (tmp_path / "output_0.pb").write_bytes(
        numpy_helper.from_array(np.zeros((3, 25, 1), np.float32)).SerializeToString()
    )
    answered = found(only(3, 25), test_data=tmp_path)
    assert answered.origin == "testData"
    assert answered.feed["x"].tolist() == x.tolist()
    assert answered.recipe == WarmUpInputs(shapes={"x": [3, 25]}, values={"x": [2]})


@pytest.mark.parametrize(("count", "rank"), [(70, 1), (600, 1), (1, 20)])
def test_recorded_inputs_warm_a_model_up_however_many_and_of_whatever_rank_they_are(
    tmp_path: Path, count: int, rank: int
) -> None:
    names = [f"x{number}" for number in range(count)]
    shape: list[Any] = [*["N"] * (rank > 0), *[1] * (rank - 1)]
    content = model_bytes(
        [node("Sum", names, ["y"])], [value(name, FLOAT, shape) for name in names], [value("y", FLOAT, None)]
    )
    tensor = np.ones((2, *[1] * (rank - 1)), np.float32)
    for number, name in enumerate(names):
        (tmp_path / f"input_{number}.pb").write_bytes(numpy_helper.from_array(tensor, name).SerializeToString())
    (tmp_path / "output_0.pb").write_bytes(numpy_helper.from_array(count * tensor, "y").SerializeToString())
    answered = found(content, test_data=tmp_path)
    assert answered.origin == "testData"
    assert (answered.recipe is not None) == (count < 512 and rank < 16), "what cannot be kept is left out"
    assert warm_up(load_bytes(content), 4, sources=Sources(test_data=tmp_path)).warmed


def test_recorded_inputs_that_are_not_answered_fail_the_model(tmp_path: Path) -> None:
    (tmp_path / "input_0.pb").write_bytes(numpy_helper.from_array(np.zeros(2, np.float32)).SerializeToString())
    (tmp_path / "output_0.pb").write_bytes(numpy_helper.from_array(np.zeros(2, np.float32)).SerializeToString())
    with pytest.raises(FailedTestError, match="idx=107"):
        find_input(load_bytes(never()), Sources(test_data=tmp_path))


def test_what_somebody_says_of_sizes_and_values_is_taken(tmp_path: Path) -> None:
    answered = found(only(3, 7), given=given('{"shapes": {"x": [3, 7]}, "values": {"x": [2, 1]}}'))
    assert answered.origin == "warmUp"
    assert answered.feed["x"].shape == (3, 7)
    assert answered.feed["x"].reshape(-1)[:3].tolist() == [2, 1, 2]


class Asked:
    """A model that notes the shapes that it is asked with."""

    def __init__(self, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model = load_bytes(content)
        self.shapes: list[Any] = []

        def run(model: Any, feed: Any, options: Any = None) -> None:
            self.shapes.append({name: np.shape(each) for name, each in feed.items()})
            run_once(model, feed, options)

        monkeypatch.setattr("onnx_operator.server.runtime.attempts.run_once", run)


def test_sizes_and_values_that_somebody_says_are_run_as_they_are_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = Asked(only(1, 4), monkeypatch)
    told: list[bool] = []
    text = '{"shapes": {"x": [3, 7]}, "values": {"x": [2, 1]}}'
    with pytest.raises(LoadError, match=r"does not answer what spec.warmUp says: .*cannot be reshaped"):
        find_input(asked.model, Sources(given=given(text), attempts=Attempts(tmp_path, told.append)))
    assert asked.shapes == [{"x": (3, 7)}]
    assert told == [], "a kill would not be told as one by a guess of ours"
    assert not list(tmp_path.iterdir())


def test_sizes_that_somebody_says_stay_while_values_are_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    content = model_bytes(
        [node("Sub", ["x", "ten"], ["d"]), node("Gather", ["table", "d"], ["y"])],
        [value("x", INT64, ["N", "L"])],
        [value("y", FLOAT, None)],
        {"ten": np.array(10), "table": np.zeros(3, np.float32)},
    )
    asked = Asked(content, monkeypatch)
    answered = found(content, given=given('{"shapes": {"x": [3, 7]}}'))
    assert answered.feed["x"].shape == (3, 7)
    assert make_feed(asked.model.inputs, replace(answered.guess, batch=5))["x"].shape == (5, 7)
    assert len(asked.shapes) > 1
    assert {each["x"] for each in asked.shapes} == {(3, 7)}


def test_an_update_that_needs_an_input_gets_the_time_to_find_it() -> None:
    waiting = Attempts(seconds=0.0)
    assert isinstance(find_input(load_bytes(linear()), Sources(attempts=waiting)), NotFound)
    assert isinstance(find_input(load_bytes(linear()), Sources(attempts=waiting, required=True)), Found)


def test_what_somebody_says_of_one_input_leaves_the_others_to_the_search() -> None:
    content = model_bytes(
        [node("MatMul", ["a", "b"], ["y"])],
        [value("a", FLOAT, ["N", "K"]), value("b", FLOAT, ["L", "M"])],
        [value("y", FLOAT, None)],
    )
    answered = found(content, given=given('{"shapes": {"a": [2, 48]}}'))
    assert answered.feed["a"].shape == (2, 48)
    assert answered.feed["b"].shape[0] == 48


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"shapes": {"y": [1]}}', r"spec.warmUp.shapes.y: the model has no such required input; it has x"),
        ('{"shapes": {"x": [1, 2]}}', r"spec.warmUp.shapes.x is \[1, 2\]; expected sizes for .*, FP32 \[N\]"),
        ('{"texts": {"x": ["red"]}}', r"spec.warmUp.texts.x: .* spec.warmUp.texts, any other by .*; it is FP32"),
        ('{"shapes": {"x": [2]}}', r"does not answer what spec.warmUp says: .*idx=107"),
    ],
)
def test_what_somebody_says_wrongly_is_refused_naming_the_field(text: str, words: str) -> None:
    with pytest.raises(LoadError, match=words) as error:
        find_input(load_bytes(never()), Sources(given=given(text)))
    assert error.value.reason is Reason.LOAD_FAILED


@pytest.mark.parametrize("content", [linear(), identity(STRING), identity(TensorProto.BFLOAT16), only(1, 4)])
def test_an_update_is_warmed_up_by_what_warmed_the_version_before(content: bytes) -> None:
    first = found(content)
    assert first.recipe is not None
    kept = WarmUpInputs.model_validate_json(first.recipe.to_text())
    again = found(content, kept=kept, required=True)
    assert again.origin == "kept"
    assert again.recipe == kept
    assert {name: np.shape(each) for name, each in again.feed.items() if isinstance(each, np.ndarray)} == {
        name: np.shape(each) for name, each in first.feed.items() if isinstance(each, np.ndarray)
    }


def test_an_update_that_does_not_answer_them_is_held_though_other_inputs_would_be_answered() -> None:
    kept = found(identity(INT64, ["batch", "length"])).recipe
    with pytest.raises(HeldLoadError, match=r"the revision before was warmed up with: .*cannot be reshaped") as error:
        find_input(load_bytes(only(1, 4)), Sources(kept=kept))
    assert error.value.reason is Reason.INTERFACE_CHANGED
    agreed = found(only(1, 4), kept=kept, given=given('{"shapes": {"x": [1, 4]}}'))
    assert agreed.origin == "warmUp", "what somebody says is consent"


@pytest.mark.parametrize("shape", [["batch-size", 4], ["N", "H/4"], ["N", "H-H"]])
def test_no_input_without_elements_warms_a_model_up(shape: list[Any]) -> None:
    """What exporters call a dimension may look like a difference or a quotient of sizes that are 1."""
    answered = found(identity(FLOAT, shape))
    assert 0 not in answered.feed["x"].shape
    assert 0 not in make_feed(load_bytes(identity(FLOAT, shape)).inputs, replace(answered.guess, batch=3))["x"].shape


def test_an_empty_input_that_is_answered_is_taken_only_where_no_other_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_bytes(identity(FLOAT, ["N", "L"]))
    monkeypatch.setattr(
        "onnx_operator.server.runtime.finding.Search", lambda *_: Guesses([Guess(rest=0), Guess(rest=3)])
    )
    answered = find_input(model, Sources())
    assert isinstance(answered, Found)
    assert answered.feed["x"].shape == (1, 3)
    monkeypatch.setattr("onnx_operator.server.runtime.finding.Search", lambda *_: Guesses([Guess(rest=0)]))
    answered = find_input(model, Sources())
    assert isinstance(answered, Found)
    assert answered.feed["x"].shape == (1, 0)


def test_an_input_that_is_empty_by_its_type_or_by_what_somebody_says_is_none_of_these() -> None:
    assert found(identity(FLOAT, ["N", 0])).feed["x"].shape == (1, 0)
    assert found(identity(FLOAT, ["N", "L"]), given=given('{"shapes": {"x": [2, 0]}}')).feed["x"].shape == (2, 0)


class Guesses(list[Guess]):
    """These and no others."""

    def refused(self, guess: Guess, text: str) -> float:
        return 0.0

    def skipped(self) -> None:
        """There are no more."""


def test_inputs_of_another_interface_are_not_tried() -> None:
    kept = found(identity(INT64, ["batch", "length"])).recipe
    assert found(linear(), kept=kept).origin == "madeUp"


def test_only_a_first_version_serves_unwarmed() -> None:
    assert isinstance(find_input(load_bytes(never()), Sources()), NotFound)
    with pytest.raises(UnwarmedLoadError, match=r"not a first version.*idx=107.*spec.warmUp") as error:
        find_input(load_bytes(never()), Sources(required=True))
    assert error.value.reason is Reason.NO_INPUT_FOUND


def test_what_the_runtime_does_not_implement_is_the_models_fault() -> None:
    content = model_bytes(
        [node("ConvInteger", ["x", "w", "", "zeros"], ["y"])],
        [value("x", TensorProto.UINT8, [1, 1, 3, 3])],
        [value("y", TensorProto.INT32, None)],
        {"w": np.ones((2, 1, 2, 2), np.uint8), "zeros": np.zeros(2, np.uint8)},
    )
    answered = find_input(load_bytes(content), Sources())
    assert isinstance(answered, NotFound), "the runtime only says that it fails"


def test_the_pod_tells_what_warmed_it_up_and_takes_what_it_is_given() -> None:
    options = ["--warm-up", '{"shapes": {"x": [3, 7]}}']
    with serving(only(3, 7), *options, ready=False) as process:
        facts = process.started()
        assert facts["warmUp"]["warmed"]
        assert "spec.warmUp" in facts["warmUp"]["message"]
        assert facts["warmUp"]["inputs"] == {"shapes": {"x": [3, 7]}, "values": {"x": [0]}, "texts": {}}
    with serving(only(3, 7), "--kept-inputs", json.dumps({"shapes": {"x": [1, 1]}}), ready=False) as process:
        assert process.wait() == 1
        assert process.message()["reason"] == "InterfaceChanged"
