"""Stands in for ``azureml-core`` in a scoring pod, where only the model's path is asked for."""

from onnx_operator.server.script.modelpath import Model

__all__ = ["Model"]
