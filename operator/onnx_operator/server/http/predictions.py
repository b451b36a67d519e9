"""``/v1/models/NAME:predict`` of KServe's V1 protocol, and ``/invocations`` of MLflow's scoring servers.

Both carry rows in and rows out; one reader takes the forms of both.
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol,
https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_operator.server.dataplane.inference import Inference
from onnx_operator.server.dataplane.model import ServedModel
from onnx_operator.server.dataplane.pieces import keep
from onnx_operator.server.dataplane.sizes import WRITTEN_BYTES, WRITTEN_VALUE
from onnx_operator.server.dataplane.tensors import Array, expects_integers
from onnx_operator.server.errors import RequestError, quote
from onnx_operator.server.http.jsonbody import parse_object, take_constant
from onnx_operator.server.http.score import all_outputs, read_values, rows_of_values, score_bytes, score_values
from onnx_operator.server.http.tables.csvtext import is_csv, read_csv
from onnx_operator.server.http.tables.frames import read_records, read_split
from onnx_operator.server.http.tables.table import table_feed

_FORMS = ("instances", "inputs", "dataframe_split", "dataframe_records")
_USAGE = "expected one of " + ", ".join(f'"{form}"' for form in _FORMS)


def read_prediction(model: ServedModel, body: bytes, content_type: bytes) -> Inference:
    """An inference of all outputs. Raises :class:`RequestError`."""
    if is_csv(content_type):
        return all_outputs(model, table_feed(model, read_csv(body, content_type)))
    # MLflow's client writes a missing number as NaN.
    request = parse_object(body, take_constant, integers=expects_integers(model.inputs))
    forms = [form for form in _FORMS if form in request]
    if len(forms) != 1:
        raise RequestError(f"{_USAGE}, got {' and '.join(forms) or 'none'}")
    if request.get("params"):
        raise RequestError('"params": an ONNX model takes no parameters beside its inputs')
    return all_outputs(model, _feed(model, forms[0], request[forms[0]]))


def _feed(model: ServedModel, form: str, value: Any) -> dict[str, Array]:
    if form == "dataframe_split":
        return table_feed(model, read_split(value))
    if form == "dataframe_records":
        return table_feed(model, read_records(value))
    if form == "instances" and not isinstance(value, list):
        raise RequestError(f'"instances" must be a list of rows, got {quote(value)}')
    return read_values(model, value)


def write_prediction(model: ServedModel, names: Sequence[str], results: Sequence[Any], rows: int) -> dict[str, Any]:
    """``predictions``: for each of ``rows`` the only output's value, or an object of all outputs by name.

    Where an output has not one value a row, the outputs by name instead. For :func:`.jsonbody.encode_in_pieces`: arrays
    stand for nested lists. Raises :class:`RequestError` (500).
    """
    written = score_values(model, names, results)
    columns = list(written.values())
    if any(not isinstance(column, list | np.ndarray) or not _has_rows(column, rows) for column in columns):
        return {"predictions": written}
    if len(columns) == 1:
        return {"predictions": columns[0]}
    lists = [rows_of_values(column) if isinstance(column, np.ndarray) else column for column in columns]
    predictions = [dict(zip(written, row, strict=True)) for row in zip(*lists, strict=True)]
    keep(predictions, len(written))
    return {"predictions": predictions}


def _has_rows(column: list[Any] | Array, rows: int) -> bool:
    return (not isinstance(column, np.ndarray) or column.ndim > 0) and len(column) == rows


def prediction_bytes(model: ServedModel, names: Sequence[str], results: Sequence[Any], rows: int) -> int:
    """What it takes to write results: names of outputs stand in every row."""
    of_names = sum(WRITTEN_BYTES * len(name) + 2 * WRITTEN_VALUE for name in names)
    return score_bytes(model, names, results) + (rows + 1) * of_names


def rows_of(inference: Inference) -> int:
    """How many rows a request has: as many as all its inputs have, 0 where they differ or have none."""
    found = {value.shape[0] if value.ndim else 0 for value in inference.feed.values()}
    return found.pop() if len(found) == 1 else 0
