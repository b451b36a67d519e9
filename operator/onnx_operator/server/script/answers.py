"""What ``run()`` returned, as an HTTP answer."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# They belong to the connection or are set by whoever writes the answer to it.
_NOT_THE_SCRIPTS = frozenset(
    [
        "connection",
        "keep-alive",
        "transfer-encoding",
        "content-length",
        "te",
        "trailer",
        "upgrade",
        "date",
        "server",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "x-ms-run-function-failed",
    ]
)
JSON = (("Content-Type", "application/json"),)
FAILED = ("x-ms-run-function-failed", "True")
"""By this header Azure ML tells that the script is at fault, not the server."""


@dataclass(frozen=True)
class ScriptAnswer:
    """Status, headers (a name may come twice) and body for the caller. Content-Length is not among the headers."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def failure(status: int, message: str, *headers: tuple[str, str]) -> ScriptAnswer:
    """An error, as JSON with the key ``error``."""
    return ScriptAnswer(status, (*JSON, *headers), json.dumps({"error": message}).encode())


class ResultError(Exception):
    """``run()`` returned what no HTTP answer can be made of."""


def answer(result: Any) -> ScriptAnswer:
    """Turn a result into an answer. Raises :class:`ResultError`.

    As in Azure ML a response object is sent as it is and everything else as JSON, a text too: what a script makes by
    ``json.dumps`` arrives as one JSON string, which its clients decode twice. Beyond Azure ML, NumPy arrays and
    numbers become lists and numbers, and bytes are sent as they are.
    """
    if hasattr(result, "status_code") and hasattr(result, "get_data") and hasattr(result, "headers"):
        return _response(result)
    if isinstance(result, bytes | bytearray | memoryview):
        return ScriptAnswer(200, (("Content-Type", "application/octet-stream"),), bytes(result))
    try:
        return ScriptAnswer(200, JSON, json.dumps(result, default=_plain).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ResultError(f"run() returned {type(result).__name__}, which cannot be written as JSON: {error}") from None


def _plain(value: Any) -> Any:
    # NumPy's arrays and numbers, without importing NumPy for scripts that do not.
    if callable(getattr(value, "tolist", None)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def _response(result: Any) -> ScriptAnswer:
    try:
        body = bytes(result.get_data())
        status = int(result.status_code)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ResultError(f"run() returned a response that cannot be read: {error}") from None
    if not 200 <= status <= 599:
        raise ResultError(f"run() returned a response with status {status}, expected 200 to 599")
    headers = result.headers
    # With a header that came several times, a Flask response yields pairs, a mapping cannot.
    pairs = headers.items() if isinstance(headers, Mapping) or hasattr(headers, "items") else headers
    kept = _checked(pairs)
    if status >= 500 or getattr(result, "run_function_failed", False):
        kept = (*kept, FAILED)
    return ScriptAnswer(status, kept, body)


def _checked(pairs: Iterable[tuple[Any, Any]]) -> tuple[tuple[str, str], ...]:
    kept = []
    for raw_name, raw_value in pairs:
        name, value = str(raw_name), str(raw_value).strip()
        if not _NAME.fullmatch(name) or any((ord(c) < 32 and c != "\t") or ord(c) in range(127, 160) for c in value):
            raise ResultError(f"run() returned a response with the header {name!r}, which HTTP cannot carry")
        try:
            value.encode("latin-1")
        except UnicodeEncodeError:
            raise ResultError(f"run() returned a header {name!r} with characters beyond Latin-1") from None
        if name.lower() not in _NOT_THE_SCRIPTS:
            kept.append((name, value))
    return tuple(kept)
