"""Names of the objects that work is queued for."""

from onnx_operator.controller.cluster.kinds import Object

ModelKey = tuple[str, str]
"""Namespace and name of an OnnxModel."""


def key_of(model: Object) -> ModelKey:
    """The key of an OnnxModel."""
    return model["metadata"]["namespace"], model["metadata"]["name"]
