"""What stands in the cells of a CSV file, as the values of JSON that it means. Pure functions."""

import re
from collections.abc import Callable
from typing import Any

from onnx_operator.server.dataplane.exact import Spelled, exact
from onnx_operator.server.dataplane.pieces import keep, pieces
from onnx_operator.server.dataplane.tensors import DTYPES, place
from onnx_operator.server.errors import RequestError, quote

MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"})
"""As pandas writes and reads missing values."""
_NUMBER = re.compile(r"[+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d{1,6}+)?", re.ASCII)
_DIGITS = re.compile(r"[+-]?\d++", re.ASCII)
_EVIDENT = re.compile(r"[0-9.eE+-]*+", re.ASCII)
LONGEST = 400
"""Characters of a number: more digits take time with their square."""
_INFINITE = {
    "inf": "Infinity",
    "+inf": "Infinity",
    "-inf": "-Infinity",
    "infinity": "Infinity",
    "-infinity": "-Infinity",
}
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def from_text(cells: list[Any], datatype: str, label: str) -> list[Any]:
    """The cells of a column. What is missing becomes None, which floats take as NaN.

    Raises :class:`RequestError` for a text that is no value of the ``datatype``, and for one that is missing where a
    text is expected: nobody can tell it from an empty one.
    """
    match DTYPES[datatype].kind:
        case "O":
            for index, cell in enumerate(cells):
                if not cell:
                    where = place(label, index)
                    raise RequestError(f"{where} is missing, expected a string (BYTES); for an empty one send JSON")
            return cells
        case "b":
            return [_boolean(cell, label, index) for index, cell in enumerate(cells)]
        case "f":
            return _numbers(cells, float, lambda cell, index: _float(cell, datatype, label, index))
        case _:
            return _numbers(cells, int, lambda cell, index: _whole(cell, datatype, label, index))


def _numbers(
    cells: list[str], kind: type[float] | type[int], read: Callable[[str, int], float | int | str | None]
) -> list[Any]:
    found: list[Any] = []
    keep(found)
    for part in pieces(len(cells)):
        some = cells[part]
        found += _quickly(some, kind) or [read(cell, index) for index, cell in enumerate(some, part.start)]
    return found


def _quickly(cells: list[str], kind: type[float] | type[int]) -> list[Any] | None:
    """The cells, if all of them are evidently numbers: of no other characters, Python reads what the patterns below do.

    A text that is none makes it raise, a long one would take time with the square of its digits.
    """
    if not cells or max(map(len, cells)) > LONGEST or not _EVIDENT.fullmatch("".join(cells)):
        return None
    try:
        return list(map(kind, cells))
    except ValueError:
        return None


def _boolean(cell: str, label: str, index: int) -> bool:
    found = _BOOLEANS.get(cell.strip().lower())
    if found is None and (number := _number(cell)) in (0, 1) and not isinstance(number, Spelled):
        # As pandas writes what it keeps as numbers.
        return bool(number)
    if found is None:
        raise RequestError(f"{place(label, index)} is {_shown(cell)}, expected true or false (BOOL)")
    return found


def _float(cell: str, datatype: str, label: str, index: int) -> float | str | None:
    cell = cell.strip()
    if len(cell) <= LONGEST and _NUMBER.fullmatch(cell):
        # An integer keeps its digits; what is too large is told by whoever builds the array.
        return float(cell)
    if cell in MISSING:
        return None
    infinite = _INFINITE.get(cell.lower())
    if infinite is None:
        raise RequestError(f"{place(label, index)} is {_shown(cell)}, expected a number ({datatype})")
    return infinite


def _whole(cell: str, datatype: str, label: str, index: int) -> float | int:
    number = _number(cell)
    if number is None:
        raise RequestError(f"{place(label, index)} is {_shown(cell)}, expected an integer ({datatype})")
    # What has a fraction is told by whoever builds the array.
    return number


def _number(cell: str) -> float | int | None:
    cell = cell.strip()
    if len(cell) > LONGEST or not _NUMBER.fullmatch(cell):
        return None
    return int(cell) if _DIGITS.fullmatch(cell) else exact(cell)


def _shown(cell: str) -> str:
    return quote(cell) if cell.strip() else "missing"
