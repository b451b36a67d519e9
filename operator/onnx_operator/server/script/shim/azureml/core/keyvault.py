"""``from azureml.core.keyvault import Keyvault``."""

from onnx_operator.server.script.azure import Keyvault

__all__ = ["Keyvault"]
