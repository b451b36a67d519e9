"""One HTTP/1.1 connection: its requests are answered in their order, one after the other, and each wait has an end."""

import asyncio
from collections import deque
from time import monotonic
from typing import Protocol

from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.cors import CrossOrigin
from onnx_operator.server.http.exchange import Exchange
from onnx_operator.server.http.heads import MAX_KNOWN_LENGTH, Head, Heads
from onnx_operator.server.http.incoming import Gate, RequestReader, too_large
from onnx_operator.server.http.responses import Clock, head

MAX_PIPELINED = 16
"""Requests of one connection that may wait behind the one being answered; then it is not read any further."""


class Host(Gate, Protocol):
    """The server, as its connections know it."""

    loop: asyncio.AbstractEventLoop
    clock: Clock
    now: float
    connections: set["Connection"]
    heads: Heads
    cross_origin: CrossOrigin | None

    @property
    def draining(self) -> bool:
        """Whether connections end with their next answer."""

    def handle(self, exchange: Exchange) -> None:
        """Answer a request, now or later."""

    def finished(self, exchange: Exchange, status: int) -> None:
        """Take note of an answer."""


class Connection(asyncio.Protocol):
    """Reads requests, hands each to the server's routes, and writes their answers in order."""

    __slots__ = (
        "_active",
        "_closing",
        "_paused",
        "_pipelined",
        "_requests",
        "_server",
        "_transport",
        "_unread",
        "half_closed",
        "phase",
        "since",
    )

    def __init__(self, server: Host) -> None:
        self._server = server
        self._requests = RequestReader(self, server)
        self._transport: asyncio.Transport | None = None
        self._active: Exchange | None = None
        self._pipelined: deque[Exchange] = deque()
        self._unread = 0
        """Bytes of the budget that answers hold which the caller has not read."""
        self._paused = False
        self._closing = False
        self.half_closed = False
        self.since = monotonic()
        """When the phase began (seconds, monotonic)."""
        self.phase = "idle"
        """``idle``, ``head``, ``body``, ``answer``, ``write`` or ``linger``: what the connection waits for."""

    @property
    def at_rest(self) -> bool:
        """Whether no request is under way and no answer is left to be sent."""
        transport = self._transport
        return self.phase in ("linger", "idle") and (transport is None or not transport.get_write_buffer_size())

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
        requests = self._requests
        for exchange in (self._active, requests.current, *self._pipelined):
            if exchange is not None and not exchange.finished:
                exchange.answered = True
                if exchange.call is not None:
                    exchange.call.cancel()
                self._server.finished(exchange, 499)
        self._active = requests.current = None
        self._pipelined.clear()
        self._server.budget.give(requests.held + self._unread)
        requests.held = self._unread = 0

    def eof_received(self) -> bool:
        """The client sends no more, and may still read."""
        if self._requests.stage != "idle":
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
        if self._closing:
            self._enter("linger")
        else:
            self._enter(self._requests.stage if self._active is None else "answer")
        if self._transport is not None:
            self._transport.resume_reading()
        self._next()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        requests = self._requests
        if requests.over:
            return
        if self.phase == "idle":
            # Nothing is under way: a request begins here, and perhaps it is whole.
            end = data.find(b"\r\n\r\n", 0, MAX_KNOWN_LENGTH) + 4
            if end > 3 and requests.stage == "idle" and not self._pipelined:
                known = self._server.heads.read(data[:end])
                if known is not None and len(data) == end + known.length:
                    self._take_whole(known, data[end:])
                    return
            self.phase = "head"
            self.since = self._server.now
        refusal = requests.feed(data)
        if refusal is not None:
            self._refuse(refusal)

    # What the reader of requests calls.

    def expect_body(self) -> None:
        """A head is over, its body comes."""
        self._enter("body")

    def invite_body(self) -> None:
        """Tell the caller to send the body, unless an answer comes before."""
        if self._active is None and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def receive(self, exchange: Exchange) -> None:
        """Answer the request, or let it wait for its turn."""
        if self._active is None and not self._paused and not self._pipelined:
            self._begin(exchange)
        else:
            self._pipelined.append(exchange)
            if len(self._pipelined) >= MAX_PIPELINED and self._transport is not None:
                self._transport.pause_reading()

    # From request to answer.

    def _take_whole(self, known: Head, body: bytes) -> None:
        """Begin a request that came in one piece, with a head that was read before."""
        exchange = Exchange(self, known.method, known.path, known.query, known.headers)
        server = self._server
        exchange.keep_alive = known.keep_alive
        if len(body) > server.limits.max_body_bytes:
            exchange.keep_alive = False
            exchange.refusal = too_large(server.limits.max_body_bytes)
        else:
            exchange.refusal = server.admit(exchange)
            if exchange.refusal is None and body and not exchange.unread:
                exchange.body = body
                exchange.refusal = server.charge(exchange, len(body))
        if not exchange.keep_alive:
            self._requests.over = True
        self._active = exchange
        self.phase = "answer"
        self.since = server.now
        server.handle(exchange)

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
        if (cross_origin := self._server.cross_origin) is not None:
            headers += cross_origin.lines(asked)
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
        self.phase = "write" if self._paused else self._requests.stage
        self.since = self._server.now
        if self._pipelined:
            self._server.loop.call_soon(self._next)

    def _next(self) -> None:
        if self._active is None and not self._paused and not self._closing and self._pipelined:
            if len(self._pipelined) == MAX_PIPELINED and self._transport is not None:
                self._transport.resume_reading()
            self._begin(self._pipelined.popleft())

    def _refuse(self, error: RequestError) -> None:
        """Answer a request that cannot be read on, after those before it, and close."""
        requests = self._requests
        if self._closing or requests.over:
            return
        exchange = requests.give_up() or Exchange(self, b"", b"", b"", {})
        exchange.keep_alive = False
        exchange.refusal = error
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
        self._requests.over = True
        transport = self._transport
        if transport is None:
            return
        if self.half_closed or not transport.can_write_eof():
            transport.close()
            return
        # An answer that the caller has yet to take has the time of any other.
        self._enter("write" if self._paused else "linger")
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
        elif self.phase == "linger" and self._transport.get_write_buffer_size():
            self._enter("write")
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
