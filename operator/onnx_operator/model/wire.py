"""Reading the protobuf wire format without parsing it: fields and their extents, one level at a time.

Weights are most of a model's bytes and nothing here needs them: walking over the extents finds where a file was
cut and lets large tensors be left out before the real parser sees anything.
"""

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, GROUP_START, GROUP_END, FIXED32 = range(6)


class WireError(Exception):
    """The bytes are no protobuf message, or not all of one; ``offset`` is where it shows."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class Field(NamedTuple):
    """One field of a message; offsets count from the beginning of the buffer."""

    number: int
    wire_type: int
    start: int
    """Where the tag begins."""
    begin: int
    """Where the content begins."""
    end: int
    """Where the next field begins."""
    value: int
    """The number of a varint, else 0."""


def fields(data: memoryview, begin: int, end: int) -> Iterator[Field]:
    """Iterate over the fields of the message between two offsets. Raises :class:`WireError`."""
    at = begin
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        number, wire_type = tag >> 3, tag & 7
        if number == 0 or number > 0x1FFFFFFF:
            raise WireError(f"there is no field {number}", start)
        content, value = at, 0
        if wire_type == VARINT:
            value, at = _varint(data, at, end)
        elif wire_type == BYTES:
            size, content = _varint(data, at, end)
            at = content + size
        elif wire_type == FIXED64:
            at += 8
        elif wire_type == FIXED32:
            at += 4
        else:
            raise WireError(f"field {number} has the wire type {wire_type}", start)
        if at > end:
            raise WireError(f"field {number} ends {at - end} bytes after the end", start)
        yield Field(number, wire_type, start, content, at, value)


def encode_varint(value: int) -> bytes:
    """Encode a number as protobuf does."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def message(number: int, content: bytes) -> bytes:
    """Encode a length-delimited field."""
    return encode_varint(number << 3 | BYTES) + encode_varint(len(content)) + content


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    start = at
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise WireError("a number does not end", start)
