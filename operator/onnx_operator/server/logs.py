"""Logs as one JSON object a line, on standard error. Standard output is kept for facts that machines read."""

import json
import logging
import sys
import time
from typing import Any

from onnx_operator.api.text import visible


class JsonFormatter(logging.Formatter):
    """Time (RFC 3339, UTC), level and message, then whatever was given as ``extra={"fields": {...}}``."""

    def __init__(self) -> None:
        super().__init__()
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """Encode one record."""
        entry: dict[str, Any] = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        entry.update(getattr(record, "fields", {}))
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class PlainFormatter(logging.Formatter):
    """A line for people: the time of day, the message and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        fields = getattr(record, "fields", {})
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
