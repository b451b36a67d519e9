"""Class probabilities reach every caller: as a tensor with the classes' names, and by name at ``/score``."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnx_operator.model.reading.zipmaps import find_change
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.score import score_bytes
from onnx_operator.server.rpc import inference_pb2 as pb
from onnx_operator.server.runtime.failures import FailedTestError
from onnx_operator.server.runtime.memory import resident_memory_bytes
from onnx_operator.server.runtime.session import SessionSettings, load
from onnx_operator.server.runtime.testdata import check_test_data
from onnx_operator.server.runtime.warmup import warm_up
from tests.unit.model.runtimekit import judged
from tests.unit.server.serving import (
    ask_score,
    infer,
    load_bytes,
    metadata,
    model_bytes,
    node,
    plane,
    serving,
    tensor,
    value,
)

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
WEIGHTS = {"W": np.arange(12, dtype=np.float32).reshape(4, 3) / 10}
ROWS = [[5.0, 3.5, 1.5, 0.25], [6.5, 3.0, 5.25, 2.0]]
REQUEST: dict[str, Any] = {"inputs": [tensor("X", "FP32", [2, 4], ROWS)]}


def maps(name: str, key: int = INT64) -> ValueInfoProto:
    kind = helper.make_map_type_proto(key, helper.make_tensor_type_proto(FLOAT, []))
    return helper.make_value_info(name, helper.make_sequence_type_proto(kind))


def zipmap(source: str, made: str, **labels: Any) -> NodeProto:
    return node("ZipMap", [source], [made], f"zip {made}", domain="ai.onnx.ml", **labels)


def classifier(
    *more: NodeProto, outputs: tuple[ValueInfoProto, ...] = (), first: tuple[NodeProto, ...] = (), **labels: Any
) -> bytes:
    """Scores of three classes by name, as converters end a classifier."""
    labels = labels or {"classlabels_int64s": [0, 1, 2]}
    key = STRING if "classlabels_strings" in labels else INT64
    return model_bytes(
        [
            *first,
            node("MatMul", ["X", "W"], ["logits"]),
            node("Softmax", ["logits"], ["scores"], axis=1),
            zipmap("scores", "probability", **labels),
            node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
            *more,
        ],
        [value("X", FLOAT, ["N", 4])],
        [value("label", INT64, ["N"]), maps("probability", key), *outputs],
        WEIGHTS,
        opset=17,
        ml=True,
    )


def as_made(content: bytes, feed: dict[str, Any], name: str = "probability") -> Any:
    """What ONNX Runtime itself answers."""
    return ort.InferenceSession(content).run([name], feed)[0]


def table(answer: Any, name: str = "probability") -> dict[str, Any]:
    return next(output for output in answer["outputs"] if output["name"] == name)


def check_both_forms(content: bytes, classes: list[Any]) -> None:
    expected = as_made(content, {"X": np.array(ROWS, np.float32)})
    served = plane(content)
    found = table(infer(served, REQUEST))
    assert (found["datatype"], found["shape"]) == ("FP32", [2, len(classes)])
    assert np.array(found["data"], np.float32).reshape(2, -1).tolist() == [
        [row[c] for c in classes] for row in expected
    ]
    assert table(metadata(content)) == {
        "name": "probability",
        "datatype": "FP32",
        "shape": [-1, len(classes)],
        "parameters": {"classes": classes},
    }
    told = ask_score(served.model, {"data": ROWS})["probability"]
    assert [list(row.items()) for row in told] == [[(str(k), v) for k, v in row.items()] for row in expected]


@pytest.mark.parametrize(
    "classes",
    [
        [0, 1, 2],
        [7, -3, 2**62],
        ["setosa", "versicolor", "virginica"],
        ["b", "", "ä" * 3000],
        ["10", "9", '\x00 "quoted" \\'],
    ],
    ids=["counted", "numbers", "names", "long", "odd"],
)
def test_probabilities_are_a_tensor_with_the_classes_in_the_metadata_and_maps_at_score(classes: list[Any]) -> None:
    strings = isinstance(classes[0], str)
    check_both_forms(classifier(**{"classlabels_strings" if strings else "classlabels_int64s": classes}), classes)


def test_the_scores_may_be_an_output_themselves() -> None:
    content = classifier(outputs=(value("scores", FLOAT, ["N", 3]),))
    check_both_forms(content, [0, 1, 2])
    answer = infer(plane(content), REQUEST)
    assert table(answer)["data"] == table(answer, "scores")["data"]


def test_two_outputs_may_be_maps() -> None:
    again = zipmap("logits", "margins", classlabels_strings=["a", "b", "c"])
    content = classifier(again, outputs=(maps("margins", STRING),))
    check_both_forms(content, [0, 1, 2])
    assert table(metadata(content), "margins")["parameters"] == {"classes": ["a", "b", "c"]}


def test_names_of_nodes_and_tensors_do_not_get_in_the_way() -> None:
    mixed = node("Identity", ["logits"], ["probability_tensor"], "probability")
    check_both_forms(classifier(mixed, outputs=(value("probability_tensor", FLOAT, ["N", 3]),)), [0, 1, 2])


def test_described_tensors_do_not_get_in_the_way() -> None:
    described = onnx.ModelProto.FromString(classifier())
    described.graph.value_info.append(maps("probability"))
    check_both_forms(described.SerializeToString(), [0, 1, 2])


def test_scores_of_one_row_without_a_batch() -> None:
    content = model_bytes(
        [zipmap("x", "probability", classlabels_strings=["no", "yes"])],
        [value("x", FLOAT, [2])],
        [maps("probability", STRING)],
        ml=True,
    )
    served = plane(content)
    assert metadata(content)["outputs"][0]["shape"] == [2]
    request = {"inputs": [tensor("x", "FP32", [2], [0.25, 0.75])]}
    assert table(infer(served, request)) == tensor("probability", "FP32", [2], [0.25, 0.75])
    assert ask_score(served.model, {"data": [0.25, 0.75]}) == {"probability": [{"no": 0.25, "yes": 0.75}]}


def test_missing_probabilities_are_spelled_as_everywhere() -> None:
    served = plane(classifier())
    scores = ask_score(served.model, {"data": [[None, 1, 1, 1]]})["probability"]
    assert scores == [{"0": "NaN", "1": "NaN", "2": "NaN"}]


def in_a_subgraph() -> bytes:
    body = helper.make_graph([zipmap("scores", "inner", classlabels_int64s=[0, 1, 2])], "body", [], [maps("inner")])
    choice = node("If", ["yes"], ["probability"], then_branch=body, else_branch=body)
    return model_bytes(
        [node("MatMul", ["X", "W"], ["scores"]), choice],
        [value("X", FLOAT, ["N", 4])],
        [value("scores", FLOAT, ["N", 3]), maps("probability")],
        WEIGHTS | {"yes": np.array(True)},
        opset=17,
        ml=True,
    )


def test_maps_of_a_subgraph_stay_maps() -> None:
    """Which branch makes them is known only when it runs."""
    content = in_a_subgraph()
    expected = as_made(content, {"X": np.array(ROWS, np.float32)})
    served = plane(content)
    assert [output["name"] for output in metadata(content)["outputs"]] == ["scores"]
    with pytest.raises(RequestError, match=r"output probability is seq.*POST /score returns it"):
        infer(served, REQUEST | {"outputs": [{"name": "probability"}]})
    told = ask_score(served.model, {"data": ROWS})["probability"]
    assert told == [{str(k): v for k, v in row.items()} for row in expected]


def in_a_function() -> bytes:
    model = onnx.load_from_string(classifier())
    (made,) = (each for each in model.graph.node if each.op_type == "ZipMap")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    body = zipmap("s", "p", classlabels_int64s=[0, 1, 2])
    model.functions.append(helper.make_function("mine", "Named", ["s"], ["p"], [body], opsets))
    made.CopyFrom(node("Named", ["scores"], ["probability"], domain="mine"))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    return model.SerializeToString()


def test_maps_of_a_local_function_stay_maps() -> None:
    content = in_a_function()
    expected = as_made(content, {"X": np.array(ROWS, np.float32)})
    served = plane(content)
    assert [output["name"] for output in metadata(content)["outputs"]] == ["label"]
    told = ask_score(served.model, {"data": ROWS})["probability"]
    assert told == [{str(k): v for k, v in row.items()} for row in expected]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (classifier(), "which /score returns; callers of the Open Inference Protocol get its scores as FP32 [rows, 3]"),
        (in_a_function(), "which only /score returns: no ZipMap at the end of the graph makes it."),
    ],
    ids=["at the end", "in a function"],
)
def test_the_report_tells_who_gets_the_scores_and_how(content: bytes, words: str) -> None:
    found = judged(content)
    assert found.report is not None, found.refusal
    (note,) = found.report.notes
    assert f'The output "probability" is a seq(map(int64,tensor(float))), {words}' in note


def test_maps_that_a_branch_makes_are_told_before_a_pod_is_made() -> None:
    """The runtime has no kernel for such an ``If``; only one whose condition is constant is gone before it looks."""
    refusal = judged(in_a_subgraph()).refusal
    assert refusal is not None
    assert "If" in refusal.message


@pytest.mark.parametrize("classes", [[0, 1, 1], [0, 1]], ids=["twice", "too-few"])
def test_labels_that_do_not_fit_leave_the_model_as_its_author_made_it(classes: list[int]) -> None:
    model = load_bytes(classifier(classlabels_int64s=classes))
    assert model.output_by_name["probability"].datatype is None


def test_a_number_of_scores_that_shows_late_is_told() -> None:
    content = model_bytes(
        [zipmap("x", "probability", classlabels_int64s=[0, 1])],
        [value("x", FLOAT, ["N", "C"])],
        [maps("probability")],
        ml=True,
    )
    model = load_bytes(content)
    assert ask_score(model, {"data": [[0.25, 0.75]]}) == {"probability": [{"0": 0.25, "1": 0.75}]}
    with pytest.raises(RequestError, match=r"output probability has shape \[1, 3\], but the model names 2 classes"):
        ask_score(model, {"data": [[0.25, 0.5, 0.25]]})


def scores_only() -> bytes:
    return model_bytes(
        [
            node("MatMul", ["X", "W"], ["logits"]),
            node("Softmax", ["logits"], ["scores"], axis=1),
            zipmap("scores", "probability", classlabels_int64s=[0, 1, 2]),
        ],
        [value("X", FLOAT, ["N", 4])],
        [maps("probability")],
        WEIGHTS,
        opset=17,
        ml=True,
    )


def test_requests_share_a_run_where_rows_are_proven_not_to_meet() -> None:
    model = load_bytes(scores_only())
    assert model.prove_rows(32).strength == "Tolerant"
    assert warm_up(model, 4).batchable
    meet = model_bytes(
        [node("Softmax", ["X"], ["scores"], axis=0), zipmap("scores", "probability", classlabels_int64s=[0, 1, 2])],
        [value("X", FLOAT, ["N", 3])],
        [maps("probability")],
        ml=True,
    )
    assert load_bytes(meet).prove_rows(32).strength == "Unproven"


def test_weights_beside_the_model_are_found_and_not_copied(tmp_path: Path) -> None:
    """Three gigabytes of them, of which a sparse file holds none."""
    model = onnx.ModelProto.FromString(scores_only())
    rows = 3 << 18
    large = model.graph.initializer.add(name="large", data_type=FLOAT, dims=[rows, 1024], data_location=1)
    large.external_data.add(key="location", value="weights.bin")
    large.external_data.add(key="length", value=str(rows * 4096))
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(rows * 4096)
    model.graph.node.append(node("Gather", ["large", "places"], ["looked_up"]))
    model.graph.input.append(value("places", INT64, ["N"]))
    model.graph.output.append(value("looked_up", FLOAT, ["N", 1024]))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    before = resident_memory_bytes()
    loaded = load(path, SessionSettings())
    assert resident_memory_bytes() - before < 1 << 30
    assert loaded.output_by_name["probability"].classes == (0, 1, 2)
    feed = {"X": np.array(ROWS, np.float32), "places": np.array([0, rows - 1])}
    (scores,) = loaded.run_plain(["probability"], feed)
    expected = ort.InferenceSession(scores_only()).run(["probability"], {"X": feed["X"]})[0]
    assert [dict(enumerate(row)) for row in scores.tolist()] == expected
    assert loaded.prove_rows(32).holds


def test_weights_outside_the_folder_stay_unreadable(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "m.onnx"
    model = onnx.ModelProto.FromString(classifier())
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=16)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    moved = onnx.load(path, load_external_data=False)
    for entry in moved.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../weights.bin"
    path.write_bytes(moved.SerializeToString())
    with pytest.raises(Exception, match="escapes model directory"):
        load(path, SessionSettings())


@given(st.integers(0, 400), st.integers(0, 255))
@settings(deadline=None, max_examples=300)
def test_a_damaged_file_is_never_changed_into_one_that_loads_otherwise(at: int, byte: int) -> None:
    content = bytearray(classifier())
    content[at % len(content)] = byte
    change = find_change(bytes(content))
    assert all(later.start >= earlier.end for earlier, later in pairwise(change.edits))


def recorded(folder: Path, probability: Any) -> Path:
    folder.mkdir()
    (folder / "input_0.pb").write_bytes(numpy_helper.from_array(np.array(ROWS, np.float32), "X").SerializeToString())
    content = classifier(classlabels_strings=["a", "b", "c"])
    labels = ort.InferenceSession(content).run(["label"], {"X": np.array(ROWS, np.float32)})[0]
    (folder / "output_0.pb").write_bytes(numpy_helper.from_array(labels, "label").SerializeToString())
    (folder / "output_1.pb").write_bytes(probability.SerializeToString())
    return folder


def sequence(rows: list[dict[str, float]]) -> onnx.SequenceProto:
    made = onnx.SequenceProto(name="probability", elem_type=onnx.SequenceProto.MAP)
    for row in rows:
        entry = made.map_values.add(key_type=STRING, string_keys=[key.encode() for key in row])
        entry.values.elem_type = onnx.SequenceProto.TENSOR
        entry.values.tensor_values.extend(numpy_helper.from_array(np.array(v, np.float32)) for v in row.values())
    return made


def test_recorded_maps_are_compared_by_class(tmp_path: Path) -> None:
    content = classifier(classlabels_strings=["a", "b", "c"])
    expected = as_made(content, {"X": np.array(ROWS, np.float32)})
    model = load_bytes(content)
    turned = [dict(reversed(row.items())) for row in expected]
    assert check_test_data(model, recorded(tmp_path / "maps", sequence(turned))).outputs == 2
    scores = np.array([list(row.values()) for row in expected], np.float32)
    tensor_proto = numpy_helper.from_array(scores, "probability")
    assert check_test_data(model, recorded(tmp_path / "tensor", tensor_proto)).outputs == 2
    wrong = [expected[0], expected[1] | {"b": 0.5}]
    with pytest.raises(FailedTestError, match=r"output probability is .* at \[1, 1\], expected 0.5"):
        check_test_data(model, recorded(tmp_path / "wrong", sequence(wrong)))
    with pytest.raises(FailedTestError, match=r"row 0 has the classes a, b; the model's are a, b, c"):
        check_test_data(model, recorded(tmp_path / "few", sequence([{"a": 0.5, "b": 0.5}])))


def test_names_of_classes_count_as_memory_of_an_answer() -> None:
    model = load_bytes(classifier(classlabels_strings=["x" * 1000, "y" * 1000, "z" * 1000]))
    names = ("probability",)
    assert score_bytes(model, names, [np.zeros((10, 3), np.float32)]) > 10 * 3000


def test_a_running_server_answers_both_ways() -> None:
    with serving(classifier(classlabels_strings=["a", "b", "c"]), "--grpc-port", "0") as process:
        answer = process.post("/v2/models/m/infer", REQUEST).json
        assert table(answer)["shape"] == [2, 3]
        named = process.post("/score", {"data": ROWS}).json["probability"]
        scores = np.array([list(row.values()) for row in named], np.float32)
        assert scores.tolist() == np.array(table(answer)["data"], np.float32).reshape(2, 3).tolist()
        assert [list(row) for row in named] == [["a", "b", "c"]] * 2
        port = next(entry["grpcPort"] for entry in process.log if "grpcPort" in entry)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            described = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")
            told = pb.ModelMetadataResponse.FromString(
                described(pb.ModelMetadataRequest(name="m").SerializeToString(), timeout=60)
            )
            request = pb.ModelInferRequest(model_name="m")
            given = request.inputs.add(name="X", datatype="FP32", shape=[2, 4])
            given.contents.fp32_contents.extend(np.reshape(ROWS, -1).tolist())
            asked = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            found = pb.ModelInferResponse.FromString(asked(request.SerializeToString(), timeout=60))
        assert [output.name for output in told.outputs] == ["label", "probability"]
        assert json.loads(told.properties["probability.classes"]) == ["a", "b", "c"]
        assert np.array(found.outputs[1].contents.fp32_contents, np.float32).tolist() == scores.reshape(-1).tolist()
