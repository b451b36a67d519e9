"""Bytes of a connection become requests, one after the other, bounded while they come.

llhttp (through httptools) parses, in its strict mode: conflicting lengths, bare line feeds and malformed chunks end
the connection with a 400. RFC 9112.
"""

from typing import Protocol

import httptools

from onnx_operator.server.dataplane.budget import Budget
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.exchange import Exchange, Sender
from onnx_operator.server.http.heads import (
    MAX_HEADER_BYTES,
    MAX_TARGET_LENGTH,
    Headers,
    check_framing,
    put,
    split_target,
    too_many_headers,
)
from onnx_operator.server.http.limits import Limits
from onnx_operator.server.http.upgrades import framing, parser_for

MAX_OVERHEAD = 64 * 1024
"""Bytes of a request besides its body, and ..."""
CHUNK_OVERHEAD = 8
"""... besides so many for each byte of the body, which is what chunks of one byte take."""
SMALL_PIECE = 4096
"""Bytes up to which pieces of a body are put together as they come: each object takes some fifty bytes more."""


class Gate(Protocol):
    """Who lets requests and their bytes in."""

    limits: Limits
    budget: Budget

    def admit(self, exchange: Exchange) -> RequestError | None:
        """Decide on a request by its head."""

    def foresee(self, length: int) -> RequestError | None:
        """Judge a body by its length, before it comes."""

    def charge(self, exchange: Exchange, length: int) -> RequestError | None:
        """Count the bytes of a body."""

    def report(self, error: BaseException) -> None:
        """Tell of a fault of ours."""


class Recipient(Sender, Protocol):
    """Whom requests are for: the connection."""

    def expect_body(self) -> None:
        """A head is over, its body comes."""

    def invite_body(self) -> None:
        """The caller waits to be told to send the body."""

    def receive(self, exchange: Exchange) -> None:
        """Take a request that is whole."""


