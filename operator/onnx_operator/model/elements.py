"""Element types of tensors: their numbers in files, their names, and how many bytes they take in memory.

Without the onnx package, which the scoring server has not.
"""

import functools
import math
import re


class Element:
    """TensorProto.DataType (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).

    No enumeration: to make one takes the server a millisecond of its start.
    """

    UNDEFINED = 0
    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    STRING = 8
    BOOL = 9
    FLOAT16 = 10
    DOUBLE = 11
    UINT32 = 12
    UINT64 = 13
    COMPLEX64 = 14
    COMPLEX128 = 15
    BFLOAT16 = 16
    FLOAT8E4M3FN = 17
    FLOAT8E4M3FNUZ = 18
    FLOAT8E5M2 = 19
    FLOAT8E5M2FNUZ = 20
    UINT4 = 21
    INT4 = 22
    FLOAT4E2M1 = 23
    FLOAT8E8M0 = 24
    UINT2 = 25
    INT2 = 26
    FLOAT6E2M3 = 27
    FLOAT6E3M2 = 28


NAMES: tuple[str, ...] = tuple(name for name in vars(Element) if name.isupper())
"""ONNX's names by number; in small letters they are what types are called in texts, as in ``tensor(float)``."""
_RENAMED: dict[int, str] = {
    Element.FLOAT: "FP32",
    Element.STRING: "BYTES",
    Element.FLOAT16: "FP16",
    Element.DOUBLE: "FP64",
    Element.BFLOAT16: "BF16",
}
PROTOCOL_NAMES: dict[int, str] = {
    number: _RENAMED.get(number, NAMES[number]) for number in (*range(1, 14), Element.BFLOAT16)
}
"""The types that the Open Inference Protocol has a name for."""
RAW_NAMES: dict[int, str] = {
    number: PROTOCOL_NAMES.get(number, NAMES[number])
    for number in (
        Element.BFLOAT16,
        Element.FLOAT8E4M3FN,
        Element.FLOAT8E4M3FNUZ,
        Element.FLOAT8E5M2,
        Element.FLOAT8E5M2FNUZ,
        Element.FLOAT8E8M0,
    )
}
"""The types that travel as raw bytes only. But for BF16 the names are ONNX's: no server has others, and the protocol
none."""
PROTOCOL_NAMES_BY_TEXT: dict[str, str] = {NAMES[number].lower(): name for number, name in PROTOCOL_NAMES.items()}


@functools.cache
def bits(data_type: int) -> int:
    """Bits of one element in memory; 0 for strings and unknown types."""
    if not 0 <= data_type < len(NAMES):
        return 0
    digits = re.search(r"\d+", NAMES[data_type])
    return int(digits[0]) if digits else {Element.FLOAT: 32, Element.DOUBLE: 64, Element.BOOL: 8}.get(data_type, 0)


def tensor_bytes(data_type: int, dims: tuple[int, ...] | list[int]) -> int:
    """Bytes of a tensor's values in memory; strings count 32 bytes each."""
    return (math.prod(dims) * (bits(data_type) or 256) + 7) // 8
