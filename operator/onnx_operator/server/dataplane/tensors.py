"""JSON values to numpy arrays and back, exactly or not at all. Pure functions.

What JSON cannot say, and how it is said here: non-finite floats are the strings ``"NaN"``, ``"Infinity"`` and
``"-Infinity"``, in both directions. Elements without a JSON form (BF16, floats of 8 bits and fewer, integers of fewer,
complex numbers) are refused by name.
"""

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_operator.model.elements import PROTOCOL_NAMES_BY_TEXT, RAW_NAMES, bits
from onnx_operator.server.dataplane.exact import Spelled, Whole
from onnx_operator.server.dataplane.pieces import PIECE, keep, pieces
from onnx_operator.server.errors import RequestError, quote

T = TypeVar("T")
Array = NDArray[Any]
Dimension = int | str | None
"""A size, the name of a symbolic dimension, or None where the model says nothing."""

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

BITS: dict[str, np.dtype[Any]] = {name: np.dtype(f"u{bits(number) // 8}") for number, name in RAW_NAMES.items()}
"""The datatypes that numpy has no type for, with that of their bits: they travel as raw bytes only."""

_COUNTED = frozenset(name for name, dtype in DTYPES.items() if dtype.kind in "iub")
_WHOLE: frozenset[type] = frozenset({int, float, Whole})
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def datatype_of(onnx_type: str) -> str | None:
    """Name ONNX Runtime's ``tensor(float)`` as the protocol does (``FP32``); None for what is no tensor.

    Element types that the protocol has no name for keep ONNX's, in capitals (``FLOAT8E4M3FN``).
    """
    if not (onnx_type.startswith("tensor(") and onnx_type.endswith(")")):
        return None
    element = onnx_type[len("tensor(") : -1]
    return PROTOCOL_NAMES_BY_TEXT.get(element, element.upper())


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of the loaded model.

    ``datatype`` is None for sequences, maps and optionals (``onnx_type`` then tells which).
    An empty ``shape`` means a scalar or an unknown rank: ONNX Runtime does not tell them apart and takes any
    shape for both. ``optional`` marks inputs with a default value in the model, ``filled_up`` those of which fewer
    rows than the fixed first size are taken as well. ``classes`` are the labels of the columns of an output that is a
    sequence of maps in the file (``onnx_type`` says so) and a tensor of scores here.
    """

    name: str
    onnx_type: str
    datatype: str | None
    shape: tuple[Dimension, ...]
    optional: bool = False
    filled_up: bool = False
    classes: tuple[int, ...] | tuple[str, ...] = ()

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


def expects_integers(inputs: Sequence[TensorInfo]) -> bool:
    """Whether one of them takes integers or truth values: there a number must be known exactly."""
    return any(info.datatype in _COUNTED for info in inputs)


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
        kinds = _found(type, level)
        if list not in kinds:
            break
        if len(kinds) > 1:
            raise RequestError(f"{label}: data mixes lists and values at depth {len(shape)}")
        lengths = _found(len, level)
        if len(lengths) > 1:
            raise RequestError(
                f"{label}: data is ragged: lists of {min(lengths)} and of {max(lengths)} elements at depth {len(shape)}"
            )
        shape.append(lengths.pop())
        level = chained(level, shape[-1])
    return tuple(shape), level


def chained(lists: Sequence[Sequence[Any]], length: int) -> list[Any]:
    """The elements of lists of about the same ``length``, one after the other."""
    elements: list[Any] = []
    keep(elements)
    for part in pieces(len(lists), max(1, PIECE // max(1, length))):
        elements += chain.from_iterable(lists[part])
    return elements


def _found(kind: Callable[[Any], T], values: Sequence[Any]) -> set[T]:
    found: set[T] = set()
    for part in pieces(len(values)):
        found.update(map(kind, values[part]))
    return found


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
    if len(flat) <= PIECE:
        return _piece(flat, datatype, label, lenient)
    array = np.empty(len(flat), DTYPES[datatype])
    for part in pieces(len(flat)):
        array[part] = _piece(flat[part], datatype, _Behind.of(label, part.start), lenient)
    return array


def _piece(flat: list[Any], datatype: str, label: str, lenient: bool) -> Array:
    kinds = set(map(type, flat))
    match DTYPES[datatype].kind:
        case "O":
            return _strings(flat, kinds, label)
        case "b":
            return _booleans(flat, kinds, label, lenient)
        case "f":
            return _floats(flat, kinds, datatype, label, lenient)
        case _:
            return _integers(flat, kinds, datatype, label, lenient)


class Placed(str):
    """The name of a tensor whose elements are told by other places than their position."""

    def at(self, index: int) -> str:
        """Where the element at ``index`` of the flat tensor comes from."""
        return f"{self}: element {index}"


class _Behind(Placed):
    """The places of a piece's elements."""

    whole: str
    start: int

    @classmethod
    def of(cls, whole: str, start: int) -> "_Behind":
        """Of the piece that begins with the element ``start`` of the tensor ``whole``."""
        label = cls(whole)
        label.whole, label.start = whole, start
        return label

    def at(self, index: int) -> str:
        return place(self.whole, self.start + index)


def place(label: str, index: int) -> str:
    """Name an element for an error message."""
    return label.at(index) if isinstance(label, Placed) else f"{label}: element {index}"


def _fault(label: str, index: int, value: object, expected: str) -> RequestError:
    return RequestError(f"{place(label, index)} is {quote(value)}, expected {expected}")


def _refuse_other_kinds(flat: list[Any], allowed: Set[type], label: str, expected: str) -> None:
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
            if type(value) is not bool and not (lenient and type(value) in _WHOLE and value in (0, 1)):
                raise _fault(label, index, value, "true or false (BOOL)")
    return np.array(flat, dtype=np.bool_)


def _integers(flat: list[Any], kinds: set[type], datatype: str, label: str, lenient: bool) -> Array:
    bounds = np.iinfo(DTYPES[datatype])
    expected = f"an integer from {bounds.min} to {bounds.max} ({datatype})"
    if kinds - {int}:
        allowed = _WHOLE | {bool} if lenient else _WHOLE
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
        allowed = _WHOLE | {Spelled, str}
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
            if isinstance(value, int) and value.bit_length() > 1023:
                raise _fault(label, index, value, too_large) from None
        raise
    with np.errstate(over="ignore", under="ignore"):
        narrow = wide.astype(DTYPES[datatype])
    # A number such as 1e400 has become infinite by now; a spelled infinity was asked for.
    for index in np.flatnonzero(np.isinf(narrow)).tolist():
        if type(flat[index]) is not str:
            raise _fault(label, index, flat[index], too_large)
    return narrow
