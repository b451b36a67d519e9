"""What goes over the channel between the server and the process that holds the script: a JSON header, raw bytes.

A frame is two big-endian lengths (4 bytes for the header, 8 for the body), the header, the body. Nothing that is
read can run code, as a pickle could: the other side executes what a user wrote.
"""

import json
import struct
from typing import Any, BinaryIO

LENGTHS = struct.Struct(">IQ")
MAX_HEADER_LENGTH = 4 << 20
"""Bytes. Request headers and tracebacks are far shorter."""


class FrameError(Exception):
    """The other side sent something that is no frame, or one longer than allowed."""


def encode(header: dict[str, Any], body: bytes = b"") -> tuple[bytes, bytes]:
    """The frame in two pieces, so that a large body is not copied."""
    text = json.dumps(header).encode()
    return LENGTHS.pack(len(text), len(body)) + text, body


def check(lengths: bytes, longest_body: int | None) -> tuple[int, int]:
    """The lengths of header and body. Raises :class:`FrameError`; ``longest_body`` in bytes, None is any."""
    header, body = LENGTHS.unpack(lengths)
    if header > MAX_HEADER_LENGTH or (longest_body is not None and body > longest_body):
        raise FrameError(f"a frame of {header} + {body} bytes is longer than allowed")
    return header, body


def parse(header: bytes) -> dict[str, Any]:
    """Read a header. Raises :class:`FrameError`."""
    try:
        found = json.loads(header)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FrameError("a frame's header is not a JSON object")
    return found


def read(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Read a frame, waiting for it; None when the other side is gone. Raises :class:`FrameError`, OSError."""
    lengths = stream.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    header_length, body_length = check(lengths, None)
    header, body = stream.read(header_length), stream.read(body_length)
    if len(body) < body_length or len(header) < header_length:
        return None
    return parse(header), body


def write(stream: BinaryIO, header: dict[str, Any], body: bytes = b"") -> None:
    """Send a frame. Raises OSError."""
    for piece in encode(header, body):
        stream.write(piece)
    stream.flush()
