"""The verdict agrees with the runtime: what ONNX Runtime loads is accepted."""

import warnings
from functools import cache

import onnxruntime as ort
import pytest
from modelkit import verdict
from onnx.backend.test.loader import load_model_tests

SLICES = 8


@cache
def node_tests() -> list[tuple[str, bytes]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [(case.name, case.model.SerializeToString()) for case in load_model_tests(kind="node")]


def loads(data: bytes) -> bool:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception:
        return False
    return True


def disagreements(cases: list[tuple[str, bytes]]) -> list[str]:
    return [
        f"{name}: {result.refusal.message}"
        for name, data in cases
        if (result := verdict(data)).refusal is not None and loads(data)
    ]


def test_a_slice_of_the_node_tests() -> None:
    assert disagreements(node_tests()[::SLICES]) == []


@pytest.mark.soak
def test_all_node_tests() -> None:
    assert disagreements(node_tests()) == []
