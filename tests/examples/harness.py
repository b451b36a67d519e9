"""Serves an example on this machine with the server of the pods, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from examples.catalogue import Example
from onnx_operator.model.archive import ArchiveLimits, extract, kind_of
from tests.cluster.layout import ROOT

# Converted once more by another build of ONNX Runtime, on another processor.
TOLERANCE = 1e-4
STARTING_SECONDS = 60
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith("ONNX_")},
    "PYTHONPATH": str(ROOT / "operator"),
}


@contextmanager
def served(example: Example) -> Iterator[str]:
    """The URL of an `onnx-server serve` that is ready, until the context ends."""
    with tempfile.TemporaryDirectory(prefix=f"{example.name}-") as temporary:
        model = fetched(example.ensure(), Path(temporary))
        command = [sys.executable, "-m", "onnx_operator.server", "serve", "--model", str(model)]
        command += ["--name", example.name, "--host", "127.0.0.1", "--port", "0", "--request-timeout", "60"]
        if example.script is not None:
            command += ["--script", str(example.script)]
        with subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as server:
            log = _Log(server.stderr)
            try:
                # The one line of facts comes when the model is loaded and has answered.
                assert server.stdout is not None
                ready = json.loads(server.stdout.readline() or "{}")
                assert ready.get("event") == "started", f"{example.name} does not start:\n{log.text()}"
                yield f"http://127.0.0.1:{log.port}"
            finally:
                server.kill()
                server.wait()
                log.join()


def fetched(file: Path, folder: Path) -> Path:
    """The model as a pod has it: alone in a folder, and out of its archive."""
    if kind_of(file.read_bytes()[:512]):
        extract(file, folder, ArchiveLimits())
        (model,) = folder.rglob("*.onnx")
        return model
    return Path(shutil.copy(file, folder))


class _Log:
    """The server's lines on standard error, read so that it never waits for a reader."""

    def __init__(self, stream: IO[str] | None) -> None:
        assert stream is not None
        self._stream = stream
        self._lines: list[str] = []
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    @property
    def port(self) -> int:
        assert self._listening.wait(STARTING_SECONDS), self.text()
        for line in self._lines:
            if '"listening"' in line:
                return int(json.loads(line)["port"])
        raise AssertionError(f"no port in the log:\n{self.text()}")

    def text(self) -> str:
        return "".join(self._lines)

    def join(self) -> None:
        self._thread.join()

    def _read(self) -> None:
        for line in self._stream:
            self._lines.append(line)
            if '"listening"' in line:
                self._listening.set()
        self._listening.set()
