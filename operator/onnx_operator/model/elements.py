"""How many bytes the values of a tensor take in memory."""

import math

from onnx import TensorProto


def bits(data_type: int) -> int:
    """Bits of one element in memory; 0 for strings and unknown types."""
    return _BITS.get(data_type, 0)


def tensor_bytes(data_type: int, dims: tuple[int, ...] | list[int]) -> int:
    """Bytes of a tensor's values in memory; strings count 32 bytes each."""
    return (math.prod(dims) * (bits(data_type) or 256) + 7) // 8


def _type_bits() -> dict[int, int]:
    kinds = TensorProto.DataType
    out: dict[int, int] = {}
    for name, number in kinds.items():
        digits = {
            "FLOAT": 32,
            "DOUBLE": 64,
            "BOOL": 8,
            "COMPLEX64": 64,
            "COMPLEX128": 128,
            "BFLOAT16": 16,
        }.get(name)
        if digits is None and name not in ("STRING", "UNDEFINED"):
            text = name.removeprefix("U").removeprefix("INT").removeprefix("FLOAT")
            digits = int("".join(text.partition("E")[0]) or 0)
        out[number] = digits or 0
    return out


_BITS = _type_bits()
