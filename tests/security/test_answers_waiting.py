"""Large answers that wait to be written are counted as memory until they are written, or nobody wants them."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from onnx import TensorProto

from onnx_operator.api.contract import Phase
from onnx_operator.server.dataplane.admission import Admission
from onnx_operator.server.dataplane.batching import Batcher, BatchPolicy
from onnx_operator.server.dataplane.budget import Budget
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.http import readers
from onnx_operator.server.http.connection import Connection
from onnx_operator.server.http.limits import Limits
from onnx_operator.server.http.routes import Routes
from onnx_operator.server.http.server import HttpServer
from onnx_operator.server.lifecycle import Lifecycle
from onnx_operator.server.metrics import Metrics
from tests.security.test_http_connection import Sink, answers_in, post
from tests.unit.server.serving import load_bytes, model_bytes, node, value

MIB = 1 << 20
ELEMENTS = MIB
ANSWER = 4 * ELEMENTS
"""Bytes of the numbers of an answer; its request has a few."""
MODEL = load_bytes(
    model_bytes(
        [node("ConstantOfShape", ["n"], ["y"])],
        [value("n", TensorProto.INT64, [1])],
        [value("y", TensorProto.FLOAT, ["m"])],
    )
)
RAW = post(
    b'{"inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "data": [%d]}],'
    b' "parameters": {"binary_data_output": true}}' % ELEMENTS
)


class Waiting:
    """A server whose writing threads are busy until :meth:`release`."""

    def __init__(self, budget: int) -> None:
        lifecycle, metrics, self.plane = Lifecycle(), Metrics(), DataPlane("m", timeout=60)
        lifecycle.enter(Phase.SERVING)
        limits = Limits()
        self.admission = Admission(metrics, limits.places)
        self.budget = Budget(budget)
        self.server = HttpServer(lifecycle, self.admission, limits, self.budget)
        self.routes = Routes(self.server, self.plane, lifecycle, metrics)
        self.plane.attach(MODEL, Batcher(MODEL, BatchPolicy(), 1, metrics.run))
        self.routes.attach()
        self._free = threading.Event()
        for _ in range(readers.PARSERS):
            self.routes._readers._writing.submit(self._free.wait, 60)

    def ask(self) -> tuple[Connection, Sink]:
        connection, sink = Connection(self.server), Sink()
        connection.connection_made(sink)
        connection.data_received(RAW)
        return connection, sink

    def release(self) -> None:
        self._free.set()

    def close(self) -> None:
        self.release()
        self.server._sweeper.cancel()
        self.routes.close()
        self.plane.close()


async def becomes_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def started() -> Iterator[list[Waiting]]:
    found: list[Waiting] = []
    yield found
    for each in found:
        each.close()


async def test_answers_that_wait_are_counted_until_they_are_sent_or_their_callers_have_gone(
    started: list[Waiting],
) -> None:
    started.append(served := Waiting(64 * MIB))
    asked = [served.ask() for _ in range(3)]
    await becomes_true(lambda: served.budget.used == 3 * ANSWER)
    asked[0][0].connection_lost(None)
    await becomes_true(lambda: served.budget.used == 2 * ANSWER)
    served.release()
    await becomes_true(lambda: all(sink.sent for _, sink in asked[1:]))
    assert [[code for code, _ in answers_in(bytes(sink.sent))] for _, sink in asked] == [[], [200], [200]]
    assert (served.budget.used, served.admission.present) == (0, 0)


async def test_an_answer_that_there_is_no_memory_for_does_not_wait(started: list[Waiting]) -> None:
    started.append(served := Waiting(4 * ANSWER + MIB))
    asked = [served.ask() for _ in range(6)]
    refused = asked[4:]
    await becomes_true(lambda: all(sink.sent for _, sink in refused))
    for _, sink in refused:
        ((code, body),) = answers_in(bytes(sink.sent))
        assert code == 503
        assert b"the memory for requests is in use" in body
    assert served.budget.used == 4 * ANSWER
    assert served.admission.present == 4
    for connection, _ in asked:
        connection.connection_lost(None)
    await becomes_true(lambda: served.budget.used == 0)
    assert served.admission.present == 0
