"""A model file without its weights, for looking at its graph.

Works on the protobuf wire format: what is left out is never read, whatever the size of the file, and what is kept
stays as it was, unknown fields included.
"""

import functools
from collections import Counter
from collections.abc import Container
from pathlib import Path

from onnx_operator.model.elements import Element
from onnx_operator.model.reading.numbers import TENSOR_VALUES, AttributeField, ModelField, TensorField
from onnx_operator.model.reading.rewriting import rewritten
from onnx_operator.model.reading.window import Memory, mapped
from onnx_operator.model.reading.wire import WireError, fields
from onnx_operator.server.errors import RequestError

MAX_KEPT = 1024
"""Bytes of sizes, axes and texts that stay: they are structure."""
FEW_FLOATS = 16
"""Bytes of an attribute's floats that stay: scales and the like."""
MAX_SHOWN_BYTES = 32 << 20
"""Of a structure that is sent to a browser."""
_MAX_ATTRIBUTE_BYTES = (
    (AttributeField.S, MAX_KEPT),
    (AttributeField.FLOATS, FEW_FLOATS),
    (AttributeField.INTS, MAX_KEPT),
    (AttributeField.STRINGS, MAX_KEPT),
)
"""Bytes that stay of an attribute's text, floats, whole numbers and texts; compiled parts of a model are texts too."""


def structure(path: Path) -> bytes:
    """The model at ``path`` without the elements of its weights, be they tensors or attributes.

    Raises :class:`RequestError` where the file is no model, or the graph alone takes more than ``MAX_SHOWN_BYTES``.
    """
    try:
        with mapped(path) as file:
            found = rewritten(file, functools.partial(_gone, file))
    except (OSError, ValueError, WireError) as error:
        raise RequestError(f"the graph cannot be shown: {error}", 404) from None
    if len(found) > MAX_SHOWN_BYTES:
        raise RequestError(
            f"the graph cannot be shown: without weights it takes {len(found)} bytes; expected at most "
            f"{MAX_SHOWN_BYTES}",
            404,
        )
    return found


def _gone(file: Memory, kind: str, begin: int, end: int) -> Container[int] | None:
    if kind == "Tensor":
        small = end - begin <= MAX_KEPT
        types = (
            [each.value for each in fields(file, begin, end) if each.number == TensorField.DATA_TYPE] if small else []
        )
        return None if types[-1:] == [Element.INT64] else TENSOR_VALUES
    if kind == "Attribute":
        sizes = Counter[int]()
        for each in fields(file, begin, end):
            sizes[each.number] += each.end - each.begin
        return {number for number, most in _MAX_ATTRIBUTE_BYTES if sizes[number] > most}
    # Graphs with weights of their own.
    return {ModelField.TRAINING_INFO} if kind == "Model" else ()
