"""A model file without its weights, for looking at its graph.

Works on the protobuf wire format: what is left out is never read, whatever the size of the file, and what is kept
stays as it was, unknown fields included. Field numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

import mmap
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from onnx_operator.model.reading.wire import BYTES, WireError, head
from onnx_operator.server.errors import RequestError

LARGEST_KEPT = 1024
"""Bytes of sizes, axes and texts that stay: they are structure."""
FEW_FLOATS = 16
"""Bytes of an attribute's floats that stay: scales and the like."""
MOST_BYTES = 32 << 20
_DATA = frozenset({4, 5, 6, 7, 9, 10, 11})
"""Fields of TensorProto that hold elements."""
_INT64 = 7
"""TensorProto.DataType of sizes and axes; quantised weights are of smaller types."""

_MOST_OF_ATTRIBUTE = ((4, LARGEST_KEPT), (7, FEW_FLOATS), (8, LARGEST_KEPT), (9, LARGEST_KEPT))
"""Bytes that stay of an attribute's text, floats, whole numbers and texts; compiled parts of a model are texts too."""
_TRAINING = 20
"""ModelProto.training_info, graphs with weights of their own."""

Rewrite = Callable[[memoryview], bytes]


class _Field(NamedTuple):
    number: int
    kind: int
    start: int
    begin: int
    end: int


def structure(path: Path) -> bytes:
    """The model at ``path`` without the elements of its weights, be they tensors or attributes.

    Raises :class:`RequestError` where the file is no model, or the graph alone takes more than ``MOST_BYTES``.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                found = _model(view)
            finally:
                view.release()
    except (OSError, ValueError, WireError, IndexError, RecursionError) as error:
        raise RequestError(f"the graph cannot be shown: {error}", 404) from None
    if len(found) > MOST_BYTES:
        raise RequestError(
            f"the graph cannot be shown: without weights it takes {len(found)} bytes, {MOST_BYTES} are possible", 404
        )
    return found


def _fields(message: memoryview) -> Iterator[_Field]:
    at, end = 0, len(message)
    while at < end:
        start = at
        tag, at = _varint(message, at)
        begin = at
        if tag & 7 == BYTES:
            size, begin = _varint(message, at)
            at = begin + size
        elif tag & 7 == 0:
            _, at = _varint(message, at)
        elif tag & 7 in (1, 5):
            at += 8 if tag & 7 == 1 else 4
        else:
            raise WireError(f"a field has the wire type {tag & 7}", start)
        if at > end:
            raise WireError("a field ends after the end", start)
        yield _Field(tag >> 3, tag & 7, start, begin, at)


def _rewrite(message: memoryview, inner: Mapping[int, Rewrite], gone: Container[int] = ()) -> bytes:
    """The message with some of its fields rewritten, and without those that are ``gone``."""
    parts: list[bytes] = []
    for field in _fields(message):
        if field.number in gone:
            continue
        rewrite = inner.get(field.number) if field.kind == BYTES else None
        if rewrite is None:
            parts.append(bytes(message[field.start : field.end]))
        else:
            with message[field.begin : field.end] as content:
                replaced = rewrite(content)
            parts += (head(field.number, len(replaced)), replaced)
    return b"".join(parts)


def _tensor(message: memoryview) -> bytes:
    kinds = [_varint(message, f.begin)[0] for f in _fields(message) if f.number == 2 and f.kind == 0]
    if len(message) <= LARGEST_KEPT and kinds and kinds[-1] == _INT64:
        return bytes(message)
    return _rewrite(message, {}, _DATA)


def _sparse(message: memoryview) -> bytes:
    return _rewrite(message, {1: _tensor, 2: _tensor})


def _attribute(message: memoryview) -> bytes:
    sizes = Counter[int]()
    for field in _fields(message):
        sizes[field.number] += field.end - field.begin
    gone = {number for number, most in _MOST_OF_ATTRIBUTE if sizes[number] > most}
    return _rewrite(message, {5: _tensor, 6: _graph, 10: _tensor, 11: _graph, 22: _sparse, 23: _sparse}, gone)


def _node(message: memoryview) -> bytes:
    return _rewrite(message, {5: _attribute})


def _graph(message: memoryview) -> bytes:
    return _rewrite(message, {1: _node, 5: _tensor, 15: _sparse})


def _function(message: memoryview) -> bytes:
    return _rewrite(message, {7: _node, 11: _attribute})


def _model(message: memoryview) -> bytes:
    return _rewrite(message, {7: _graph, 25: _function}, {_TRAINING})


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError("a number does not end", at)
