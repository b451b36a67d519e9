"""One HTTP/1.1 connection: from bytes to requests and from answers to bytes, one request after the other.

llhttp (through httptools) parses, in its strict mode: conflicting lengths, bare line feeds and malformed chunks end
the connection with a 400. RFC 9112.
"""

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

import httptools

from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.responses import JSON, error_body, head

if TYPE_CHECKING:
    from onnx_operator.server.http.server import HttpServer

MOST_HEADER_BYTES = 32 * 1024
MOST_HEADERS = 100
LONGEST_KNOWN_HEAD = 2048
MOST_PIPELINED = 16
"""Requests of one connection that may wait behind the one being answered; then it is not read any further."""
_SINGLE = frozenset({b"authorization", b"content-encoding", b"inference-header-content-length", b"host"})
"""Headers that would mean two things if they came twice."""


class Head:
    """The head of a request that was parsed and admitted, for requests whose head has the very same bytes."""

    __slots__ = ("headers", "keep_alive", "length", "method", "path", "query", "route")

    def __init__(self, exchange: "Exchange", length: int) -> None:
        self.method = exchange.method
        self.path = exchange.path
        self.query = exchange.query
        self.headers = exchange.headers
        self.keep_alive = exchange.keep_alive
        self.route = exchange.route
        self.length = length
        """Bytes of the body."""


class Exchange:
    """A request and the way to answer it, exactly once."""

    # Defaults of the class: setting them on each request would take longer than routing it.
    body = b""
    keep_alive = True
    answered = False
    finished = False
    admitted = False
    protocol = "other"
    refusal: RequestError | None = None
    route: Any = None
    call: Any = None

    def __init__(
        self, connection: "Connection", method: bytes, path: bytes, query: bytes, headers: dict[bytes, bytes]
    ) -> None:
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
        headers = b""
        if error.status in (429, 503):
            headers = b"Retry-After: 1\r\n"
        elif error.status == 401:
            headers = b'WWW-Authenticate: Bearer realm="onnx-server"\r\n'
        elif error.status == 405:
            headers = b"Allow: " + b", ".join(self.route.methods if self.route else ()) + b"\r\n"
        self.answer(error.status, error_body(error.message), JSON, headers)


