"""Long flat lists of numbers in the JSON of a request, cut out of it to be read in pieces. Pure functions."""

import re
from collections.abc import Iterator

from onnx_operator.server.dataplane.pieces import PIECE

_KEY = b'"data"'
_LIST = re.compile(rb"[ \t\n\r]{0,100}:[ \t\n\r]{0,100}\[")
_MAX_KEYS = 1000


def cut_lists(body: bytes, mark: str) -> tuple[bytes, dict[str, memoryview]]:
    """The body with strings in the place of lists of a key ``"data"`` that are longer than a piece and hold no list.

    By the string, which begins with ``mark``, there is what stood between the list's brackets: numbers, or anything
    else without brackets. In valid JSON what looks like such a key is one, and not the inside of a string.
    """
    found: dict[str, memoryview] = {}
    rest: list[bytes] = []
    whole, done, closed, at = memoryview(body), 0, -1, -1
    for _ in range(_MAX_KEYS):
        at = body.find(_KEY, at + 1)
        opening = _LIST.match(body, at + len(_KEY)) if at > 0 and body[at - 1 : at] != b"\\" else None
        if at < 0:
            break
        if opening is None:
            continue
        opened = opening.end()
        if closed < opened and (closed := body.find(b"]", opened)) < 0:
            break
        if closed - opened > PIECE and body.find(b"[", opened, closed) < 0:
            name = f"{mark}{len(found)}"
            found[name] = whole[opened:closed]
            rest += (body[done : opened - 1], b'"%b"' % name.encode())
            done = closed + 1
            at = closed
    rest.append(body[done:])
    return b"".join(rest), found


def split_at_commas(text: memoryview) -> Iterator[bytes]:
    """Parts of up to a piece, without the comma between two of them. Raises ValueError where none comes in time."""
    at = 0
    while len(text) - at > PIECE:
        part = bytes(text[at : at + PIECE])
        comma = part.rindex(b",")
        yield part[:comma]
        at += comma + 1
    yield bytes(text[at:])
