"""How a check says no."""

from typing import NoReturn

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import Refusal

_MESSAGE_LIMIT = 1000
"""Characters; names in a model may have any length."""


class RefusedError(Exception):
    """The model is not accepted, and why."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        short = text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + "…"
        self.refusal = Refusal(reason=reason, message=short)


def raise_it(refused: RefusedError) -> NoReturn:
    """For those who cannot go on after an objection."""
    raise refused
