"""Large JSON, read in pieces of some kilobytes by Python's own parser, with the same outcome as in one call.

A list or an object is read as runs of whole members: where a run ends is seen from the brackets, commas and quotes
of the next :data:`PIECE` bytes. Only a member that is longer than half of that is entered, and read the same way.
"""

import json
import re
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from onnx_operator.server.dataplane.pieces import PIECE, give_way, keep, pieces
from onnx_operator.server.errors import RequestError, quote

MAX_DEPTH = 100
"""Lists and objects within each other that may be longer than half a piece; arrays have 64 dimensions at most."""
_BOM = b"\xef\xbb\xbf"
_BLANKS = re.compile(rb"[ \t\n\r]*+")
_SCALAR = re.compile(rb"[^ \t\n\r,:\[\]{}\"]*+")
_TEXT = re.compile(rb"(?:[^\"\\]++|\\u[0-9A-Fa-f]{4}|\\[^u])*+", re.DOTALL)
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_QUOTE, _COMMA = ord('"'), ord(",")
_DEPTHS = np.zeros(256, np.int8)
_DEPTHS[[ord("["), ord("{")]] = 1
_DEPTHS[[ord("]"), ord("}")]] = -1


def comes_twice(key: str) -> RequestError:
    """The refusal of an object with two values for a key."""
    return RequestError(f"the body is not valid JSON: the key {quote(key)} comes twice in one object")


class _Seen:
    """The brackets and commas of the piece that begins at ``start``, outside of any string.

    Looked at once for all lists and objects that are entered within its first half: for each anew, a body of members
    a hundred lists deep would take a hundred times as long.
    """

    def __init__(self, body: bytes, start: int) -> None:
        piece = body[start : start + PIECE]
        if b"\\" in piece:
            piece = _ESCAPE.sub(b"__", piece)
        codes = np.frombuffer(piece, np.uint8)
        outside = np.bitwise_xor.accumulate((codes == _QUOTE).view(np.uint8)) == 0
        self.start = start
        self._depths = np.cumsum(_DEPTHS[codes] * outside, dtype=np.int32)
        self._commas = np.flatnonzero((codes == _COMMA) & outside)

    def run(self, at: int) -> int | None:
        """See :meth:`Pieces._run`; the run ends with the piece at the latest."""
        first, depths = at - self.start, self._depths
        if first >= len(depths):
            return None
        depth = int(depths[first - 1]) if first else 0
        if self._lowest[first] < depth:
            return at + int((depths[first:] < depth).argmax())
        last = self._last_commas.get(depth, -1)
        return self.start + last if last >= first else None

    @cached_property
    def _lowest(self) -> NDArray[np.int32]:
        """The least depth from each byte to the end."""
        return np.minimum.accumulate(self._depths[::-1])[::-1]

    @cached_property
    def _last_commas(self) -> dict[int, int]:
        """The last comma of each depth."""
        depths, places = np.unique(self._depths[self._commas][::-1], return_index=True)
        return dict(zip(depths.tolist(), self._commas[::-1][places].tolist(), strict=True))


