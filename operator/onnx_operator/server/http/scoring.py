"""Requests that the model answers: their body becomes an inference, and its results a body."""

from collections.abc import Callable
from threading import local
from typing import Any

from numpy import ndarray

from onnx_operator.server.dataplane.budget import Account
from onnx_operator.server.dataplane.inference import Inference
from onnx_operator.server.dataplane.model import ServedModel
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.dataplane.sizes import feed_bytes, result_bytes, strings_of, written_bytes
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.exchange import Exchange
from onnx_operator.server.http.jsonbody import encode_in_pieces
from onnx_operator.server.http.openinference import Codec, Form, Reserve
from onnx_operator.server.http.packing import Packer
from onnx_operator.server.http.predictions import prediction_bytes, read_prediction, rows_of, write_prediction
from onnx_operator.server.http.readers import LARGE_BODY, LARGE_TEXT, Readers
from onnx_operator.server.http.responses import BINARY, JSON
from onnx_operator.server.http.score import body_bytes, read_score_body, score_bytes, score_values
from onnx_operator.server.http.server import HttpServer

LARGE_ANSWER = 64 * 1024
"""Elements of numbers from which an answer is written in a thread, with its memory counted; it takes 5 ms."""
LARGE_OBJECTS = 8 * 1024
"""The same of what is not numbers alone."""
Written = tuple[bytes, bytes, bytes]
"""A body, its media type, and further lines of the head."""


