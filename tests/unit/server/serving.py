"""Small models, and the real server on a real socket."""

import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnx_operator.server.dataplane.batching import run
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.http.jsonbody import encode, parse_object
from onnx_operator.server.http.openinference import Codec
from onnx_operator.server.http.score import read_score, write_score
from onnx_operator.server.runtime.session import Model, SessionSettings, load

ROOT = Path(__file__).parents[3]
value = helper.make_tensor_value_info
node = helper.make_node


def model_bytes(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    initializers: dict[str, np.ndarray] | None = None,
    opset: int = 21,
    ml: bool = False,
) -> bytes:
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(a, n) for n, a in (initializers or {}).items()]
    )
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("ai.onnx.ml", 3)] if ml else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def identity(element: int = TensorProto.FLOAT, shape: Any = ("N",), name: str = "x") -> bytes:
    shape = None if shape is None else list(shape)
    return model_bytes([node("Identity", [name], ["y"])], [value(name, element, shape)], [value("y", element, shape)])


def linear() -> bytes:
    """Four features to three classes, as a classifier of irises has."""
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
    return model_bytes(
        [node("MatMul", ["X", "W"], ["logits"]), node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0)],
        [value("X", TensorProto.FLOAT, ["N", 4])],
        [value("label", TensorProto.INT64, ["N"]), value("logits", TensorProto.FLOAT, ["N", 3])],
        {"W": weights},
    )


def slow() -> bytes:
    """Multiplies matrices as many times as the input ``n`` says."""
    body = helper.make_graph(
        [
            node("Identity", ["cond"], ["cond_out"]),
            node("MatMul", ["m", "W"], ["product"]),
            node("Clip", ["product"], ["m_out"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("cond", TensorProto.BOOL, []),
            value("m", TensorProto.FLOAT, [64, 64]),
        ],
        [value("cond_out", TensorProto.BOOL, []), value("m_out", TensorProto.FLOAT, [64, 64])],
    )
    return model_bytes(
        [
            node("Squeeze", ["n"], ["trips"]),
            node("Loop", ["trips", "", "W"], ["last"], body=body),
            node("ReduceSum", ["last"], ["total"], keepdims=0),
        ],
        [value("n", TensorProto.INT64, [1])],
        [value("total", TensorProto.FLOAT, [])],
        {"W": np.eye(64, dtype=np.float32)},
    )


_FOLDER = tempfile.TemporaryDirectory()
_NUMBERS = itertools.count()


def load_bytes(content: bytes) -> Model:
    # The file stays: what a model proves of its rows is read when the warm-up asks for it.
    path = Path(_FOLDER.name, f"{next(_NUMBERS)}.onnx")
    path.write_bytes(content)
    return load(path, SessionSettings())


class Served:
    """A model behind the bodies of its protocols, without a server."""

    def __init__(self, content: bytes, version: str = "") -> None:
        self.model = load_bytes(content)
        self.codec = Codec(self.model, "m", version)


def plane(content: bytes, version: str = "") -> Served:
    return Served(content, version)


def infer(served: Served, request: Any) -> Any:
    """Ask as a remote caller would: what goes in and comes out is JSON text."""
    inference, form = served.codec.read(json.dumps(request).encode(), None)
    body, header_length = served.codec.write(form, run(served.model, inference))
    assert header_length is None
    return json.loads(body)


def metadata(content: bytes, version: str = "") -> dict[str, Any]:
    """What the data plane says of a model."""
    served = DataPlane("m", version)
    served.attach(load_bytes(content), None)  # type: ignore[arg-type]
    return served.model_metadata()


def ask_score(model: Model, body: Any) -> Any:
    inference = read_score(model, parse_object(json.dumps(body).encode()))
    return json.loads(encode(write_score(model, inference.outputs, run(model, inference))))


def tensor(name: str, datatype: str, shape: Sequence[int], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape), "data": data}


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        def refuse(name: str) -> None:
            raise ValueError(f"{name} is not JSON")

        return json.loads(self.body, parse_constant=refuse)


class Process:
    """``onnx-server serve`` as a subprocess."""

    def __init__(
        self, directory: Path, content: bytes | None, *options: str, variables: Mapping[str, str] | None = None
    ) -> None:
        self.model = directory / "model.onnx"
        if content is not None:
            self.model.write_bytes(content)
        self.termination = directory / "termination.json"
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ONNX_")},
            "PYTHONPATH": str(ROOT / "operator"),
            "ONNX_TERMINATION_LOG": str(self.termination),
            **(variables or {}),
        }
        command = [sys.executable, "-m", "onnx_operator.server", "serve", "--model", str(self.model)]
        command += ["--name", "m", "--host", "127.0.0.1", "--port", "0", "--processes", "1", *options]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.log: list[dict[str, Any]] = []
        self.other: list[str] = []
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._listening.wait(60)
        self.port = next((e["port"] for e in self.log if e["message"] == "listening"), 0)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.other.append(line)
            if "listening" in line:
                self._listening.set()
        self._listening.set()

    def started(self) -> dict[str, Any]:
        """Wait for the line of facts."""
        assert self.process.stdout is not None
        facts: dict[str, Any] = json.loads(self.process.stdout.readline())
        return facts

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.request("POST", path, body, **headers)

    def message(self) -> dict[str, Any]:
        """What the termination message tells; nothing while it is being written, which the kubelet never looks at."""
        try:
            found: dict[str, Any] = json.loads(self.termination.read_text())
        except json.JSONDecodeError:
            return {}
        return found

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        code = self.process.wait(60)
        self._close()
        return code

    def _close(self) -> None:
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
        self._close()


@contextmanager
def serving(
    content: bytes | None, *options: str, ready: bool = True, variables: Mapping[str, str] | None = None
) -> Iterator[Process]:
    with tempfile.TemporaryDirectory() as directory:
        process = Process(Path(directory), content, *options, variables=variables)
        try:
            if ready:
                process.started()
            yield process
        finally:
            process.stop()
