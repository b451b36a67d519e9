"""What looking for a model raises."""

from onnx_operator.server.script.modelpath import AzureMLException, ModelNotFoundException

__all__ = ["AzureMLException", "ModelNotFoundException"]
