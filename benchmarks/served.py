"""The server under measurement: ``onnx-server serve`` as pods run it, on one core."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import machine
from benchmarks.load import Tally, load


class Served:
    """A server process. Use it as ``with``: it has then answered ``request``."""

    def __init__(self, core: int, model: Path, request: bytes) -> None:
        self._request = request
        self._began = time.perf_counter()
        command = [sys.executable, "-m", "onnx_operator.server", "serve", "--model", str(model), "--name", "m"]
        self._process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", "0"],
            env={name: value for name, value in os.environ.items() if not name.startswith("ONNX_")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: machine.pin(core),
        )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        heard = json.loads(self._process.stderr.readline())
        self._port: int = heard["port"]
        facts = self._process.stdout.readline()
        if not facts:
            raise RuntimeError(f"the server ended: {self._process.stderr.read()}")
        first = self.load([self._request], 1, 0)
        self.start_seconds = time.perf_counter() - self._began
        self.first_answer: dict[str, Any] = json.loads(first.last_answer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process as process:
            process.kill()

    def load(self, requests: list[bytes], clients: int, seconds: float) -> Tally:
        """Send requests for this long, from this process."""
        return load(self._port, requests, clients, seconds)

    def processor_seconds(self) -> float:
        """Time that the server spent on its core so far."""
        return machine.processor_seconds(self._process.pid)

    def resident_bytes(self) -> int:
        """Memory of the server now."""
        return machine.memory("VmRSS", self._process.pid)
