"""``from azureml.core.dataset import Dataset``."""

from onnx_operator.server.script.azure import Dataset

__all__ = ["Dataset"]
