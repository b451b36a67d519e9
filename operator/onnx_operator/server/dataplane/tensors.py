"""JSON values to numpy arrays and back, exactly or not at all. Pure functions.

What JSON cannot say, and how it is said here: non-finite floats are the strings ``"NaN"``, ``"Infinity"`` and
``"-Infinity"``, in both directions. Elements without a JSON form (BF16, 8-bit and 4-bit floats, 4-bit
integers, complex numbers) are refused by name.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_operator.server.errors import RequestError, quote

Array = NDArray[Any]
Dimension = int | str | None
"""A size, the name of a symbolic dimension, or None where the model says nothing."""

_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "bfloat16": "BF16",
}
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
"""The datatypes that JSON can carry, by Open Inference Protocol name."""

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def datatype_of(onnx_type: str) -> str | None:
    """Name ONNX Runtime's ``tensor(float)`` as the protocol does (``FP32``); None for what is no tensor.

    Element types that the protocol has no name for keep ONNX's, in capitals (``FLOAT8E4M3FN``).
    """
    if not (onnx_type.startswith("tensor(") and onnx_type.endswith(")")):
        return None
    element = onnx_type[len("tensor(") : -1]
    return _DATATYPES.get(element, element.upper())


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of the loaded model.

    ``datatype`` is None for sequences, maps and optionals (``onnx_type`` then tells which).
    An empty ``shape`` means a scalar or an unknown rank: ONNX Runtime does not tell them apart and takes any
    shape for both. ``optional`` marks inputs with a default value in the model, ``filled_up`` those of which fewer
    rows than the fixed first size are taken as well.
    """

    name: str
    onnx_type: str
    datatype: str | None
    shape: tuple[Dimension, ...]
    optional: bool = False
    filled_up: bool = False

    def describe(self) -> str:
        """Datatype and shape for an error message, as in ``FP32 [N, 3, 224, 224]``."""
        return f"{self.datatype or self.onnx_type} {show_shape(self.shape)}"

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether sizes agree wherever the model fixes one."""
        if not self.shape:
            return True
        if len(shape) != len(self.shape):
            return False
        # A loop: this runs for every tensor of every request.
        for expected, size in zip(self.shape, shape, strict=True):
            if expected != size and isinstance(expected, int):
                return self.filled_up and self._accepts_fewer(shape)
        return True

    def _accepts_fewer(self, shape: Sequence[int]) -> bool:
        rows = self.shape[0]
        if not isinstance(rows, int) or not 0 < shape[0] < rows:
            return False
        rest = zip(self.shape[1:], shape[1:], strict=True)
        return all(expected == size or not isinstance(expected, int) for expected, size in rest)


def show_shape(shape: Sequence[Dimension]) -> str:
    """Write a shape with the names of its symbolic dimensions; ``?`` is an unnamed one."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def flatten(data: object, label: str) -> tuple[tuple[int, ...], list[Any]]:
    """Turn nested lists into a shape and the elements in row-major order; a bare value has shape ``[]``.

    ``label`` names the tensor in errors. Raises :class:`RequestError` for ragged lists.
    """
    if not isinstance(data, list):
        return (), [data]
    shape = [len(data)]
    level = data
    while level:
        kinds = set(map(type, level))
        if list not in kinds:
            break
        if len(kinds) > 1:
            raise RequestError(f"{label}: data mixes lists and values at depth {len(shape)}")
        lengths = set(map(len, level))
        if len(lengths) > 1:
            raise RequestError(
                f"{label}: data is ragged: lists of {min(lengths)} and of {max(lengths)} elements at depth {len(shape)}"
            )
        shape.append(lengths.pop())
        level = list(chain.from_iterable(level))
    return tuple(shape), level


def decode(data: object, datatype: str, shape: Sequence[int] | None, label: str, *, lenient: bool = False) -> Array:
    """Build the array that ``data`` (flat in row-major order, or nested) describes.

    With ``shape`` None the nesting is the shape. ``lenient`` also takes booleans for numbers, 0 and 1 for
    booleans and null for NaN. ``datatype`` is one of :data:`DTYPES`. Raises :class:`RequestError` naming
    ``label`` and the first element at fault; no value is ever rounded to an integer or wrapped around.
    """
    nested, flat = flatten(data, label)
    if shape is None:
        shape = nested
    else:
        count = math.prod(shape)
        if len(flat) != count:
            raise RequestError(f"{label}: shape {show_shape(shape)} needs {count} elements, data holds {len(flat)}")
        # Lists cannot show the sizes behind a size of 0.
        told = tuple(shape) if flat else tuple(shape[: len(nested)])
        if len(nested) > 1 and told != nested:
            raise RequestError(f"{label}: data is nested as {show_shape(nested)}, shape says {show_shape(shape)}")
    return build(flat, datatype, shape, label, lenient=lenient)


