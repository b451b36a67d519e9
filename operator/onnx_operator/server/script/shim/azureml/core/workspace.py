"""``from azureml.core.workspace import Workspace``."""

from onnx_operator.server.script.azure import Workspace

__all__ = ["Workspace"]
