"""What ``run()`` returned, as an HTTP answer."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from onnx_operator.server.script.plain import to_json

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
NOT_FAILED = ("x-ms-run-function-failed", "False")
"""By this header Azure ML tells whether the script is at fault; every answer has it."""
RUN_FAILED = "An unexpected error occurred in scoring script. Check the logs for more info."
NO_ANSWER = "An unexpected internal error occurred. Check the logs for more info."
"""What Azure ML says where ``run()`` raised, and where nothing can be made of what it returned."""


@dataclass(frozen=True)
class ScriptAnswer:
    """Status, headers (a name may come twice) and body for the caller. Content-Length is not among the headers."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def failure(status: int, message: str, *headers: tuple[str, str], azure: str = "") -> ScriptAnswer:
    """An error as JSON: ``error`` as all of ours have it, ``message`` in Azure ML's words where it has some."""
    marked = headers if FAILED in headers else (*headers, NOT_FAILED)
    body = {"error": message, "message": azure or message}
    return ScriptAnswer(status, (*JSON, *marked), json.dumps(body).encode())


class ResultError(Exception):
    """``run()`` returned what no HTTP answer can be made of."""


def answer(result: Any) -> ScriptAnswer:
    """Turn a result into an answer. Raises :class:`ResultError`.

    As in Azure ML a response object is sent as it is and everything else as JSON, a text too: what a script makes by
    ``json.dumps`` arrives as one JSON string, which its clients decode twice. Nothing at all is an empty object. Beyond
    Azure ML, bytes are sent as they are, and more is JSON (see :mod:`plain`).
    """
    if hasattr(result, "status_code") and hasattr(result, "get_data") and hasattr(result, "headers"):
        return _response(result)
    if isinstance(result, bytes | bytearray | memoryview):
        return ScriptAnswer(200, (("Content-Type", "application/octet-stream"), NOT_FAILED), bytes(result))
    try:
        return ScriptAnswer(200, (*JSON, NOT_FAILED), to_json({} if result is None else result).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ResultError(f"run() returned {type(result).__name__}, which cannot be written as JSON: {error}") from None


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
    pairs = list(headers.items() if isinstance(headers, Mapping) or hasattr(headers, "items") else headers)
    kept = _checked(pairs)
    told = any(str(name).lower() == FAILED[0] and str(value) == FAILED[1] for name, value in pairs)
    failed = status >= 500 or told or getattr(result, "run_function_failed", False)
    return ScriptAnswer(status, (*kept, FAILED if failed else NOT_FAILED), body)


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
