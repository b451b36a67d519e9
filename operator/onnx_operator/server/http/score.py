"""``/score``: plain JSON in, plain JSON out, as callers of Azure ML endpoints know it.

The body is ``{"data": [...]}`` for a model with one input, ``{"data": {"NAME": [...]}}`` or
``{"NAME": [...]}``. Nested lists tell the shape; numbers become the input's type where that loses nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_operator.server.dataplane.inference import Inference, check_feed, check_shape, find_input
from onnx_operator.server.dataplane.model import ServedModel
from onnx_operator.server.dataplane.tensors import DTYPES, Array, TensorInfo, build, encode_nested, flatten, show_shape
from onnx_operator.server.errors import RequestError, quote


def read_score(model: ServedModel, body: dict[str, Any]) -> Inference:
    """An inference of all outputs on ``body``. Raises :class:`RequestError`."""
    feed = {name: _decode(find_input(model, name), value) for name, value in _named(model, body).items()}
    check_feed(model, feed)
    for info in model.outputs:
        if info.datatype is not None and info.datatype not in DTYPES:
            raise RequestError(f"output {info.name} has datatype {info.datatype}, which JSON cannot carry")
    return Inference(feed, tuple(info.name for info in model.outputs))


def write_score(names: Sequence[str], results: Sequence[Any]) -> dict[str, Any]:
    """The outputs by name: nested lists, and objects for maps."""
    return {name: _plain(result) for name, result in zip(names, results, strict=True)}


def _named(model: ServedModel, body: dict[str, Any]) -> dict[str, Any]:
    if set(body) != {"data"}:
        if not body and any(not info.optional for info in model.inputs):
            raise RequestError(_usage(model))
        return body
    data = body["data"]
    if isinstance(data, dict):
        return data
    if "data" in model.input_by_name:
        return body
    sole = [info for info in model.inputs if not info.optional] or model.inputs
    if len(sole) != 1:
        raise RequestError(_usage(model))
    return {sole[0].name: data}


def _usage(model: ServedModel) -> str:
    inputs = ", ".join(f"{info.name} ({info.describe()})" for info in model.inputs if not info.optional)
    return f'name the inputs, as in {{"data": {{"NAME": [...]}}}}; the model takes {inputs}'


def _decode(info: TensorInfo, value: object) -> Array:
    label = f"input {info.name}"
    if isinstance(value, dict):
        raise RequestError(f"{label}: expected nested lists for {info.describe()}, got {quote(value)}")
    if info.datatype not in DTYPES:
        raise RequestError(f"{label} has datatype {info.datatype}, which JSON cannot carry")
    shape, flat = flatten(value, label)
    if len(shape) + 1 == len(info.shape) and info.accepts((1, *shape)):
        raise RequestError(
            f"{label}: expected shape {show_shape(info.shape)}, got {show_shape(shape)}; "
            "a single row goes into a list of its own"
        )
    check_shape(info, shape)
    return build(flat, info.datatype, shape, label, lenient=True)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return encode_nested(np.asarray(value))
