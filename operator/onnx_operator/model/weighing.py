"""Refusals of our checks and the runtime's word: it decides, they explain."""

from collections.abc import Iterator
from contextlib import contextmanager

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import Capabilities
from onnx_operator.model.refusal import RefusedError
from onnx_operator.model.trial.runtime import Answer

_OURS = frozenset({Reason.EXTERNAL_DATA_MISSING, Reason.TOO_LARGE, Reason.NOT_ONNX, Reason.CORRUPT})
"""What the runtime, which sees no weight, does not speak of."""
_MAX_NOTES = 3


class Refusals:
    """What checks say against a model, weighed against what the runtime answered."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._refusals: list[RefusedError] = []

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Take down the refusal that ends the block."""
        try:
            yield
        except RefusedError as refused:
            self.add(refused)

    def add(self, refused: RefusedError) -> None:
        """Take down a refusal. Raises it at once where nobody else decides, or the runtime agrees."""
        if self._answer.loads is not True or refused.refusal.reason in _OURS:
            raise refused
        self._refusals.append(refused)

    def decide(self, capabilities: Capabilities) -> None:
        """Raise :class:`RefusedError` where only the runtime refuses, in its words."""
        if self._answer.loads is not False:
            return
        runtime = f"ONNX Runtime {capabilities.onnx_runtime_version} of the server image"
        raise RefusedError(
            Reason.UNKNOWN_OPERATOR if self._answer.unimplemented else Reason.INVALID_GRAPH,
            f"{runtime} refuses to load the model: {self._answer.words}",
        )

    def notes(self) -> list[str]:
        """What callers should know of a model that is accepted in spite of refusals, or without the runtime."""
        if self._answer.loads is None:
            why = f" ({self._answer.words})" if self._answer.words else ""
            return [f"Judged by tables: the runtime that will serve it was not asked{why}."] if why else []
        texts = [each.refusal.message for each in self._refusals[:_MAX_NOTES]]
        return [f"ONNX Runtime loads the model, although: {text}" for text in texts]
