"""Answers that are compressed where the caller takes them so, and they are not small."""

from concurrent.futures import Executor, Future

from onnx_operator.server.http.codings import WORTHWHILE, chosen, pack
from onnx_operator.server.http.exchange import Exchange
from onnx_operator.server.http.readers import back_on_loop
from onnx_operator.server.http.responses import BINARY, JSON
from onnx_operator.server.http.server import HttpServer

LARGE = 64 * 1024
"""Bytes from which an answer is compressed in a thread: it would hold up the event loop for a millisecond."""
_VARY = b"Vary: Accept-Encoding\r\n"


class Packer:
    """Sends answers in the coding that their callers ask for."""

    def __init__(self, server: HttpServer, pool: Executor) -> None:
        self._server = server
        self._pool = pool

    def answer(
        self,
        exchange: Exchange,
        body: bytes,
        media_type: bytes = JSON,
        headers: bytes = b"",
        status: int = 200,
    ) -> None:
        """Answer now or, compressed in a thread, soon. What is ``BINARY``: see :func:`.codings.chosen`."""
        if len(body) < WORTHWHILE:
            exchange.answer(status, body, media_type, headers)
            return
        headers += _VARY
        coding = chosen(exchange.headers.get(b"accept-encoding"), binary=media_type == BINARY)
        if not coding:
            exchange.answer(status, body, media_type, headers)
            return
        packed = headers + b"Content-Encoding: " + coding.encode() + b"\r\n"
        if len(body) <= LARGE:
            exchange.answer(status, pack(coding, body), media_type, packed)
            return
        # The answer in both forms. Where there is no memory for that, it goes as it is.
        amount = 2 * len(body)
        if not self._server.budget.take(amount):
            exchange.answer(status, body, media_type, headers)
            return

        def ended(done: "Future[bytes]") -> None:
            self._server.budget.give(amount)
            exchange.call = None
            if done.cancelled():
                return
            if (error := done.exception()) is not None:
                self._server.fail(exchange, error)
            else:
                exchange.answer(status, done.result(), media_type, packed)

        exchange.call = future = self._pool.submit(pack, coding, body)
        back_on_loop(future, ended)
