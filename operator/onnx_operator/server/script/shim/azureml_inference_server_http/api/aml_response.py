"""A response with a status and headers of the script's choice."""

from onnx_operator.server.script.web import AMLResponse

__all__ = ["AMLResponse"]
