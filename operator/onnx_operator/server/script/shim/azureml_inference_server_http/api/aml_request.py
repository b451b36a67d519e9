"""The whole request, for a script that asks for it by ``@rawhttp``."""

from onnx_operator.server.script.web import AMLRequest, rawhttp

__all__ = ["AMLRequest", "rawhttp"]