class RequestReader:
    """Feeds the parser, and makes requests of what it finds."""

    __slots__ = (
        "_began",
        "_chunks",
        "_fed",
        "_gate",
        "_header_bytes",
        "_headers",
        "_parser",
        "_recipient",
        "_resumed_by",
        "_size",
        "_target",
        "current",
        "held",
        "over",
        "stage",
    )

    def __init__(self, recipient: Recipient, gate: Gate) -> None:
        self._recipient = recipient
        self._gate = gate
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: Headers = {}
        self._header_bytes = 0
        self._chunks: list[bytes | bytearray] = []
        self._size = 0
        self._began = False
        self._fed = 0
        self._resumed_by = b""
        """The head after which another parser reads on a request that asks for another protocol, until it does."""
        self.current: Exchange | None = None
        """The request whose body comes."""
        self.held = 0
        """Bytes of the budget that its head holds."""
        self.stage = "idle"
        """Where the parser is: ``idle`` between two requests, in a ``head``, or after one in its ``body``."""
        self.over = False
        """Whether nothing that still comes is a request: it is dropped."""

    def feed(self, data: bytes) -> RequestError | None:
        """Read on; the refusal where the connection cannot."""
        self._began = False
        try:
            self._feed(data)
            if self.stage != "idle":
                self._count(len(data))
        except RequestError as error:
            return error
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, RequestError):
                return cause
            if isinstance(error, httptools.HttpParserCallbackError):
                self._gate.report(cause or error)
                return RequestError("the server failed on this request", 500)
            return RequestError(f"the request is not valid HTTP/1.1: {error}", 400)
        return None

    def give_up(self) -> Exchange | None:
        """Let go of the request that cannot be read on, and return what is known of it."""
        exchange, self.current = self.current, None
        self.over = True
        # The budget gets its bytes back with the answer, while the connection may linger.
        self._chunks = []
        return exchange

    def _feed(self, data: bytes | memoryview) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                if not self._resumed_by:
                    # CONNECT: what follows would be for somebody else.
                    self.over = True
                    return
                head, self._resumed_by = self._resumed_by, b""
                self._parser = parser_for(self)
                self._parser.feed_data(head)
                data = memoryview(data)[stopped.args[0] :]
                if self.over or not data:
                    return
            else:
                return

    def _count(self, length: int) -> None:
        """Bound what a request that is under way has brought besides its body.

        The parser tells of a header once it is whole, and of a chunk's extensions never.
        """
        self._fed = (0 if self._began else self._fed) + length
        if not self._began and self._fed > MAX_OVERHEAD + (1 + CHUNK_OVERHEAD) * self._size:
            raise too_many_headers()
        if self.stage == "head":
            budget = self._gate.budget
            if not budget.take(length):
                raise budget.refusal(length)
            self.held += length

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Forget the last request. Raises :class:`RequestError` where that was the last of the connection."""
        if self.over:
            raise RequestError("this connection ends with the answer before", 400)
        self.stage = "head"
        self._began = True
        self._target = b""
        self._headers = {}
        self._header_bytes = 0
        self._chunks = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        """Collect the request's target."""
        self._target += url
        if len(self._target) > MAX_TARGET_LENGTH:
            raise RequestError(f"the request's target is longer than {MAX_TARGET_LENGTH} bytes", 414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; one that comes after the body (a trailer) is dropped: the head was judged without it."""
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > MAX_HEADER_BYTES:
            raise too_many_headers()
        if self.stage == "head":
            put(self._headers, name, value)

    def on_headers_complete(self) -> None:
        """Decide what can be decided before the body is read."""
        headers, gate = self._headers, self._gate
        self.stage = "body"
        if self.held:
            gate.budget.give(self.held)
            self.held = 0
        path, query = split_target(self._target)
        exchange = Exchange(self._recipient, self._parser.get_method(), path, query, headers)
        self.current = exchange
        version = self._parser.get_http_version()
        check_framing(headers, version)
        if self._parser.should_upgrade() and exchange.method != b"CONNECT":
            self._resumed_by = framing(headers, version, self._parser.should_keep_alive())
        if b"host" not in headers and version == "1.1":
            raise RequestError("the header host is missing (HTTP/1.1)")
        length = headers.get(b"content-length")
        if length is not None and int(length) > gate.limits.max_body_bytes:
            raise too_large(gate.limits.max_body_bytes)
        exchange.refusal = gate.admit(exchange)
        if length is not None and exchange.refusal is None and not exchange.unread:
            exchange.refusal = gate.foresee(int(length))
            if exchange.refusal is not None and exchange.refusal.status == 413:
                raise exchange.refusal
        self._recipient.expect_body()
        if (expectation := headers.get(b"expect")) is not None:
            if expectation.lower() != b"100-continue":
                raise RequestError("the header expect may only say 100-continue", 417)
            if exchange.refusal is not None:
                raise exchange.refusal
            self._recipient.invite_body()

    def on_body(self, data: bytes) -> None:
        """Collect the body; that of a request which is refused already, or has no use for one, is read and dropped."""
        self._size += len(data)
        if self._size > self._gate.limits.max_body_bytes:
            raise too_large(self._gate.limits.max_body_bytes)
        exchange = self.current
        if exchange is None or exchange.refusal is not None or exchange.unread:
            return
        exchange.refusal = self._gate.charge(exchange, len(data))
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
        if self._resumed_by:
            return
        self.stage = "idle"
        exchange = self.current
        if exchange is None:
            return
        self.current = None
        chunks, self._chunks = self._chunks, []
        exchange.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)  # type: ignore[assignment]
        exchange.keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self._recipient.receive(exchange)
        if not exchange.keep_alive:
            self.over = True


def too_large(limit: int) -> RequestError:
    """The refusal of a body of more than ``limit`` bytes."""
    return RequestError(f"the body is larger than {limit} bytes", 413)
