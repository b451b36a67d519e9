"""What ONNX Runtime loads is accepted; what it refuses is refused in words, though no weight is read."""

import resource
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from modelkit import model, tensor, value
from onnx import TensorProto, helper, numpy_helper
from runtimekit import described, judged, loads, opened

from onnx_operator.api.capabilities import Capabilities, load_capabilities
from onnx_operator.api.report import InspectionResult
from onnx_operator.model.inspection import landlock
from onnx_operator.model.inspection.trying import RuntimeTrial
from onnx_operator.model.reading.folder import MemoryFolder
from onnx_operator.model.trial.runtime import Answer, OnnxRuntime, words_of
from onnx_operator.model.trial.standins import ZEROS
from onnx_operator.model.verdict import verify

node = helper.make_node


def refused(result: InspectionResult) -> str:
    assert result.refusal is not None
    return f"{result.refusal.reason}: {result.refusal.message}"


def external(name: str, location: str, *dims: int) -> TensorProto:
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    size = int(np.prod(dims)) * 4
    for key, each in (("location", location), ("offset", "0"), ("length", str(size))):
        made.external_data.add(key=key, value=each)
    return made


@pytest.mark.parametrize("names", [("c", "c"), ("mul", "c"), ("", "")])
def test_constants_may_share_a_name_as_exporters_write_them(names: tuple[str, str]) -> None:
    made = model(
        [
            node("Constant", [], ["a"], name=names[0], value=tensor("v", 1)),
            node("Constant", [], ["b"], name=names[1], value=tensor("v", 1)),
            node("Mul", ["x", "a"], ["t"], name="mul"),
            node("Add", ["t", "b"], ["y"], name="add"),
        ]
    )
    assert loads(made)
    result = judged(made)
    assert result.report is not None
    assert result.report.notes == []


def test_other_nodes_of_one_name_are_refused_by_both() -> None:
    made = model([node("Relu", ["x"], ["t"], name="n"), node("Relu", ["t"], ["y"], name="n")])
    assert not loads(made)
    assert "Two nodes of" in refused(judged(made))


def test_initializers_of_old_files_need_not_be_inputs() -> None:
    made = model([node("MatMul", ["x", "w"], ["y"])], initializers=[tensor("w", 4, 4)], opsets=[("", 9)], ir_version=3)
    assert loads(made)
    assert judged(made).outcome == "Accepted"


def trees(leaves: int) -> onnx.ModelProto:
    """One tree that is a chain: each node has a leaf on its true branch."""
    inner = leaves - 1

    def of(values: list[Any], kind: type) -> TensorProto:
        return numpy_helper.from_array(np.array(values, kind))

    ensemble = node(
        "TreeEnsemble",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        tree_roots=[0],
        n_targets=1,
        aggregate_function=1,
        post_transform=0,
        nodes_featureids=[0] * inner,
        nodes_modes=of([0] * inner, np.uint8),
        nodes_splits=of([float(each) for each in range(inner)], np.float32),
        nodes_truenodeids=list(range(inner)),
        nodes_trueleafs=[1] * inner,
        nodes_falsenodeids=[*range(1, inner), inner],
        nodes_falseleafs=[0] * (inner - 1) + [1],
        leaf_targetids=[0] * leaves,
        leaf_weights=of([float(each) for each in range(leaves)], np.float32),
    )
    return model([ensemble], outputs=[value("y", ("N", 1))], opsets=[("", 17), ("ai.onnx.ml", 5)])


@pytest.mark.parametrize("leaves", [3, 3000])
def test_trees_keep_the_numbers_that_they_are_made_of(leaves: int) -> None:
    made = trees(leaves)
    assert loads(made)
    result = judged(made)
    assert result.report is not None, result.refusal
    assert result.report.notes == []


