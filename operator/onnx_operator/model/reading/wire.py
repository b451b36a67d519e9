"""Reading the protobuf wire format without parsing it: fields and their extents, one level at a time.

Weights are most of a model's bytes and nothing here needs them: walking over the extents finds where a file was
cut and lets large tensors be left out before the real parser sees anything
(https://protobuf.dev/programming-guides/encoding/).
"""

from collections.abc import Iterator
from typing import NamedTuple

from onnx_operator.model.reading.window import Window

VARINT, FIXED64, BYTES, GROUP_START, GROUP_END, FIXED32 = range(6)
_LONGEST_HEAD = 20
"""Bytes of a tag and a length, each a varint of at most ten."""


class WireError(Exception):
    """The bytes are no protobuf message, or not all of one; ``offset`` is where it shows."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class Field(NamedTuple):
    """One field of a message; offsets count from the beginning of the file."""

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


def fields(window: Window, begin: int, end: int) -> Iterator[Field]:
    """Iterate over the fields of the message between two offsets. Raises :class:`WireError`."""
    at = begin
    while at < end:
        buffer, first = window.around(at, min(_LONGEST_HEAD, end - at))
        limit = min(len(buffer), end - first)
        start = at
        position = at - first
        # Nearly all tags are one byte; this saves a call for each.
        tag = buffer[position]
        if tag < 0x80:
            position += 1
        else:
            tag, position = _varint(buffer, position, limit, first)
        number, wire_type = tag >> 3, tag & 7
        if number == 0 or number > 0x1FFFFFFF:
            raise WireError(f"there is no field {number}", start)
        value = 0
        if wire_type == BYTES:
            size, position = _varint(buffer, position, limit, first)
            content = first + position
            at = content + size
        else:
            content = first + position
            if wire_type == VARINT:
                value, position = _varint(buffer, position, limit, first)
                at = first + position
            elif wire_type == FIXED64:
                at = content + 8
            elif wire_type == FIXED32:
                at = content + 4
            else:
                raise WireError(f"field {number} has the wire type {wire_type}", start)
        if at > end:
            raise WireError(f"field {number} ends {at - end} bytes after the end", start)
        yield Field(number, wire_type, start, content, at, value)


def varints(data: bytes) -> list[int]:
    """Decode packed numbers. Raises :class:`WireError` with an offset within ``data``."""
    values = []
    at = 0
    while at < len(data):
        value, at = _varint(data, at, len(data), 0)
        values.append(value)
    return values


def encode_varint(value: int) -> bytes:
    """Encode a number as protobuf does."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def head(number: int, size: int) -> bytes:
    """Encode the tag and the length that precede ``size`` bytes of content."""
    return encode_varint(number << 3 | BYTES) + encode_varint(size)


def _varint(data: bytes, at: int, limit: int, first: int) -> tuple[int, int]:
    value = shift = 0
    start = at
    while at < limit and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise WireError("a number does not end", first + start)
