"""What a parsing child says, and how much of it is listened to.

A child may be taken over by what it parses: nothing that it says is taken for granted. One that asks for more than any
honest one is broken or hostile, which says nothing about the model.
"""

from dataclasses import dataclass
from typing import Any, Literal

from onnx_operator.model.inspection.messages import decode
from onnx_operator.model.limits import LARGEST_FILE_BYTES

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
_LONGEST_QUESTION = 64 << 10


class ConversationError(Exception):
    """A child says what no honest one says, or asks for more."""


@dataclass(frozen=True)
class Question:
    """What a child asks for."""

    asks: Literal["size", "read", "expect", "turn", "trying"]
    name: str = ""
    begin: int = 0
    end: int = 0


@dataclass(frozen=True)
class End:
    """The child has ended; told by the process that forks."""

    status: int
    """As wait tells it."""
    forbidden: bool = False
    """Whether a system call ended it that it may not make."""
    call: int | None = None
    """The number of that call, where it is known."""
    taken: int = 0
    """Bytes of memory that it took at most."""


def read_message(line: bytes) -> Question | End | dict[str, Any]:
    """A question, the end of the child, or its word. Raises :class:`ConversationError`."""
    try:
        message = decode(line)
    except ValueError as error:
        raise ConversationError(f"the parsing child said what it cannot mean: {error!s:.200}") from None
    if "status" in message:
        return End(message["status"], "forbidden" in message, message.get("forbidden"), message.get("taken", 0))
    asked = next((each for each in ("size", "read", "expect", "turn", "trying") if each in message), None)
    if asked is None:
        return message
    if len(line) > _LONGEST_QUESTION:
        raise ConversationError(f"the parsing child asks with {len(line)} bytes")
    if asked == "trying":
        return Question("trying", begin=int(message["trying"]))
    if asked == "turn":
        return Question("turn")
    if asked == "size":
        return Question("size", message["size"])
    name, begin, end = message[asked]
    if not begin < end:
        raise ConversationError(f"the parsing child asks for the bytes {begin} to {end}")
    return Question("read" if asked == "read" else "expect", name, begin, end)


class Conversation:
    """The budget of one child: bytes, questions, names and time. Pure. Each method raises :class:`ConversationError`.

    Args:
        size: bytes of the model's file, where known.
        patience_seconds: for which the child is listened to, all in all.
    """

    def __init__(self, size: int | None, *, patience_seconds: float) -> None:
        self.patience_seconds = patience_seconds
        """What is left of it."""
        self._bytes = LARGEST_FILE_BYTES if size is None else size
        self._sizes: dict[str, int] = {}
        self._given = 0
        self._questions = 0
        self._name_bytes = 0

    def heard(self) -> None:
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
