"""Reading ``TensorProto`` files, such as those of test data, without the onnx package.

Field numbers and the fields that hold each type's elements are those of onnx.proto
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_operator.model.reading.window import MemoryBytes, Window
from onnx_operator.model.reading.wire import BYTES, FIXED32, FIXED64, VARINT, Field, WireError, fields, varints
from onnx_operator.server.dataplane.tensors import DTYPES

_DIMS, _DATA_TYPE, _SEGMENT, _FLOATS, _INT32S, _STRINGS, _INT64S, _NAME, _RAW, _DOUBLES, _UINT64S = range(1, 12)
_EXTERNAL, _LOCATION = 13, 14

_FLOAT, _STRING, _DOUBLE = 1, 8, 11
_DATATYPES = {
    1: "FP32",
    2: "UINT8",
    3: "INT8",
    4: "UINT16",
    5: "INT16",
    6: "INT32",
    7: "INT64",
    8: "BYTES",
    9: "BOOL",
    10: "FP16",
    11: "FP64",
    12: "UINT32",
    13: "UINT64",
    16: "BF16",
}
_OTHER_TYPES = {
    0: "UNDEFINED",
    14: "COMPLEX64",
    15: "COMPLEX128",
    17: "FLOAT8E4M3FN",
    18: "FLOAT8E4M3FNUZ",
    19: "FLOAT8E5M2",
    20: "FLOAT8E5M2FNUZ",
    21: "UINT4",
    22: "INT4",
    23: "FLOAT4E2M1",
    24: "FLOAT8E8M0",
    25: "UINT2",
    26: "INT2",
}
_NUMBERS_OF = {
    **dict.fromkeys((2, 3, 4, 5, 6, 9, 10, 16), _INT32S),
    7: _INT64S,
    **dict.fromkeys((12, 13), _UINT64S),
    _FLOAT: _FLOATS,
    _DOUBLE: _DOUBLES,
}
"""The field that holds a type's elements where ``raw_data`` does not."""
_MOST_DIMENSIONS = 64
"""numpy's; no operator takes more."""


class TensorError(Exception):
    """The bytes are no tensor that can be compared; the text says what is wrong with them."""


@dataclass(frozen=True)
class Tensor:
    """A named value; ``datatype`` as the Open Inference Protocol calls it, BF16 as bits in ``uint16``."""

    name: str
    datatype: str
    array: Any


def parse_tensor(data: bytes) -> Tensor:
    """Parse a serialized ``TensorProto``. Raises :class:`TensorError`."""
    try:
        return _Reader(data).tensor()
    except WireError as error:
        raise TensorError(f"it is no TensorProto: {error} (byte {error.offset})") from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._window = Window(MemoryBytes(data), len(data))
        self._size = len(data)

    def tensor(self) -> Tensor:
        found: dict[int, list[Field]] = {}
        for each in fields(self._window, 0, self._size):
            found.setdefault(each.number, []).append(each)
        data_type = self._last(found, _DATA_TYPE)
        datatype = _DATATYPES.get(data_type)
        if datatype is None:
            name = _OTHER_TYPES.get(data_type, str(data_type))
            raise TensorError(f"its elements are {name}, which cannot be compared; expected one of {_known()}")
        if _EXTERNAL in found or self._last(found, _LOCATION):
            raise TensorError("its elements are in another file (external data); store them in the tensor")
        if _SEGMENT in found:
            raise TensorError("it is a segment of a larger tensor; store it whole")
        shape = tuple(_signed(size) for size in self._varints(found.get(_DIMS, ())))
        if len(shape) > _MOST_DIMENSIONS or any(size < 0 for size in shape):
            raise TensorError(f"its dimensions are {list(shape)[:8]}, which is no shape")
        flat = self._strings(found) if data_type == _STRING else self._numbers(found, data_type, datatype)
        if flat.size != math.prod(shape):
            raise TensorError(f"it holds {flat.size} elements, its shape {list(shape)} needs {math.prod(shape)}")
        return Tensor(self._name(found), datatype, flat.reshape(shape))

    def _content(self, each: Field) -> bytes:
        if each.wire_type != BYTES:
            raise WireError(f"field {each.number} has the wire type {each.wire_type}", each.start)
        return self._window.slice(each.begin, each.end)

    def _name(self, found: dict[int, list[Field]]) -> str:
        names = found.get(_NAME)
        return self._content(names[-1]).decode(errors="replace") if names else ""

    def _last(self, found: dict[int, list[Field]], number: int) -> int:
        values = found.get(number)
        if not values:
            return 0
        if values[-1].wire_type != VARINT:
            raise WireError(f"field {number} has the wire type {values[-1].wire_type}", values[-1].start)
        return values[-1].value

    def _varints(self, found: Any) -> list[int]:
        """All numbers of a repeated field, packed or not."""
        values: list[int] = []
        for each in found:
            if each.wire_type == VARINT:
                values.append(each.value)
            else:
                content = self._content(each)
                try:
                    values += varints(content)
                except WireError as error:
                    raise WireError(str(error), each.begin + error.offset) from None
        return values

    def _fixed(self, found: Any, wire_type: int, dtype: str) -> Any:
        parts = [
            self._window.slice(each.begin, each.end) if each.wire_type == wire_type else self._content(each)
            for each in found
        ]
        return _from_bytes(b"".join(parts), np.dtype(dtype))

    def _numbers(self, found: dict[int, list[Field]], data_type: int, datatype: str) -> Any:
        dtype = np.dtype(np.uint16) if datatype == "BF16" else DTYPES[datatype]
        if raw := found.get(_RAW):
            flat = _from_bytes(self._content(raw[-1]), dtype.newbyteorder("<"))
            if datatype == "BOOL":
                return _from_bytes(self._content(raw[-1]), np.dtype(np.uint8)) != 0
            return flat.astype(dtype)
        stored = found.get(_NUMBERS_OF[data_type], ())
        if data_type == _FLOAT:
            return self._fixed(stored, FIXED32, "<f4").astype(dtype)
        if data_type == _DOUBLE:
            return self._fixed(stored, FIXED64, "<f8").astype(dtype)
        numbers = np.array(self._varints(stored), np.uint64)
        if datatype == "BOOL":
            return numbers != 0
        if datatype == "FP16":
            # Half precision is stored as its bits.
            return numbers.astype(np.uint16).view(dtype)
        return numbers.astype(dtype)

    def _strings(self, found: dict[int, list[Field]]) -> Any:
        contents = [self._content(each) for each in found.get(_STRINGS, ())]
        flat = np.empty(len(contents), np.object_)
        try:
            flat[:] = [content.decode() for content in contents]
        except UnicodeDecodeError:
            raise TensorError("it holds a string that is not UTF-8") from None
        return flat


def _from_bytes(content: bytes, dtype: np.dtype[Any]) -> Any:
    if len(content) % dtype.itemsize:
        raise TensorError(f"it holds {len(content)} bytes, no whole number of elements of {dtype.itemsize}")
    return np.frombuffer(content, dtype)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _known() -> str:
    return ", ".join(_DATATYPES.values())
