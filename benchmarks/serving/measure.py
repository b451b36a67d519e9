"""The measurements: bare runs and each server take turns, and a share is formed from each pair of turns."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks import machine
from benchmarks.measure import Spread
from benchmarks.serving import servers
from benchmarks.serving.cases import Case, body, message, rows
from benchmarks.serving.loads import Load, Wrk, ghz, h2load
from benchmarks.worker import Worker

FLUSH_SECONDS = 1.0
_STARTERS: dict[str, Callable[..., Any]] = {"kserve": servers.kserve, "mlserver": servers.mlserver}


@dataclass
class Side:
    """One server in one case. Seconds, bytes, answers a second."""

    name: str
    versions: str
    share: Spread
    rate: float
    p50: float
    p99: float
    core_microseconds: float
    start_seconds: float
    resident_bytes: int


@dataclass
class Result:
    """A case: ours first, then the peers."""

    case: Case
    bare_rate: float
    bare_start_seconds: float
    bare_resident_bytes: int
    sides: list[Side] = field(default_factory=list)


def measure(case: Case, folder: Path, seconds: float, repeats: int) -> Result:
    """Measure a case. Raises LoadError where requests stay without answer, AssertionError for a wrong one."""
    core, spare = machine.cores()
    model = folder / f"{case.name}.onnx"
    model.write_bytes(case.make().SerializeToString())
    inputs = rows(case)
    requests = [body(case, row, number) for number, row in enumerate(inputs)]
    seconds *= case.longer
    expected = _expected(model, case, inputs[0])
    with contextlib.ExitStack() as stack:
        bare = stack.enter_context(Worker(core, "bare", model, json.dumps([case.input, list(case.shape)])))
        asked = [stack.enter_context(servers.ours(core, model, *requests[0], case.path, case.processes))]
        for peer in case.peers:
            try:
                asked.append(stack.enter_context(_STARTERS[peer](core, model, *requests[0])))
            except servers.EnvironmentMissing as missing:
                print(missing)
        for server in asked:
            np.testing.assert_allclose(_answer(server, case, inputs[0]), expected, rtol=1e-4, atol=1e-5)
        wrk = Wrk(folder / case.name, requests, traced=case.unlike)
        # With processes on both cores there is none that the load would have to itself.
        other = spare if case.processes == 1 else None
        calls = [message(case, row, number) for number, row in enumerate(inputs)] if case.protocol == "grpc" else []

        def load(server: servers.Server, duration: float) -> Load:
            if case.protocol == "grpc" and case.unlike:
                return ghz(folder / case.name, calls, server.grpc_port, case.clients, duration, other)
            if case.protocol == "grpc":
                assert other is not None
                return h2load(folder / case.name, calls[0], server.grpc_port, case.clients, duration, other)
            return wrk.run(f"http://127.0.0.1:{server.port}{server.infer}", case.clients, duration, other)

        for server in asked:
            load(server, FLUSH_SECONDS)
        bare.measure(FLUSH_SECONDS)
        rates: list[float] = []
        found: dict[str, list[tuple[Load, float]]] = {server.name: [] for server in asked}
        for _ in range(repeats):
            turn = bare.measure(seconds)
            rates.append(turn["runs"] / turn["seconds"])
            for server in asked:
                spent = server.processor_seconds()
                tally = load(server, seconds)
                found[server.name].append((tally, server.processor_seconds() - spent))
        result = Result(case, median(rates), bare.start_seconds, bare.resident_bytes())
        for server in asked:
            turns = found[server.name]
            result.sides.append(
                Side(
                    server.name,
                    server.versions,
                    Spread.of([tally.rate / rate for (tally, _), rate in zip(turns, rates, strict=True)]),
                    median(tally.rate for tally, _ in turns),
                    median(tally.p50 for tally, _ in turns),
                    median(tally.p99 for tally, _ in turns),
                    median(spent / tally.answers for tally, spent in turns) * 1e6,
                    server.start_seconds,
                    server.resident_bytes(),
                )
            )
        return result


def _expected(model: Path, case: Case, row: Any) -> Any:
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(None, {case.input: row})[0].ravel()


def _answer(server: servers.Server, case: Case, row: Any) -> Any:
    """The server's first output. A fast wrong answer would be worth nothing."""
    if case.protocol == "grpc":
        import grpc

        from onnx_operator.server.rpc import inference_pb2

        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            grpc.channel_ready_future(channel).result(30)
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            answer = inference_pb2.ModelInferResponse.FromString(call(message(case, row), timeout=30))
        return np.frombuffer(answer.raw_output_contents[0], np.float32)
    text, headers = server.post(*body(case, row))
    length = headers.get("inference-header-content-length")
    if case.protocol == "csv":
        return np.array(next(iter(json.loads(text).values())), np.float32).ravel()
    if length is None:
        return np.array(json.loads(text)["outputs"][0]["data"], np.float32).ravel()
    return np.frombuffer(text[int(length) :], np.float32)
