"""``from azureml.core.model import Model``."""

from onnx_operator.server.script.modelpath import Model

__all__ = ["Model"]
