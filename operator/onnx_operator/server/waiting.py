"""``onnx-server wait``: ends well once the server beside it is ready. It is the startup probe of the pod.

A probe that asks and fails leaves a warning each time, in every start; this one waits until there is a good answer. It
goes on through everything that a start can bring: no listener yet, answers of 503, connections that break.
"""

import json
import socket
import time
from collections.abc import Callable

PAUSE_SECONDS = 0.1
"""Between two looks."""
LOOK_SECONDS = 5.0
"""Longest that one answer is waited for: while a model loads, the interpreter may be held up."""
_ANSWER_BYTES = 16 * 1024
_REQUEST = b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

Connect = Callable[[int, float], socket.socket]
"""Opens a connection to a port of this machine within so many seconds."""


def connect(port: int, timeout: float) -> socket.socket:
    """A connection to the server in the clear. Raises OSError."""
    return socket.create_connection(("localhost", port), timeout)


def connect_tls(port: int, timeout: float) -> socket.socket:
    """The same by TLS, whatever its certificate: it is this machine. Raises OSError."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connect(port, timeout))


def look(port: int, timeout: float = LOOK_SECONDS, open_: Connect = connect) -> tuple[bool, str]:
    """Whether the server is ready, and what it says of itself where it is not."""
    answer = b""
    try:
        with open_(port, timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(_REQUEST)
            while len(answer) < _ANSWER_BYTES and (piece := connection.recv(4096)):
                answer += piece
    except OSError as error:
        if not answer:
            return False, f"it does not answer on port {port}: {error.strerror or error}"
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 200 "):
        return True, ""
    try:
        told = json.loads(body)
        return False, f"it has been in phase {told['phase']} for {told['phaseSeconds']:g} s"
    except (ValueError, TypeError, KeyError):
        return False, f"it answers {head[:60].decode(errors='replace')!r}"


def wait(port: int, timeout: float, open_: Connect = connect, pause: float = PAUSE_SECONDS) -> str:
    """Wait until the server on ``port`` is ready; what it said last where it is not after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while True:
        ready, told = look(port, min(LOOK_SECONDS, max(0.1, end - time.monotonic())), open_)
        if ready:
            return ""
        if time.monotonic() + pause >= end:
            return f"the server was not ready within {timeout:g} s: {told}"
        time.sleep(pause)
