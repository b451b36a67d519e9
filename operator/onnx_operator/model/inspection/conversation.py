"""How much of what a parsing child says is listened to.

One that asks for more than any honest one is broken or hostile, which says nothing about the model.
"""

from onnx_operator.model.inspection.messages import ConversationError
from onnx_operator.model.limits import MAX_FILE_BYTES

_READS_OF_A_BYTE = 8
"""An archive is gone through to list it, for its model, and for what lies beside it; some again from the beginning."""
_FREE_BYTES = 64 << 20
"""Given to any child: small files are read in larger ranges than they need."""
_QUESTIONS = 200_000
"""Of any child: a model may have a hundred thousand files beside it."""
_QUESTION_BYTES = 2048
"""A further question for so many bytes of its files; reads are of 4 KiB and more."""
_NAMES_BYTES = 8 << 20
"""Of the names of all files: what is found out about each is remembered."""


class Conversation:
    """The budget of one child: bytes, questions, names and time. Pure. Each method raises :class:`ConversationError`.

    Args:
        size: bytes of the model's file, where known.
        patience_seconds: for which the child is listened to, all in all.
    """

    def __init__(self, size: int | None, *, patience_seconds: float) -> None:
        self.patience_seconds = patience_seconds
        """What is left of it."""
        self._bytes = MAX_FILE_BYTES if size is None else size
        self._sizes: dict[str, int] = {}
        self._given = 0
        self._questions = 0
        self._name_bytes = 0

    def count_question(self) -> None:
        """The child said something."""
        self._questions += 1
        if self._questions > _QUESTIONS + self._bytes // _QUESTION_BYTES:
            raise ConversationError(f"the parsing child asks more than {self._questions - 1} questions")

    def names(self, name: str) -> None:
        """The child speaks of a file."""
        if name not in self._sizes:
            self._sizes[name] = 0
            self._name_bytes += len(name)
        if self._name_bytes > _NAMES_BYTES:
            raise ConversationError(f"the parsing child names files with more than {_NAMES_BYTES} bytes")

    def sized(self, name: str, size: int | None) -> None:
        """A file has so many bytes."""
        self._bytes += (size or 0) - self._sizes.get(name, 0)
        self._sizes[name] = size or 0

    def gives(self, size: int) -> None:
        """The child is given so many bytes."""
        self._given += size
        if self._given > _READS_OF_A_BYTE * self._bytes + _FREE_BYTES:
            raise ConversationError(f"the parsing child reads {self._given} bytes of files that have {self._bytes}")

    def listened(self, seconds: float) -> None:
        """The child took so long to say something."""
        self.patience_seconds = max(0.0, self.patience_seconds - seconds)