class Scoring:
    """Reads, runs and writes for every form of request, once :meth:`attach` was called."""

    def __init__(self, server: HttpServer, plane: DataPlane, readers: Readers, packer: Packer) -> None:
        self._server = server
        self._budget = server.budget
        self._plane = plane
        self._readers = readers
        self._packer = packer
        self._codec: Codec | None = None
        self._of_thread = local()
        self._strings = False
        self._numeric = False
        self._named = False

    def attach(self) -> None:
        """Begin: the data plane has its model."""
        model = self._plane.model
        self._codec = Codec(model, self._plane.name, self._plane.version)
        # Threads make codecs of their own, which must be of this model as well.
        self._of_thread = local()
        self._numeric = all(info.datatype not in (None, "BYTES") for info in model.outputs)
        self._named = any(info.classes for info in model.outputs)
        self._strings = any(info.datatype == "BYTES" for info in model.inputs)

    def infer(self, exchange: Exchange) -> None:
        """Answer a request of the Open Inference Protocol."""
        codec = self._codec
        assert codec is not None
        header_length = exchange.headers.get(b"inference-header-content-length")
        body = exchange.body
        length = len(body)
        read: tuple[Inference, Form] | None
        if length <= LARGE_TEXT or (header_length is not None and length <= LARGE_BODY):
            read = codec.read(body, header_length)
        else:
            # What is quick is tried at once; the thorough way makes objects of Python.
            read = codec.read_quickly(body) if header_length is None and length <= LARGE_BODY else None
        if read is None:

            def start(read: tuple[Inference, Form], account: Account) -> None:
                inference, form = read
                inference.budget, inference.charged = self._budget, account.keep(feed_bytes(inference.feed, length))
                self._start_infer(exchange, inference, form)

            self._readers.read(
                exchange, lambda reserve: self._own_codec().read_large(body, header_length, reserve), start
            )
            return
        inference, form = read
        if self._strings:
            self._hand_over(exchange, inference)
        self._start_infer(exchange, inference, form)

    def score(self, exchange: Exchange) -> None:
        """Answer a request of ``/score``."""
        self._plain(exchange, read_score_body, self._start_score)

    def predict(self, exchange: Exchange) -> None:
        """Answer a request of MLflow or TensorFlow Serving."""
        self._plain(exchange, read_prediction, self._start_prediction)

    def _own_codec(self) -> Codec:
        """A codec of this thread's own."""
        codec: Codec | None = getattr(self._of_thread, "codec", None)
        if codec is None:
            codec = self._of_thread.codec = Codec(self._plane.model, self._plane.name, self._plane.version)
        return codec

    def _hand_over(self, exchange: Exchange, inference: Inference) -> None:
        """Let the inference hold what the request holds of the budget, and what its strings take besides."""
        extra = strings_of(inference.feed)
        if not self._budget.take(extra):
            raise self._budget.refusal(extra)
        inference.budget, inference.charged = self._budget, extra + self._server.take_charge_of(exchange)

    def _start_infer(self, exchange: Exchange, inference: Inference, form: Form) -> None:
        codec = self._codec
        assert codec is not None

        def write(results: list[Any]) -> Written:
            body, header_length = codec.write(form, results)
            if header_length is None:
                return body, JSON, b""
            return body, BINARY, b"Inference-Header-Content-Length: %d\r\n" % header_length

        def measure(results: list[Any]) -> int:
            return written_bytes(results, raw=bool(form.binary) and all(form.binary))

        self._start(exchange, inference, write, measure, small=self._numeric)

    def _write_later(
        self,
        exchange: Exchange,
        results: list[Any],
        write: Callable[[list[Any]], Written],
        measure: Callable[[list[Any]], int],
    ) -> None:
        """Write a large answer in a thread. While it waits for one, its memory is counted as well."""
        account = Account(self._budget, 0)
        account.reserve_unseen(result_bytes(results))

        def work() -> Written:
            account.reserve(measure(results))
            return write(results)

        self._readers.write(exchange, account, work, lambda written: self._packer.answer(exchange, *written))

    def _write(
        self, results: list[Any], write: Callable[[list[Any]], Written], measure: Callable[[list[Any]], int]
    ) -> Written:
        """Write an answer that is not small, with its memory counted."""
        account = Account(self._budget, 0)
        account.reserve(measure(results))
        try:
            return write(results)
        finally:
            account.keep(0)

    def _start(
        self,
        exchange: Exchange,
        inference: Inference,
        write: Callable[[list[Any]], Written],
        measure: Callable[[list[Any]], int],
        *,
        small: bool,
    ) -> None:
        """Run and answer. ``measure`` counts the bytes that writing takes; ``small`` ones of numbers go without."""

        def done(results: list[Any] | None, error: RequestError | None) -> None:
            try:
                if error is not None:
                    exchange.fail(error)
                else:
                    assert results is not None
                    elements = 0
                    for result in results:
                        elements += result.size if small else _elements(result)
                    if elements >= (LARGE_ANSWER if small else LARGE_OBJECTS):
                        self._write_later(exchange, results, write, measure)
                    else:
                        self._packer.answer(
                            exchange, *write(results) if small else self._write(results, write, measure)
                        )
            except Exception as fault:
                self._server.fail(exchange, fault)

        if exchange.answered:
            inference.release()
        else:
            exchange.call = self._plane.start(inference, done, exchange.started + self._plane.timeout)

    def _plain(
        self,
        exchange: Exchange,
        read: Callable[[ServedModel, bytes, bytes], Inference],
        start: Callable[[Exchange, Inference], None],
    ) -> None:
        """Read a body of plain JSON or CSV, away from the event loop where it is large, and start its inference."""
        model, body = self._plane.model, exchange.body
        content_type = exchange.headers.get(b"content-type", b"")
        length = len(body)
        if length > LARGE_TEXT:

            def read_large(reserve: Reserve) -> Inference:
                reserve(body_bytes(body, content_type))
                return read(model, body, content_type)

            def begin(inference: Inference, account: Account) -> None:
                inference.budget, inference.charged = self._budget, account.keep(feed_bytes(inference.feed, length))
                start(exchange, inference)

            self._readers.read(exchange, read_large, begin)
            return
        inference = read(model, body, content_type)
        if self._strings:
            self._hand_over(exchange, inference)
        start(exchange, inference)

    def _start_score(self, exchange: Exchange, inference: Inference) -> None:
        model, names = self._plane.model, inference.outputs
        self._start(
            exchange,
            inference,
            lambda results: (encode_in_pieces(score_values(model, names, results)), JSON, b""),
            lambda results: score_bytes(model, names, results),
            small=self._numeric and not self._named,
        )

    def _start_prediction(self, exchange: Exchange, inference: Inference) -> None:
        model, names, rows = self._plane.model, inference.outputs, rows_of(inference)
        self._start(
            exchange,
            inference,
            lambda results: (encode_in_pieces(write_prediction(model, names, results, rows)), JSON, b""),
            lambda results: prediction_bytes(model, names, results, rows),
            small=False,
        )


def _elements(result: Any) -> int:
    """How many values a result has, or so many that they are many."""
    if isinstance(result, ndarray):
        return result.size
    if isinstance(result, dict) or not isinstance(result, list | tuple):
        return len(result) if isinstance(result, dict) else 1
    return len(result) if len(result) >= LARGE_OBJECTS else sum(map(_elements, result))
