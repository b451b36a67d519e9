"""A model's bytes without parts of it: what is left out is never read, what is kept stays as it was written."""

from collections.abc import Callable, Container, Mapping

from onnx_operator.model.reading.numbers import (
    AttributeField,
    FunctionField,
    GraphField,
    ModelField,
    NodeField,
    SparseTensorField,
)
from onnx_operator.model.reading.window import Window
from onnx_operator.model.reading.wire import BYTES, WireError, fields, head

DESCENT: Mapping[str, Mapping[int, str]] = {
    "Model": {ModelField.GRAPH: "Graph", ModelField.FUNCTIONS: "Function"},
    "Graph": {
        GraphField.NODE: "Node",
        GraphField.INITIALIZER: "Tensor",
        GraphField.SPARSE_INITIALIZER: "SparseTensor",
    },
    "Function": {FunctionField.NODE: "Node", FunctionField.ATTRIBUTE_PROTO: "Attribute"},
    "Node": {NodeField.ATTRIBUTE: "Attribute"},
    "Attribute": {
        AttributeField.T: "Tensor",
        AttributeField.G: "Graph",
        AttributeField.TENSORS: "Tensor",
        AttributeField.GRAPHS: "Graph",
        AttributeField.SPARSE_TENSOR: "SparseTensor",
        AttributeField.SPARSE_TENSORS: "SparseTensor",
    },
    "SparseTensor": {SparseTensorField.VALUES: "Tensor", SparseTensorField.INDICES: "Tensor"},
}
"""The messages in which large tensors can be, by message and field."""
_MAX_DEPTH = 100
"""Messages within messages, which is as many as protobuf itself reads."""

Gone = Callable[[str, int, int], Container[int] | None]
"""Which fields of a message of this kind, between two offsets, are left out; None keeps the message as it is."""


def rewritten(file: Window, gone: Gone) -> bytes:
    """The serialized model without what is gone. Raises :class:`WireError`."""
    return _rewritten(file, 0, file.size, "Model", gone, 0)


def _rewritten(file: Window, begin: int, end: int, kind: str, gone: Gone, depth: int) -> bytes:
    left_out = gone(kind, begin, end)
    if left_out is None:
        return file.slice(begin, end)
    if depth > _MAX_DEPTH:
        raise WireError("its messages are nested too deeply", begin)
    descent = DESCENT.get(kind, {})
    out = bytearray()
    for each in fields(file, begin, end):
        if each.number in left_out:
            continue
        child = descent.get(each.number) if each.wire_type == BYTES else None
        if child is None:
            file.append_to(out, each.start, each.end)
        else:
            inner = _rewritten(file, each.begin, each.end, child, gone, depth + 1)
            out += head(each.number, len(inner))
            out += inner
    return bytes(out)
