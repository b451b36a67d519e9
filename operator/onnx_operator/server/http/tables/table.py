"""Rows under the names of columns, to the inputs of a model. Pure functions.

A model takes a column as an input of its own, called like it (``[N, 1]`` or ``[N]``, as scikit-learn's converter makes
of a DataFrame), or all columns as its only input (``[N, columns]``). Whatever is wrong is told with its column and its
row; rows count from 0, as pandas and the other protocols count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnx_operator.server.dataplane.categories import check_categories, check_feed_categories
from onnx_operator.server.dataplane.inference import check_feed, check_shape, find_input
from onnx_operator.server.dataplane.model import ServedModel
from onnx_operator.server.dataplane.pieces import keep
from onnx_operator.server.dataplane.tensors import DTYPES, Array, Placed, TensorInfo, build, chained, flatten
from onnx_operator.server.errors import RequestError, listed, quote
from onnx_operator.server.http.tables.cells import from_text

MAX_COLUMNS = 16_384
_SHOWN = 20


@dataclass(frozen=True)
class Table:
    """Rows of as many cells as there are ``names``; without names (None), of as many as each other.

    Cells are JSON's values (lists as well, for inputs that take several numbers a row); with ``text`` they are what
    stands in a CSV file.
    """

    names: tuple[str, ...] | None
    rows: Sequence[Sequence[Any]]
    text: bool = False

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(self.names) if self.names is not None else len(self.rows[0]) if self.rows else 0


class _Cell(Placed):
    """The places of a column's cells."""

    def at(self, index: int) -> str:
        return f"{self}, row {index}"


class _Matrix(Placed):
    """The places of a table's cells, row by row."""

    names: Sequence[str] = ()

    def at(self, index: int) -> str:
        row, column = divmod(index, len(self.names))
        return f"column {self.names[column]}, row {row}"


def table_feed(model: ServedModel, table: Table) -> dict[str, Array]:
    """The inputs that a table gives. Raises :class:`RequestError` naming the column and the row at fault."""
    _check(table)
    required = [info for info in model.inputs if not info.optional]
    sole = required[0] if len(required) == 1 else None
    if sole is not None and (table.names is None or sole.name not in table.names):
        known = [name for name in table.names or () if name in model.input_by_name]
        if not known:
            array = _matrix(sole, table)
            if columns := model.categories.get(sole.name):
                check_categories(table.names or (), array, columns)
            return {sole.name: array}
    names = table.names
    if names is None:
        names = tuple(info.name for info in required)
        if table.rows and len(names) != table.width:
            raise RequestError(f"expected {len(names)} columns ({listed(names)}), got {table.width} without names")
    infos = [find_column(model, name) for name in names]
    feed = {info.name: _column(info, _cells(table, at), table.text) for at, info in enumerate(infos)}
    missing = [info for info in required if info.name not in feed]
    if missing:
        expected = ", ".join(f"{quote(info.name)} ({info.datatype})" for info in missing[:_SHOWN])
        raise RequestError(f"missing column: {expected}; the table has {listed(names)}")
    check_feed(model, feed)
    check_feed_categories(model, feed)
    return feed


def _cells(table: Table, at: int) -> list[Any]:
    """The cells of one column."""
    cells = [row[at] for row in table.rows]
    keep(cells)
    return cells


def find_column(model: ServedModel, name: str) -> TensorInfo:
    """The input that is called like a column. Raises :class:`RequestError`."""
    if name not in model.input_by_name:
        raise RequestError(f"unknown column {quote(name)}; the model takes {listed(list(model.input_by_name))}")
    return find_input(model, name)


def _check(table: Table) -> None:
    names, width = table.names, table.width
    if width > MAX_COLUMNS:
        raise RequestError(f"the table has {width} columns, of which at most {MAX_COLUMNS} are taken")
    if names is not None:
        if not names:
            raise RequestError("the table has no columns")
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise RequestError(f"the column {quote(name)} comes twice")
            seen.add(name)
    for index, row in enumerate(table.rows):
        if len(row) != width:
            raise RequestError(f"row {index} has {len(row)} values for {width} columns")


def _matrix(info: TensorInfo, table: Table) -> Array:
    """All columns as one input, in their order: the graph knows no names for them."""
    names = [quote(name) for name in table.names] if table.names is not None else list(map(str, range(table.width)))
    if len(info.shape) == 1 and len(names) == 1:
        return _column(info, _cells(table, 0), table.text, f"column {names[0]}")
    if len(info.shape) not in (0, 2):
        raise RequestError(f"input {info.name}: expected {info.describe()}, which no table is; send it as a tensor")
    wanted = info.shape[-1] if info.shape else None
    if isinstance(wanted, int) and (names or table.rows) and len(names) != wanted:
        raise RequestError(
            f"input {info.name} takes {wanted} columns ({info.describe()}), the table has {len(names)}: {listed(names)}"
        )
    label = _Matrix(f"input {info.name}")
    label.names = names
    shape = (len(table.rows), len(names))
    check_shape(info, shape)
    return _built(info, chained(table.rows, len(names)), shape, label, table.text)


def _column(info: TensorInfo, cells: list[Any], text: bool, name: str = "") -> Array:
    label = _Cell(name or f"column {quote(info.name)}")
    shape: tuple[int, ...] = (len(cells),)
    if any(type(cell) is list for cell in cells):
        shape, cells = flatten(cells, str(label))
        check_shape(info, shape)
        return _built(info, cells, shape, str(label), text)
    shape = (*shape, *(1 for _ in info.shape[1:]))
    if info.shape and not info.accepts(shape):
        raise RequestError(
            f"{label} takes {info.describe()}: {_wanted(info)} a row, got {len(cells)} rows of one value"
        )
    return _built(info, cells, shape, label, text)


def _wanted(info: TensorInfo) -> str:
    rest = [size for size in info.shape[1:] if size != 1]
    return f"a list of {' by '.join('?' if size is None else str(size) for size in rest)}" if rest else "one value"


def _built(info: TensorInfo, cells: list[Any], shape: tuple[int, ...], label: str, text: bool) -> Array:
    if info.datatype not in DTYPES:
        raise RequestError(f"input {info.name} has datatype {info.datatype}, which no table can carry")
    if text:
        cells = from_text(cells, info.datatype, label)
    return build(cells, info.datatype, shape, label, lenient=True)
