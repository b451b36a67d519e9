"""Whoever asks for a GPU is told which operators the CPU computes, and why."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from onnx_operator.server.runtime.assignment import (
    NO_KERNEL,
    NOT_IN_BUILD,
    Assignment,
    cause_in,
    check_fallback,
    read_assignment,
    start_error,
)
from onnx_operator.server.runtime.capabilities import identity_model
from onnx_operator.server.runtime.failures import FallbackError
from onnx_operator.server.runtime.session import SessionSettings, load
from tests.unit.server.serving import identity, linear, model_bytes, node, slow, value

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


@dataclass
class Node:
    op_type: str
    domain: str = ""


class Subgraph:
    """As ``get_provider_graph_assignment_info`` returns them: one a node for CPU and CUDA."""

    def __init__(self, ep_name: str, *nodes: str) -> None:
        self.ep_name = ep_name
        self._nodes = [Node(each.rpartition(".")[2], each.rpartition(".")[0]) for each in nodes]

    def get_nodes(self) -> list[Node]:
        return self._nodes


def never(provider: str) -> str:
    raise AssertionError(f"{provider} started: nobody needs to ask why it did not")


def read(*subgraphs: Subgraph, wanted: tuple[str, ...] = (CUDA,), started: tuple[str, ...] = (CUDA, CPU)) -> Assignment:
    return read_assignment(
        subgraphs, wanted=wanted, available=[TENSORRT, CUDA, CPU], started=started, start_error=never
    )


def test_a_model_that_runs_on_the_gpu_has_no_fallback() -> None:
    found = read(Subgraph(CUDA, "Conv"), Subgraph(CUDA, "Relu"))
    assert found == Assignment([CUDA], operators=frozenset({"Conv", "Relu"}))
    assert found.accelerated
    assert found.explain() == ""
    check_fallback(found, [CUDA])


def test_an_operator_without_a_kernel_falls_back_and_is_named() -> None:
    found = read(Subgraph(CUDA, "Conv"), Subgraph(CPU, "Det"), Subgraph(CPU, "ai.onnx.ml.LabelEncoder"))
    assert found.providers == [CUDA, CPU]
    assert found.fallback_operators == ["Det", "ai.onnx.ml.LabelEncoder"]
    assert found.causes == {CUDA: NO_KERNEL}
    with pytest.raises(FallbackError, match=r"the CPU computes Det, ai\.onnx\.ml\.LabelEncoder \(CUDA.*no kernel"):
        check_fallback(found, [CUDA])


def test_shapes_that_the_runtime_computes_on_the_cpu_are_no_fallback() -> None:
    found = read(Subgraph(CUDA, "Conv"), Subgraph(CPU, "Gather"), Subgraph(CPU, "Concat"))
    assert found.fallback_operators == []
    assert found.kept_on_cpu == ["Concat", "Gather"]
    assert found.causes == {}
    check_fallback(found, [CUDA])


def test_where_nothing_runs_on_the_gpu_even_shapes_count() -> None:
    found = read(Subgraph(CPU, "Gather"))
    assert found.fallback_operators == ["Gather"]
    assert not found.accelerated


def test_one_provider_that_did_not_start_is_told_beside_another_that_has_no_kernel() -> None:
    found = read_assignment(
        [Subgraph(CUDA, "Conv"), Subgraph(CPU, "Det")],
        wanted=[TENSORRT, CUDA],
        available=[TENSORRT, CUDA, CPU],
        started=[CUDA, CPU],
        start_error=lambda provider: f"{provider} lacks a library",
    )
    assert found.causes == {TENSORRT: f"it could not start: {TENSORRT} lacks a library", CUDA: NO_KERNEL}


def test_whoever_asks_for_the_cpu_has_no_fallback() -> None:
    found = read(Subgraph(CPU, "Conv"), wanted=(CPU,), started=(CPU,))
    assert found.fallback_operators == []
    check_fallback(found, [CPU])


def test_a_graph_that_was_folded_away_does_not_run_on_the_gpu() -> None:
    found = read()
    assert found.providers == [CPU]
    with pytest.raises(FallbackError, match="the CPU computes everything"):
        check_fallback(found, [CUDA])


def settings(*, fail: bool) -> SessionSettings:
    return SessionSettings(providers=("TensorRT", "CUDA"), fail_on_fallback=fail)


def write(directory: Path, content: bytes) -> Path:
    path = directory / "model.onnx"
    path.write_bytes(content)
    return path


def test_this_build_knows_no_gpu_and_says_so(tmp_path: Path) -> None:
    model = load(write(tmp_path, linear()), settings(fail=False))
    assert model.assignment.fallback_operators == ["ArgMax", "MatMul"]
    assert model.assignment.causes == {TENSORRT: NOT_IN_BUILD, CUDA: NOT_IN_BUILD}


def test_a_model_that_must_not_fall_back_is_refused_naming_operators_and_cause(tmp_path: Path) -> None:
    with pytest.raises(FallbackError, match=r"ArgMax, MatMul .*not part of this build.*onFallback"):
        load(write(tmp_path, linear()), settings(fail=True))


def test_on_the_cpu_nothing_can_fall_back(tmp_path: Path) -> None:
    model = load(write(tmp_path, linear()), SessionSettings(fail_on_fallback=True))
    assert model.assignment.fallback_operators == []


@pytest.mark.parametrize(
    ("content", "operators"),
    [
        (slow(), {"Identity", "MatMul", "Clip", "Squeeze", "Loop", "ReduceSum"}),
        (identity(), {"Identity"}),
        (
            model_bytes(
                [node("Add", ["a", "a"], ["y"])],
                [],
                [value("y", TensorProto.FLOAT, [1])],
                {"a": np.ones(1, dtype=np.float32)},
            ),
            set(),
        ),
    ],
    ids=["loop", "identity", "constant"],
)
def test_all_operators_are_known_those_of_loops_too(tmp_path: Path, content: bytes, operators: set[str]) -> None:
    assert load(write(tmp_path, content), SessionSettings()).assignment.operators == operators


# What onnxruntime-gpu 1.31.1 wrote on a machine without a GPU and without CUDA's libraries.
CUDA_LOG = (
    "\x1b[1;31m2026-11-25 05:08:28.475499116 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] "
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& "
    "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
    "/site/onnxruntime/capi/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object "
    "file: No such file or directory\n\x1b[m\n"
    "\x1b[0;93m2026-11-25 05:08:28.475535149 [W:onnxruntime:Default, onnxruntime_pybind_state.cc:1295 "
    "CreateExecutionProviderFactoryInstance] Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*. "
    "Please install all dependencies\x1b[m\n"
)
TENSORRT_LOG = (
    "*************** EP Error ***************\n"
    "EP Error /onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void "
    "onnxruntime::python::RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) "
    "Please install TensorRT libraries as mentioned in the GPU requirements page\n"
    " when using ['TensorrtExecutionProvider']\nFalling back to ['CPUExecutionProvider'] and retrying.\n"
)


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (
            CUDA_LOG,
            "libonnxruntime_providers_cuda.so cannot be loaded: libcublasLt.so.13: cannot open shared object file: "
            "No such file or directory",
        ),
        (TENSORRT_LOG, "Please install TensorRT libraries as mentioned in the GPU requirements page"),
        ("", "it did not say why"),
        ("something\nentirely else\n", "entirely else"),
    ],
    ids=["library", "exception", "silent", "unknown"],
)
def test_the_cause_is_found_in_what_the_runtime_logged(log: str, cause: str) -> None:
    assert cause_in(log) == cause


def test_a_provider_is_started_again_only_to_hear_what_it_says() -> None:
    assert "CUDAExecutionProvider' is not in available provider names" in start_error(
        CUDA, identity_model(8, [("", 13)])
    )