class Connection(asyncio.Protocol):
    """Reads requests, hands each to the server's routes, and writes their answers in order."""

    __slots__ = (
        "_active",
        "_chunks",
        "_closing",
        "_current",
        "_discarding",
        "_header_bytes",
        "_headers",
        "_parser",
        "_paused",
        "_pipelined",
        "_raw_head",
        "_server",
        "_size",
        "_target",
        "_transport",
        "half_closed",
        "phase",
        "since",
    )

    def __init__(self, server: "HttpServer") -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._active: Exchange | None = None
        self._pipelined: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._chunks: list[bytes] = []
        self._size = 0
        self._paused = False
        self._closing = False
        self._discarding = False
        self._raw_head = b""
        self.half_closed = False
        self.since = monotonic()
        """When the phase began (seconds, monotonic)."""
        self.phase = "idle"
        """``idle``, ``head``, ``body``, ``answer``, ``write`` or ``linger``: what the connection waits for."""

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up what nobody can receive any more."""
        self._server.connections.discard(self)
        self._transport = None
        self._closing = True
        for exchange in (self._active, self._current, *self._pipelined):
            if exchange is not None and not exchange.finished:
                exchange.answered = True
                if exchange.call is not None:
                    exchange.call.cancel()
                self._server.finished(exchange, 499)
        self._active = self._current = None
        self._pipelined.clear()

    def eof_received(self) -> bool:
        """The client sends no more, and may still read."""
        if self._current is not None or self.phase == "head":
            return False
        self.half_closed = True
        # True keeps our direction open, for the answers that are due.
        return self._active is not None and not self._closing

    def pause_writing(self) -> None:
        """The client does not read: answer nothing more until it does."""
        self._paused = True
        self._enter("write")
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._paused = False
        self._enter("idle" if self._active is None else "answer")
        if self._transport is not None and not self._closing:
            self._transport.resume_reading()
        self._next()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._discarding:
            return
        if self.phase == "idle":
            # Nothing is under way: a request begins here.
            end = data.find(b"\r\n\r\n") + 4
            if end > 3 and not self._pipelined:
                known = self._server.heads.get(data[:end])
                if known is not None and len(data) == end + known.length:
                    self._repeat(known, data[end:])
                    return
                if end <= LONGEST_KNOWN_HEAD:
                    self._raw_head = data[:end]
            self.phase = "head"
            self.since = self._server.now
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No other protocol is offered: the request is answered in this one, and nothing after it is read.
            self._discarding = True
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, RequestError):
                self._refuse(cause)
            elif isinstance(error, httptools.HttpParserCallbackError):
                self._server.report(cause or error)
                self._refuse(RequestError("the server failed on this request", 500))
            else:
                self._refuse(RequestError(f"the request is not valid HTTP/1.1: {error}", 400))

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Forget the last request."""
        self._target = b""
        self._headers = {}
        self._header_bytes = 0
        self._chunks = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        """Collect the request's target."""
        self._target += url
        if len(self._target) > 8192:
            raise RequestError("the request's target is longer than 8192 bytes", 414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        headers = self._headers
        name = name.lower()
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > MOST_HEADER_BYTES or len(headers) >= MOST_HEADERS:
            raise RequestError(f"the headers take more than {MOST_HEADER_BYTES} bytes, or are over {MOST_HEADERS}", 431)
        if name in headers and name in _SINGLE:
            raise RequestError(f"the header {name.decode('latin-1')} came twice")
        headers[name] = value

    def on_headers_complete(self) -> None:
        """Decide what can be decided before the body is read."""
        headers, server = self._headers, self._server
        path, _, query = self._target.partition(b"?")
        exchange = Exchange(self, self._parser.get_method(), path, query, headers)
        self._current = exchange
        if exchange.path.startswith((b"http://", b"https://")):
            exchange.path = b"/" + exchange.path.partition(b"://")[2].partition(b"/")[2]
        if b"host" not in headers and self._parser.get_http_version() == "1.1":
            raise RequestError("the header host is missing (HTTP/1.1)")
        length = headers.get(b"content-length")
        if length is not None and int(length) > server.limits.max_body_bytes:
            raise _too_large(server.limits.max_body_bytes)
        exchange.refusal = server.admit(exchange)
        self._enter("body")
        if (expectation := headers.get(b"expect")) is not None:
            if expectation.lower() != b"100-continue":
                raise RequestError("the header expect may only say 100-continue", 417)
            if exchange.refusal is not None:
                raise exchange.refusal
            if self._active is None and self._transport is not None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        """Collect the body; that of a request which is refused already is read and dropped."""
        self._size += len(data)
        if self._size > self._server.limits.max_body_bytes:
            raise _too_large(self._server.limits.max_body_bytes)
        if self._current is not None and self._current.refusal is None:
            self._chunks.append(data)

    def on_message_complete(self) -> None:
        """Answer the request, or let it wait for its turn."""
        exchange = self._current
        if exchange is None:
            return
        self._current = None
        chunks = self._chunks
        exchange.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        exchange.keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        if self._raw_head:
            self._remember(exchange)
        if self._active is None and not self._paused:
            self._begin(exchange)
        else:
            self._pipelined.append(exchange)
            if len(self._pipelined) >= MOST_PIPELINED and self._transport is not None:
                self._transport.pause_reading()
        if not exchange.keep_alive:
            self._discarding = True

    def _remember(self, exchange: Exchange) -> None:
        raw, self._raw_head = self._raw_head, b""
        headers = exchange.headers
        if exchange.refusal is None and b"transfer-encoding" not in headers and b"expect" not in headers:
            self._server.remember(raw, Head(exchange, int(headers.get(b"content-length", b"0"))))

    def _repeat(self, known: Head, body: bytes) -> None:
        """Begin a request whose head is that of an earlier one, byte for byte: it would be parsed to the same."""
        exchange = Exchange(self, known.method, known.path, known.query, known.headers)
        exchange.body = body
        exchange.keep_alive = known.keep_alive
        exchange.route = route = known.route
        exchange.protocol = route.protocol
        if route.scoring:
            exchange.refusal = self._server.take_place(exchange)
        if not exchange.keep_alive:
            self._discarding = True
        self._active = exchange
        self.phase = "answer"
        self.since = self._server.now
        self._server.handle(exchange)

    # From request to answer.

    def _begin(self, exchange: Exchange) -> None:
        self._active = exchange
        self._enter("answer")
        self._server.handle(exchange)

    def send(self, exchange: Exchange, status: int, body: bytes, media_type: bytes, headers: bytes) -> None:
        """Write an answer. Called by :class:`Exchange` alone."""
        self._server.finished(exchange, status)
        transport = self._transport
        if transport is None:
            return
        close = not exchange.keep_alive or self._server.draining or self._closing
        asked = exchange.headers
        if close:
            headers += b"Connection: close\r\n"
        elif b"connection" in asked and asked[b"connection"].lower() == b"keep-alive":
            headers += b"Connection: keep-alive\r\n"
        if b"x-request-id" in asked:
            headers += b"X-Request-Id: " + asked[b"x-request-id"][:256] + b"\r\n"
        first = head(self._server.clock, status, len(body), media_type, headers)
        transport.write(first if exchange.method == b"HEAD" else first + body)
        if exchange is self._active:
            self._active = None
        if self._transport is None:
            return
        if close or (self.half_closed and not self._pipelined):
            self._close()
            return
        self.phase = "write" if self._paused else "idle"
        self.since = self._server.now
        if self._pipelined:
            self._server.loop.call_soon(self._next)

    def _next(self) -> None:
        if self._active is None and not self._paused and not self._closing and self._pipelined:
            if len(self._pipelined) == MOST_PIPELINED and self._transport is not None:
                self._transport.resume_reading()
            self._begin(self._pipelined.popleft())

    def _refuse(self, error: RequestError) -> None:
        """Answer a request that cannot be read on, after those before it, and close."""
        if self._closing or self._discarding:
            return
        exchange = self._current or Exchange(self, b"", b"", b"", {})
        self._current = None
        exchange.keep_alive = False
        exchange.refusal = error
        self._discarding = True
        if self._active is None and not self._paused:
            self._active = exchange
            exchange.fail(error)
        else:
            self._pipelined.append(exchange)

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self.since = self._server.now

    def _close(self) -> None:
        """End our direction, and drop what still comes: closing at once would reset what the client has to read."""
        self._closing = True
        self._discarding = True
        transport = self._transport
        if transport is None:
            return
        if self.half_closed or not transport.can_write_eof():
            transport.close()
            return
        self._enter("linger")
        transport.resume_reading()
        transport.write_eof()

    def expire(self) -> None:
        """End a connection that has waited for too long, with a word where one can be said."""
        if self._transport is None:
            return
        if self.phase in ("head", "body") and self._active is None and not self._closing:
            self._refuse(RequestError(f"the request's {self.phase} did not come in time", 408))
        elif self.phase == "idle":
            self._transport.close()
        else:
            self._transport.abort()

    def give_up(self) -> None:
        """Answer what is under way, which there is no more time for (the server stops)."""
        if self._active is not None:
            if self._active.call is not None:
                self._active.call.cancel()
            self._active.fail(RequestError("the server stops; send the request again", 503))

    def end_idle(self) -> None:
        """Close if no request is under way (the server drains)."""
        if self.phase == "idle" and self._active is None and self._transport is not None:
            self._transport.close()


def _too_large(limit: int) -> RequestError:
    return RequestError(f"the body is larger than {limit} bytes", 413)