def build(flat: list[Any], datatype: str, shape: Sequence[int], label: str, *, lenient: bool = False) -> Array:
    """Build the array from what :func:`flatten` returned, as :func:`decode` does."""
    array = _elements(flat, datatype, label, lenient)
    try:
        return array.reshape(tuple(shape))
    except (ValueError, OverflowError):
        raise RequestError(f"{label}: shape {show_shape(shape)[:200]} is beyond what an array can have") from None


def encode(array: Array) -> list[Any]:
    """List the elements in row-major order as JSON values."""
    if array.dtype.kind != "f":
        flat: list[Any] = array.reshape(-1).tolist()
        return flat
    flat = array.reshape(-1).tolist()
    if np.isfinite(array).all():
        return flat
    return [value if math.isfinite(value) else _spell(value) for value in flat]


def encode_nested(array: Array) -> Any:
    """Nest the elements as the shape says; a scalar becomes a bare value."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        spelled = np.empty(array.size, dtype=np.object_)
        spelled[:] = encode(array)
        return spelled.reshape(array.shape).tolist()
    return array.tolist()


def _spell(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _elements(flat: list[Any], datatype: str, label: str, lenient: bool) -> Array:
    dtype = DTYPES[datatype]
    kinds = set(map(type, flat))
    match dtype.kind:
        case "O":
            return _strings(flat, kinds, label)
        case "b":
            return _booleans(flat, kinds, label, lenient)
        case "f":
            return _floats(flat, kinds, datatype, label, lenient)
        case _:
            return _integers(flat, kinds, datatype, label, lenient)


def _fault(label: str, index: int, value: object, expected: str) -> RequestError:
    return RequestError(f"{label}: element {index} is {quote(value)}, expected {expected}")


def _refuse_other_kinds(flat: list[Any], allowed: set[type], label: str, expected: str) -> None:
    for index, value in enumerate(flat):
        if type(value) not in allowed:
            raise _fault(label, index, value, expected)


def _strings(flat: list[Any], kinds: set[type], label: str) -> Array:
    if kinds - {str}:
        _refuse_other_kinds(flat, {str}, label, "a string (BYTES)")
    try:
        "".join(flat).encode()
    except UnicodeEncodeError:
        for index, value in enumerate(flat):
            if any("\ud800" <= character <= "\udfff" for character in value):
                raise _fault(label, index, value, "a string of whole Unicode characters") from None
    array = np.empty(len(flat), dtype=np.object_)
    array[:] = flat
    return array


def _booleans(flat: list[Any], kinds: set[type], label: str, lenient: bool) -> Array:
    if kinds - {bool}:
        for index, value in enumerate(flat):
            if type(value) is not bool and not (lenient and type(value) in (int, float) and value in (0, 1)):
                raise _fault(label, index, value, "true or false (BOOL)")
    return np.array(flat, dtype=np.bool_)


def _integers(flat: list[Any], kinds: set[type], datatype: str, label: str, lenient: bool) -> Array:
    bounds = np.iinfo(DTYPES[datatype])
    expected = f"an integer from {bounds.min} to {bounds.max} ({datatype})"
    if kinds - {int}:
        allowed: set[type] = {int, float, bool} if lenient else {int, float}
        _refuse_other_kinds(flat, allowed, label, expected)
        for index, value in enumerate(flat):
            if type(value) is float and not value.is_integer():
                raise _fault(label, index, value, expected)
        flat = [int(value) for value in flat]
    if flat and (min(flat) < bounds.min or max(flat) > bounds.max):
        for index, value in enumerate(flat):
            if not bounds.min <= value <= bounds.max:
                raise _fault(label, index, value, expected)
    return np.array(flat, dtype=DTYPES[datatype])


def _floats(flat: list[Any], kinds: set[type], datatype: str, label: str, lenient: bool) -> Array:
    expected = f'a number, "NaN", "Infinity" or "-Infinity" ({datatype})'
    numbers = flat
    if kinds - {int, float}:
        allowed: set[type] = {int, float, str}
        if lenient:
            allowed |= {bool, type(None)}
        _refuse_other_kinds(flat, allowed, label, expected)
        numbers = []
        for index, value in enumerate(flat):
            if type(value) is str:
                if value not in _NON_FINITE:
                    raise _fault(label, index, value, expected)
                numbers.append(_NON_FINITE[value])
            else:
                numbers.append(math.nan if value is None else value)
    too_large = f"a number in the range of {datatype}"
    try:
        wide = np.array(numbers, dtype=np.float64)
    except OverflowError:
        for index, value in enumerate(numbers):
            if type(value) is int and value.bit_length() > 1023:
                raise _fault(label, index, value, too_large) from None
        raise
    with np.errstate(over="ignore", under="ignore"):
        narrow = wide.astype(DTYPES[datatype])
    # A number such as 1e400 has become infinite by now; a spelled infinity was asked for.
    for index in np.flatnonzero(np.isinf(narrow)).tolist():
        if type(flat[index]) is not str:
            raise _fault(label, index, flat[index], too_large)
    return narrow
