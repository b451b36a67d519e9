"""What a person types: curl and grpcurl against the server as it is started in a pod."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.cluster.tools import program

ROOT = Path(__file__).parents[2]
SERVICE = "inference.GRPCInferenceService"
WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3) / 8
ROW = [1.0, 2.0, 3.0, 4.0]
ANSWER = (np.array([ROW], np.float32) @ WEIGHTS).reshape(-1).tolist()


@dataclass
class Server:
    http: int
    grpc: int

    def curl(self, path: str, *options: str, body: Any = None) -> Any:
        """What curl prints, as JSON; fails where the server refuses."""
        command = [shutil.which("curl") or "curl", "--silent", "--show-error", "--fail-with-body", *options]
        if body is not None:
            command += ["--header", "Content-Type: application/json", "--data", json.dumps(body)]
        done = subprocess.run([*command, f"http://127.0.0.1:{self.http}{path}"], capture_output=True, check=True)
        return json.loads(done.stdout)

    def grpcurl(self, *arguments: str, body: Any = None) -> str:
        """What grpcurl prints; it knows the messages from the server's reflection alone."""
        command = [str(program("grpcurl")), "-plaintext"]
        command += ["-d", json.dumps(body)] if body is not None else []
        done = subprocess.run(
            [*command, f"127.0.0.1:{self.grpc}", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def call(self, method: str, body: Any = None, service: str = SERVICE) -> Any:
        return json.loads(self.grpcurl(f"{service}/{method}", body=body or {}))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = tmp_path_factory.mktemp("model") / "model.onnx"
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(WEIGHTS, "W")],
    )
    opsets = [helper.make_opsetid("", 17)]
    model.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    command = [sys.executable, "-m", "onnx_operator.server", "serve", "--model", str(model), "--name", "linear"]
    command += ["--host", "127.0.0.1", "--port", "0", "--grpc-port", "0", "--drain-delay", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}
    log = model.with_name("log")
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), log.read_text()
            entries = [json.loads(line) for line in log.read_text().splitlines()]
            ports = {key: entry[key] for entry in entries for key in ("port", "grpcPort") if key in entry}
            yield Server(ports["port"], ports["grpcPort"])
        finally:
            process.terminate()
    assert process.returncode == 0, log.read_text()


def test_curl_reads_what_the_model_is(server: Server):
    assert server.curl("/v2/models/linear")["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]


def test_curl_scores(server: Server):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ROW}

    answer = server.curl("/v2/models/linear/infer", body={"id": "7", "inputs": [tensor]})

    assert answer["id"] == "7"
    assert answer["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": ANSWER}]


def test_curl_may_wait_for_100_continue_and_send_chunks(server: Server):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ROW}
    options = ("--header", "Expect: 100-continue", "--header", "Transfer-Encoding: chunked")

    assert server.curl("/v2/models/linear/infer", *options, body={"inputs": [tensor]})["outputs"][0]["data"] == ANSWER


def test_curl_scores_as_azure_ml_clients_do(server: Server):
    assert server.curl("/score", body={"data": [ROW]}) is not None


def test_grpcurl_lists_the_services(server: Server):
    assert server.grpcurl("list").split() == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        SERVICE,
    ]


def test_grpcurl_describes_a_message(server: Server):
    assert "repeated bytes raw_input_contents = 7;" in server.grpcurl("describe", "inference.ModelInferRequest")


def test_grpcurl_asks_for_health(server: Server):
    assert server.call("Check", service="grpc.health.v1.Health") == {"status": "SERVING"}
    assert server.call("Check", {"service": SERVICE}, service="grpc.health.v1.Health") == {"status": "SERVING"}
    assert server.call("ServerLive") == {"live": True}
    assert server.call("ServerReady") == {"ready": True}
    assert server.call("ModelReady", {"name": "linear"}) == {"ready": True}


def test_grpcurl_reads_what_the_model_is(server: Server):
    told = server.call("ModelMetadata", {"name": "linear"})

    # protojson writes 64-bit integers as strings.
    assert told["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}]


def test_grpcurl_scores(server: Server):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "contents": {"fp32_contents": ROW}}

    answer = server.call("ModelInfer", {"model_name": "linear", "id": "7", "inputs": [tensor]})

    assert answer["id"] == "7"
    assert answer["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": ["1", "3"], "contents": {"fp32_contents": ANSWER}}
    ]
