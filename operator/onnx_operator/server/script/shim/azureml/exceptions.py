"""What looking for a model, or for a workspace, raises."""

from onnx_operator.server.script.azure import RunEnvironmentException, UserErrorException, WorkspaceException
from onnx_operator.server.script.modelpath import AzureMLException, ModelNotFoundException

__all__ = [
    "AzureMLException",
    "ModelNotFoundException",
    "RunEnvironmentException",
    "UserErrorException",
    "WorkspaceException",
]
