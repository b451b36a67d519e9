"""The values of small tensors, without the onnx package."""

import math
from typing import Any

import numpy as np

from onnx_operator.model.batching.graph_pb2 import Tensor
from onnx_operator.model.batching.sizes import Size
from onnx_operator.model.batching.values import MAX_FOLLOWED_DIMENSIONS, MAX_FOLLOWED_ELEMENTS, Elements, Value
from onnx_operator.model.elements import Element

_EXTERNAL = 1
HALVES = frozenset({Element.FLOAT16, Element.BFLOAT16})
FLOATS = HALVES | {Element.FLOAT, Element.DOUBLE}
_DTYPES: dict[int, tuple[str, str]] = {
    Element.FLOAT: ("<f4", "float_data"),
    Element.UINT8: ("<u1", "int32_data"),
    Element.INT8: ("<i1", "int32_data"),
    Element.UINT16: ("<u2", "int32_data"),
    Element.INT16: ("<i2", "int32_data"),
    Element.INT32: ("<i4", "int32_data"),
    Element.INT64: ("<i8", "int64_data"),
    Element.BOOL: ("?", "int32_data"),
    Element.DOUBLE: ("<f8", "double_data"),
    Element.UINT32: ("<u4", "uint64_data"),
    Element.UINT64: ("<u8", "uint64_data"),
}


def constant(tensor: Tensor) -> Value:
    """A stored tensor, with its values where they are there and few."""
    dims = list(tensor.dims)
    if len(dims) > MAX_FOLLOWED_DIMENSIONS or any(size < 0 for size in dims):
        return Value(kind=tensor.data_type)
    shape = tuple(Size(size) for size in dims)
    array = _array(tensor, dims)
    return Value(shape, data=array, elements=_elements(array), kind=tensor.data_type)


def from_array(array: Any) -> Value:
    """A constant that was made of attributes: whole numbers of 64 bits, or real ones of 32."""
    kind = Element.INT64 if array.dtype == np.int64 else Element.FLOAT
    return Value(tuple(Size(size) for size in array.shape), data=array, elements=_elements(array), kind=kind)


def _array(tensor: Tensor, dims: list[int]) -> Any:
    count = math.prod(dims)
    if count > MAX_FOLLOWED_ELEMENTS or tensor.data_location == _EXTERNAL or tensor.external_data:
        return None
    kind = _DTYPES.get(tensor.data_type)
    if kind is None:
        return None
    dtype, field = kind
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != count * np.dtype(dtype).itemsize:
            return None
        return np.frombuffer(tensor.raw_data, dtype).reshape(dims)
    values = getattr(tensor, field)
    return np.array(values).astype(dtype).reshape(dims) if len(values) == count else None


def _elements(array: Any) -> Elements | None:
    # Narrower ones wrap where numbers here do not.
    if array is None or array.dtype not in (np.int32, np.int64, np.bool_):
        return None
    return tuple(Size(int(value)) for value in array.reshape(-1))
