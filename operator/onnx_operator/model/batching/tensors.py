"""The values of small tensors, without the onnx package."""

import math
from typing import Any

import numpy as np

from onnx_operator.model.batching.graph_pb2 import Tensor
from onnx_operator.model.batching.sizes import Size
from onnx_operator.model.batching.values import BOOL, INT32, INT64, MOST_DIMENSIONS, MOST_ELEMENTS, Elements, Value

_EXTERNAL = 1
FLOAT, FLOAT16, DOUBLE, BFLOAT16 = 1, 10, 11, 16
INTEGERS = frozenset({2, 3, 4, 5, INT32, INT64, 12, 13})
"""TensorProto.DataType of whole numbers of 8 to 64 bits."""
FLOATS = frozenset({FLOAT, FLOAT16, DOUBLE, BFLOAT16})
HALVES = frozenset({FLOAT16, BFLOAT16})
_DTYPES: dict[int, tuple[str, str]] = {
    FLOAT: ("<f4", "float_data"),
    2: ("<u1", "int32_data"),
    3: ("<i1", "int32_data"),
    4: ("<u2", "int32_data"),
    5: ("<i2", "int32_data"),
    INT32: ("<i4", "int32_data"),
    INT64: ("<i8", "int64_data"),
    BOOL: ("?", "int32_data"),
    DOUBLE: ("<f8", "double_data"),
    12: ("<u4", "uint64_data"),
    13: ("<u8", "uint64_data"),
}


def constant(tensor: Tensor) -> Value:
    """A stored tensor, with its values where they are there and few."""
    dims = list(tensor.dims)
    if len(dims) > MOST_DIMENSIONS or any(size < 0 for size in dims):
        return Value(kind=tensor.data_type)
    shape = tuple(Size(size) for size in dims)
    array = _array(tensor, dims)
    return Value(shape, data=array, elements=_elements(array), kind=tensor.data_type)


def from_array(array: Any) -> Value:
    """A constant that was made of attributes: whole numbers of 64 bits, or real ones of 32."""
    kind = INT64 if array.dtype == np.int64 else FLOAT
    return Value(tuple(Size(size) for size in array.shape), data=array, elements=_elements(array), kind=kind)


def _array(tensor: Tensor, dims: list[int]) -> Any:
    count = math.prod(dims)
    if count > MOST_ELEMENTS or tensor.data_location == _EXTERNAL or tensor.external_data:
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
