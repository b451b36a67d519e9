"""Reading the protobuf wire format without parsing it: fields and their extents, one level at a time.

Weights are most of a model's bytes and nothing here needs them: walking over the extents finds where a file was
cut and lets large tensors be left out before the real parser sees anything
(https://protobuf.dev/programming-guides/encoding/).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from onnx_operator.model.reading.window import Window

VARINT, FIXED64, BYTES, GROUP_START, GROUP_END, FIXED32 = range(6)
_MAX_HEAD_LENGTH = 20
"""Bytes of a tag and a length, each a varint of at most ten."""
RUN = 0
"""No field's number: of several that follow each other."""


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


def run_of(*parts: bytes, most: int | None = None) -> re.Pattern[bytes]:
    """A pattern for :func:`fields`: whole fields that follow each other, at most so many, like one of the ``parts``."""
    # Possessive: what matched is never gone through again, nor remembered.
    times = b"++" if most is None else b"{1,%d}+" % most
    return re.compile(b"|".join(b"(?:" + part + b")" + times for part in parts), re.DOTALL)


def whole_numbers(number: int) -> bytes:
    """The pattern of a field whose value is a varint."""
    return re.escape(encode_varint(number << 3 | VARINT)) + rb"[\x80-\xff]{0,9}[\x00-\x7f]"


def fixed_numbers(number: int) -> bytes:
    """The pattern of a field whose value is of four bytes."""
    return re.escape(encode_varint(number << 3 | FIXED32)) + b".{4}"


def short_texts(number: int) -> bytes:
    """The pattern of a field whose value is of at most 127 bytes."""
    lengths = b"|".join(re.escape(bytes([size])) + b".{%d}" % size for size in range(0x80))
    return re.escape(encode_varint(number << 3 | BYTES)) + b"(?:" + lengths + b")"


def fields(window: Window, begin: int, end: int, run: re.Pattern[bytes] | None = None) -> Iterator[Field]:
    """Iterate over the fields of the message between two offsets. Raises :class:`WireError`.

    Those that match ``run`` come many at a time, as one field with the number :data:`RUN`: a tree ensemble has tens of
    millions.
    """
    # Hundreds of thousands come this way: the builtin min and the constructor in Python would double its time.
    around, new = window.around, tuple.__new__
    at = begin
    while at < end:
        left = end - at
        buffer, first = around(at, left if left < _MAX_HEAD_LENGTH else _MAX_HEAD_LENGTH)
        limit = len(buffer)
        if limit > end - first:
            limit = end - first
        start = at
        position = at - first
        if run is not None and (matched := run.match(buffer, position, limit)):
            at = first + matched.end()
            yield Field(RUN, BYTES, start, start, at, 0)
            continue
        # Nearly all tags are one byte; this saves a call for each.
        tag = buffer[position]
        if tag < 0x80:
            position += 1
        else:
            tag, position = varint(buffer, position, limit, first)
        number, wire_type = tag >> 3, tag & 7
        if number == 0 or number > 0x1FFFFFFF:
            raise WireError(f"there is no field {number}", start)
        value = 0
        if wire_type == BYTES:
            size, position = varint(buffer, position, limit, first)
            content = first + position
            at = content + size
        else:
            content = first + position
            if wire_type == VARINT:
                value, position = varint(buffer, position, limit, first)
                at = first + position
            elif wire_type == FIXED64:
                at = content + 8
            elif wire_type == FIXED32:
                at = content + 4
            else:
                raise WireError(f"field {number} has the wire type {wire_type}", start)
        if at > end:
            raise WireError(f"field {number} ends {at - end} bytes after the end", start)
        yield new(Field, (number, wire_type, start, content, at, value))


def varints(data: bytes) -> list[int]:
    """Decode packed numbers. Raises :class:`WireError` with an offset within ``data``."""
    values = []
    at = 0
    while at < len(data):
        value, at = varint(data, at, len(data), 0)
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


def varint(data: bytes, at: int, limit: int, first: int) -> tuple[int, int]:
    """Decode the number at ``at``, before ``limit``; returns it and where it ends.

    Raises :class:`WireError`, whose offset counts from ``first``.
    """
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
