"""Inputs without their bytes: reading those that somebody gave, and writing down one that was answered."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnx_operator.api.warm_up import MAX_WARM_UP_ELEMENTS, MAX_WARM_UP_INPUTS, WarmUpInputs, check_inputs
from onnx_operator.server.dataplane.tensors import DTYPES, TensorInfo
from onnx_operator.server.runtime.failures import LoadError
from onnx_operator.server.runtime.guessing import Guess
from onnx_operator.server.runtime.guessing.guess import Value

MAX_VALUES = 16
"""Elements of a tensor that are written down one by one."""
MAX_TEXT_LENGTH = 4096
"""Bytes of a recipe: it is kept in an annotation, and handed on as an argument."""


def shape_of_value(value: Any) -> tuple[int, ...]:
    """The shape of an array or an OrtValue; of anything else none."""
    shape = getattr(value, "shape", ())
    return tuple(shape() if callable(shape) else shape)


def guess_of(
    required: Sequence[TensorInfo],
    shapes: Mapping[str, Sequence[int]],
    fillings: Mapping[str, Sequence[Value]] | None = None,
) -> Guess:
    """A guess with these shapes and values; their first size is the batch where all inputs have an open one.

    They may be of any number and size: test data knows no bounds.
    """
    shapes = {name: tuple(shape) for name, shape in shapes.items()}
    tensors = [info for info in required if info.datatype]
    opened = all(info.shape and not isinstance(info.shape[0], int) for info in tensors)
    given = {name: tuple(shape) for name, shape in shapes.items()}
    values = {name: tuple(values) for name, values in (fillings or {}).items()}
    first = {shape[0] for shape in given.values() if shape}
    whole = given.keys() >= {info.name for info in tensors}
    if opened and whole and len(first) == 1 and all(given.values()):
        marked = {name: (-1, *shape[1:]) for name, shape in given.items()}
        return Guess(batch=first.pop(), shapes=marked, values=values)
    return Guess(shapes=given, values=values)


def check_given(required: Sequence[TensorInfo], given: WarmUpInputs) -> None:
    """Raise :class:`LoadError`, naming the field of spec.warmUp, where it does not fit the model's inputs."""
    known = {info.name: (info.datatype or info.onnx_type, info.shape) for info in required}
    try:
        check_inputs(given, known, kind="required input")
    except ValueError as error:
        raise LoadError(str(error)) from None


def recipe_of(required: Sequence[TensorInfo], feed: Mapping[str, Any], guess: Guess | None) -> WarmUpInputs | None:
    """How to make a feed anew, or one like it; None where that takes more than a few bytes.

    Without a ``guess`` it holds values of test data, of which the first stands for all where there are many.
    """
    if any(info.datatype is None for info in required) or not 0 < len(required) <= MAX_WARM_UP_INPUTS:
        return None
    shapes = {info.name: list(shape_of_value(feed[info.name])) for info in required}
    fillings = {info.name: _filling(info, feed[info.name], guess) for info in required}
    texts = {info.name for info in required if info.datatype == "BYTES"}
    try:
        found = WarmUpInputs.model_validate(
            {
                "shapes": shapes,
                "values": {name: found for name, found in fillings.items() if name not in texts},
                "texts": {name: [str(each) for each in found] for name, found in fillings.items() if name in texts},
            }
        )
        small = len(found.to_text()) <= MAX_TEXT_LENGTH and all(
            math.prod(each) <= MAX_WARM_UP_ELEMENTS for each in shapes.values()
        )
    except ValueError:
        # Inputs of test data may be as large, and their texts as strange, as they like.
        return None
    return found if small else None


def _filling(info: TensorInfo, value: Any, guess: Guess | None) -> list[bool | int | float | str]:
    if guess is not None:
        given = guess.values.get(info.name)
        return (
            list(given) if given is not None else [("", "1")[guess.value] if info.datatype == "BYTES" else guess.value]
        )
    if info.datatype not in DTYPES:
        return [0]
    flat = np.asarray(value).reshape(-1)
    listed = [_plain(each) for each in flat[: MAX_VALUES if flat.size <= MAX_VALUES else 1].tolist()]
    return listed or [0]


def _plain(value: Any) -> bool | int | float | str:
    if isinstance(value, float) and not np.isfinite(value):
        return 0.0
    return value if isinstance(value, bool | int | float) else str(value)[:64]
