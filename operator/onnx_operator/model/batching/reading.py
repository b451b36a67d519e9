"""The structure of a model file for the proof: values of large tensors are never read, whatever the file's size."""

from collections.abc import Mapping
from pathlib import Path

from google.protobuf.message import DecodeError

from onnx_operator.model.batching.graph_pb2 import Model
from onnx_operator.model.reading.numbers import TENSOR_VALUES, AttributeField, GraphField, ModelField, NodeField
from onnx_operator.model.reading.rewriting import rewritten
from onnx_operator.model.reading.window import Memory, mapped
from onnx_operator.model.reading.wire import WireError

KEEP_BYTES = 4096
"""Tensors up to this size keep their values."""
MAX_STRUCTURE_BYTES = 64 << 20
"""Of a structure; larger ones are not proven."""
_GONE: Mapping[str, frozenset[int]] = {
    "Model": frozenset(
        {ModelField.DOC_STRING, ModelField.METADATA_PROPS, ModelField.TRAINING_INFO, ModelField.CONFIGURATION}
    ),
    "Graph": frozenset(
        {
            GraphField.DOC_STRING,
            GraphField.VALUE_INFO,
            GraphField.QUANTIZATION_ANNOTATION,
            GraphField.METADATA_PROPS,
        }
    ),
    "Node": frozenset({NodeField.DOC_STRING, NodeField.METADATA_PROPS, NodeField.DEVICE_CONFIGURATIONS}),
    "Tensor": TENSOR_VALUES,
    "Attribute": frozenset({AttributeField.FLOATS, AttributeField.STRINGS}),
}
"""Left out of messages that are larger than ``KEEP_BYTES``: documentation, numbers of trees, values."""


class UnreadableError(Exception):
    """The file is no model, or its structure is too large; the text says which."""


def read_model(path: Path) -> Model:
    """Parse the model at ``path``. Raises :class:`UnreadableError`."""
    try:
        with mapped(path) as file:
            return _parsed(file)
    except (OSError, ValueError) as error:
        raise UnreadableError(f"its structure cannot be read: {error}") from None


def parse_skeleton(content: bytes) -> Model:
    """Parse a model in memory whose large tensors lack their values. Raises :class:`UnreadableError`."""
    return _parsed(Memory(content))


def _parsed(file: Memory) -> Model:
    try:
        structure = rewritten(file, _gone)
        if len(structure) <= MAX_STRUCTURE_BYTES:
            return Model.FromString(structure)
    except (DecodeError, WireError) as error:
        raise UnreadableError(f"its structure cannot be read: {error}") from None
    raise UnreadableError(
        f"its structure has {len(structure)} bytes, of which at most {MAX_STRUCTURE_BYTES} are looked at"
    )


def _gone(kind: str, begin: int, end: int) -> frozenset[int] | None:
    return None if end - begin <= KEEP_BYTES else _GONE.get(kind, frozenset())
