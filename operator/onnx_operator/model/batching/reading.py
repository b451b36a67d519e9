"""The structure of a model file for the proof: values of large tensors are never read, whatever the file's size."""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError

from onnx_operator.model.batching.graph_pb2 import Model
from onnx_operator.model.reading.wire import BYTES, FIXED32, FIXED64, VARINT, WireError, head

KEEP_BYTES = 4096
"""Tensors up to this size keep their values."""
MOST_BYTES = 64 << 20
"""Of a structure; larger ones are not proven."""
_DATA = frozenset({4, 5, 6, 7, 9, 10, 11})
"""Fields of TensorProto that hold elements."""
_DEEPEST = 60
# Where large tensors can be, by message and field number (onnx.proto), and what nobody needs.
_DESCENT: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
}
_GONE: Mapping[str, frozenset[int]] = {
    "Model": frozenset({6, 14, 20, 26}),
    "Graph": frozenset({10, 13, 14, 16}),
    "Node": frozenset({6, 9, 10}),
    "Tensor": _DATA,
    "Attribute": frozenset({7, 9}),
}
"""Left out of messages that are larger than ``KEEP_BYTES``: documentation, numbers of trees, values."""


class UnreadableError(Exception):
    """The file is no model, or its structure is too large; the text says which."""


class _Part(NamedTuple):
    number: int
    kind: int
    start: int
    begin: int
    end: int


def read_model(path: Path) -> Model:
    """Parse the model at ``path``. Raises :class:`UnreadableError`."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                structure = _without_values(view, "Model", 0)
            finally:
                view.release()
    except (OSError, ValueError, WireError, IndexError) as error:
        raise UnreadableError(f"its structure cannot be read: {error}") from None
    return _parsed(structure)


def parse_skeleton(content: bytes) -> Model:
    """Parse a model in memory whose large tensors lack their values. Raises :class:`UnreadableError`."""
    try:
        return _parsed(_without_values(memoryview(content), "Model", 0))
    except (WireError, IndexError) as error:
        raise UnreadableError(f"its structure cannot be read: {error}") from None


def _parsed(structure: bytes) -> Model:
    if len(structure) > MOST_BYTES:
        raise UnreadableError(f"its structure has {len(structure)} bytes, of which at most {MOST_BYTES} are looked at")
    try:
        return Model.FromString(structure)
    except DecodeError as error:
        raise UnreadableError(f"its structure cannot be read: {error}") from None


def _without_values(message: memoryview, kind: str, depth: int) -> bytes:
    if depth > _DEEPEST:
        raise WireError("its messages are nested too deeply", 0)
    descent, gone = _DESCENT.get(kind, {}), _GONE.get(kind, frozenset())
    parts: list[bytes] = []
    for part in _parts(message):
        if part.number in gone:
            continue
        child = descent.get(part.number) if part.kind == BYTES else None
        if child is None or part.end - part.begin <= KEEP_BYTES:
            parts.append(bytes(message[part.start : part.end]))
        else:
            with message[part.begin : part.end] as content:
                inner = _without_values(content, child, depth + 1)
            parts += (head(part.number, len(inner)), inner)
    return b"".join(parts)


def _parts(message: memoryview) -> Iterator[_Part]:
    at, end = 0, len(message)
    while at < end:
        start = at
        tag, at = _varint(message, at)
        begin, kind = at, tag & 7
        if kind == BYTES:
            size, begin = _varint(message, at)
            at = begin + size
        elif kind == VARINT:
            _, at = _varint(message, at)
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        else:
            raise WireError(f"a field has the wire type {kind}", start)
        if at > end:
            raise WireError("a field ends after the end", start)
        yield _Part(tag >> 3, kind, start, begin, at)


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
