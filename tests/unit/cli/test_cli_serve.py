"""``kubectl onnx serve``: the server of the pods on one's own machine."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import models

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "onnx_operator.cli", "serve", *map(str, arguments)]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_model_is_served_under_its_file_name_until_a_signal_ends_it(
    number: signal.Signals, tmp_path: Path, listener: socket.socket
) -> None:
    path = tmp_path / "iris.onnx"
    path.write_bytes(models.linear())
    port = listener.getsockname()[1]
    listener.close()

    with subprocess.Popen(
        command(path, "--port", port, "--grpc-port", 0, "--json-log"),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            assert json.loads(server.stdout.readline())["event"] == "started"
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
            connection.request("POST", "/v2/models/iris/infer", json.dumps({"inputs": [tensor]}))
            response = connection.getresponse()
            answer = json.loads(response.read())
            connection.close()

            server.send_signal(number)
            code = server.wait(30)
        finally:
            server.kill()
        assert server.stderr is not None
        told = server.stderr.read()

    assert response.status == 200, answer
    assert answer["outputs"][0]["shape"] == [1, 3]
    assert code == 0, told
    assert f'"message": "listening", "port": {port}' in told


def test_a_taken_port_is_named(tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "iris.onnx"
    path.write_bytes(models.linear())
    port = listener.getsockname()[1]

    done = subprocess.run(
        command(path, "--port", port, "--grpc-port", 0), env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_grpc_port_is_named(tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "iris.onnx"
    path.write_bytes(models.linear())
    port = listener.getsockname()[1]
    options = ("--port", 0, "--grpc-port", port)

    done = subprocess.run(command(path, *options), env=ENVIRONMENT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert f"the gRPC port {port}: Address already in use" in done.stderr


def test_a_model_that_cannot_be_loaded_ends_the_server_with_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "unknown.onnx"
    path.write_bytes(models.unknown_operator())

    done = subprocess.run(command(path, "--port", 0), env=ENVIRONMENT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert "FancyGelu" in done.stderr
