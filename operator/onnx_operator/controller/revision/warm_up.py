"""What pods are told of inputs to warm up with: what the spec says, what is kept from revisions before. Pure."""

import math
import re
from collections.abc import Sequence

from pydantic import Field

from onnx_operator.api.contract import MOST_ELEMENTS, WarmUpInputs
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import ModelReport, TensorSpec
from onnx_operator.api.sources import ApiModel

LONGEST_WARM_UP = 32 * 1024
"""Bytes of spec.warmUp as JSON: it is one argument of the server, and Linux takes 128 KiB of one (MAX_ARG_STRLEN)."""


_ONE_FILLING = "an input of BYTES is filled by spec.warmUp.texts, any other by spec.warmUp.values"


class Kept(ApiModel):
    """What a revision takes over from those before it."""

    inputs: WarmUpInputs | None = Field(default=None, description="what warmed up a revision of the same interface")
    required: bool = Field(default=False, description="whether it may not serve unless it is warm")


class Warmed(ApiModel):
    """How a revision started: whether it was warmed up, and by what."""

    warmed: bool
    inputs: WarmUpInputs | None = None


class WarmUpRejectedError(ValueError):
    """``spec.warmUp`` cannot be used; the text names the field."""


def warm_up_text(spec: OnnxModelSpec, report: ModelReport) -> str:
    """``spec.warmUp`` as the server takes it; empty where there is none. Raises :class:`WarmUpRejectedError`.

    What a report does not tell (it is cut, or a shape is of any rank) the server judges.
    """
    given = spec.warm_up.inputs() if spec.warm_up else WarmUpInputs()
    if given.empty:
        return ""
    if spec.scoring:
        raise WarmUpRejectedError(
            "spec.warmUp: with spec.scoring the script loads the model; let its init() warm it up"
        )
    known = {tensor.name: tensor for tensor in report.inputs}
    for side, names in (("shapes", given.shapes), ("values", given.values), ("texts", given.texts)):
        for name in names:
            if name not in known and not report.truncated:
                listed = ", ".join(sorted(known)) or "none"
                raise WarmUpRejectedError(f"spec.warmUp.{side}.{name}: the model has no such input; it has {listed}")
    for name, shape in given.shapes.items():
        _check_shape(name, shape, known.get(name))
    for name, numbers in given.values.items():
        _check_numbers(name, numbers, known.get(name))
    for name in given.texts:
        if name in given.values or (name in known and known[name].datatype != "BYTES"):
            datatype = known[name].datatype if name in known else "both"
            raise WarmUpRejectedError(f"spec.warmUp.texts.{name}: {_ONE_FILLING}; it is {datatype}")
    text = given.to_text()
    if len(text.encode()) > LONGEST_WARM_UP:
        raise WarmUpRejectedError(
            f"spec.warmUp takes {len(text.encode())} bytes as JSON, {LONGEST_WARM_UP} are possible; recorded inputs in "
            "spec.model.testData may be larger"
        )
    return text


def _check_shape(name: str, shape: Sequence[int], tensor: TensorSpec | None) -> None:
    field = f"spec.warmUp.shapes.{name} is {list(shape)}"
    if math.prod(shape) > MOST_ELEMENTS:
        raise WarmUpRejectedError(
            f"{field}, which are {math.prod(shape)} elements; expected at most {MOST_ELEMENTS}. Recorded inputs in "
            "spec.model.testData may be larger"
        )
    if tensor is None or tensor.shape in ([], [-1]):
        return
    agrees = len(shape) == len(tensor.shape) and all(
        size == declared or not isinstance(declared, int) or declared < 0
        for size, declared in zip(shape, tensor.shape, strict=True)
    )
    if not agrees:
        shown = ", ".join("?" if size == -1 else str(size) for size in tensor.shape)
        raise WarmUpRejectedError(f"{field}; expected sizes for the model's input, {tensor.datatype} [{shown}]")


def _check_numbers(name: str, numbers: Sequence[float], tensor: TensorSpec | None) -> None:
    if tensor is None:
        return
    if tensor.datatype == "BYTES":
        raise WarmUpRejectedError(f"spec.warmUp.values.{name}: {_ONE_FILLING}; it is BYTES")
    whole = re.fullmatch(r"(U?)INT(\d{1,2})", tensor.datatype)
    if not whole:
        return
    bits = int(whole[2]) - (not whole[1])
    low, high = (0 if whole[1] else -(1 << bits)), (1 << bits) - 1
    for position, number in enumerate(numbers):
        if not (low <= number <= high and float(number).is_integer()):
            raise WarmUpRejectedError(
                f"spec.warmUp.values.{name}[{position}] is {number}; expected a whole number from {low} to {high}, for "
                f"the model's input is {tensor.datatype}"
            )
