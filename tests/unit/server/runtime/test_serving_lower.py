"""A model that an optimization of the runtime cannot take is served without it."""

import logging
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from onnx_operator.server.runtime.session import LoadError, SessionSettings, load


def saved(path: Path, operator: str) -> Path:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", 4)) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_failed_load_is_tried_with_fewer_optimizations(tmp_path, monkeypatch, caplog) -> None:
    levels = ort.GraphOptimizationLevel
    real, tried = ort.InferenceSession, []

    def picky(path, options, **more):
        tried.append(options.graph_optimization_level)
        if options.graph_optimization_level != levels.ORT_DISABLE_ALL:
            raise RuntimeError("an optimization went wrong")
        return real(path, options, **more)

    monkeypatch.setattr(ort, "InferenceSession", picky)
    with caplog.at_level(logging.WARNING):
        model = load(saved(tmp_path / "m.onnx", "Relu"), SessionSettings())
    assert [info.name for info in model.inputs] == ["x"]
    assert tried == [levels.ORT_ENABLE_ALL, levels.ORT_ENABLE_BASIC, levels.ORT_DISABLE_ALL]
    assert "fewer optimizations only" in caplog.text


def test_what_never_loads_is_told_in_the_words_of_the_first_try(tmp_path) -> None:
    with pytest.raises(LoadError, match="Nonsense"):
        load(saved(tmp_path / "m.onnx", "Nonsense"), SessionSettings())
