"""A request and the way to answer it."""

from time import monotonic
from typing import Any, Protocol

from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.codings import ACCEPTED, UnsupportedCodingError
from onnx_operator.server.http.heads import Headers
from onnx_operator.server.http.responses import JSON, error_body


class Sender(Protocol):
    """Who brings an answer to its caller; see :class:`onnx_operator.server.http.connection.Connection`."""

    def send(self, exchange: "Exchange", status: int, body: bytes, media_type: bytes, headers: bytes) -> None:
        """Write an answer."""


class Exchange:
    """A request and the way to answer it, exactly once."""

    # Defaults of the class: setting them on each request would take longer than routing it.
    body = b""
    keep_alive = True
    answered = False
    finished = False
    admitted = False
    charged = 0
    charged_of_loop = 0
    """Bytes of the server's budget that the request holds."""
    protocol = "other"
    coding = ""
    """How the body is compressed, until it is unpacked."""
    error = ""
    """Why it failed, in words."""
    unread = False
    """Whether nobody reads its body: it is dropped as it comes, and counts for no memory."""
    preflight: bytes | None = None
    """The lines that answer a browser which asks whether a page may."""
    refusal: RequestError | None = None
    route: Any = None
    call: Any = None

    def __init__(self, connection: Sender, method: bytes, path: bytes, query: bytes, headers: Headers) -> None:
        self.connection = connection
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.started = monotonic()

    def answer(self, status: int, body: bytes, media_type: bytes = JSON, headers: bytes = b"") -> None:
        """Send the answer. Nothing happens when there is one already, or nobody to send it to."""
        if self.answered:
            return
        self.answered = True
        self.connection.send(self, status, body, media_type, headers)

    def fail(self, error: RequestError) -> None:
        """Answer with an error."""
        self.error = error.message
        headers = b""
        if error.status in (429, 503):
            headers = b"Retry-After: 1\r\n"
        elif error.status == 401:
            headers = b'WWW-Authenticate: Bearer realm="onnx-server"\r\n'
        elif error.status == 405:
            headers = b"Allow: " + b", ".join(self.route.methods if self.route else ()) + b"\r\n"
        elif isinstance(error, UnsupportedCodingError):
            headers = b"Accept-Encoding: " + ACCEPTED.encode() + b"\r\n"
        self.answer(error.status, error_body(error.message), JSON, headers)
