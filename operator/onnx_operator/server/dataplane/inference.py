"""One inference as every protocol hands it over: a checked feed, and which outputs to compute."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnx_operator.server.dataplane.budget import Budget
from onnx_operator.server.dataplane.call import Call
from onnx_operator.server.dataplane.model import ServedModel
from onnx_operator.server.dataplane.tensors import BITS, DTYPES, Array, TensorInfo, show_shape
from onnx_operator.server.errors import RequestError, quote

MAX_DIMENSIONS = 64
"""What numpy's arrays can have."""
MAX_SIZE = 2**63 - 1
"""Of one dimension, as the protocols' and ONNX's integers have it."""

Done = Callable[[list[Any] | None, RequestError | None], None]
"""Called once, on the event loop, with the outputs' values in the order asked for, or with why there are none."""


class Inference:
    """A feed that fits the model and the names of the outputs wanted.

    Whoever builds one has checked it: :func:`find_input`, :func:`check_shape`, :func:`check_feed` and
    :func:`choose_outputs` are the checks.
    """

    call: Call | None = None
    done: Done | None = None
    key: object = None
    rows = 0
    queued = 0.0
    charged = 0
    budget: Budget | None = None
    """Where the ``charged`` bytes go back to when the inference has ended."""

    def __init__(self, feed: dict[str, Array], outputs: tuple[str, ...]) -> None:
        self.feed = feed
        self.outputs = outputs

    def release(self) -> None:
        """Give back what the inference holds of the budget; its arrays are nobody's any more."""
        if self.budget is not None:
            self.budget.give(self.charged)
            self.charged = 0


def find_input(model: ServedModel, name: str) -> TensorInfo:
    """Look up an input that is a tensor. Raises :class:`RequestError`."""
    info = model.input_by_name.get(name)
    if info is None:
        raise RequestError(f"unknown input {quote(name)}; the model takes {_list(model.input_by_name)}")
    refuse_uncarriable(info, "input")
    return info


def check_shape(info: TensorInfo, shape: Sequence[int]) -> None:
    """Raise :class:`RequestError` when a value of this shape does not fit the input, or is none that an array can have.

    Before this nobody multiplies the sizes: the product of many large ones takes time with the square of their number.
    """
    if len(shape) > MAX_DIMENSIONS:
        raise RequestError(
            f"input {info.name}: expected shape {show_shape(info.shape)}, got one of {len(shape)} dimensions"
            + ("" if info.shape else f"; expected at most {MAX_DIMENSIONS}")
        )
    if not info.accepts(shape):
        raise RequestError(f"input {info.name}: expected shape {show_shape(info.shape)}, got {show_shape(shape)[:200]}")
    if shape and max(shape) > MAX_SIZE:
        raise RequestError(f"input {info.name}: the size {quote(max(shape))} is beyond what an array can have")


def check_feed(model: ServedModel, feed: Mapping[str, object]) -> None:
    """Raise :class:`RequestError` for an input of the model that has neither a value nor a default."""
    missing = [info for info in model.inputs if info.name not in feed and not info.optional]
    if missing:
        expected = ", ".join(f"{info.name} ({info.describe()})" for info in missing)
        raise RequestError(f"missing input: {expected}")


def choose_outputs(model: ServedModel, names: Sequence[str]) -> tuple[str, ...]:
    """The outputs to compute: those named, in their order; all tensors without names. Raises :class:`RequestError`.

    The protocol has no form for sequences and maps.
    """
    if not names:
        tensors = [info for info in model.outputs if info.datatype]
        for info in tensors:
            if not carriable(info):
                raise RequestError(
                    f"output {info.name} has datatype {info.datatype}, which the protocol cannot carry; "
                    'choose others with "outputs"'
                )
        if not tensors:
            raise RequestError("no output of this model is a tensor; POST /score returns sequences and maps")
        return tuple(info.name for info in tensors)
    chosen: dict[str, None] = {}
    for name in names:
        if name not in model.output_by_name:
            raise RequestError(f"unknown output {quote(name)}; the model gives {_list(model.output_by_name)}")
        if name in chosen:
            raise RequestError(f"output {name} is asked for twice")
        refuse_uncarriable(model.output_by_name[name], "output")
        chosen[name] = None
    return tuple(chosen)


def carriable(info: TensorInfo) -> bool:
    """Whether the tensor can travel, be it as raw bytes only."""
    return info.datatype in DTYPES or info.datatype in BITS


def refuse_uncarriable(info: TensorInfo, side: str) -> None:
    """Raise :class:`RequestError` for what the protocol cannot carry. ``side`` is ``input`` or ``output``."""
    if info.datatype is None:
        hint = "; POST /score returns it" if side == "output" else ""
        raise RequestError(f"{side} {info.name} is {info.onnx_type}, not a tensor; the protocol cannot carry it{hint}")
    if not carriable(info):
        raise RequestError(f"{side} {info.name} has datatype {info.datatype}, which the protocol cannot carry")


def _list(names: Mapping[str, object], limit: int = 20) -> str:
    shown = ", ".join(list(names)[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "") if names else "none"
