"""The JSON that pandas writes of a DataFrame (``to_json(orient=…)``), to a table. Pure functions.

https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.to_json.html
"""

from collections.abc import Iterable
from itertools import chain
from typing import Any

from onnx_operator.server.dataplane.pieces import keep
from onnx_operator.server.errors import RequestError, quote
from onnx_operator.server.http.tables.table import MAX_COLUMNS, Table

_SPLIT = frozenset({"columns", "index", "data"})


def read_frame(value: object) -> Table | None:
    """The table that ``value`` is by its form alone: ``records``, ``split`` or ``columns``; None where it is none.

    Raises :class:`RequestError` for one with mistakes.
    """
    if isinstance(value, list):
        return read_records(value) if value and isinstance(value[0], dict) else None
    if not isinstance(value, dict) or not value:
        return None
    if _SPLIT >= value.keys() >= {"columns", "data"}:
        return read_split(value)
    if all(type(column) is dict for column in value.values()):
        return _columns(value)
    return None


def read_records(records: object) -> Table:
    """``orient="records"``: a list of objects, each with all columns. Raises :class:`RequestError`."""
    if not isinstance(records, list) or not records:
        raise RequestError(f"expected a list of rows, each an object by column, got {_kind(records)}")
    first = records[0]
    names: tuple[str, ...] = tuple(first) if isinstance(first, dict) else ()
    if len(names) > MAX_COLUMNS:
        raise RequestError(f"row 0 has {len(names)} columns, of which at most {MAX_COLUMNS} are taken")
    rows: list[list[Any]] = []
    keep(rows, len(names))
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise RequestError(f"row {index} is {quote(record)}, expected an object by column")
        try:
            row = [record[name] for name in names]
        except KeyError as error:
            raise RequestError(f"row {index} has no column {quote(error.args[0])}, which row 0 has") from None
        if len(record) != len(names):
            other = next(name for name in record if name not in first)
            raise RequestError(f"row {index} has a column {quote(other)}, which row 0 does not have")
        rows.append(row)
    return Table(names, rows)


def read_split(frame: object) -> Table:
    """``orient="split"``: names of columns, and rows of values. Raises :class:`RequestError`."""
    if not isinstance(frame, dict) or not isinstance(frame.get("data"), list):
        raise RequestError('expected an object with "columns" (a list of names) and "data" (a list of rows)')
    if unknown := next((key for key in frame if key not in _SPLIT), None):
        # Without its names a table is taken in the order of the model's inputs.
        raise RequestError(f'a table in pandas\' form "split" has "columns", "index" and "data", not {quote(unknown)}')
    names, data = frame.get("columns"), frame["data"]
    if names is not None and (not isinstance(names, list) or any(type(name) not in (str, int) for name in names)):
        raise RequestError('"columns" must be a list of names')
    for index, row in enumerate(data):
        if not isinstance(row, list):
            raise RequestError(f"row {index} is {quote(row)}, expected a list of values")
    return Table(tuple(map(str, names)) if names is not None else None, data)


def _columns(frame: dict[str, Any]) -> Table:
    """``orient="columns"``, pandas' default: for each column an object from row to value."""
    if len(frame) > MAX_COLUMNS:
        raise RequestError(f"the table has {len(frame)} columns, of which at most {MAX_COLUMNS} are taken")
    columns = iter(frame.items())
    first, rows = next(columns)
    for name, column in frame.items():
        # Row by row: a comparison of a million keys in one call would hold up others.
        if len(column) != len(rows) or not all(row in column for row in rows):
            other = next(row for row in chain(rows, column) if (row in rows) != (row in column))
            raise RequestError(f"the columns {quote(first)} and {quote(name)} differ in the row {quote(other)}")
    return _table(frame, ([column[row] for column in frame.values()] for row in rows))


def read_lists(frame: dict[str, Any]) -> Table | None:
    """For each column a list of its values; None where it is none."""
    lengths = {len(column) if type(column) is list else -1 for column in frame.values()}
    if len(lengths) != 1 or -1 in lengths or len(frame) > MAX_COLUMNS:
        return None
    if any(isinstance(cell, list | dict) for column in frame.values() for cell in column):
        return None
    return _table(frame, (list(row) for row in zip(*frame.values(), strict=True)))


def _table(frame: dict[str, Any], rows: Iterable[list[Any]]) -> Table:
    made: list[list[Any]] = []
    keep(made, len(frame))
    for row in rows:
        made.append(row)
    return Table(tuple(frame), made)


def read_object(frame: dict[str, Any]) -> Table | None:
    """One row, a value for each column; None where it is none."""
    if not frame or any(isinstance(cell, list | dict) for cell in frame.values()):
        return None
    return Table(tuple(frame), [list(frame.values())])


def _kind(value: object) -> str:
    return "an empty list" if value == [] else "nothing" if value is None else quote(value)
