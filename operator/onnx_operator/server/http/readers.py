"""Bodies that are read in threads: parsing or unpacking them on the event loop would hold up all other requests."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from time import monotonic
from typing import TypeVar

from onnx_operator.server.dataplane.budget import Account
from onnx_operator.server.dataplane.pieces import PIECE, working
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.codings import TooLongError, unpack
from onnx_operator.server.http.exchange import Exchange
from onnx_operator.server.http.openinference import Reserve
from onnx_operator.server.http.server import HttpServer
from onnx_operator.server.runtime.malloc import release_memory

LARGE_BODY = 256 * 1024
"""Bytes from which a body is read in a thread: on the loop it would hold up the probes. 64 KiB of numbers take 1 ms."""
LARGE_TEXT = PIECE
"""The same of what becomes objects of Python: tables, CSV, nested lists, strings. 64 KiB take 4 to 14 ms."""
SMALL_PACKED = 16 * 1024
"""Bytes of a compressed body up to which it is unpacked on the loop: 2 ms at worst, of blocks that hold nothing."""
HUGE_BODY = 4 << 20
"""Bytes from which bodies have a thread of their own: those that are read in a moment need not wait for them."""
PARSERS = 2
"""Threads for the large ones that are not huge."""
TRIMMED = 4 << 20
"""Bytes of memory from which what a request has taken is given back to the system at once."""
T = TypeVar("T")


def back_on_loop(future: "Future[T]", ended: "Callable[[Future[T]], None]") -> None:
    """Call ``ended`` on the running event loop once the work of a thread has."""
    loop = asyncio.get_running_loop()

    def tell(done: "Future[T]") -> None:
        # The loop may be closed: then nobody waits for this.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(ended, done)

    future.add_done_callback(tell)


class Readers:
    """The threads, and the way of a request through them."""

    def __init__(self, server: HttpServer, plane: DataPlane) -> None:
        """The time that ``plane`` gives a request is that of reading its body, too."""
        self._server = server
        self._plane = plane
        self._large = ThreadPoolExecutor(PARSERS, thread_name_prefix="parsing")
        self._writing = ThreadPoolExecutor(PARSERS, thread_name_prefix="writing")
        self._huge = ThreadPoolExecutor(1, thread_name_prefix="parsing-huge")

    @property
    def pool(self) -> Executor:
        """The threads for what is not huge."""
        return self._large

    def write(self, exchange: Exchange, account: Account, write: Callable[[], T], then: Callable[[T], None]) -> None:
        """Make a large answer in a thread and go on with ``then`` on the event loop; what is raised fails it.

        What ``account`` holds is given back once the thread is done, or where the caller has gone before it began.
        """

        def work() -> T:
            with working():
                return write()

        def ended(done: "Future[T]") -> None:
            account.keep(0)
            exchange.call = None
            if done.cancelled():
                return
            try:
                then(done.result())
            except Exception as error:
                self._server.fail(exchange, error)

        exchange.call = future = self._writing.submit(work)
        back_on_loop(future, ended)

    def close(self) -> None:
        """Let the threads end."""
        self._writing.shutdown(wait=False, cancel_futures=True)
        self._large.shutdown(wait=False, cancel_futures=True)
        self._huge.shutdown(wait=False, cancel_futures=True)

    def read(self, exchange: Exchange, read: Callable[[Reserve], T], then: Callable[[T, Account], None]) -> None:
        """Read a body in a thread and go on with ``then`` on the event loop, or refuse it when its time is over.

        What the body holds of the budget stays held until the thread has let go of it, whatever became of the caller.
        """
        account = Account(self._server.budget, self._server.take_charge_of(exchange))
        loop = asyncio.get_running_loop()
        pool = self._huge if len(exchange.body) > HUGE_BODY else self._large
        exchange.body = b""

        def work() -> T | RequestError:
            outcome: T | RequestError
            try:
                with working():
                    outcome = (
                        read(account.reserve) if not exchange.answered else RequestError("the caller has gone", 499)
                    )
            except RequestError as error:
                # Without the frames that it passed, which hold all that was read.
                error.__context__ = None
                outcome = error.with_traceback(None)
            if account.held > TRIMMED:
                # What is given back to the budget is given back to the system first: the next one may take it in
                # another thread, whose heap is another.
                release_memory()
            return outcome

        def ended(done: "Future[T | RequestError]") -> None:
            # What is cancelled lets go of its callback: no circle of references keeps the feed until garbage is
            # collected.
            timer.cancel()
            exchange.call = None
            self._go_on(exchange, done, account, then)

        def late() -> None:
            future.cancel()
            exchange.fail(RequestError("the body could not be read in time; try again shortly, or send less", 503))

        future = pool.submit(work)
        timer = loop.call_later(max(0.0, exchange.started + self._plane.timeout - monotonic()), late)
        exchange.call = future
        back_on_loop(future, ended)

    def _go_on(
        self,
        exchange: Exchange,
        future: "Future[T | RequestError]",
        account: Account,
        then: Callable[[T, Account], None],
    ) -> None:
        try:
            if not exchange.answered and not future.cancelled():
                outcome = future.result()
                if isinstance(outcome, RequestError):
                    raise outcome
                then(outcome, account)
        except Exception as error:
            self._server.fail(exchange, error)
        finally:
            account.keep(0)

    def unpack(self, exchange: Exchange, then: Callable[[Exchange], None]) -> None:
        """Go on with the body as it was before it was compressed: at once if it is small, else by way of a thread."""
        body, coding, server = exchange.body, exchange.coding, self._server
        most, factor = server.limits.max_body_bytes, server.body_factor
        exchange.coding = ""

        def go_on(content: bytes) -> None:
            exchange.body = content
            # Shared with others that have the same head: never changed.
            headers = {**exchange.headers, b"content-length": b"%d" % len(content)}
            del headers[b"content-encoding"]
            exchange.headers = headers
            then(exchange)

        def read(reserve: Reserve) -> bytes:
            def more(size: int) -> None:
                if exchange.answered:
                    raise RequestError("the caller has gone", 499)
                # A decoder's window (8 MiB at most) is never filled beyond what has come out of it.
                reserve(factor * (len(body) + size))

            return unpack(coding, body, most, more)

        def start(content: bytes, account: Account) -> None:
            exchange.charged = account.keep(factor * len(content))
            go_on(content)

        if len(body) <= SMALL_PACKED:
            try:
                content = unpack(coding, body, min(most, LARGE_BODY))
            except TooLongError:
                if most <= LARGE_BODY:
                    raise
            else:
                refusal = server.charge(exchange, len(content))
                if refusal is not None:
                    raise refusal
                go_on(content)
                return
        self.read(exchange, read, start)
