"""``from azureml.core.experiment import Experiment``."""

from onnx_operator.server.script.azure import Experiment

__all__ = ["Experiment"]
