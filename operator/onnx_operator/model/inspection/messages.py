"""What a parsing child may say: one line of JSON a message, each of a known shape.

A child may be taken over by what it parses, so nothing it says is taken for granted.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

_LONGEST_NAME = 4096
_LARGEST_OFFSET = 1 << 62
_MOST_VALUES = 200_000
"""In one message. Objects take many times the bytes of their JSON."""
_Name = Annotated[str, Field(max_length=_LONGEST_NAME)]
_Offset = Annotated[int, Field(ge=0, le=_LARGEST_OFFSET)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Size(_Message):
    size: _Name


class _Read(_Message):
    read: tuple[_Name, _Offset, _Offset]


class _Expect(_Message):
    expect: tuple[_Name, _Offset, _Offset]


class _Turn(_Message):
    turn: bool


class _Trying(_Message):
    trying: bool


class _End(_Message):
    """Comes from the process that forks."""

    status: Annotated[int, Field(ge=0, le=0xFFFF)]
    forbidden: int | None = None
    taken: _Offset = 0


_BY_KEY: dict[str, type[_Message]] = {
    "size": _Size,
    "read": _Read,
    "expect": _Expect,
    "turn": _Turn,
    "trying": _Trying,
    "status": _End,
}


def decode(line: bytes) -> dict[str, Any]:
    """A message: a question or an end in exactly its shape, or any other object, which is the child's last word.

    Raises ValueError.
    """
    if sum(map(line.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise ValueError(f"more than {_MOST_VALUES} values")
    message = from_json(line)
    if not isinstance(message, dict):
        raise ValueError("no JSON object")
    for key, shape in _BY_KEY.items():
        if key in message:
            try:
                # By Python's rules a list is no tuple.
                shape.model_validate_json(line)
            except ValidationError as error:
                raise ValueError(f"a malformed {key!r}: {error.errors(include_url=False)[0]['msg']}") from None
            break
    return message
