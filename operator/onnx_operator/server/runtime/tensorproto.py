"""Reading ``TensorProto`` files, such as those of test data, without the onnx package.

Which field holds each type's elements: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_operator.model.elements import NAMES, PROTOCOL_NAMES, Element
from onnx_operator.model.reading.numbers import TensorField
from onnx_operator.model.reading.window import Memory
from onnx_operator.model.reading.wire import BYTES, FIXED32, FIXED64, VARINT, Field, WireError, fields, varints
from onnx_operator.server.dataplane.inference import MAX_DIMENSIONS
from onnx_operator.server.dataplane.tensors import DTYPES

_NUMBERS_OF: dict[int, int] = {
    **dict.fromkeys(PROTOCOL_NAMES, TensorField.INT32_DATA),
    Element.INT64: TensorField.INT64_DATA,
    **dict.fromkeys((Element.UINT32, Element.UINT64), TensorField.UINT64_DATA),
    Element.FLOAT: TensorField.FLOAT_DATA,
    Element.DOUBLE: TensorField.DOUBLE_DATA,
}
"""The field that holds a type's elements where ``raw_data`` does not."""


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
        raise TensorError(f"it is not a TensorProto: {error} (byte {error.offset})") from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._window = Memory(data)

    def tensor(self) -> Tensor:
        found: dict[int, list[Field]] = {}
        for each in fields(self._window, 0, self._window.size):
            found.setdefault(each.number, []).append(each)
        data_type = self._last(found, TensorField.DATA_TYPE)
        datatype = PROTOCOL_NAMES.get(data_type)
        if datatype is None:
            name = NAMES[data_type] if data_type < len(NAMES) else str(data_type)
            raise TensorError(f"its elements are {name}, which cannot be compared; expected one of {_known()}")
        if TensorField.EXTERNAL_DATA in found or self._last(found, TensorField.DATA_LOCATION):
            raise TensorError("its elements are in another file (external data); store them in the tensor")
        if TensorField.SEGMENT in found:
            raise TensorError("it is a segment of a larger tensor; store it whole")
        shape = tuple(_signed(size) for size in self._varints(found.get(TensorField.DIMS, ())))
        if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
            raise TensorError(f"its dimensions are {list(shape)[:8]}, which is not a shape")
        flat = self._strings(found) if data_type == Element.STRING else self._numbers(found, data_type, datatype)
        if flat.size != math.prod(shape):
            raise TensorError(f"it holds {flat.size} elements, its shape {list(shape)} needs {math.prod(shape)}")
        return Tensor(self._name(found), datatype, flat.reshape(shape))

    def _content(self, each: Field) -> bytes:
        if each.wire_type != BYTES:
            raise WireError(f"field {each.number} has the wire type {each.wire_type}", each.start)
        return self._window.slice(each.begin, each.end)

    def _name(self, found: dict[int, list[Field]]) -> str:
        names = found.get(TensorField.NAME)
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
        if raw := found.get(TensorField.RAW_DATA):
            flat = _from_bytes(self._content(raw[-1]), dtype.newbyteorder("<"))
            if datatype == "BOOL":
                return _from_bytes(self._content(raw[-1]), np.dtype(np.uint8)) != 0
            return flat.astype(dtype)
        stored = found.get(_NUMBERS_OF[data_type], ())
        if data_type == Element.FLOAT:
            return self._fixed(stored, FIXED32, "<f4").astype(dtype)
        if data_type == Element.DOUBLE:
            return self._fixed(stored, FIXED64, "<f8").astype(dtype)
        numbers = np.array(self._varints(stored), np.uint64)
        if datatype == "BOOL":
            return numbers != 0
        if datatype == "FP16":
            # Half precision is stored as its bits.
            return numbers.astype(np.uint16).view(dtype)
        return numbers.astype(dtype)

    def _strings(self, found: dict[int, list[Field]]) -> Any:
        contents = [self._content(each) for each in found.get(TensorField.STRING_DATA, ())]
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
    return ", ".join(PROTOCOL_NAMES.values())
