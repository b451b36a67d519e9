"""``from azureml.core.webservice import Webservice``."""

from onnx_operator.server.script.azure import Webservice

__all__ = ["Webservice"]
