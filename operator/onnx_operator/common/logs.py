"""Logs as one JSON object a line, on standard error. Standard output is kept for facts that machines read.

What Python itself and the libraries would write there in forms of their own comes as such a line too, or not at all.
"""

import json
import logging
import sys
import threading
import time
from types import TracebackType
from typing import Any

from onnx_operator.common.text import visible

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as ``extra``; ``fields`` among it holds more of them, whose names need not be free in a record."""
    given: dict[str, Any] = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    nested: dict[str, Any] = given.pop("fields", {})
    return given | nested


class JsonFormatter(logging.Formatter):
    """Time (RFC 3339, UTC), level, logger and message, then the ``extra`` fields."""

    def __init__(self) -> None:
        super().__init__()
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """Encode one record."""
        entry: dict[str, Any] = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class PlainFormatter(logging.Formatter):
    """A line for people: the time of day, the message and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        fields = _fields(record)
        told = " ".join(f"{name}={value}" for name, value in fields.items() if name != "traceback")
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        line = f"{self.formatTime(record, '%H:%M:%S')} {level}{record.getMessage()} {told}".rstrip()
        trouble = fields.get("traceback") or (self.formatException(record.exc_info) if record.exc_info else "")
        return visible(f"{line}\n{trouble}".rstrip(), lines=True)


def configure(level: int = logging.INFO, *, plain: bool = False) -> None:
    """Send every logger's records to standard error: as JSON, or ``plain`` for people."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter() if plain else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    if not plain:
        _take_over()


def _take_over() -> None:
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    sys.unraisablehook = lambda found: _uncaught(found.exc_type, found.exc_value, found.exc_traceback)
    threading.excepthook = _ended


def _ended(found: threading.ExceptHookArgs) -> None:
    # A thread that calls sys.exit is done, as with Python's own hook.
    if not issubclass(found.exc_type, SystemExit):
        _uncaught(found.exc_type, found.exc_value, found.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    found = error or kind()
    logging.getLogger(__name__).critical("unexpected: %r", found, exc_info=(kind, found, trace))
