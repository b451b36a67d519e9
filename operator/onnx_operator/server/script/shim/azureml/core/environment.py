"""``from azureml.core.environment import Environment``."""

from onnx_operator.server.script.azure import Environment

__all__ = ["Environment"]
