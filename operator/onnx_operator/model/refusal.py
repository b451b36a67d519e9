"""How the house says no to a model: one exception, whoever raises it."""

from typing import TYPE_CHECKING, NoReturn

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin

if TYPE_CHECKING:
    from onnx_operator.api.report import InspectionResult, Refusal

_MESSAGE_LIMIT = 1900
"""Characters; names in a model, and addresses, may have any length. A pod's report has room for 2 KiB of it."""


class RefusedError(Exception):
    """The model is not accepted, or could not be looked at; ``refusal`` says why, as the status tells it.

    ``reason`` is one of ``ModelValid``; ``message`` is for people: it names the field or the URI (without its query)
    and says what to do; ``retriable`` tells whether the same can succeed later without any change.

    Whoever turns it into a result or a decision catches this one. Kinds of it are for those who tell one from another::

        RefusedError                    checks, settings, pools, credentials, scripts, pod templates, inspection pods
        ├── ArchiveError                model/archive: what is packed
        └── SourceError                 model/sources: where the model lies
            └── SourceChangedError      other bytes than were pinned; ``observed`` says which

    Why pods or children are not as they should be is no refusal of the model, but a ``Cause``
    (controller/observation), which ``ChildrenError`` carries.
    """

    def __init__(self, reason: Reason, message: str, *, retriable: bool = False) -> None:
        short = message if len(message) <= _MESSAGE_LIMIT else message[:_MESSAGE_LIMIT] + "…"
        super().__init__(short)
        self.reason = reason
        self.message = short
        self.retriable = retriable

    @property
    def refusal(self) -> "Refusal":
        """What goes to the status."""
        # The containers that fetch refuse too, and need no report for it: its classes take long to build.
        from onnx_operator.api.report import Refusal

        return Refusal(reason=self.reason, message=self.message, retriable=self.retriable)

    def result(self, source: SourcePin | None = None) -> "InspectionResult":
        """The inspection that ended so; ``source`` is what was looked at."""
        from onnx_operator.api.report import InspectionResult

        return InspectionResult(outcome="Refused", source=source, refusal=self.refusal)


def raise_it(refused: RefusedError) -> NoReturn:
    """For those who cannot go on after a refusal."""
    raise refused
