"""``from azureml.core.run import Run``."""

from onnx_operator.server.script.azure import Run

__all__ = ["Run"]
