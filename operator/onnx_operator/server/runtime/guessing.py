"""Made-up inputs that a model can answer, so that *ready* means it did.

Nobody knows which sizes a symbolic dimension may take or which values make sense, so a few plausible ones are
tried, smallest first. The first that the model answers ends the warm-up.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from onnx_operator.server.dataplane.tensors import DTYPES, TensorInfo, datatype_of
from onnx_operator.server.runtime.failures import LoadError
from onnx_operator.server.runtime.session import Model, explain

MAX_ELEMENTS = 1 << 24
"""Elements of one made-up tensor: 64 MiB of FP32, beyond which a guess costs more than it tells."""

_ELEMENT_TYPES = {
    "BF16": 16,
    "FLOAT8E4M3FN": 17,
    "FLOAT8E4M3FNUZ": 18,
    "FLOAT8E5M2": 19,
    "FLOAT8E5M2FNUZ": 20,
}
"""TensorProto.DataType of elements that numpy lacks but ONNX Runtime takes as raw bytes."""


@dataclass(frozen=True)
class Guess:
    """How unknowns are filled in.

    ``batch`` is the size of a symbolic first dimension, ``rest`` of the others; ``image`` takes 3 × 224 × 224
    for those of inputs with four dimensions. ``rank`` is that of inputs without a shape. ``value`` fills the
    tensors.
    """

    batch: int = 1
    rest: int = 1
    image: bool = False
    rank: int = 0
    value: int = 0


def guesses(inputs: Sequence[TensorInfo]) -> Iterator[Guess]:
    """List the guesses worth trying for these inputs, the cheapest and likeliest first."""
    symbolic = any(not isinstance(size, int) for info in inputs for size in info.shape)
    shapeless = any(info.datatype and not info.shape for info in inputs)
    shapes = [Guess()]
    if symbolic:
        shapes.append(Guess(batch=2, rest=2))
        shapes += [Guess(image=True)] if any(len(info.shape) == 4 for info in inputs) else []
        shapes += [Guess(rest=size) for size in (3, 4, 8, 16, 32, 64, 128, 224)]
    if shapeless:
        shapes += [Guess(rank=rank, rest=size, batch=size) for rank in (1, 2, 3, 4) for size in (1, 2)]
    for shape in shapes:
        for value in (0, 1):
            yield Guess(shape.batch, shape.rest, shape.image, shape.rank, value)


def answer_one(model: Model) -> tuple[Guess, dict[str, Any]]:
    """Run the model once on made-up inputs, for all outputs; return what it answered.

    Raises :class:`LoadError` if it answers none.
    """
    required = [info for info in model.inputs if not info.optional]
    first: Exception | None = None
    for guess in guesses(required):
        try:
            feed = make_feed(required, guess)
        except ValueError:
            continue
        try:
            run_once(model, feed)
        except Exception as error:
            first = first or error
        else:
            return guess, feed
    cause = explain(first) if first else "its inputs are too large to make up"
    raise LoadError(f"the model answered no warm-up inference: {cause}")


def make_feed(inputs: Sequence[TensorInfo], guess: Guess) -> dict[str, Any]:
    """Make up a value for each input; equal names of sizes get equal sizes. ValueError if too large."""
    sizes: dict[str, int] = {}
    return {info.name: _value(info, guess, sizes) for info in inputs}


def run_once(model: Model, feed: dict[str, Any]) -> None:
    """Compute all outputs of what :func:`make_feed` made. Raises what ONNX Runtime raises."""
    plain = all(model.input_by_name[name].datatype not in (None, "BYTES") for name in feed)
    try:
        if plain and all(info.datatype for info in model.outputs):
            # Nothing is converted for Python, so this also works for elements that numpy lacks.
            model.session.run_with_ort_values(None, {k: _ort_value(v) for k, v in feed.items()})
        else:
            model.session.run(None, feed)
    except UnicodeDecodeError:
        return  # it answered; that Python cannot show such strings is told to whoever asks for them


def _ort_value(value: Any) -> Any:
    return value if isinstance(value, ort.OrtValue) else ort.OrtValue.ortvalue_from_numpy(value)


def _value(info: TensorInfo, guess: Guess, sizes: dict[str, int]) -> Any:
    if info.datatype is None:
        return _container(info.onnx_type, guess.value)
    shape = shape_of(info, guess, sizes)
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"{info.name} would have {math.prod(shape)} elements")
    return _tensor(info.datatype, shape, guess.value)


def _tensor(datatype: str, shape: tuple[int, ...], value: int) -> Any:
    if datatype in DTYPES:
        fill: object = ("", "1")[value] if datatype == "BYTES" else value
        return np.full(shape, fill, dtype=DTYPES[datatype])
    if datatype not in _ELEMENT_TYPES:
        raise LoadError(f"inputs of type {datatype} cannot be given to ONNX Runtime from Python")
    # 0x3F80 is 1.0 in BF16; the 8-bit formats have no common bits for it, any small number does.
    raw = np.full(shape, 0x3F80 * value, np.uint16) if datatype == "BF16" else np.full(shape, value, np.uint8)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, _ELEMENT_TYPES[datatype])


def shape_of(info: TensorInfo, guess: Guess, sizes: dict[str, int]) -> tuple[int, ...]:
    """Fill in unknown sizes; ``sizes`` keeps those that have a name."""
    declared = info.shape or (None,) * guess.rank
    shape: list[int] = []
    for axis, size in enumerate(declared):
        if isinstance(size, int):
            shape.append(size)
            continue
        made_up = guess.batch if axis == 0 else guess.rest
        if guess.image and len(declared) == 4 and axis > 0:
            channels_last = declared[-1] in (1, 3, 4)
            made_up = 3 if axis == (3 if channels_last else 1) else 224
        shape.append(sizes.setdefault(size, made_up) if size else made_up)
    return tuple(shape)


def _container(onnx_type: str, value: int) -> Any:
    """Make up a sequence (of one element), a map or an optional (absent)."""
    if match := re.fullmatch(r"seq\(tensor\((\w+)\)\)", onnx_type):
        return [_tensor(_datatype(match[1]), (1,), value)]
    if match := re.fullmatch(r"map\((\w+),\s*tensor\((\w+)\)\)", onnx_type):
        key: object = str(value) if match[1] == "string" else value
        element: object = str(value) if match[2] == "string" else value
        return {key: float(value) if match[2] in ("float", "double") else element}
    if match := re.fullmatch(r"optional\((.+)\)", onnx_type):
        return None
    raise LoadError(f"inputs of type {onnx_type} cannot be made up")


def _datatype(element: str) -> str:
    return datatype_of(f"tensor({element})") or element
