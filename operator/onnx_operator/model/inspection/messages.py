"""What a parsing child may say: one line of JSON a message, each of a known shape.

A child may be taken over by what it parses, so nothing it says is taken for granted.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

_MAX_NAME_LENGTH = 4096
_MAX_OFFSET = 1 << 62
_MAX_VALUES = 200_000
"""In one message. Objects take many times the bytes of their JSON."""
_MAX_QUESTION_LENGTH = 64 << 10
_Name = Annotated[str, Field(max_length=_MAX_NAME_LENGTH)]
_Offset = Annotated[int, Field(ge=0, le=_MAX_OFFSET)]


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


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    def meant(self) -> Question | End:
        """The same in our words. Raises :class:`ConversationError`."""
        raise NotImplementedError


class _Size(_Message):
    size: _Name

    def meant(self) -> Question:
        return Question("size", self.size)


class _Read(_Message):
    read: tuple[_Name, _Offset, _Offset]

    def meant(self) -> Question:
        return Question("read", *_range(self.read))


class _Expect(_Message):
    expect: tuple[_Name, _Offset, _Offset]

    def meant(self) -> Question:
        return Question("expect", *_range(self.expect))


class _Turn(_Message):
    turn: bool

    def meant(self) -> Question:
        return Question("turn")


class _Trying(_Message):
    trying: bool

    def meant(self) -> Question:
        return Question("trying", begin=int(self.trying))


class _End(_Message):
    """Comes from the process that forks."""

    status: Annotated[int, Field(ge=0, le=0xFFFF)]
    forbidden: int | None = None
    taken: _Offset = 0

    def meant(self) -> End:
        return End(self.status, "forbidden" in self.model_fields_set, self.forbidden, self.taken)


_BY_KEY: dict[str, type[_Message]] = {
    "size": _Size,
    "read": _Read,
    "expect": _Expect,
    "turn": _Turn,
    "trying": _Trying,
    "status": _End,
}


def read_message(line: bytes) -> Question | End | dict[str, Any]:
    """A question or the end of the child in exactly its shape, or any other object, which is its last word.

    Raises :class:`ConversationError`.
    """
    try:
        message = _decoded(line)
    except ValueError as error:
        raise ConversationError(f"the parsing child said what it cannot mean: {error!s:.200}") from None
    if isinstance(message, dict):
        return message
    meant = message.meant()
    if isinstance(meant, Question) and len(line) > _MAX_QUESTION_LENGTH:
        raise ConversationError(f"the parsing child asks with {len(line)} bytes")
    return meant


def _decoded(line: bytes) -> _Message | dict[str, Any]:
    if sum(map(line.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise ValueError(f"more than {_MAX_VALUES} values")
    message = from_json(line)
    if not isinstance(message, dict):
        raise ValueError("no JSON object")
    for key, shape in _BY_KEY.items():
        if key in message:
            try:
                # By Python's rules a list is no tuple.
                return shape.model_validate_json(line)
            except ValidationError as error:
                raise ValueError(f"a malformed {key!r}: {error.errors(include_url=False)[0]['msg']}") from None
    return message


def _range(asked: tuple[str, int, int]) -> tuple[str, int, int]:
    _, begin, end = asked
    if not begin < end:
        raise ConversationError(f"the parsing child asks for the bytes {begin} to {end}")
    return asked
