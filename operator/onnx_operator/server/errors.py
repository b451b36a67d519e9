"""What goes wrong with a start or a request, independent of the transport that carried it."""

import math
from collections.abc import Sequence

from onnx_operator.api.conditions import Reason

_SHOWN = 20


class StartError(Exception):
    """The server cannot start to serve: its model or its script cannot be used.

    The text is for the model's owner. :class:`~onnx_operator.server.runtime.failures.LoadError` (and below it
    FallbackError, HeldLoadError and UnwarmedLoadError), FailedTestError and
    :class:`~onnx_operator.server.script.settings.ScriptError` are its kinds; whatever else
    ends a start is a fault of ours.
    """

    reason = Reason.LOAD_FAILED


class RequestError(Exception):
    """A request that cannot be answered.

    ``status`` is the HTTP status that fits best; other transports map it. The message says what was expected.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


def quote(value: object, limit: int = 60) -> str:
    """Represent a value from a request in an error message, cut to ``limit`` characters."""
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value[:limit]) if isinstance(value, str) else _number(value)
    return text if len(text) <= limit else text[:limit] + "…"


def listed(names: Sequence[str]) -> str:
    """The first of several names in an error message, and how many more there are."""
    shown = ", ".join(name[:60] for name in names[:_SHOWN])
    return (shown or "none") + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _number(value: object) -> str:
    # str() of an int beyond 4300 digits raises.
    if isinstance(value, int) and value.bit_length() > 512:
        return "a number of more than 150 digits"
    if value in (math.inf, -math.inf) and type(value) is float:
        # JSON and CSV have no such number: this is what its digits came to.
        return f"a number beyond {'-' if value < 0 else ''}1.8e308"
    return str(value)
