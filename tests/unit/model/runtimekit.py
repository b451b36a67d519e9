"""What the real runtime does with a model."""

import onnx
import onnxruntime as ort


def failure(model: onnx.ModelProto | bytes) -> str:
    """Why ONNX Runtime does not load a model on the CPU; empty where it does."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return str(error)
    return ""


def loads(model: onnx.ModelProto | bytes) -> bool:
    return not failure(model)
