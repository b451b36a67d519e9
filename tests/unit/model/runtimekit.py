"""What the real runtime does with a model."""

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import onnx
import onnxruntime as ort

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.report import InspectionResult, TensorSpec
from onnx_operator.model.inspection.trying import RuntimeTrial
from onnx_operator.model.reading.folder import MemoryFolder
from onnx_operator.model.tensors import datatype_of
from onnx_operator.model.trial.runtime import OnnxRuntime
from onnx_operator.model.trial.standins import ZEROS
from onnx_operator.model.verdict import verify


def opened(model: onnx.ModelProto | bytes | Path) -> ort.InferenceSession | str:
    """The session of a model on the CPU, or why ONNX Runtime does not load it."""
    data = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return str(error) or type(error).__name__


def loads(model: onnx.ModelProto | bytes) -> bool:
    return not isinstance(opened(model), str)


def described(session: ort.InferenceSession) -> list[TensorSpec]:
    """Inputs and outputs of a session, as a report tells them."""
    return [
        TensorSpec(
            name=each.name,
            datatype=datatype_of(each.type),
            shape=[size if isinstance(size, str) or (size or 0) > 0 or size == 0 else -1 for size in each.shape],
        )
        for each in (*session.get_inputs(), *session.get_outputs())
    ]


@cache
def _trial() -> tuple[RuntimeTrial, "tempfile.TemporaryDirectory[str]"]:
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    zeros = Path(folder.name) / ZEROS
    with zeros.open("wb") as file:
        file.truncate(4 << 30)
    return RuntimeTrial(OnnxRuntime(folder.name), zeros=zeros), folder


def judged(model: onnx.ModelProto | bytes, files: Mapping[str, bytes] | None = None) -> InspectionResult:
    """The verdict, with the runtime as the judge, in this process; ``files`` lie beside the model."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return judged_in(MemoryFolder({"model.onnx": data, **(files or {})}), "model.onnx")


def judged_in(folder: MemoryFolder, name: str) -> InspectionResult:
    """The same, of a file in a folder."""
    capabilities = load_capabilities()
    return verify(folder, name, capabilities=capabilities, trial=_trial()[0].bound_to(capabilities=capabilities))