class Pieces:
    """One body; ``decoder`` parses its pieces."""

    def __init__(self, body: bytes, decoder: json.JSONDecoder) -> None:
        self._body = body
        self._start = len(_BOM) if body.startswith(_BOM) else 0
        self._decoder = decoder
        self._seen: _Seen | None = None

    def read(self) -> Any:
        """The value that the body is. Raises :class:`RequestError`, and what the decoder's hooks raise.

        Lists and objects that are longer than a piece are kept (see :func:`.pieces.keep`).
        """
        value, at = self._value(self._start, 0)
        at = self._skip(at)
        if at < len(self._body):
            self._fail("Extra data", at)
        return value

    def _value(self, at: int, depth: int) -> tuple[Any, int]:
        at = self._skip(at)
        opening = self._body[at : at + 1]
        if opening in (b"[", b"{") and depth >= MAX_DEPTH:
            raise RequestError("the body is nested too deeply")
        if opening == b"[":
            return self._list(at + 1, depth + 1)
        if opening == b"{":
            return self._object(at + 1, depth + 1)
        return self._string(at) if opening == b'"' else self._scalar(at)

    def _list(self, at: int, depth: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        runs: list[int] = []
        keep(found, runs=runs)
        at, ended = self._begin(at, b"]")
        while not ended:
            if (end := self._run(at)) is not None:
                members = self._members("[", at, end, "]")
                at = end
            else:
                value, at = self._value(at, depth)
                members = [value]
            found += members
            runs.append(len(members))
            at, ended = self._go_on(at, b"]")
        return found, at

    def _object(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        keep(found)
        at, ended = self._begin(at, b"}")
        while not ended:
            if (end := self._run(at)) is not None:
                members = self._members("{", at, end, "}")
                at = end
            else:
                members, at = self._member(at, depth)
            if again := members.keys() & found.keys():
                raise comes_twice(min(again))
            found |= members
            at, ended = self._go_on(at, b"}")
        return found, at

    def _run(self, at: int) -> int | None:
        """Where the longest run of members ends that lie within a piece: at a comma, or where the list or object ends.

        None where not even one does.
        """
        if self._seen is None or at - self._seen.start > PIECE // 2:
            self._seen = _Seen(self._body, at)
        return self._seen.run(at)

    def _begin(self, at: int, closing: bytes) -> tuple[int, bool]:
        """Where the first member of a list or object is, or behind its end if there is none."""
        at = self._skip(at)
        ended = self._body[at : at + 1] == closing
        return at + ended, ended

    def _members(self, opening: str, at: int, end: int, closing: str) -> Any:
        if at == end:
            self._fail(
                "Expecting value" if opening == "[" else "Expecting property name enclosed in double quotes", end
            )
        return self._parsed(opening, at, end, closing)

    def _parsed(self, before: str, at: int, end: int, after: str) -> Any:
        """What the bytes from ``at`` to ``end`` are, between two characters that are not theirs."""
        text = self._text(at, end)
        try:
            return self._decoder.decode(before + text + after)
        except json.JSONDecodeError as error:
            self._fail(error.msg, at + len(text[: max(0, error.pos - 1)].encode()))

    def _text(self, at: int, end: int) -> str:
        try:
            return self._body[at:end].decode()
        except UnicodeDecodeError as error:
            raise RequestError(f"the body is not UTF-8: byte {at + error.start} is invalid") from None

    def _member(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        at = self._skip(at)
        if self._body[at : at + 1] != b'"':
            self._fail("Expecting property name enclosed in double quotes", at)
        key, at = self._string(at)
        at = self._skip(at)
        if self._body[at : at + 1] != b":":
            self._fail("Expecting ':' delimiter", at)
        value, at = self._value(at + 1, depth)
        return {key: value}, at

    def _go_on(self, at: int, closing: bytes) -> tuple[int, bool]:
        """Behind the comma after a member, or behind the end of the list or object."""
        at = self._skip(at)
        found = self._body[at : at + 1]
        if found not in (b",", closing) or not found:
            self._fail("Expecting ',' delimiter", at)
        give_way()
        ended = found == closing
        return at + 1 if ended else self._skip(at + 1), ended

    def _scalar(self, at: int) -> tuple[Any, int]:
        found = _SCALAR.match(self._body, at, at + PIECE)
        assert found is not None
        if len(found[0]) == PIECE:
            raise RequestError("the body holds a number with too many digits")
        try:
            value, length = self._decoder.raw_decode(self._text(at, found.end()))
        except json.JSONDecodeError as error:
            self._fail(error.msg, at)
        return value, at + length

    def _string(self, opened: int) -> tuple[str, int]:
        parts: list[str] = []
        at = opened + 1
        while True:
            found = _TEXT.match(self._body, at, at + PIECE)
            assert found is not None
            end = found.end()
            ended = self._body[end : end + 1] == b'"'
            if not ended and end == at:
                if len(self._body) > at + 1:
                    # An escape that is none: the parser says why.
                    self._parsed('"', at, at + 6, '"')
                self._fail("Unterminated string starting at", opened)
            while not ended and end > at + 1 and self._body[end : end + 1] and self._body[end] & 0xC0 == 0x80:
                # Not within a character.
                end -= 1
            part = self._parsed('"', at, end, '"')
            if parts and "\ud800" <= parts[-1][-1:] <= "\udbff" and "\udc00" <= part[:1] <= "\udfff":
                # The two halves of a character, which came as two escapes.
                part = (parts[-1][-1] + part[0]).encode("utf-16", "surrogatepass").decode("utf-16") + part[1:]
                parts[-1] = parts[-1][:-1]
            parts.append(part)
            if ended:
                return "".join(parts), end + 1
            at = end
            give_way()

    def _skip(self, at: int) -> int:
        """Behind the blanks that may come now."""
        while True:
            found = _BLANKS.match(self._body, at, at + PIECE)
            assert found is not None
            if found.end() < at + PIECE:
                return found.end()
            at = found.end()
            give_way()

    def _fail(self, what: str, at: int) -> NoReturn:
        body, line_start = self._body, self._body.rfind(b"\n", self._start, at) + 1 or self._start
        line = 1 + sum(body[self._start : at][part].count(b"\n") for part in pieces(at - self._start))
        column = 1 + self._characters(line_start, at)
        place = f"line {line} column {column} (character {self._characters(self._start, at)})"
        raise RequestError(f"the body is not valid JSON: {what} at {place}")

    def _characters(self, start: int, end: int) -> int:
        codes = np.frombuffer(self._body, np.uint8)[start:end]
        # What does not begin with the bits 10 begins a character.
        return sum(int(np.count_nonzero(codes[part] & 0xC0 != 0x80)) for part in pieces(len(codes)))
