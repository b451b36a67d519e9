"""Why a model cannot be served. Each ends the server before it is ready."""

from onnx_operator.api.conditions import Reason


class LoadError(Exception):
    """The model cannot be served; the text names the cause as ONNX Runtime tells it."""

    reason = Reason.LOAD_FAILED


class FallbackError(LoadError):
    """A GPU was asked for, the CPU would compute, and the settings forbid that; the text names operators and cause."""

    reason = Reason.FALLBACK_TO_CPU


class GoldenTestError(Exception):
    """The model answers its golden inputs with other outputs than expected, or the test data cannot be used."""

    reason = Reason.GOLDEN_TEST_FAILED


class HeldLoadError(LoadError):
    """The model does not answer what warmed up the revision that serves; the text says so."""

    reason = Reason.INTERFACE_CHANGED


class UnwarmedLoadError(LoadError):
    """No input was found, and this is no first version; the text says what was tried."""

    reason = Reason.NO_INPUT_FOUND
