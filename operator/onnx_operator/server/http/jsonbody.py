"""Bytes of a request to a JSON object, with every way that can fail said in words."""

import json
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import orjson

from onnx_operator.server.dataplane.exact import doubtful, exact
from onnx_operator.server.dataplane.pieces import PIECE, pieces
from onnx_operator.server.dataplane.tensors import Array, encode_nested
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.jsonpieces import Pieces, comes_twice


def _refuse_constant(name: str) -> NoReturn:
    raise RequestError(f"the body is not valid JSON: {name} is not a JSON value; send it as a string")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for twice, _ in pairs:
            if twice in seen:
                break
            seen.add(twice)
        raise comes_twice(twice)
    return found


def take_constant(name: str) -> str | None:
    """What Python's own writer makes of floats without a number in JSON: NaN is missing, infinities are spelled."""
    return None if name == "NaN" else name


def parse_object(
    body: bytes, constant: Callable[[str], object] = _refuse_constant, *, integers: bool = False
) -> dict[str, Any]:
    """Parse a request body that must be one JSON object in UTF-8.

    Raises :class:`RequestError` (400) naming the position of what is wrong. ``NaN`` and ``Infinity`` are
    refused because they are not JSON, unless ``constant`` says what they are; keys that come twice because readers
    disagree on which of them counts. Where ``integers`` are expected, what is written with a fraction or an exponent
    is read by :func:`.exact.exact` if need be.
    """
    value = parse_value(body, constant, integers=integers)
    if not isinstance(value, dict):
        raise RequestError("the body must be a JSON object")
    return value


def parse_value(body: bytes, constant: Callable[[str], object] = _refuse_constant, *, integers: bool = False) -> Any:
    """Parse a request body that may be any JSON value. Raises :class:`RequestError` as :func:`parse_object`."""
    number = exact if integers and doubtful(body) else None
    decoder = json.JSONDecoder(parse_float=number, parse_constant=constant, object_pairs_hook=_once)
    try:
        if len(body) > PIECE:
            return Pieces(body, decoder).read()
        return decoder.decode(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8: byte {error.start} is invalid") from None
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


def encode_in_pieces(value: object) -> bytes:
    """The same of a value that may be large: lists, objects of a few keys, and arrays, which are nested lists."""
    if isinstance(value, dict):
        return b"{%b}" % b",".join(encode(key) + b":" + encode_in_pieces(each) for key, each in value.items())
    if not isinstance(value, list | np.ndarray) or (isinstance(value, np.ndarray) and not value.ndim) or not len(value):
        return encode(encode_nested(value) if isinstance(value, np.ndarray) else value)
    width = _width(value)
    if width > PIECE:
        return b"[%b]" % b",".join(map(encode_in_pieces, value))
    parts = []
    for part in pieces(len(value), max(1, PIECE // max(1, width))):
        piece = value[part]
        parts.append(encode(encode_nested(piece) if isinstance(piece, np.ndarray) else piece)[1:-1])
    return b"[%b]" % b",".join(parts)


def _width(value: list[Any] | Array) -> int:
    """About how many values each of the members has."""
    if isinstance(value, np.ndarray):
        return value.size // len(value)
    first = value[0]
    return len(first) if isinstance(first, list | dict) else 1
