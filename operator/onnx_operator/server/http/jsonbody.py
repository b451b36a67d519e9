"""Bytes of a request to a JSON object, with every way that can fail said in words."""

import json
from typing import Any, NoReturn

from onnx_operator.server.errors import RequestError


def _refuse_constant(name: str) -> NoReturn:
    raise RequestError(f"the body is not valid JSON: {name} is no JSON value; send it as a string")


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a request body that must be one JSON object in UTF-8.

    Raises :class:`RequestError` (400) naming the position of what is wrong. ``NaN`` and ``Infinity`` are
    refused because they are not JSON.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8: byte {error.start} is invalid") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno} (character {error.pos})"
        raise RequestError(f"the body is not valid JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise RequestError("the body is nested too deeply") from None
    except ValueError:
        # The decoder's only other ValueError: an integer beyond the interpreter's limit of digits.
        raise RequestError("the body holds an integer with too many digits") from None
    if not isinstance(value, dict):
        raise RequestError("the body must be a JSON object")
    return value


def encode(value: object) -> bytes:
    """Encode a response. Raises ValueError on non-finite floats, which callers replace beforehand."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