@pytest.mark.parametrize("right", [True, False])
def test_sizes_are_read_however_many_they_are(right: bool) -> None:
    parts = 600
    sizes = np.ones(parts, np.int64)
    sizes[0] += not right
    outputs = [f"y{each}" for each in range(parts)]
    made = model(
        [node("Split", ["x", "sizes"], outputs, axis=1)],
        inputs=[value("x", ("N", parts))],
        outputs=[value(each, ("N", None)) for each in outputs],
        initializers=[numpy_helper.from_array(sizes, "sizes")],
    )
    assert (judged(made).outcome == "Accepted") == loads(made)


@pytest.mark.parametrize("location", ["weights/../w.bin", "./w.bin", "w.bin"])
def test_external_data_may_take_any_way_within_the_folder(location: str) -> None:
    made = model([node("Mul", ["x", "w"], ["y"])], initializers=[external("w", location, 4)])
    result = judged(made, {"w.bin": bytes(16)})
    assert result.outcome == "Accepted", result.refusal
    assert result.files is not None
    assert [each.name for each in result.files.files] == ["model.onnx", "w.bin"]
    assert result.files.folders == (["weights"] if "weights" in location else [])
    assert ("folders" in result.files.model_dump_json()) == bool(result.files.folders)


@pytest.mark.parametrize("location", ["../w.bin", "a/../../w.bin", "/w.bin", "*/_ORT_MEM_ADDR_/*"])
@pytest.mark.parametrize("used", [True, False])
def test_external_data_outside_the_folder_is_refused_used_or_not(location: str, used: bool) -> None:
    made = model([node("Mul", ["x", "w" if used else "x"], ["y"])], initializers=[external("w", location, 4)])
    assert refused(judged(made)).startswith("ExternalDataMissing")


def test_a_missing_file_of_what_nothing_reads_is_no_fault(tmp_path: Path) -> None:
    made = model([node("Relu", ["x"], ["y"])], initializers=[external("w", "gone.bin", 4)])
    file = tmp_path / "m.onnx"
    file.write_bytes(made.SerializeToString())
    ort.InferenceSession(str(file))
    assert judged(made).outcome == "Accepted"
    made.graph.input.append(value("w", (4,)))
    assert refused(judged(made)).startswith("ExternalDataMissing")


def test_inputs_that_nobody_can_send_are_refused_before_a_pod_is() -> None:
    for kind in (TensorProto.INT4, TensorProto.UINT4):
        cast = node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
        made = model([cast], [value("x", ("N", 4), kind)], opsets=[("", 21)], ir_version=10)
        assert loads(made)
        assert "cast it within" in refused(judged(made))


def test_what_only_the_runtime_refuses_is_told_in_its_words() -> None:
    """A value that a kernel refuses when it is made: neither names nor types nor shapes tell."""
    made = model([node("Pad", ["x", "p"], ["y"], mode="cubic")])
    made.graph.initializer.append(numpy_helper.from_array(np.zeros(4, np.int64), "p"))
    assert not loads(made)
    found = refused(judged(made))
    assert "of the server image refuses to load the model: " in found
    assert found.endswith("Invalid 'mode' attribute value")
    assert "onnxruntime_src" not in found


def with_runtime(trial: RuntimeTrial, capabilities: Capabilities) -> InspectionResult:
    made = model([node("Relu", ["x"], ["y"])]).SerializeToString()
    asked = trial.bound_to(capabilities=capabilities)
    return verify(MemoryFolder({"m": made}), "m", capabilities=capabilities, trial=asked)


