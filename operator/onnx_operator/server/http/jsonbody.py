"""Bytes of a request to a JSON object, with every way that can fail said in words."""

import json
from typing import Any, NoReturn

import orjson

from onnx_operator.server.errors import RequestError, quote


def _refuse_constant(name: str) -> NoReturn:
    raise RequestError(f"the body is not valid JSON: {name} is no JSON value; send it as a string")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for twice, _ in pairs:
            if twice in seen:
                break
            seen.add(twice)
        raise RequestError(f"the body is not valid JSON: the key {quote(twice)} comes twice in one object")
    return found


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a request body that must be one JSON object in UTF-8.

    Raises :class:`RequestError` (400) naming the position of what is wrong. ``NaN`` and ``Infinity`` are
    refused because they are not JSON, keys that come twice because readers disagree on which of them counts.
    """
    value = parse_value(body)
    if not isinstance(value, dict):
        raise RequestError("the body must be a JSON object")
    return value


def parse_value(body: bytes) -> Any:
    """Parse a request body that may be any JSON value. Raises :class:`RequestError` as :func:`parse_object`."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8: byte {error.start} is invalid") from None
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno} (character {error.pos})"
        raise RequestError(f"the body is not valid JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise RequestError("the body is nested too deeply") from None
    except ValueError:
        # The decoder's only other ValueError: an integer beyond the interpreter's limit of digits.
        raise RequestError("the body holds an integer with too many digits") from None


def encode(value: object) -> bytes:
    """Encode a response. Non-finite floats have been replaced beforehand; surrogates of strings are replaced here."""
    try:
        return orjson.dumps(value)
    except TypeError:
        # Integers beyond 64 bits, surrogates: rare enough for the slow way.
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
