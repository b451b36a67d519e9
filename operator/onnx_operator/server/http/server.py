"""The HTTP server: its sockets, its connections, and what they may take."""

import asyncio
import logging
import socket
import ssl
import traceback
from collections.abc import Callable
from time import monotonic

from onnx_operator.server.dataplane.admission import Admission, Answered
from onnx_operator.server.dataplane.budget import LOOKED_AT, Budget
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.connection import Connection
from onnx_operator.server.http.cors import CrossOrigin
from onnx_operator.server.http.exchange import Exchange
from onnx_operator.server.http.heads import Heads
from onnx_operator.server.http.hosts import Check
from onnx_operator.server.http.limits import Limits
from onnx_operator.server.http.responses import Clock
from onnx_operator.server.lifecycle import Lifecycle

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0
HEAD_SECONDS = 10.0
WRITE_SECONDS = 30.0
LINGER_SECONDS = 2.0

Handler = Callable[[Exchange], None]
Admit = Callable[[Exchange], RequestError | None]


class HttpServer:
    """Listens on sockets, and keeps what all its connections share."""

    def __init__(
        self, lifecycle: Lifecycle, admission: Admission, limits: Limits, budget: Budget | None = None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.admission = admission
        self.limits = limits
        self.clock = Clock()
        self.now = monotonic()
        self.connections: set[Connection] = set()
        self.heads = Heads()
        self.budget = budget or Budget()
        """The memory that requests may take."""
        self.body_factor = 8
        """Bytes that a byte of a body is counted as: itself, its copies, and the arrays that are made of it."""
        self.check_host: Check | None = None
        """Refuses what comes under another name than this server's; None: any name will do."""
        self.cross_origin: CrossOrigin | None = None
        """Which web pages of other origins may ask; None: this is not told."""
        self._lifecycle = lifecycle
        self._handler: Handler = _nothing
        self._admit: Admit = lambda _: None
        self._servers: list[asyncio.Server] = []
        self._sweeper = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def use(self, admit: Admit, handler: Handler) -> None:
        """Set who decides on a request's head, and who answers it."""
        self._admit = admit
        self._handler = handler

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept connections from now on."""
        self._servers.append(
            await self.loop.create_server(
                self._connection, sock=listener, ssl=tls, ssl_handshake_timeout=10 if tls else None, backlog=2048
            )
        )

    async def close(self, grace: float) -> None:
        """Take no new connections, end idle ones, and give running requests ``grace`` seconds."""
        self._lifecycle.draining = True
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.end_idle()
        end = monotonic() + grace
        while not all(c.at_rest for c in self.connections) and monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.give_up()
        self._sweeper.cancel()

    @property
    def draining(self) -> bool:
        """Whether connections end with their next answer."""
        return self._lifecycle.draining

    def foresee(self, length: int) -> RequestError | None:
        """The refusal of a body of ``length`` bytes that there is no memory for, before it comes."""
        budget, amount = self.budget, length * self.body_factor
        return budget.refusal(amount) if amount > budget.total - budget.used - budget.of_loop else None

    def charge(self, exchange: Exchange, length: int) -> RequestError | None:
        """Count so many bytes of a request's body, which have come; the refusal where there is no memory for them."""
        budget, amount = self.budget, length * self.body_factor
        if amount < LOOKED_AT:
            if budget.of_loop + budget.used + amount > budget.total:
                return budget.refusal(exchange.charged + exchange.charged_of_loop + amount)
            budget.of_loop += amount
            exchange.charged_of_loop += amount
            return None
        if not budget.take(amount):
            return budget.refusal(exchange.charged + exchange.charged_of_loop + amount)
        exchange.charged += amount
        return None

    def take_charge_of(self, exchange: Exchange) -> int:
        """Make what was counted of a body one sum, which is handed on; whoever has it gives it back."""
        amount, exchange.charged = exchange.charged + exchange.charged_of_loop, 0
        self.budget.of_loop -= exchange.charged_of_loop
        self.budget.add(exchange.charged_of_loop)
        exchange.charged_of_loop = 0
        return amount

    # What connections call.

    def _connection(self) -> Connection:
        connection = Connection(self)
        if len(self.connections) >= self.limits.connections:
            self.loop.call_soon(connection.expire)
        return connection

    def admit(self, exchange: Exchange) -> RequestError | None:
        """Decide on a request by its head. A refusal is answered once the body has been read."""
        if self.check_host is not None and (refusal := self.check_host(exchange.method, exchange.headers)) is not None:
            return refusal
        return self._admit(exchange)

    def handle(self, exchange: Exchange) -> None:
        """Answer a request, now or later."""
        try:
            if exchange.refusal is not None:
                exchange.fail(exchange.refusal)
            else:
                self._handler(exchange)
        except Exception as error:
            self.fail(exchange, error)

    def fail(self, exchange: Exchange, error: BaseException) -> None:
        """Answer with what was raised: a refusal in its own words, anything else as a (logged) fault of ours."""
        if not isinstance(error, RequestError):
            self.report(error)
            error = RequestError("the server failed on this request", 500)
        exchange.fail(error)

    def finished(self, exchange: Exchange, status: int) -> None:
        """Count an exchange that has ended, once."""
        if exchange.finished:
            return
        exchange.finished = True
        if exchange.charged_of_loop:
            self.budget.of_loop -= exchange.charged_of_loop
            exchange.charged_of_loop = 0
        if exchange.charged:
            self.budget.give(exchange.charged)
            exchange.charged = 0
        seconds, admission = monotonic() - exchange.started, self.admission
        if exchange.admitted:
            admission.leave()
        admission.count(exchange.protocol, status, seconds)
        if status >= 500 or admission.watched:
            admission.tell(_answered(exchange, status, seconds))

    def report(self, error: BaseException) -> None:
        """Log a fault of ours with its traceback."""
        text = "".join(traceback.format_exception(error))
        logger.error("a request failed unexpectedly: %r", error, extra={"fields": {"traceback": text}})

    def _sweep(self) -> None:
        self.now = now = monotonic()
        self.clock.tick()
        limits = self.limits
        patience = {
            "idle": limits.idle_timeout,
            "head": HEAD_SECONDS,
            "body": limits.request_timeout,
            "answer": float("inf"),
            "write": WRITE_SECONDS,
            "linger": LINGER_SECONDS,
        }
        for connection in [c for c in self.connections if now - c.since > patience[c.phase]]:
            connection.expire()
        self._sweeper = self.loop.call_later(SWEEP_SECONDS, self._sweep)


def _answered(exchange: Exchange, status: int, seconds: float) -> Answered:
    return Answered(
        protocol=exchange.protocol,
        method=exchange.method.decode("latin-1"),
        path=exchange.path[:200].decode("latin-1"),
        code=status,
        failed=status >= 500,
        error=exchange.error,
        started=exchange.started,
        seconds=seconds,
        headers=lambda: {name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers.items()},
    )


def _nothing(exchange: Exchange) -> None:
    exchange.fail(RequestError("nothing is served yet", 503))
