"""What an image declares is what it loads."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest

from onnx_operator.api.report import Capabilities
from onnx_operator.server.runtime.capabilities import identity_model, probe

BUNDLED = Path("operator/onnx_operator/api/capabilities/onnxruntime-cpu.json")


def test_the_bundled_declaration_is_that_of_this_runtime() -> None:
    assert Capabilities.model_validate_json(BUNDLED.read_text()) == probe()


def test_the_command_prints_it() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "onnx_operator.server", "capabilities"],
        env={"PYTHONPATH": "operator"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == BUNDLED.read_text()
    assert result.stderr == ""


def test_the_newest_versions_load_and_the_next_do_not() -> None:
    found = probe()
    options = ort.SessionOptions()
    options.log_severity_level = 4

    def load(ir_version: int, opset: int) -> None:
        ort.InferenceSession(identity_model(ir_version, [("", opset)]), options)

    load(found.ir_version, found.opsets["ai.onnx"])
    for ir_version, opset in ((found.ir_version + 1, 7), (3, found.opsets["ai.onnx"] + 1)):
        with pytest.raises(Exception, match=r"Unsupported model IR version|is under development|opset"):
            load(ir_version, opset)
    assert found.onnx_runtime_version == ort.__version__
    assert "FusedMatMul" in found.operators["com.microsoft"]
    assert "" not in found.operators
    assert found.opsets["ai.onnx.ml"] >= 5
    json.dumps(found.model_dump())


def test_the_tiny_model_is_a_valid_one() -> None:
    model = onnx.load_from_string(identity_model(8, [("", 17), ("ai.onnx.ml", 3)]))
    onnx.checker.check_model(model)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17), ("ai.onnx.ml", 3)]
