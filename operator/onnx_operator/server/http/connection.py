"""One HTTP/1.1 connection: from bytes to requests and from answers to bytes, one request after the other.

llhttp (through httptools) parses, in its strict mode: conflicting lengths, bare line feeds and malformed chunks end
the connection with a 400. RFC 9112.
"""

import asyncio
from collections import deque
from time import monotonic
from typing import Any, Protocol

import httptools

from onnx_operator.server.dataplane.budget import Budget
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.heads import (
    LONGEST_KNOWN,
    LONGEST_TARGET,
    MOST_HEADER_BYTES,
    Head,
    Headers,
    Heads,
    check_framing,
    put,
    split_target,
    too_many_headers,
)
from onnx_operator.server.http.limits import Limits
from onnx_operator.server.http.responses import JSON, Clock, error_body, head

MOST_PIPELINED = 16
"""Requests of one connection that may wait behind the one being answered; then it is not read any further."""
MOST_OVERHEAD = 64 * 1024
"""Bytes of a request besides its body, and ..."""
CHUNK_OVERHEAD = 8
"""... besides so many for each byte of the body, which is what chunks of one byte take."""
SMALL_PIECE = 4096
"""Bytes up to which pieces of a body are put together as they come: each object takes some fifty bytes more."""


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
    refusal: RequestError | None = None
    route: Any = None
    call: Any = None

    def __init__(self, connection: "Connection", method: bytes, path: bytes, query: bytes, headers: Headers) -> None:
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


