"""Starts the server of the pods on one model, as a pod does, and asks it over HTTP with tensors as raw bytes."""

from __future__ import annotations

import http.client
import json
import os
import queue
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.cluster.layout import ROOT

_OPTIONS = ["--host", "127.0.0.1", "--port", "0", "--processes", "1", "--intra-op-threads", "1"]
_OPTIONS += ["--request-timeout", "60", "--drain-delay", "0", "--max-body-bytes", str(1 << 29)]
_DTYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BOOL": "?", "BF16": "<u2"} | {
    f"{sign}INT{bits}": f"<{'u' if sign else 'i'}{bits // 8}" for sign in ("", "U") for bits in (8, 16, 32, 64)
}
CARRIED = frozenset(_DTYPES) | {"BYTES"}
"""The datatypes that a request can carry."""


_MAX_RESTARTS = 4


class Server:
    """An ``onnx-server serve`` in a process of its own. Ended by leaving the context, however it stands then.

    Where a signal ends it before it is ready, it is started again with the same ``state``, as a pod's container is.
    """

    def __init__(self, model: Path, state: Path, seconds: float) -> None:
        command = [sys.executable, "-m", "onnx_operator.server", "serve", "--model", str(model), "--name", "m"]
        self._command = [*command, *_OPTIONS, "--state-directory", str(state)]
        self._seconds = seconds
        self.log: list[dict[str, Any]] = []
        self.port = 0
        self._run()

    def _run(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ONNX_")}
        environment["PYTHONPATH"] = str(ROOT / "operator")
        self._process = subprocess.Popen(
            self._command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        streams = (self._process.stdout, self._process.stderr)
        self._readers = [threading.Thread(target=self._read, args=(stream, self._lines)) for stream in streams]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()

    @staticmethod
    def _read(stream: Any, lines: queue.Queue[str | None]) -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    def start(self) -> dict[str, Any] | None:
        """Wait until it is ready: its facts; or None where it gave up, after which :meth:`cause` tells."""
        for _ in range(_MAX_RESTARTS):
            facts = self._started()
            if facts is not None or self._process.wait() >= 0:
                return facts
            self.__exit__()
            self._run()
        return self._started()

    def _started(self) -> dict[str, Any] | None:
        until, ended = time.monotonic() + self._seconds, 0
        while ended < 2:
            line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            if line is None:
                ended += 1
                continue
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"message": line.rstrip()}
            self.log.append(entry)
            self.port = entry.get("port", self.port)
            if entry.get("event") == "started":
                return dict(entry)
        return None

    def cause(self) -> str:
        """What a server that gave up said last, or which signal ended it."""
        code = self._process.wait()
        said = [str(entry.get("message", "")) for entry in self.log if "cannot be served" in str(entry.get("message"))]
        return said[-1] if said else f"it ended with {code}: {json.dumps(self.log[-1:])[:300]}"

    def get(self, path: str) -> Any:
        """The JSON behind a path."""
        return json.loads(self._ask("GET", path, b"", {})[1])

    def infer(self, feed: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """The outputs of the names given. Raises ``ValueError`` with the server's words where it refuses."""
        inputs, parts = [], []
        for name, array in feed.items():
            raw = _encode(array)
            parts.append(raw)
            described = {"name": name, "datatype": datatype(array), "shape": list(array.shape)}
            inputs.append(described | {"parameters": {"binary_data_size": len(raw)}})
        wanted = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
        head = json.dumps({"inputs": inputs, "outputs": wanted}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        answered, body = self._ask("POST", "/v2/models/m/infer", head + b"".join(parts), headers)
        at = int(answered.get("Inference-Header-Content-Length") or len(body))
        found = {}
        for output in json.loads(body[:at])["outputs"]:
            if "data" in output:
                # Without bytes, such as a tensor without elements, JSON has it.
                array = np.array(output["data"], _dtype(output["datatype"]))
            else:
                size = output["parameters"]["binary_data_size"]
                array, at = _decode(body[at : at + size], output["datatype"]), at + size
            found[output["name"]] = array.reshape(output["shape"])
        return found

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[Any, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self._seconds)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(f"{answer.status}: {content[:500].decode(errors='replace')}")
        return answer.headers, content


def datatype(array: np.ndarray) -> str:
    """The protocol's name for numpy's."""
    if array.dtype.kind in "OUS":
        return "BYTES"
    if array.dtype.kind == "f":
        return f"FP{array.dtype.itemsize * 8}"
    return array.dtype.name.upper()


def _dtype(name: str) -> Any:
    return object if name == "BYTES" else np.dtype(_DTYPES[name])


def _encode(array: np.ndarray) -> bytes:
    if datatype(array) != "BYTES":
        return np.ascontiguousarray(array).tobytes()
    texts = [str(text).encode() for text in array.reshape(-1)]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _decode(raw: bytes, name: str) -> np.ndarray:
    if name != "BYTES":
        return np.frombuffer(raw, _dtype(name))
    texts, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        texts.append(raw[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return np.array(texts, object)
