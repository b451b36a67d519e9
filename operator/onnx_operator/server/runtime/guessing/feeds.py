"""From a guess to the values that ONNX Runtime takes."""

import ctypes
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from onnx_operator.api.warm_up import MAX_WARM_UP_ELEMENTS
from onnx_operator.model.elements import Element
from onnx_operator.server.dataplane.tensors import DTYPES, TensorInfo, datatype_of
from onnx_operator.server.runtime.guessing.guess import Guess, Value, shape_of

_ELEMENT_TYPES = {
    "BF16": (Element.BFLOAT16, b"\x80\x3f"),
    "FLOAT8E4M3FN": (Element.FLOAT8E4M3FN, b"\x01"),
    "FLOAT8E4M3FNUZ": (Element.FLOAT8E4M3FNUZ, b"\x01"),
    "FLOAT8E5M2": (Element.FLOAT8E5M2, b"\x01"),
    "FLOAT8E5M2FNUZ": (Element.FLOAT8E5M2FNUZ, b"\x01"),
    "UINT4": (Element.UINT4, b"\x11"),
    "INT4": (Element.INT4, b"\x11"),
    "FLOAT4E2M1": (Element.FLOAT4E2M1, b"\x22"),
    "FLOAT8E8M0": (Element.FLOAT8E8M0, b"\x7f"),
    "UINT2": (Element.UINT2, b"\x55"),
    "INT2": (Element.INT2, b"\x55"),
}
"""Element types, and bytes of ones (for BF16, 1.0; for 8-bit floats any small number), of elements that numpy
lacks. Elements of fewer than 8 bits are packed."""


class UnmakeableError(Exception):
    """Inputs of this type cannot be made up."""


def make_feed(inputs: Sequence[TensorInfo], guess: Guess) -> dict[str, Any]:
    """Make up a value for each input; equal names of sizes get equal sizes.

    Raises ValueError if too large, :class:`UnmakeableError` for types that Python cannot give to ONNX Runtime.
    """
    sizes: dict[str, int] = {}
    return {info.name: _value(info, guess, sizes) for info in inputs}


def run_once(model: Any, feed: Mapping[str, Any], options: ort.RunOptions | None = None) -> None:
    """Compute all outputs of what :func:`make_feed` made, for a ``Model``. Raises what ONNX Runtime raises."""
    plain = all(model.input_by_name[name].datatype not in (None, "BYTES") for name in feed)
    try:
        if plain and all(info.datatype for info in model.outputs):
            # Nothing is converted for Python, so this also works for elements that numpy lacks.
            model.session.run_with_ort_values(None, {k: _ort_value(v) for k, v in feed.items()}, options)
        else:
            model.session.run(None, dict(feed), options)
    except UnicodeDecodeError:
        return  # it answered; that Python cannot show such strings is told to whoever asks for them


def _ort_value(value: Any) -> Any:
    return value if isinstance(value, ort.OrtValue) else ort.OrtValue.ortvalue_from_numpy(value)


def _value(info: TensorInfo, guess: Guess, sizes: dict[str, int]) -> Any:
    if info.datatype is None:
        return _container(info.onnx_type, guess.value)
    shape = shape_of(info, guess, sizes)
    if math.prod(shape) > MAX_WARM_UP_ELEMENTS:
        raise ValueError(f"{info.name} would have {math.prod(shape)} elements")
    given = guess.values.get(info.name)
    return _tensor(info.datatype, shape, guess.value) if given is None else filled(info.datatype, shape, given)


def filled(datatype: str, shape: tuple[int, ...], values: Sequence[Value]) -> Any:
    """A tensor that ``values`` fill in turn, again and again. Raises ValueError where they do not fit the datatype."""
    if datatype not in DTYPES:
        return _tensor(datatype, shape, int(bool(values and values[0])))
    if not values:
        raise ValueError("there must be at least one value")
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        flat = np.array([str(value) for value in values], dtype=object)
    else:
        if any(isinstance(value, str) for value in values):
            raise ValueError(f"{datatype} takes numbers, not text")
        if dtype.kind in "iu" and any(isinstance(value, float) and not value.is_integer() for value in values):
            raise ValueError(f"{datatype} takes whole numbers")
        try:
            flat = np.array(values).astype(dtype) if dtype.kind in "fb" else np.array([int(v) for v in values], dtype)
        except OverflowError:
            raise ValueError(f"{datatype} cannot hold all of the values") from None
    return np.resize(flat, shape) if math.prod(shape) else np.empty(shape, dtype)


def _tensor(datatype: str, shape: tuple[int, ...], value: int) -> Any:
    if datatype in DTYPES:
        fill: object = ("", "1")[value] if datatype == "BYTES" else value
        return np.full(shape, fill, dtype=DTYPES[datatype])
    if datatype not in _ELEMENT_TYPES:
        raise UnmakeableError(f"inputs of type {datatype} cannot be given to ONNX Runtime from Python")
    element_type, ones = _ELEMENT_TYPES[datatype]
    tensor = ort.OrtValue.ortvalue_from_shape_and_type(shape, element_type)
    size = tensor.tensor_size_in_bytes()
    if size:
        pattern = ones if value else b"\x00"
        ctypes.memmove(tensor.data_ptr(), (pattern * size)[:size], size)
    return tensor


def _container(onnx_type: str, value: int) -> Any:
    """Make up a sequence (of one element), a map or an optional (absent)."""
    if match := re.fullmatch(r"seq\(tensor\((\w+)\)\)", onnx_type):
        return [_tensor(_datatype(match[1]), (1,), value)]
    if match := re.fullmatch(r"map\((\w+),\s*tensor\((\w+)\)\)", onnx_type):
        key: object = str(value) if match[1] == "string" else value
        element: object = str(value) if match[2] == "string" else value
        return {key: float(value) if match[2] in ("float", "double") else element}
    if re.fullmatch(r"optional\((.+)\)", onnx_type):
        return None
    raise UnmakeableError(f"inputs of type {onnx_type} cannot be made up")


def _datatype(element: str) -> str:
    return datatype_of(f"tensor({element})") or element
