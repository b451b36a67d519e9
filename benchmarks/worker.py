"""Baselines, each in a process of its own that is pinned to the measured core.

Started as ``python -m benchmarks.worker KIND MODEL CASE``. It prints a line of JSON when it is ready, then
one for each number of seconds that it reads.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import machine


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

    def resident_bytes(self) -> int:
        """What it holds now."""
        return machine.memory("VmRSS", self._process.pid)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a measuring process ended; its message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _bare(model: Path, case: str) -> Callable[[], object]:
    """One run of the model on a ready row; ``case`` tells the input and its shape as JSON."""
    import numpy as np
    import onnxruntime as ort

    name, shape = json.loads(case)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    feed = {name: np.random.default_rng(7).random(shape, dtype=np.float32)}
    return lambda: session.run(None, feed)


def _verify(model: Path) -> Callable[[], object]:
    import os

    from onnx_operator.api.capabilities import load_capabilities
    from onnx_operator.model.verdict import verify

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
        result = verify(Disk(), model.name, capabilities=capabilities)
        assert result.refusal is None, result.refusal

    return work


def _checker(model: Path) -> Callable[[], object]:
    import onnx

    def work() -> None:
        loaded = onnx.load(model)
        onnx.checker.check_model(loaded)
        onnx.shape_inference.infer_shapes(loaded, check_type=True, strict_mode=True, data_prop=True)

    return work


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
    work = {"bare": lambda: _bare(model, case), "judge": lambda: _verify(model), "checker": lambda: _checker(model)}[
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
