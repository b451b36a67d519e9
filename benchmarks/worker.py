"""Baselines and steps, each in a process of its own that is pinned to the measured core.

Started as ``python -m benchmarks.worker KIND MODEL CASE``. It prints a line of JSON when it is ready, then
one for each number of seconds that it reads.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import machine

_SLICES = 5


class Worker:
    """The process as its parent sees it. Use it as ``with``."""

    def __init__(self, core: int, kind: str, model: Path, case: str = "") -> None:
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", kind, str(model), case],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: machine.pin(core),
        )

    def __enter__(self) -> Self:
        self.ready = self._answer()
        self.start_seconds = time.perf_counter() - self._began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process as process:
            process.kill()

    def measure(self, seconds: float) -> dict[str, Any]:
        """Let it work for about this long."""
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a measuring process ended; its message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _bare(model: Path, case: str) -> Callable[[], object]:
    import onnxruntime as ort

    from benchmarks.cases import SERVING, rows

    serving = next(each for each in SERVING if each.name == case)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feed = {serving.input: rows(serving.shape)[0]}
    return lambda: session.run(None, feed)


def _judge(model: Path) -> Callable[[], object]:
    import os

    from onnx_operator.api.capabilities import load_capabilities
    from onnx_operator.model.judge import judge

    capabilities = load_capabilities()

    class Disk:
        """The folder of the model, without a cache."""

        def size(self, name: str) -> int | None:
            path = model.with_name(name)
            return path.stat().st_size if path.is_file() else None

        def read_at(self, name: str, begin: int, end: int) -> bytes:
            descriptor = os.open(model.with_name(name), os.O_RDONLY)
            try:
                return os.pread(descriptor, end - begin, begin)
            finally:
                os.close(descriptor)

    def work() -> None:
        result = judge(Disk(), model.name, capabilities=capabilities)
        assert result.refusal is None, result.refusal

    return work


def _checker(model: Path) -> Callable[[], object]:
    import onnx

    def work() -> None:
        loaded = onnx.load(model)
        onnx.checker.check_model(loaded)
        onnx.shape_inference.infer_shapes(loaded, check_type=True, strict_mode=True, data_prop=True)

    return work


def _steps(model: Path, case: str) -> Callable[[float], dict[str, float]]:
    """Microseconds of the core for each step that an inference request takes inside the server."""
    import uvloop

    from benchmarks.cases import SERVING, bodies, rows
    from onnx_operator.server.dataplane.call import Call
    from onnx_operator.server.dataplane.plane import DataPlane
    from onnx_operator.server.http.jsonbody import encode, parse_object
    from onnx_operator.server.runtime.session import SessionSettings, load

    serving = next(each for each in SERVING if each.name == case)
    served = load(model, SessionSettings())
    plane = DataPlane("m")
    plane.attach(served)
    body, feed = bodies(serving)[0], {serving.input: rows(serving.shape)[0]}
    request = parse_object(body)
    answer = plane.infer(request, Call())
    names = [output.name for output in served.outputs]

    async def hops(count: int) -> float:
        from concurrent.futures import ThreadPoolExecutor

        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(2) as pool:
            began = time.process_time()
            for _ in range(count):
                await loop.run_in_executor(pool, int)
            return (time.process_time() - began) / count * 1e6

    def measure(seconds: float) -> dict[str, float]:
        each = seconds / 6
        run = _microseconds(lambda: served.session.run(None, feed), each)
        through = _microseconds(lambda: served.run(names, feed, Call()), each)
        return {
            "run": run,
            "options": through - run,
            "parse": _microseconds(lambda: parse_object(body), each),
            "arrays": _microseconds(lambda: plane.infer(request, Call()), each) - through,
            "encode": _microseconds(lambda: encode(answer), each),
            "hop": uvloop.run(hops(2000)),
        }

    return measure


def _microseconds(work: Callable[[], object], seconds: float) -> float:
    """The median over slices of the time, so that one interruption does not count."""
    means = []
    for _ in range(_SLICES):
        runs, _, spent = _repeat(work, seconds / _SLICES)
        means.append(spent / runs * 1e6)
    return sorted(means)[_SLICES // 2]


def _repeat(work: Callable[[], object], seconds: float) -> tuple[int, float, float]:
    """Work for some seconds; return how often, and the seconds of the clock and of the core."""
    runs, began, spent = 0, time.perf_counter(), time.process_time()
    while True:
        work()
        runs += 1
        took = time.perf_counter() - began
        if took >= seconds:
            return runs, took, time.process_time() - spent


def main() -> None:
    """Prepare, say so, and measure as often as told."""
    kind, model, case = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    if kind == "steps":
        steps = _steps(model, case)
        print("{}", flush=True)
        for line in sys.stdin:
            print(json.dumps(steps(float(line))), flush=True)
        return
    work = {"bare": lambda: _bare(model, case), "judge": lambda: _judge(model), "checker": lambda: _checker(model)}[
        kind
    ]()
    before = machine.memory("VmRSS")
    work()
    ready = {"residentBytes": machine.memory("VmRSS"), "peakAddedBytes": machine.memory("VmHWM") - before}
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        runs, took, spent = _repeat(work, float(line))
        print(json.dumps({"runs": runs, "seconds": took, "processorSeconds": spent}), flush=True)


if __name__ == "__main__":
    main()
