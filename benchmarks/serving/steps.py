"""Where the server's time for one request goes, found by leaving steps out.

The real connection, routes, codec and batcher run in this process; only the socket is missing. Each step is replaced
by its result, prepared beforehand, and what the request then takes less is that step's time.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.serving.cases import CASES, UNLIKE_CASES, body, rows

_ROUNDS = 12
_HEADS = 4
"""Heads for each body of unlike callers: so many that the server does not remember them from one round to the next."""
_STEPS = ("all", "read", "run", "write", "send", "observe", "infer")
TITLES = {
    "read": "the body to an array (JSON: simdjson)",
    "run": "`InferenceSession.run` on the batch, a request's part of it",
    "write": "the outputs to a body",
    "send": "head of the answer, connection's state",
    "observe": "counters for /metrics",
    "rest": "request to batch and back: checks, closures, stacking and slicing",
    "http": "head of the request, routing, admission",
}


class _Sink(asyncio.Transport):
    """Takes answers."""

    def write(self, data: Any) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def _microseconds(case_name: str, model: Path, left_out: str) -> float:
    from onnx_operator.server.dataplane.admission import Admission
    from onnx_operator.server.dataplane.batching import Batcher, BatchPolicy
    from onnx_operator.server.dataplane.inference import Inference
    from onnx_operator.server.dataplane.plane import DataPlane
    from onnx_operator.server.http.connection import Connection
    from onnx_operator.server.http.limits import Limits
    from onnx_operator.server.http.routes import Route, Routes
    from onnx_operator.server.http.server import HttpServer
    from onnx_operator.server.lifecycle import Lifecycle
    from onnx_operator.server.metrics import Metrics
    from onnx_operator.server.runtime.session import SessionSettings, load

    case = next(each for each in (*CASES, *UNLIKE_CASES) if each.name == case_name)
    served = load(model, SessionSettings())
    lifecycle, metrics, plane = Lifecycle(), Metrics(), DataPlane("m")
    limits = Limits()
    server = HttpServer(lifecycle, Admission(metrics, limits.places), limits)
    routes = Routes(server, plane, lifecycle, metrics)
    plane.attach(served, Batcher(served, BatchPolicy(32, inline=True, largest=1 << 20), 2, metrics.run))
    routes.attach()
    asked = []
    for number, row in enumerate(rows(case) * (_HEADS if case.unlike else 1)):
        text, headers = body(case, row, number)
        if case.unlike:
            headers |= {"traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01", "x-request-id": str(number)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: m\r\n{lines}Content-Length: {len(text)}\r\n\r\n"
        asked.append(head.encode() + text)
    codec: Any = routes._scoring._codec
    text, headers = body(case, rows(case)[0])
    inference, form = codec.read(text, headers.get("Inference-Header-Content-Length", "").encode() or None)
    results = served.run_plain(inference.outputs, inference.feed)
    if left_out == "read":
        codec.read = lambda *_: (Inference(inference.feed, inference.outputs), form)
    elif left_out == "write":
        codec.write = lambda *_: (b"x" * 200, None)
    elif left_out == "run":
        batch = [r.repeat(64, axis=0) for r in results]
        served.run_plain = lambda outputs, feed: [r[: len(feed[case.input])] for r in batch]  # type: ignore[method-assign]
    elif left_out == "observe":
        server.admission.count = lambda *_: None
    elif left_out == "send":

        def send(self: Any, exchange: Any, status: int, *_: Any) -> None:
            self._active, self.phase = None, "idle"
            self._server.finished(exchange, status)

        Connection.send = send  # type: ignore[method-assign]
    elif left_out == "infer":
        routes._routes[b"/v2/models/m/infer"] = Route(lambda e: e.answer(200, b"x" * 200), (b"POST",), "rest", True)
    connections = [Connection(server) for _ in range(case.clients)]
    for connection in connections:
        connection.connection_made(_Sink())

    async def turn(count: int) -> float:
        began = time.process_time()
        for number in range(count):
            for place, connection in enumerate(connections):
                connection.data_received(asked[(number * len(connections) + place) % len(asked)])
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return (time.process_time() - began) / (count * len(connections)) * 1e6

    await turn(50)
    return min([await turn(max(1, 4000 // case.clients)) for _ in range(_ROUNDS)])


def measure(case_name: str, model: Path) -> dict[str, float]:
    """Microseconds of a core for each step (keys of ``TITLES``), and ``all``."""
    found = {}
    for step in _STEPS:
        command = [sys.executable, "-m", "benchmarks.serving.steps", case_name, str(model), step]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[step] = float(json.loads(done.stdout))
    steps = {step: max(0.0, found["all"] - found[step]) for step in ("read", "run", "write", "send", "observe")}
    steps["http"] = max(0.0, found["infer"] - steps["send"] - steps["observe"])
    steps["rest"] = max(0.0, found["all"] - sum(steps.values()))
    return steps | {"all": found["all"]}


if __name__ == "__main__":
    import uvloop

    print(json.dumps(uvloop.run(_microseconds(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))))
