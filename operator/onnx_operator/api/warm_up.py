"""Inputs to warm a model up with: how they are written, and whether a model takes them."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import FailFast, Field, StrictBool, StrictInt, StrictStr

from onnx_operator.api.sources import ApiModel

MAX_WARM_UP_ELEMENTS = 1 << 24
"""Elements of one tensor to warm up with: 64 MiB of FP32, beyond which a run costs more than it tells."""
MAX_WARM_UP_INPUTS = 512
"""Decoders that keep keys and values take some hundreds."""
MAX_WARM_UP_VALUES = 256
MAX_DIMENSIONS = 16
"""Of one tensor, here and in reports."""

Sizes = Annotated[
    list[Annotated[int, Field(ge=0, le=MAX_WARM_UP_ELEMENTS)]], FailFast(), Field(max_length=MAX_DIMENSIONS)
]
FILLING = Field(min_length=1, max_length=MAX_WARM_UP_VALUES)
"""Bounds of a list that fills a tensor."""
_FiniteFloat = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Numbers = Annotated[list[StrictBool | StrictInt | _FiniteFloat], FailFast(), FILLING]
_Texts = Annotated[list[StrictStr], FailFast(), FILLING]

Declared = tuple[str, Sequence[int | str | None]]
"""Datatype and shape of a model's input: no sizes where it may have any number of them; names, None and -1 are open."""
_ONE_FILLING = "an input of BYTES is filled by spec.warmUp.texts, any other by spec.warmUp.values"


class WarmUpInputs(ApiModel):
    """Inputs without their bytes: shapes, and values or texts that fill a tensor in turn, again and again."""

    shapes: dict[str, Sizes] = Field(default_factory=dict, max_length=MAX_WARM_UP_INPUTS)
    values: dict[str, _Numbers] = Field(default_factory=dict, max_length=MAX_WARM_UP_INPUTS)
    texts: dict[str, _Texts] = Field(default_factory=dict, max_length=MAX_WARM_UP_INPUTS)

    @property
    def empty(self) -> bool:
        """Whether nothing is said of any input."""
        return not (self.shapes or self.values or self.texts)

    def fillings(self) -> Mapping[str, Sequence[bool | int | float | str]]:
        """What fills each tensor, numbers and texts alike."""
        return {**self.values, **self.texts}

    def to_text(self) -> str:
        """As JSON, for an argument or an annotation."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)


def check_inputs(
    given: WarmUpInputs, known: Mapping[str, Declared], *, whole: bool = True, kind: str = "input"
) -> None:
    """See that a model takes ``given``. Raises ValueError, which names the field of ``spec.warmUp``.

    Args:
        given: what is said of the inputs.
        known: the model's inputs, by name.
        whole: whether ``known`` are all of them; what is not known is passed over otherwise.
        kind: what they are called in messages.
    """
    for side, names in (("shapes", given.shapes), ("values", given.values), ("texts", given.texts)):
        for name in names:
            if name not in known and whole:
                listed = ", ".join(sorted(known)) or "none"
                raise ValueError(f"spec.warmUp.{side}.{name}: the model has no such {kind}; it has {listed}")
    for name, shape in given.shapes.items():
        _check_shape(f"spec.warmUp.shapes.{name} is {list(shape)}", shape, known.get(name))
    for name, numbers in given.values.items():
        if name in known:
            _check_numbers(f"spec.warmUp.values.{name}", numbers, known[name][0])
    for name in given.texts:
        if name in given.values or (name in known and known[name][0] != "BYTES"):
            datatype = known[name][0] if name in known else "both"
            raise ValueError(f"spec.warmUp.texts.{name}: {_ONE_FILLING}; it is {datatype}")


def _check_shape(field: str, shape: Sequence[int], declared: Declared | None) -> None:
    if math.prod(shape) > MAX_WARM_UP_ELEMENTS:
        raise ValueError(
            f"{field}, which are {math.prod(shape)} elements; expected at most {MAX_WARM_UP_ELEMENTS}. Test data "
            "(spec.model.testData) may be larger"
        )
    datatype, sizes = declared or ("", ())
    if not sizes:
        return
    agrees = len(shape) == len(sizes) and all(
        size == expected or not isinstance(expected, int) or expected < 0
        for size, expected in zip(shape, sizes, strict=True)
    )
    if not agrees:
        shown = ", ".join("?" if size in (None, -1) else str(size) for size in sizes)
        raise ValueError(f"{field}; expected sizes for the model's input, {datatype} [{shown}]")


def _check_numbers(field: str, numbers: Sequence[float], datatype: str) -> None:
    if datatype == "BYTES":
        raise ValueError(f"{field}: {_ONE_FILLING}; it is BYTES")
    integer = re.fullmatch(r"(U?)INT(\d{1,2})", datatype)
    if not integer:
        return
    bits = int(integer[2]) - (not integer[1])
    low, high = (0 if integer[1] else -(1 << bits)), (1 << bits) - 1
    for position, number in enumerate(numbers):
        if not (low <= number <= high and float(number).is_integer()):
            raise ValueError(
                f"{field}[{position}] is {number}; expected a whole number from {low} to {high}, for the model's input "
                f"is {datatype}"
            )
