"""What a child's end says about the model: its own word, or what it died of."""

import logging
import os
import signal
from dataclasses import dataclass, field
from typing import Any

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import Refusal
from onnx_operator.model.inspection import sandbox
from onnx_operator.model.inspection.faults import ForbiddenCallError, ParserError
from onnx_operator.model.limits import InspectionLimits

_LOG = logging.getLogger(__name__)
MAX_MESSAGE_LENGTH = 2000
"""Characters of what a child says of an error."""
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
"""Of the runtime's. SIGBUS is none: where memory is short, a page of the file of zeros cannot be had."""
_NEARLY = 0.9
"""Of the memory that a child may take: an abort beyond it is of one that cannot tell that it got no more."""


@dataclass
class Ending:
    """How a child ended."""

    said: dict[str, Any] = field(default_factory=dict)
    """Its first word, where it said one."""
    status: int | None = None
    """Its wait status; None where the process that reaps it is gone."""
    trying: bool = False
    """Whether the runtime was loading the model."""
    taken: int = 0
    """Bytes of memory that it took at most."""


class Endings:
    """Tells what endings mean, and counts those that point to an attack or to a limit that is too low."""

    def __init__(self, limits: InspectionLimits) -> None:
        self._limits = limits
        self.forbidden_calls = 0
        """Children that were ended because of a system call, so far."""
        self.exceeded_limits = 0
        """Children that were ended because the runtime took more than they may, so far."""

    def answer(self, ending: Ending) -> dict[str, Any]:
        """The child's word, or a refusal for it. Raises :class:`ParserError` where neither is known."""
        if ending.trying and not ending.said and ending.status is not None:
            return self._interpret_trial(ending.status, ending.taken)
        return self._interpret(ending.said, ending.status)

    def count_forbidden(self, error: ForbiddenCallError) -> None:
        """A child made a system call that it may not make."""
        self.forbidden_calls += 1
        _LOG.error("%s", error, extra={"event": "forbiddenCall", "call": error.number, "count": self.forbidden_calls})

    def _interpret_trial(self, status: int, taken: int) -> dict[str, Any]:
        """How a child ended in which the runtime was loading: a crash is the model's doing, a limit is ours."""
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        memory = sandbox.share(self._limits.memory_bytes, self._limits.parsers)
        full = number == signal.SIGABRT and taken >= _NEARLY * memory
        if number in _CRASHES and not full:
            name = signal.Signals(number).name
            return _refused(
                Reason.INVALID_GRAPH,
                f"ONNX Runtime itself crashes ({name}) when it loads the model, as it would in every pod. Export it"
                " anew, with other versions or options of the exporter, and report it to ONNX Runtime.",
            )
        self.exceeded_limits += 1
        limit = f"{self._limits.cpu_seconds + self._limits.load_seconds} s of processor time"
        if number in (signal.SIGKILL, signal.SIGBUS) or full:
            limit = f"{memory >> 20} MiB of memory"
        message = (
            f"ONNX Runtime took more than {limit} (a limit of the inspection) to load the structure of the model, or"
            f" was ended (status {status}). Nothing is known about the model."
        )
        _LOG.error("%s", message, extra={"event": "exceededLimit", "count": self.exceeded_limits})
        raise ParserError(message)

    def _interpret(self, first: dict[str, Any], status: int | None) -> dict[str, Any]:
        if "memory" in first:
            return _refused(
                Reason.TOO_LARGE,
                f"Reading the model's structure takes more than {self._limits.memory_bytes >> 20} MiB of memory.",
            )
        if "error" in first:
            raise ParserError(str(first["error"])[-MAX_MESSAGE_LENGTH:])
        if first:
            return first
        if status is None:
            raise ParserError("the parsing process ended in the middle of a job")
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number in (signal.SIGALRM, signal.SIGXCPU):
            return _refused(
                Reason.TOO_LARGE,
                f"Reading the model's structure takes more than {self._limits.cpu_seconds} s of processor time or"
                f" {self._limits.answer_seconds} s in all.",
            )
        if number == signal.SIGKILL:
            return _refused(Reason.TOO_LARGE, "Reading the model's structure takes more memory than the inspector has.")
        if not number:
            raise ParserError(f"the parsing child ended with the status {status} and without a word")
        name = signal.Signals(number).name
        return _refused(Reason.CORRUPT, f"The parser crashed on the file ({name}). Upload it again, or export it anew.")


def _refused(reason: Reason, message: str) -> dict[str, Any]:
    return {"refusal": Refusal(reason=reason, message=message)}
