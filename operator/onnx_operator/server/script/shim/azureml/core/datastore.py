"""``from azureml.core.datastore import Datastore``."""

from onnx_operator.server.script.azure import Datastore

__all__ = ["Datastore"]
