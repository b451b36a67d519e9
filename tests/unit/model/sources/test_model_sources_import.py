"""Fetching is done in images that hold little: what reads sources may not drag more in."""

import subprocess
import sys


def imported_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(' '.join({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_sources_need_no_onnx() -> None:
    assert not imported_by("onnx_operator.model.sources") & {"onnx", "numpy", "kubernetes"}


def test_the_inspector_knows_nothing_of_kubernetes() -> None:
    module = "onnx_operator.inspector.service"
    assert not imported_by(module) & {"kubernetes", "onnxruntime"}


def test_archives_are_unpacked_without_onnx() -> None:
    assert not imported_by("onnx_operator.model.archive") & {"onnx", "numpy", "aiohttp", "obstore"}
