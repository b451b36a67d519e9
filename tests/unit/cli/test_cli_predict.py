"""``kubectl onnx predict`` shows every output, class probabilities with the names of their classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from onnx_operator.cli.__main__ import main
from tests.unit.server.runtime.test_serving_classes import ROWS, classifier
from tests.unit.server.serving import identity, model_bytes, node, serving, value

REQUEST = json.dumps({"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": ROWS[0]}]})


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    path = tmp_path / "flowers.onnx"
    path.write_bytes(classifier(classlabels_strings=["setosa", "versicolor", "virginica"]))
    return path


def predict(*arguments: str | Path) -> str:
    done = CliRunner().invoke(main, ["predict", *map(str, arguments)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return str(done.stdout)


@pytest.mark.parametrize("data", [json.dumps({"data": ROWS[:1]}), REQUEST, None], ids=["score", "protocol", "made-up"])
def test_probabilities_of_a_model_on_this_machine(flowers: Path, data: str | None) -> None:
    given = ["--data", data] if data else []
    outputs = {o["name"]: o for o in json.loads(predict(flowers, *given, "--output", "json"))["outputs"]}
    assert outputs["probability"]["shape"] == [1, 3]
    assert sum(outputs["probability"]["data"]) == pytest.approx(1)
    assert outputs["probability"]["parameters"] == {"classes": ["setosa", "versicolor", "virginica"]}
    shown = predict(flowers, *given)
    for name in ("setosa", "versicolor", "virginica"):
        assert name in shown


def test_probabilities_of_a_running_server(flowers: Path) -> None:
    with serving(flowers.read_bytes()) as process:
        url = f"http://127.0.0.1:{process.port}"
        for output in ([], ["--output", "json"]):
            assert "versicolor" in predict("--endpoint", url, "--data", json.dumps({"data": ROWS[:1]}), *output)
            assert "versicolor" in predict("m", "--endpoint", url, "--data", REQUEST, *output)


def test_maps_and_sequences_are_shown_too(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(classifier(classlabels_int64s=[0, 1, 1]))
    outputs = json.loads(predict(path, "--data", json.dumps({"data": ROWS[:1]}), "--output", "json"))["outputs"]
    assert [output["name"] for output in outputs] == ["label", "probability"]
    assert list(outputs[1]["data"][0]) == ["0", "1"]
    assert "probability  seq(map(int64,tensor(float)))" in predict(path, "--data", json.dumps({"data": ROWS[:1]}))
    parts = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 1]))
    split = [node("SplitToSequence", ["x"], ["parts"], axis=1)]
    given, made = [value("x", TensorProto.FLOAT, ["N", 2])], [helper.make_value_info("parts", parts)]
    path.write_bytes(model_bytes(split, given, made))
    assert "0.25" in predict(path, "--data", json.dumps({"data": [[0.25, 0.75]]}))


def test_files_may_hold_what_json_has_no_numbers_for_and_what_nobody_can_send_is_told(tmp_path: Path) -> None:
    model, file = tmp_path / "m.onnx", tmp_path / "x.npy"
    model.write_bytes(identity())
    given = ("--input", f"x={file}", "--output", "json")
    with serving(model.read_bytes()) as process:
        for there in ((model,), ("m", "--endpoint", f"http://127.0.0.1:{process.port}")):
            np.save(file, np.array([0.5, np.nan, -np.inf]))
            (output,) = json.loads(predict(*there, *given))["outputs"]
            assert output["data"] == [0.5, "NaN", "-Infinity"]
            np.save(file, np.array([1j]))
            refused = CliRunner().invoke(main, ["predict", *map(str, (*there, *given))])
            assert (refused.exit_code, refused.stdout) == (1, "")
            assert "x" in refused.stderr


def test_a_table_in_a_csv_file(flowers: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b,c,d\n" + "\n".join(",".join(map(str, row)) for row in ROWS))
    (label, probability) = json.loads(predict(flowers, "--data", f"@{rows}", "--output", "json"))["outputs"]
    assert (label["shape"], probability["shape"]) == ([2], [2, 3])
    with serving(flowers.read_bytes()) as process:
        there = predict("--endpoint", f"http://127.0.0.1:{process.port}", "--data", f"@{rows}", "--output", "json")
        assert json.loads(there)["label"] == label["data"]
