"""Large tree ensembles are judged like small ones, without the room and the time that their lists would take."""

from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.internal import encoder
from modelkit import model, value, verdict
from onnx import TensorProto, helper
from runtimekit import judged, loads

from onnx_operator.model.reading import lists
from onnx_operator.model.reading.skeleton import read_skeleton
from onnx_operator.model.reading.window import Window
from onnx_operator.model.trial.standins import with_stand_ins
from tests.unit.model.wirekit import MemoryBytes


def forest(trees: int, **changed: Any) -> onnx.ModelProto:
    """Trees of one branch and two leaves, in the attributes that ensembles had before opset 5."""
    branches = {
        "nodes_treeids": [tree for tree in range(trees) for _ in range(3)],
        "nodes_nodeids": [0, 1, 2] * trees,
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * trees,
        "nodes_featureids": [0, 0, 0] * trees,
        "nodes_values": [0.5, 0.0, 0.0] * trees,
        "nodes_truenodeids": [1, 0, 0] * trees,
        "nodes_falsenodeids": [2, 0, 0] * trees,
        "target_treeids": [tree for tree in range(trees) for _ in range(2)],
        "target_nodeids": [1, 2] * trees,
        "target_ids": [0, 0] * trees,
        "target_weights": [1.0, -1.0] * trees,
    } | changed
    ensemble = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, **branches)
    return model([ensemble], outputs=[value("y", ("N", 1))], opsets=[("", 15), ("ai.onnx.ml", 1)])


def packed(made: onnx.ModelProto) -> bytes:
    """The same model, its numbers written without a tag for each, as newer writers do."""
    node = made.graph.node[0]
    rows = []
    for attribute in list(node.attribute):
        row = onnx.AttributeProto(name=attribute.name, type=attribute.type, strings=attribute.strings)
        if attribute.HasField("i"):
            row.i = attribute.i
        data = row.SerializeToString()
        if attribute.ints:
            numbers = b"".join(map(encoder._VarintBytes, attribute.ints))
            data += bytes([8 << 3 | 2]) + encoder._VarintBytes(len(numbers)) + numbers
        if attribute.floats:
            numbers = np.array(attribute.floats, "<f4").tobytes()
            data += bytes([7 << 3 | 2]) + encoder._VarintBytes(len(numbers)) + numbers
        rows.append(bytes([5 << 3 | 2]) + encoder._VarintBytes(len(data)) + data)
    del node.attribute[:]

    def message(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2]) + encoder._VarintBytes(len(data)) + data

    graph = onnx.GraphProto()
    graph.CopyFrom(made.graph)
    del graph.node[:]
    rest = onnx.ModelProto()
    rest.CopyFrom(made)
    rest.ClearField("graph")
    whole = message(1, node.SerializeToString() + b"".join(rows)) + graph.SerializeToString()
    return rest.SerializeToString() + message(7, whole)


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that lists of a few kilobytes count as long ones."""
    monkeypatch.setattr("onnx_operator.model.reading.skeleton.LONG_BYTES", 4096)


@pytest.mark.usefixtures("low")
@pytest.mark.parametrize("write", [onnx.ModelProto.SerializeToString, packed], ids=["a tag each", "packed"])
def test_the_runtime_gets_every_element_and_the_checks_one(write) -> None:
    original = forest(5000)
    data = write(forest(5000))
    assert onnx.ModelProto.FromString(data) == original
    skeleton = read_skeleton(Window(MemoryBytes(data), len(data)))
    listed = {
        each.name: max(map(len, (each.ints, each.floats, each.strings))) for each in original.graph.node[0].attribute
    }
    for each in skeleton.model.graph.node[0].attribute:
        assert max(map(len, (each.ints, each.floats, each.strings))) <= 1
        if not each.strings:
            assert lists.list_length(each) == listed[each.name], each.name
    stood_in = with_stand_ins(skeleton).model.SerializeToString()
    assert onnx.ModelProto.FromString(skeleton.lists.put_back(stood_in)) == original


@pytest.mark.usefixtures("low")
def test_figures_are_the_same_as_if_the_lists_were_read(monkeypatch: pytest.MonkeyPatch) -> None:
    made = forest(5000)
    short = judged(made)
    monkeypatch.setattr("onnx_operator.model.reading.skeleton.LONG_BYTES", 1 << 40)
    whole = judged(made)
    assert short.report is not None
    assert short == whole


@pytest.mark.usefixtures("low")
@pytest.mark.parametrize(
    "changed",
    [
        {"nodes_featureids": [0] * 14_999},
        {"nodes_modes": ["BRANCH_LEQ", "LEAF", "NONE"] * 5000},
        {"nodes_truenodeids": [7, 0, 0] * 5000},
    ],
    ids=["too short", "no mode", "a node that is not there"],
)
def test_what_the_runtime_refuses_in_a_list_is_refused(changed: dict[str, Any]) -> None:
    made = forest(5000, **changed)
    assert (judged(made).outcome == "Accepted") == loads(made)


def test_more_than_the_runtime_could_be_asked_about_is_accepted_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "_KEEP_IN_ALL_BYTES", 100_000)
    monkeypatch.setattr("onnx_operator.model.reading.skeleton.LONG_BYTES", 4096)
    result = judged(forest(5000))
    assert result.report is not None
    assert "its trees are too large for that" in result.report.notes[0]
    assert result.report.parameters == 25_000


@pytest.mark.usefixtures("low")
@pytest.mark.parametrize(
    "mark",
    ["0 of 3 to 3", "9 of 3 to 0", "x of y to z", "0 of 9999999999 to 9999999999", "0 of 0 to 0", "0 of " + "9" * 99],
)
def test_a_file_that_says_itself_that_a_list_was_left_out_gets_a_verdict(mark: str) -> None:
    mark = f"left out: {mark}"
    made = forest(5000)
    made.graph.node[0].attribute[0].doc_string = mark
    for name in ("nodes_treeids", "tree_roots", "nodes_featureids"):
        forged = helper.make_node("TreeEnsemble", ["y"], ["z"], domain="ai.onnx.ml")
        forged.attribute.add(name=name, type=onnx.AttributeProto.INTS, ints=[1], doc_string=mark)
        assert verdict(model([forged], outputs=[value("z", None)], opsets=[("", 17), ("ai.onnx.ml", 5)]))
    assert judged(made).outcome in ("Accepted", "Refused")
    assert judged(model([helper.make_node("Relu", ["x"], ["y"], doc_string=mark)])).outcome == "Accepted"


def test_lists_that_inference_reads_are_left_as_they_are() -> None:
    values = list(range(60_000))
    made = model(
        [helper.make_node("Constant", [], ["y"], value_ints=values)],
        inputs=[],
        outputs=[value("y", None, TensorProto.INT64)],
    )
    result = judged(made)
    assert result.report is not None
    assert result.report.outputs[0].shape == [60_000]
