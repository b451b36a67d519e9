"""Tensors as raw bytes, as the protocol's binary extension and gRPC's raw contents have them. Pure functions.

Little-endian, row-major, without padding; BOOL is a byte of 0 or 1; BF16 and floats of 8 bits are carried as
their bits in unsigned integers; a BYTES element is its length in four bytes, then as many bytes of UTF-8.
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import math
import struct
from typing import Any

import numpy as np

from onnx_operator.server.dataplane.tensors import BITS, DTYPES, Array
from onnx_operator.server.errors import RequestError

Buffer = bytes | memoryview

RAW_DTYPES: dict[str, np.dtype[Any]] = {
    **{name: dtype.newbyteorder("<") for name, dtype in DTYPES.items() if name != "BYTES"},
    **{name: dtype.newbyteorder("<") for name, dtype in BITS.items()},
}
"""The datatypes whose elements all take the same number of bytes."""

_LENGTH = struct.Struct("<I")
_ALIGNMENT = 16
"""Bytes; what numpy's own arrays have."""
_SMALL = 64 * 1024


def decode_raw(buffer: Buffer, datatype: str, shape: tuple[int, ...], label: str) -> Array:
    """Build the array of ``shape`` from exactly ``buffer``; it may share the buffer's memory.

    ``label`` names the tensor in errors. Raises :class:`RequestError`.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        return _shaped(_decode_strings(buffer, count, label), shape, label)
    dtype = RAW_DTYPES[datatype]
    if len(buffer) != count * dtype.itemsize:
        raise RequestError(
            f"{label}: {datatype} of shape {list(shape)} takes {count * dtype.itemsize} bytes, got {len(buffer)}"
        )
    array = np.frombuffer(buffer, dtype)
    if datatype == "BOOL" and count and (bits := array.view(np.uint8)).max() > 1:
        index = int(np.flatnonzero(bits > 1)[0])
        raise RequestError(f"{label}: element {index} is the byte {bits[index]}, expected 0 or 1 (BOOL)")
    # Where memory lies otherwise, ONNX Runtime adds up in another order: the last bit of an answer must not depend on
    # the length of what precedes the tensor. Copying a small one costs less than looking at its address.
    if array.nbytes <= _SMALL or array.ctypes.data % _ALIGNMENT:
        array = array.copy()
    return _shaped(array, shape, label)


def encode_raw(array: Array, datatype: str) -> bytes:
    """The elements in row-major order as bytes. Raises :class:`RequestError` (500) for a string that is none."""
    if datatype != "BYTES":
        return array.astype(RAW_DTYPES[datatype], copy=False).tobytes()
    parts: list[bytes] = []
    for element in array.reshape(-1).tolist():
        encoded = element if isinstance(element, bytes) else str(element).encode("utf-8", "surrogateescape")
        parts += (_LENGTH.pack(len(encoded)), encoded)
    return b"".join(parts)


def _shaped(array: Array, shape: tuple[int, ...], label: str) -> Array:
    try:
        return array.reshape(shape)
    except (ValueError, OverflowError):
        raise RequestError(f"{label}: shape {str(list(shape))[:200]} is beyond what an array can have") from None


def _decode_strings(buffer: Buffer, count: int, label: str) -> Array:
    # Each takes four bytes at least: what a shape promises is not believed before it is allocated.
    if len(buffer) < 4 * count:
        raise RequestError(f"{label}: {count} elements of BYTES take at least {4 * count} bytes, got {len(buffer)}")
    array = np.empty(count, dtype=np.object_)
    view, at = memoryview(buffer), 0
    for index in range(count):
        if at + 4 > len(view):
            raise RequestError(f"{label}: the data ends before the length of element {index} (BYTES)")
        (length,) = _LENGTH.unpack_from(view, at)
        at += 4
        if at + length > len(view):
            raise RequestError(
                f"{label}: element {index} should have {length} bytes, but only {len(view) - at} are left (BYTES)"
            )
        try:
            array[index] = str(view[at : at + length], "utf-8")
        except UnicodeDecodeError:
            raise RequestError(f"{label}: element {index} is not UTF-8, which ONNX's strings are") from None
        at += length
    if at != len(view):
        raise RequestError(f"{label}: {len(view) - at} bytes are left after the last of {count} elements (BYTES)")
    return array