def test_a_verdict_that_is_a_tables_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For a GPU or another version, without a place for the zeros, on a kernel that cannot hold the runtime."""
    bundled = load_capabilities()
    (tmp_path / ZEROS).write_bytes(b"")
    held = RuntimeTrial.prepare(str(tmp_path))
    others = [bundled.without_kernels(), bundled.model_copy(update={"onnx_runtime_version": "1.31.0"})]
    results = [with_runtime(held, each) for each in others]
    results.append(with_runtime(RuntimeTrial.prepare(""), bundled))
    monkeypatch.setattr(landlock, "version", lambda: 0)
    results.append(with_runtime(RuntimeTrial.prepare(str(tmp_path)), bundled))
    for result, words in zip(
        results,
        ["for the CPU serves it", "for the CPU serves it", "no place for its stand-ins", "no Landlock"],
        strict=True,
    ):
        assert result.report is not None
        (note,) = result.report.notes
        assert note.startswith("Judged by tables")
        assert words in note


@pytest.mark.parametrize("way", ["read", "computed with"])
def test_sizes_in_another_file_are_judged_as_in_the_pod(way: str, tmp_path: Path) -> None:
    """The runtime refuses a shape that lies there, and takes one that is computed from what does."""
    outside = TensorProto(name="k", data_type=TensorProto.INT64, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, each in (("location", "w.bin"), ("offset", "0"), ("length", "16")):
        outside.external_data.add(key=key, value=each)
    nodes = [node("Reshape", ["x", "k"], ["y"])]
    if way != "read":
        nodes = [node("Neg", ["k"], ["n"]), node("Neg", ["n"], ["a"]), node("Reshape", ["x", "a"], ["y"])]
    made = model(nodes, [value("x", ("N", 8))], [value("y", ("A", "B"))], [outside])
    values = np.array([-1, 4], np.int64).tobytes()
    file = tmp_path / "m.onnx"
    file.write_bytes(made.SerializeToString())
    (tmp_path / "w.bin").write_bytes(values)
    session = opened(file)
    result = judged(made, {"w.bin": values})
    if isinstance(session, str):
        assert way == "read"
        assert "external" in refused(result)
    else:
        assert result.report is not None, result.refusal
        assert result.report.outputs == [described(session)[1]]
        assert result.report.outputs[0].shape[1] == 4


def test_sizes_that_are_computed_from_constants_are_known() -> None:
    """As the padding of a spectrum, which exporters transpose and reshape: inference gives up there."""
    pads = numpy_helper.from_array(np.array([[0, 0], [2, 2]], np.int64), "p")
    nodes = [
        node("Transpose", ["p"], ["t"], perm=[1, 0]),
        node("Reshape", ["t", "flat"], ["pads"]),
        node("Pad", ["x", "pads"], ["y"]),
    ]
    flat = numpy_helper.from_array(np.array([-1]), "flat")
    made = model(nodes, [value("x", (1, 4))], [value("y", ("made_up", "too"))], [pads, flat])
    session = opened(made)
    assert not isinstance(session, str)
    result = judged(made)
    assert result.report is not None
    assert result.report.outputs == [described(session)[1]]


def test_constants_are_not_computed_at_the_cost_of_memory() -> None:
    """A few bytes say how large a constant is; where its size tells nothing of the outputs nobody needs it."""
    grown = [
        node("ConstantOfShape", ["k"], ["big"]),
        node("ReduceSum", ["big"], ["one"], keepdims=0),
        node("Add", ["x", "one"], ["y"]),
    ]
    sizes = numpy_helper.from_array(np.array([1 << 31], np.int64), "k")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = judged(model(grown, outputs=[value("y", ("made_up", 4))], initializers=[sizes]))
    assert result.report is not None, result.refusal
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20


def test_calls_that_would_become_billions_of_nodes_never_reach_the_runtime() -> None:
    class Never:
        version = load_capabilities().onnx_runtime_version

        def load(self, made: bytes, mapped: list[int], *, folded: bool = False) -> Answer:
            raise AssertionError("the runtime was asked")

    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = [
        helper.make_function(
            "own",
            f"F{depth}",
            ["x"],
            ["y"],
            [
                node(f"F{depth - 1}" if depth else "Relu", ["x"], ["h"], domain="own" if depth else ""),
                node(f"F{depth - 1}" if depth else "Relu", ["h"], ["y"], domain="own" if depth else ""),
            ],
            opsets,
        )
        for depth in range(40)
    ]
    made = model(
        [node("F39", ["x"], ["y"], domain="own")], opsets=[("", 17), ("own", 1)], functions=functions
    ).SerializeToString()
    asked = RuntimeTrial(Never()).bound_to(capabilities=load_capabilities())
    result = verify(MemoryFolder({"m": made}), "m", capabilities=load_capabilities(), trial=asked)
    assert refused(result).startswith("TooLarge")


def test_what_only_loads_with_optimizations_is_accepted() -> None:
    """The runtime has no kernel for it, and an optimization that computes nothing takes it away."""
    to = [node("Cast", ["x"], ["a"], to=TensorProto.BFLOAT16), node("Dropout", ["a"], ["b"])]
    made = model([*to, node("Cast", ["b"], ["y"], to=TensorProto.FLOAT)])
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    with pytest.raises(Exception, match="Dropout"):
        ort.InferenceSession(made.SerializeToString(), options)
    assert loads(made)
    result = judged(made)
    assert result.report is not None, result.refusal


def test_a_refusal_rests_on_values_and_never_on_zeros() -> None:
    """Four hundred nodes of a tree that ask for membership are no tree when their numbers are zeros."""
    made = trees(400)
    for each in made.graph.node[0].attribute:
        if each.name == "nodes_modes":
            each.t.CopyFrom(numpy_helper.from_array(np.full(399, 6, np.uint8)))
    values = numpy_helper.from_array(np.array([1.0, np.nan] * 399, np.float32))
    made.graph.node[0].attribute.add(name="membership_values", type=onnx.AttributeProto.TENSOR, t=values)
    assert (judged(made).outcome == "Accepted") == loads(made)


def test_too_little_memory_is_no_refusal() -> None:
    class Cramped:
        version = load_capabilities().onnx_runtime_version

        def load(self, made: bytes, mapped: list[int], *, folded: bool = False) -> Answer:
            raise MemoryError

    result = with_runtime(RuntimeTrial(Cramped()), load_capabilities())
    assert result.report is not None
    assert "too little memory" in result.report.notes[0]


def test_the_runtimes_words_steer_no_terminal() -> None:
    said = words_of(
        "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/core/a.cc:12 void F(int) node \x1b[2J\u202e bad\nnext"
    )
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert said.endswith("bad next")
    assert "a.cc" not in said
    assert len(words_of("x" * 100_000)) < 1000


def test_a_check_that_objects_to_what_loads_becomes_a_note() -> None:
    """The checks want initializers of one name only; the runtime takes one of them."""
    weight = tensor("w", 64, 64)
    made = model(
        [node("MatMul", ["x", "w"], ["y"])],
        inputs=[value("x", ("N", 64))],
        outputs=[value("y", ("N", 64))],
        initializers=[weight, weight],
    )
    assert loads(made)
    result = judged(made)
    assert result.report is not None, result.refusal
    assert any("Two initializers have the name" in note for note in result.report.notes)


def test_sizes_that_an_output_leaves_open_are_named_as_the_runtime_names_them() -> None:
    made = model([node("Relu", ["x"], ["y"])], [value("x", ("N", 4))], [value("y", (None, None))])
    report = judged(made).report
    assert report is not None
    assert report.outputs[0].shape == ["N", 4]


@pytest.mark.parametrize(
    ("second", "judged_by"),
    [(Answer(True), "second"), (Answer(False, "again"), "first"), (Answer(None, "too little memory"), "second")],
)
def test_a_refusal_stands_only_where_the_second_attempt_had_room_and_was_refused_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second: Answer, judged_by: str
) -> None:
    first = Answer(False, "without optimizations")
    answers = iter([first, second])
    monkeypatch.setattr(OnnxRuntime, "_attempt", lambda *_: next(answers))
    assert OnnxRuntime(str(tmp_path)).load(b"", []) == {"first": first, "second": second}[judged_by]
