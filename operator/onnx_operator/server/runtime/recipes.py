"""Inputs without their bytes: reading those that somebody gave, and writing down one that was answered."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnx_operator.api.contract import MOST_ELEMENTS, MOST_WARM_UP_INPUTS, WarmUpInputs
from onnx_operator.server.dataplane.tensors import DTYPES, TensorInfo, show_shape
from onnx_operator.server.runtime.failures import LoadError
from onnx_operator.server.runtime.guessing import Guess
from onnx_operator.server.runtime.guessing.feeds import filled
from onnx_operator.server.runtime.guessing.guess import Value

MOST_VALUES = 16
"""Elements of a tensor that are written down one by one."""
LONGEST_TEXT = 4096
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

    They may be of any number and size: recorded inputs know no bounds.
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
    known = {info.name: info for info in required}
    for side, names in (("shapes", given.shapes), ("values", given.values), ("texts", given.texts)):
        for name in names:
            if name not in known:
                raise LoadError(
                    f"spec.warmUp.{side}.{name}: the model has no such required input; it has "
                    f"{', '.join(sorted(known)) or 'none'}"
                )
    for name, shape in given.shapes.items():
        if not known[name].accepts(shape):
            raise LoadError(
                f"spec.warmUp.shapes.{name} is {show_shape(tuple(shape))}, but the model's input is "
                f"{known[name].describe()}"
            )
        if math.prod(shape) > MOST_ELEMENTS:
            raise LoadError(f"spec.warmUp.shapes.{name} has more than {MOST_ELEMENTS} elements")
    for name, values in given.fillings().items():
        side = "texts" if name in given.texts else "values"
        if name in given.values and (name in given.texts or known[name].datatype == "BYTES"):
            raise LoadError(
                f"spec.warmUp.values.{name}: fill an input either by values or, where it is BYTES, by texts"
            )
        try:
            filled(known[name].datatype or "", (1,), values)
        except ValueError as error:
            raise LoadError(f"spec.warmUp.{side}.{name}: {error}") from None


def recipe_of(required: Sequence[TensorInfo], feed: Mapping[str, Any], guess: Guess | None) -> WarmUpInputs | None:
    """How to make a feed anew, or one like it; None where that takes more than a few bytes.

    Without a ``guess`` it holds recorded values, of which the first stands for all where there are many.
    """
    if any(info.datatype is None for info in required) or not 0 < len(required) <= MOST_WARM_UP_INPUTS:
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
        small = len(found.to_text()) <= LONGEST_TEXT and all(
            math.prod(each) <= MOST_ELEMENTS for each in shapes.values()
        )
    except ValueError:
        # Recorded inputs may be as large, and their texts as strange, as they like.
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
    listed = [_plain(each) for each in flat[: MOST_VALUES if flat.size <= MOST_VALUES else 1].tolist()]
    return listed or [0]


def _plain(value: Any) -> bool | int | float | str:
    if isinstance(value, float) and not np.isfinite(value):
        return 0.0
    return value if isinstance(value, bool | int | float) else str(value)[:64]
