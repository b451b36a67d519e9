"""Why a model cannot be served. Each ends the server before it is ready."""

from onnx_operator.api.conditions import Reason
from onnx_operator.server.errors import StartError


class LoadError(StartError):
    """The model cannot be served; the text names the cause as ONNX Runtime tells it."""


class FallbackError(LoadError):
    """A GPU was asked for, the CPU would compute, and the settings forbid that; the text names operators and cause."""

    reason = Reason.FALLBACK_TO_CPU


class FailedTestError(StartError):
    """The model answers the inputs of its test data otherwise than they say, or the test data cannot be used."""

    reason = Reason.TEST_FAILED


class HeldLoadError(LoadError):
    """The model does not answer what warmed up the revision that serves; the text says so."""

    reason = Reason.INTERFACE_CHANGED


class UnwarmedLoadError(LoadError):
    """No input was found, and this is no first version; the text says what was tried."""

    reason = Reason.NO_INPUT_FOUND
