"""JSON of the API server that is nested deeper than parsers go, made shallow enough to be read.

The API server takes 10,000 levels, and keeps them wherever an object has free form: in ``metadata.managedFields`` of
any object, in the data of a ControllerRevision. Parsers stop at some hundreds, and one object would keep all those
that are listed beside it from being read. Nothing that counts here has more than a few dozen levels.
"""

import asyncio
import json
import re
from typing import Any

from pydantic_core import from_json

LEVELS = 150
"""Levels that are kept; pydantic's parser reads 200, Python's some 900."""
# An escaped character, or one that matters: linear, and blind to what is text.
_TOKEN = re.compile(rb'\\.|["\[\]{}]', re.DOTALL)
_MAX_DIGITS = 20
_OPENING, _CLOSING = (b"[", b"{"), (b"]", b"}")


async def parsed(document: bytes | bytearray) -> Any:
    """The value of a document, with what is too deep left out. Raises ValueError where it is none."""
    try:
        # Straight from the bytes, without a text of the whole between; nesting is bounded.
        return from_json(document, allow_inf_nan=False)
    except ValueError:
        # Away from the loop: it takes seconds for the largest.
        return from_json(await asyncio.to_thread(shallow, document), allow_inf_nan=False)


async def roughly(document: bytes | bytearray) -> Any:
    """The value of a document that :func:`parsed` refuses, for what else it tells: its odd parts are not as they were.

    Half characters stay halves, and numbers of more digits than the API has become 0. Raises ValueError where it is no
    JSON at all.
    """
    return await asyncio.to_thread(lambda: json.loads(shallow(document), parse_int=_bounded))


def _bounded(digits: str) -> int:
    return int(digits) if len(digits) <= _MAX_DIGITS else 0


def shallow(document: bytes | bytearray) -> bytes:
    """The document with ``null`` in place of all lists and maps below ``LEVELS``; takes valid JSON."""
    depth, begin, within = 0, 0, False
    kept: list[bytes | bytearray] = []
    for token in _TOKEN.finditer(document):
        found = token[0]
        if found == b'"':
            within = not within
        elif within or len(found) > 1:
            continue
        elif found in _OPENING:
            depth += 1
            if depth == LEVELS + 1:
                kept += (document[begin : token.start()], b"null")
        elif found in _CLOSING:
            if depth == LEVELS + 1:
                begin = token.end()
            depth -= 1
    return b"".join((*kept, document[begin:])) if depth <= LEVELS else b"".join(kept)
