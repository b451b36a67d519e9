"""Whole graphs: their inputs, what nobody knows of them, and what a report and a server are told."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_operator.api.report import RowsProof
from onnx_operator.model.batching.graph_pb2 import Model
from onnx_operator.model.batching.proof import FAILED, prove
from onnx_operator.model.batching.reading import UnreadableError, read_model
from onnx_operator.model.reading.folder import MemoryFolder
from onnx_operator.model.verdict import verify
from tests.unit.model.batching.proofkit import FLOAT, Case, Inputs, N, X, ints, judged, meet, model, proof, reals
from tests.unit.model.modelkit import CAPABILITIES

test_of_these_graphs_nothing_is_proven_and_the_reason_is_told = meet(
    Case("an optional value", N("Optional", ["x"], ["o"]), N("OptionalGetElement", ["o"], ["y"])),
    Case("a sequence", N("SequenceConstruct", ["x"], ["o"]), N("ConcatFromSequence", ["o"], ["y"], axis=0)),
    Case("an operator of strangers", N("Mystery", ["x"], ["y"], domain="strange")),
    Case("inputs of other first dimensions", N("Add", ["x", "z"], ["y"]), inputs={**X, "z": (FLOAT, ["M", 4])}),
    Case("a first dimension that is another one too", N("Relu", ["x"], ["y"]), inputs={"x": (FLOAT, ["N", "N"])}),
    Case("an input of which no dimension is declared", N("Relu", ["x"], ["y"]), inputs={"x": (FLOAT, None)}),
    Case("always one row", N("Relu", ["x"], ["y"]), inputs={"x": (FLOAT, [1, 4])}),
)


def test_a_report_names_the_node_that_lets_rows_meet() -> None:
    found = proof(
        N("Relu", ["x"], ["r"]), N("Softmax", ["r"], ["s"], name="/head/Softmax", axis=0), N("Neg", ["s"], ["y"])
    )

    assert found.node == 'node "/head/Softmax" (Softmax)'
    assert "all rows" in found.reason


def test_what_no_output_needs_does_not_count() -> None:
    assert proof(N("NonZero", ["x"], ["unused"]), N("Relu", ["x"], ["y"])).holds


def test_a_fixed_number_of_rows_is_a_batch_as_well() -> None:
    fixed: Inputs = {"x": (FLOAT, [3, 4])}

    assert proof(N("MatMul", ["x", "w"], ["y"]), inputs=fixed, stored={"w": reals(4, 2)}).holds
    assert proof(N("Reshape", ["x", "to"], ["y"]), inputs=fixed, stored={"to": ints(3, 2, 2)}).holds
    assert not proof(N("Add", ["x", "b"], ["y"]), inputs=fixed, stored={"b": reals(3, 4)}).holds
    assert not proof(N("Reshape", ["x", "to"], ["y"]), inputs=fixed, stored={"to": ints(2, 6)}).holds


def test_whatever_attributes_a_file_holds_the_proof_ends() -> None:
    for name in ("Reshape", "Slice", "Gather", "Concat", "Softmax", "Conv", "Transpose", "Gemm", "Split", "ReduceSum"):
        for axis in (-99, 99):
            for inputs in ([], ["x"], ["x", "x"], ["w", "x"], ["x", "w", "w", "w"]):
                node = N(name, inputs, ["y"], axis=axis, perm=[5, 5], strides=[0], axes=[axis], kernel_shape=[-1])
                assert proof(node, stored={"w": np.float32(1)}) is not None


def test_what_is_proven_does_not_depend_on_weights_that_are_left_out() -> None:
    built = model([N("MatMul", ["x", "w"], ["a"]), N("Softmax", ["a"], ["y"])], stored={"w": reals(4, 4000)})

    found = judged(built)

    assert (found.proof, found.node, found.reason) == ("Tolerant", "", "")


def test_a_report_tells_why_requests_of_a_model_run_alone() -> None:
    found = judged(model([N("Softmax", ["x"], ["y"], name="over", axis=0)]))

    assert found.proof == "Unproven"
    assert found.node == 'node "over" (Softmax)'
    assert "all rows" in found.reason


def test_the_file_of_a_server_and_the_skeleton_of_an_inspection_are_judged_alike(tmp_path: Path) -> None:
    built = model(
        [N("Reshape", ["x", "to"], ["a"]), N("MatMul", ["a", "w"], ["y"])],
        stored={"to": ints(0, 4), "w": reals(4, 4000)},
    )
    path = tmp_path / "model.onnx"
    onnx.save_model(built, path, save_as_external_data=True, location="weights", size_threshold=1024)

    folder = MemoryFolder({each.name: each.read_bytes() for each in tmp_path.iterdir()})
    report = verify(folder, "model.onnx", capabilities=CAPABILITIES).report
    assert report is not None
    assert report.batching == RowsProof(proof="Exact")
    assert prove(read_model(path)).strength == "Exact"


def test_a_file_that_is_no_model_proves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for content in (b"", b"\xff" * 99, b"\x3a\xff\xff\xff\x7f"):
        path.write_bytes(content)
        with pytest.raises(UnreadableError):
            read_model(path)


def test_two_opsets_of_one_domain_prove_nothing() -> None:
    built = model([N("Softmax", ["x"], ["y"], axis=1)])
    built.opset_import.append(helper.make_opsetid("ai.onnx", 11))
    assert not prove(Model.FromString(built.SerializeToString())).holds


def test_a_fault_of_ours_is_no_proof_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object) -> None:
        raise NameError("kind")

    monkeypatch.setattr("onnx_operator.model.batching.proof._prove", faulty)
    found = proof(N("Relu", ["x"], ["y"]))
    assert (found.strength, found.reason) == ("Unproven", f"{FAILED} (NameError)")