class Host(Protocol):
    """The server, as its connections know it."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    clock: Clock
    now: float
    connections: set["Connection"]
    heads: Heads
    budget: Budget

    @property
    def draining(self) -> bool:
        """Whether connections end with their next answer."""

    def admit(self, exchange: "Exchange") -> RequestError | None:
        """Decide on a request by its head."""

    def handle(self, exchange: "Exchange") -> None:
        """Answer a request, now or later."""

    def finished(self, exchange: "Exchange", status: int) -> None:
        """Take note of an answer."""

    def foresee(self, length: int) -> RequestError | None:
        """Judge a body by its length, before it comes."""

    def charge(self, exchange: "Exchange", length: int) -> RequestError | None:
        """Count the bytes of a body."""

    def report(self, error: BaseException) -> None:
        """Tell of a fault of ours."""


class Connection(asyncio.Protocol):
    """Reads requests, hands each to the server's routes, and writes their answers in order."""

    __slots__ = (
        "_active",
        "_began",
        "_chunks",
        "_closing",
        "_current",
        "_discarding",
        "_fed",
        "_header_bytes",
        "_headers",
        "_held",
        "_parser",
        "_paused",
        "_pipelined",
        "_server",
        "_size",
        "_stage",
        "_target",
        "_transport",
        "_unread",
        "half_closed",
        "phase",
        "since",
    )

    def __init__(self, server: Host) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._active: Exchange | None = None
        self._pipelined: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._target = b""
        self._headers: Headers = {}
        self._header_bytes = 0
        self._chunks: list[bytes | bytearray] = []
        self._size = 0
        self._stage = "idle"
        """Where the parser is: ``idle`` between two requests, in a ``head``, or after one in its ``body``."""
        self._began = False
        self._fed = 0
        self._held = 0
        self._unread = 0
        self._paused = False
        self._closing = False
        self._discarding = False
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
        self._server.budget.give(self._held + self._unread)
        self._held = self._unread = 0

    def eof_received(self) -> bool:
        """The client sends no more, and may still read."""
        if self._stage != "idle":
            return False
        self.half_closed = True
        # True keeps our direction open, for the answers that are due.
        return self._active is not None and not self._closing

    def pause_writing(self) -> None:
        """The client does not read: answer nothing more until it does."""
        self._paused = True
        self._enter("write")
        transport = self._transport
        if transport is not None:
            transport.pause_reading()
            # What a caller leaves unread is memory as well, after the request has long been answered.
            unread = transport.get_write_buffer_size()
            self._server.budget.add(unread - self._unread)
            self._unread = unread

    def resume_writing(self) -> None:
        """It reads again."""
        self._paused = False
        self._server.budget.give(self._unread)
        self._unread = 0
        self._enter(self._stage if self._active is None else "answer")
        if self._transport is not None and not self._closing:
            self._transport.resume_reading()
        self._next()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._discarding:
            return
        if self.phase == "idle":
            # Nothing is under way: a request begins here, and perhaps it is whole.
            end = data.find(b"\r\n\r\n", 0, LONGEST_KNOWN) + 4
            if end > 3 and self._stage == "idle" and not self._pipelined:
                known = self._server.heads.read(data[:end])
                if known is not None and len(data) == end + known.length:
                    self._take_whole(known, data[end:])
                    return
            self.phase = "head"
            self.since = self._server.now
        self._began = False
        try:
            self._parser.feed_data(data)
            if self._stage != "idle":
                self._count(len(data))
        except RequestError as error:
            self._refuse(error)
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

    def _count(self, length: int) -> None:
        """Bound what a request that is under way has brought besides its body.

        The parser tells of a header once it is whole, and of a chunk's extensions never.
        """
        self._fed = (0 if self._began else self._fed) + length
        if not self._began and self._fed > MOST_OVERHEAD + (1 + CHUNK_OVERHEAD) * self._size:
            raise too_many_headers()
        if self._stage == "head":
            budget = self._server.budget
            if not budget.take(length):
                raise budget.refusal(length)
            self._held += length

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Forget the last request."""
        self._stage = "head"
        self._began = True
        self._target = b""
        self._headers = {}
        self._header_bytes = 0
        self._chunks = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        """Collect the request's target."""
        self._target += url
        if len(self._target) > LONGEST_TARGET:
            raise RequestError(f"the request's target is longer than {LONGEST_TARGET} bytes", 414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; one that comes after the body (a trailer) is dropped: the head was judged without it."""
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > MOST_HEADER_BYTES:
            raise too_many_headers()
        if self._stage == "head":
            put(self._headers, name, value)

    def on_headers_complete(self) -> None:
        """Decide what can be decided before the body is read."""
        headers, server = self._headers, self._server
        self._stage = "body"
        if self._held:
            server.budget.give(self._held)
            self._held = 0
        path, query = split_target(self._target)
        exchange = Exchange(self, self._parser.get_method(), path, query, headers)
        self._current = exchange
        version = self._parser.get_http_version()
        check_framing(headers, version)
        if b"host" not in headers and version == "1.1":
            raise RequestError("the header host is missing (HTTP/1.1)")
        length = headers.get(b"content-length")
        if length is not None and int(length) > server.limits.max_body_bytes:
            raise _too_large(server.limits.max_body_bytes)
        exchange.refusal = server.admit(exchange)
        if length is not None and exchange.refusal is None:
            exchange.refusal = server.foresee(int(length))
            if exchange.refusal is not None and exchange.refusal.status == 413:
                raise exchange.refusal
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
        exchange = self._current
        if exchange is None or exchange.refusal is not None:
            return
        exchange.refusal = self._server.charge(exchange, len(data))
        chunks = self._chunks
        if exchange.refusal is not None:
            chunks.clear()
        elif len(data) > SMALL_PIECE or not chunks:
            chunks.append(data)
        else:
            last = chunks[-1]
            if not isinstance(last, bytearray):
                last = bytearray()
                chunks.append(last)
            last += data

    def on_message_complete(self) -> None:
        """Answer the request, or let it wait for its turn."""
        self._stage = "idle"
        exchange = self._current
        if exchange is None:
            return
        self._current = None
        chunks, self._chunks = self._chunks, []
        exchange.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)  # type: ignore[assignment]
        exchange.keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        if self._active is None and not self._paused and not self._pipelined:
            self._begin(exchange)
        else:
            self._pipelined.append(exchange)
            if len(self._pipelined) >= MOST_PIPELINED and self._transport is not None:
                self._transport.pause_reading()
        if not exchange.keep_alive:
            self._discarding = True

    def _take_whole(self, known: Head, body: bytes) -> None:
        """Begin a request that came in one piece, with a head that was read before."""
        exchange = Exchange(self, known.method, known.path, known.query, known.headers)
        server = self._server
        exchange.keep_alive = known.keep_alive
        if len(body) > server.limits.max_body_bytes:
            exchange.keep_alive = False
            exchange.refusal = _too_large(server.limits.max_body_bytes)
        else:
            exchange.refusal = server.admit(exchange)
            if exchange.refusal is None and body:
                exchange.body = body
                exchange.refusal = server.charge(exchange, len(body))
        if not exchange.keep_alive:
            self._discarding = True
        self._active = exchange
        self.phase = "answer"
        self.since = server.now
        server.handle(exchange)

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
        self.phase = "write" if self._paused else self._stage
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
        # The budget gets its bytes back with the answer, while the connection may linger.
        self._chunks = []
        if self._active is None and not self._paused and not self._pipelined:
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
