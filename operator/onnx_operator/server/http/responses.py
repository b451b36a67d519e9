"""Responses as bytes."""

import time
from email.utils import formatdate
from http import HTTPStatus

import orjson

JSON = b"application/json"
BINARY = b"application/octet-stream"

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus} | {499: b"Client Closed Request"}


class Clock:
    """The ``Date`` line, made anew when a second has passed (RFC 9110, section 6.6.1)."""

    def __init__(self) -> None:
        self.ok_json = b""
        self.date = b""
        self.tick()

    def tick(self) -> None:
        """Take note of the time."""
        date = formatdate(time.time(), usegmt=True).encode()
        if date != self.date:
            self.date = date
            self.ok_json = (
                b"HTTP/1.1 200 OK\r\nDate: " + date + b"\r\nContent-Type: application/json\r\nContent-Length: "
            )


def head(clock: Clock, status: int, length: int, media_type: bytes = JSON, headers: bytes = b"") -> bytes:
    """Status line and headers. ``headers`` are further lines, each with its line end."""
    if status == 200 and media_type is JSON:
        return b"%b%d\r\n%b\r\n" % (clock.ok_json, length, headers)
    phrase = _PHRASES.get(status, b"")
    return b"HTTP/1.1 %d %b\r\nDate: %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n" % (
        status,
        phrase,
        clock.date,
        media_type,
        length,
        headers,
    )


def error_body(message: str) -> bytes:
    """The protocol's form of an error."""
    return orjson.dumps({"error": message})
