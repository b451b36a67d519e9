"""``/score``: plain JSON in, plain JSON out, as callers of Azure ML endpoints know it.

The body is ``{"data": [...]}`` for a model with one input, ``{"data": {"NAME": [...]}}`` or ``{"NAME": [...]}``, any of
pandas' forms of a table, a bare list, or CSV. Nested lists tell the shape; numbers become the input's type where that
loses nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_operator.server.dataplane.inference import Inference, check_feed, check_shape, find_input
from onnx_operator.server.dataplane.model import ServedModel
from onnx_operator.server.dataplane.pieces import PIECE, keep, pieces
from onnx_operator.server.dataplane.sizes import WRITTEN_BYTES, WRITTEN_VALUE, thorough_bytes, written_bytes
from onnx_operator.server.dataplane.tensors import (
    DTYPES,
    Array,
    TensorInfo,
    build,
    encode_nested,
    expects_integers,
    flatten,
    show_shape,
)
from onnx_operator.server.errors import RequestError, quote
from onnx_operator.server.http.jsonbody import parse_value
from onnx_operator.server.http.tables.csvtext import csv_bytes, is_csv, read_csv
from onnx_operator.server.http.tables.frames import read_frame, read_lists, read_object
from onnx_operator.server.http.tables.table import Table, table_feed


def body_bytes(body: bytes, content_type: bytes) -> int:
    """What reading a body takes in memory, at most."""
    return csv_bytes(body) if is_csv(content_type) else thorough_bytes(body)


def read_score_body(model: ServedModel, body: bytes, content_type: bytes) -> Inference:
    """An inference of all outputs on a body of ``/score``. Raises :class:`RequestError`."""
    if is_csv(content_type):
        return all_outputs(model, table_feed(model, read_csv(body, content_type)))
    return read_score(model, parse_value(body, integers=expects_integers(model.inputs)))


def read_score(model: ServedModel, body: object) -> Inference:
    """An inference of all outputs on ``body``, as JSON has it. Raises :class:`RequestError`."""
    if not isinstance(body, dict | list):
        raise RequestError("the body must be a JSON object, or a list for a model with one input")
    return all_outputs(model, _feed(model, body))


def all_outputs(model: ServedModel, feed: dict[str, Array]) -> Inference:
    """An inference of all outputs. Raises :class:`RequestError` where JSON cannot carry one."""
    check_feed(model, feed)
    for info in model.outputs:
        if info.datatype is not None and info.datatype not in DTYPES:
            raise RequestError(f"output {info.name} has datatype {info.datatype}, which JSON cannot carry")
    return Inference(feed, tuple(info.name for info in model.outputs))


def read_values(model: ServedModel, value: object) -> dict[str, Array]:
    """The inputs that ``value`` gives: a table in one of pandas' forms, tensors by name, or the only input's tensor."""
    table = read_frame(value) if isinstance(value, list) else _table(model, value) if isinstance(value, dict) else None
    if table is not None:
        return table_feed(model, table)
    if isinstance(value, dict):
        return read_tensors(model, value)
    sole = [info for info in model.inputs if not info.optional] or model.inputs
    if len(sole) != 1:
        raise RequestError(_usage(model))
    return {sole[0].name: _decode(find_input(model, sole[0].name), value)}


def read_tensors(model: ServedModel, tensors: dict[str, Any]) -> dict[str, Array]:
    """Inputs by name, as nested lists. Raises :class:`RequestError`."""
    return {name: _decode(find_input(model, name), value) for name, value in tensors.items()}


def _feed(model: ServedModel, body: dict[str, Any] | list[Any]) -> dict[str, Array]:
    if isinstance(body, dict):
        if not body and any(not info.optional for info in model.inputs):
            raise RequestError(_usage(model))
        if len(body) == 1 and "data" in body and (isinstance(body["data"], dict) or "data" not in model.input_by_name):
            return read_values(model, body["data"])
    return read_values(model, body)


def _table(model: ServedModel, value: dict[str, Any]) -> Table | None:
    """The table that an object is, where the model does not take it as tensors."""
    if "columns" in value:
        return read_frame(value) if "columns" not in model.input_by_name else None
    known = [model.input_by_name[name] for name in value if name in model.input_by_name]
    if known:
        # A number for a tensor of unknown rank is a number.
        fits = all(info.shape and all(size in (1, None) for size in info.shape[1:]) for info in known)
    else:
        required = [info for info in model.inputs if not info.optional]
        fits = len(required) == 1 and len(required[0].shape) == 2
    if not fits:
        return None
    return read_frame(value) or read_object(value) or (None if known else read_lists(value))


def write_score(model: ServedModel, names: Sequence[str], results: Sequence[Any]) -> dict[str, Any]:
    """The outputs by name: nested lists, and objects for maps. Raises :class:`RequestError` (500)."""
    return {
        name: encode_nested(value) if isinstance(value, np.ndarray) else value
        for name, value in score_values(model, names, results).items()
    }


def score_values(model: ServedModel, names: Sequence[str], results: Sequence[Any]) -> dict[str, Any]:
    """The same with arrays in the place of nested lists."""
    return {
        name: _scores(info, result) if (info := model.output_by_name[name]).classes else _plain(result)
        for name, result in zip(names, results, strict=True)
    }


def score_bytes(model: ServedModel, names: Sequence[str], results: Sequence[Any]) -> int:
    """What it takes to write results: the labels of classes stand in every row."""
    total = written_bytes(results)
    for name, result in zip(names, results, strict=True):
        if classes := model.output_by_name[name].classes:
            labels = sum(len(str(label)) for label in classes)
            total += (result.size // len(classes) + 1) * (WRITTEN_BYTES * labels + WRITTEN_VALUE * (1 + len(classes)))
    return total


def _scores(info: TensorInfo, result: Any) -> list[dict[str, Any]]:
    """A map from class to score for each row, as ``ZipMap`` makes it, in the order of its keys."""
    classes = info.classes
    if not result.ndim or result.shape[-1] != len(classes):
        shape = show_shape(result.shape)
        raise RequestError(f"output {info.name} has shape {shape}, but the model names {len(classes)} classes", 500)
    order = sorted(range(len(classes)), key=lambda index: _key(classes[index]))
    names = [str(classes[index]) for index in order]
    return [dict(zip(names, row, strict=True)) for row in rows_of_values(result.reshape(-1, len(classes))[:, order])]


def rows_of_values(array: Array) -> list[Any]:
    """The rows of an array that is no scalar, as JSON has them."""
    rows: list[Any] = []
    width = array.size // max(1, len(array))
    keep(rows, width)
    for part in pieces(len(array), max(1, PIECE // max(1, width))):
        rows += encode_nested(array[part])
    return rows


def _key(label: int | str) -> int | bytes:
    return label.encode() if isinstance(label, str) else label


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
    if len(shape) == 1 and info.shape[1:] == (1,):
        # A list of numbers, one a row.
        shape = (*shape, 1)
    if len(shape) + 1 == len(info.shape) and info.accepts((1, *shape)):
        raise RequestError(
            f"{label}: expected shape {show_shape(info.shape)}, got {show_shape(shape)}; "
            "a single row goes into a list of its own"
        )
    check_shape(info, shape)
    return build(flat, info.datatype, shape, label, lenient=True)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_nested(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _nested(item) for key, item in value.items()}
    if value is None or isinstance(value, (str, bool, int, np.ndarray)):
        return value
    return encode_nested(np.asarray(value))


def _nested(value: Any) -> Any:
    plain = _plain(value)
    return encode_nested(plain) if isinstance(plain, np.ndarray) else plain
