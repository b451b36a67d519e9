"""CSV (RFC 4180) to a table. The first line names the columns."""

import csv
import io
from collections.abc import Iterable, Iterator

from onnx_operator.server.dataplane.pieces import PIECE, give_way, keep
from onnx_operator.server.dataplane.sizes import THOROUGH_VALUE, text_bytes
from onnx_operator.server.errors import RequestError, quote
from onnx_operator.server.http.tables.cells import LONGEST, MISSING
from onnx_operator.server.http.tables.table import MAX_COLUMNS, Table

MAX_LINE = 1 << 20
"""Bytes of a line. It is read in one call, which for this many takes some 10 ms."""
_MEDIA = b"text/csv"
_BOM = b"\xef\xbb\xbf"


def is_csv(content_type: bytes) -> bool:
    """Whether the value of ``Content-Type`` is CSV's."""
    return content_type.partition(b";")[0].strip().lower() in (_MEDIA, b"application/csv")


def csv_bytes(body: bytes) -> int:
    """What reading takes in memory, at most: a list for each line, a text for each cell, and their values."""
    values = body.count(b",") + 2 * (body.count(b"\n") + body.count(b"\r")) + 2
    return text_bytes(body) + THOROUGH_VALUE * values


def read_csv(body: bytes, content_type: bytes = _MEDIA) -> Table:
    """Read a body. ``header=absent`` in ``content_type`` says that no line names the columns (RFC 4180, section 3).

    A first column without a name is the index that pandas writes, and left out. Raises :class:`RequestError`.
    """
    # Values may stand in quotes (RFC 9110, section 5.6.6).
    parameters = [part.strip().lower().replace(b'"', b"") for part in content_type.split(b";")[1:]]
    header = next((part for part in parameters if part.startswith(b"header=")), b"")
    if header not in (b"", b"header=absent", b"header=present"):
        raise RequestError(
            f"Content-Type says {quote(header.decode('latin-1'))}; expected header=absent or header=present"
        )
    rows = _rows(body)
    if header == b"header=absent":
        return Table(None, rows, text=True)
    if not rows:
        raise RequestError("the body is empty; expected CSV whose first line names the columns")
    names, rows = rows[0], rows[1:]
    if not header and all(_is_value(name) for name in names):
        raise RequestError(
            "the first line of the CSV must name the columns, and holds only numbers; if it is a row, send "
            "Content-Type: text/csv; header=absent, if these are names, header=present"
        )
    if len(names) > 1 and not names[0]:
        names, rows = names[1:], _kept(row[1:] for row in rows)
    return Table(tuple(names), rows, text=True)


def _rows(body: bytes) -> list[list[str]]:
    lines = csv.reader(_lines(body), strict=True)
    try:
        return _kept(_narrow(row, lines.line_num) for row in lines if row)
    except csv.Error as error:
        raise RequestError(f"the body is not valid CSV: line {lines.line_num}: {error}") from None


def _narrow(row: list[str], line: int) -> list[str]:
    if len(row) > MAX_COLUMNS + 1:
        raise RequestError(f"line {line} has {len(row)} values, of which at most {MAX_COLUMNS} are taken")
    return row


def _kept(rows: Iterable[list[str]]) -> list[list[str]]:
    found: list[list[str]] = []
    runs: list[int] = []
    keep(found, runs=runs)
    since, cells = 0, 0
    for row in rows:
        found.append(row)
        cells += 1 + len(row)
        if cells > PIECE:
            runs.append(len(found) - since)
            since, cells = len(found), 0
    return found


def _lines(body: bytes) -> Iterator[str]:
    """The lines with their ends, so that the parser never has more than one to work on in one call."""
    start = len(_BOM) if body.startswith(_BOM) else 0
    number = 0
    while start < len(body):
        end = _line_end(body, start, start + PIECE)
        if end < 0:
            end = _line_end(body, start, start + MAX_LINE)
        if end < 0:
            raise RequestError(f"line {number + 1} of the CSV has more than {MAX_LINE} bytes; send it as JSON")
        try:
            text = body[start:end].decode()
        except UnicodeDecodeError as error:
            raise RequestError(f"the body is not UTF-8: byte {start + error.start} is invalid") from None
        for line in io.StringIO(text, newline=""):
            number += 1
            yield line
        start = end
        give_way()


def _line_end(body: bytes, start: int, most: int) -> int:
    """Behind the last line that ends before ``most``, or -1."""
    if most >= len(body):
        return len(body)
    end = body.rfind(b"\n", start, most)
    if end < 0:
        # One that is followed by a line feed ends with that.
        end = body.rfind(b"\r", start, most - 1)
    return end + 1 if end >= 0 else -1


def _is_value(name: str) -> bool:
    try:
        float(name if len(name) <= LONGEST else "name")
    except ValueError:
        return name in MISSING
    return True
