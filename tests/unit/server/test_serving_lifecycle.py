"""From start to end: what the pod reports, and that nobody's request is lost on the way out."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from onnx_operator.api.contract import StartFacts
from tests.unit.server.serving import (
    ROOT,
    identity,
    linear,
    model_bytes,
    node,
    serving,
    slow,
    value,
)


def test_a_good_start_is_told_in_one_line_of_facts() -> None:
    with serving(linear(), ready=False) as process:
        line = process.started()
        facts = StartFacts.model_validate(line)
        assert line["event"] == "started"
        assert facts.execution_providers == ["CPUExecutionProvider"]
        assert facts.fallback_operators == []
        assert facts.load_seconds > 0
        assert facts.warm_up_seconds > 0
        assert facts.resident_memory_bytes > 10 << 20
        assert set(line) == {
            "event",
            "executionProviders",
            "fallbackOperators",
            "fallbackCauses",
            "loadSeconds",
            "warmUpSeconds",
            "warmUp",
            "residentMemoryBytes",
            "intraOpThreads",
            "processes",
        }
        assert facts.warm_up is not None
        assert 0 < (facts.warm_up.request_cpu_seconds or 0) < 1
        assert facts.processes == 1
        assert process.message() == {"phase": "Serving", "message": ""}
        process.terminate()
        assert process.wait() == 0
        assert process.other == []


def failing() -> bytes:
    """A model that the runtime refuses to run where the sizes do not fit, with a weight that nothing uses."""
    inputs = [value("x", TensorProto.FLOAT, ["N", 2]), value("s", TensorProto.INT64, [2])]
    outputs = [value("y", TensorProto.FLOAT, [None, None])]
    return model_bytes([node("Reshape", ["x", "s"], ["y"])], inputs, outputs, {"unused": np.zeros(3, np.float32)})


def test_every_line_of_the_log_is_json_whatever_the_runtime_and_the_libraries_have_to_say(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with serving(failing(), "--processes", "1") as process:
        answer = process.post("/score", {"x": [[1, 2]], "s": [7, 7]}, X_Request_Id="42")
        assert answer.status == 500
        process.terminate()
        assert process.wait() == 0
        assert process.other == []
        (told,) = [entry for entry in process.log if entry["message"] == "request"]
        assert (told["code"], told["requestId"]) == (500, "42")
        assert "cannot be reshaped" in told["error"]
    options = ("--grpc-port", "0", "--tls-certificate", str(certificate), "--tls-key", str(key))
    with serving(failing(), *options) as process:
        ports = [process.port, next(entry["grpcPort"] for entry in process.log if "grpcPort" in entry)]
        for port in ports:
            for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", bytes(100)):
                with socket.create_connection(("127.0.0.1", port), timeout=30) as stranger:
                    stranger.sendall(junk)
                    stranger.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(OSError):
                        while stranger.recv(4096):
                            pass
        process.terminate()
        assert process.wait() == 0
        assert process.other == []


def test_what_python_would_write_by_itself_is_a_line_of_json_too() -> None:
    program = (
        "import threading, warnings; from onnx_operator.common import logs; logs.configure()\n"
        "warnings.warn('careful')\n"
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()\n"
        "raise RuntimeError('the end\\nof it')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT / "operator")}, capture_output=True
    )
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.decode().splitlines()]
    assert "careful" in lines[0]["message"]
    assert [line["message"] for line in lines[1:]] == [
        "unexpected: ZeroDivisionError('division by zero')",
        "unexpected: RuntimeError('the end\\nof it')",
    ]
    assert all("Traceback" in line["traceback"] for line in lines[1:])


def test_a_gpu_that_is_not_there_is_told_and_the_cpu_serves() -> None:
    with serving(linear(), "--execution-provider", "TensorRT", "--execution-provider", "CUDA", ready=False) as process:
        facts = StartFacts.model_validate(process.started())
        assert facts.execution_providers == ["CPUExecutionProvider"]
        assert facts.fallback_operators == ["ArgMax", "MatMul"]
        assert process.post("/score", {"data": [[1, 0, 0, 0]]}).status == 200


UNKNOWN_OPERATOR = model_bytes(
    [node("Frobnicate", ["x"], ["y"], name="n7")],
    [value("x", TensorProto.FLOAT, ["N"])],
    [value("y", TensorProto.FLOAT, ["N"])],
)
NO_ANSWER = model_bytes(
    [node("Reshape", ["x", "to"], ["y"], name="fold")],
    [value("x", TensorProto.FLOAT, [3])],
    [value("y", TensorProto.FLOAT, None)],
    {"to": np.array([2, 2])},
)


def test_a_model_that_answers_no_made_up_input_gets_ready_and_tells_that_it_is_not_warm() -> None:
    with serving(NO_ANSWER, ready=False) as process:
        facts = StartFacts.model_validate(process.started())
        assert facts.warm_up is not None
        assert not facts.warm_up.warmed
        assert "Reshape" in facts.warm_up.message
        assert process.message() == {"phase": "Serving", "message": ""}


@pytest.mark.parametrize(
    ("content", "phase", "words"),
    [
        (b"garbage", "Loading", "rotobuf parsing failed"),
        (b"", "Loading", ""),
        (None, "Loading", "File doesn't exist"),
        (UNKNOWN_OPERATOR, "Loading", "Frobnicate"),
    ],
)
def test_a_model_that_cannot_be_served_ends_the_process_with_its_cause(
    content: bytes | None, phase: str | None, words: str
) -> None:
    with serving(content, ready=False) as process:
        assert process.wait() == 1
        message = process.message()
        assert message["reason"] == "LoadFailed"
        assert words in message["message"]
        assert "onnxruntime_src" not in message["message"]
        assert phase is None or message["phase"] == phase


def test_the_port_answers_while_the_model_loads() -> None:
    content = model_bytes(
        [node("Loop", ["trips", "", "m"], ["last"], body=_growing())],
        [value("trips", TensorProto.INT64, [])],
        [value("last", TensorProto.FLOAT, [1])],
        {"m": np.zeros(1, dtype=np.float32)},
    )
    with serving(content, ready=False) as process:
        assert process.get("/v2/health/live").status == 200
        answer = process.get("/v2/health/ready")
        assert answer.status == 200 or answer.json["phase"] in ("Loading", "WarmingUp")
        process.started()
        assert process.get("/v2/health/ready").status == 200


def _growing() -> Any:
    from onnx import helper

    return helper.make_graph(
        [node("Identity", ["cond"], ["cond_out"]), node("Identity", ["m"], ["m_out"])],
        "body",
        [value("i", TensorProto.INT64, []), value("cond", TensorProto.BOOL, []), value("m", TensorProto.FLOAT, [1])],
        [value("cond_out", TensorProto.BOOL, []), value("m_out", TensorProto.FLOAT, [1])],
    )


def endless() -> bytes:
    """A model whose warm-up never ends: it runs ten million million rounds whatever its input."""
    from onnx import helper

    body = helper.make_graph(
        [
            node("Identity", ["cond"], ["cond_out"]),
            node("MatMul", ["m", "W"], ["m_out"]),
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
        [node("Loop", ["trips", "", "x"], ["last"], body=body)],
        [value("x", TensorProto.FLOAT, [64, 64])],
        [value("last", TensorProto.FLOAT, [64, 64])],
        {"W": np.eye(64, dtype=np.float32), "trips": np.array(10**13)},
    )


def test_not_ready_before_the_warm_up_has_an_answer() -> None:
    with serving(endless(), ready=False) as process:
        while process.message().get("phase") != "WarmingUp":
            time.sleep(0.02)
        assert process.get("/v2/health/live").status == 200
        for path in ("/v2/health/ready", "/v2/models/m/ready"):
            answer = process.get(path)
            assert answer.status == 503
            assert answer.json["phase"] == "WarmingUp"
        for answer in (process.get("/v2/models/m"), process.post("/score", {"data": [1]})):
            assert answer.status == 503
            assert answer.json == {"error": "model m is still loading"}
            assert answer.headers["retry-after"] == "1"
        process.terminate()
        assert process.wait() == 0


def test_sigterm_lets_running_requests_finish_and_turns_readiness_off() -> None:
    with serving(slow(), "--drain-delay", "0.5", "--drain-timeout", "60", "--request-timeout", "60") as process:
        answers: list[Any] = []
        started = threading.Event()

        def ask() -> None:
            started.set()
            answers.append(process.post("/score", {"data": [200_000]}))

        thread = threading.Thread(target=ask)
        thread.start()
        started.wait()
        while b"requests_in_flight 1.0" not in process.get("/metrics").body and not answers:
            time.sleep(0.01)
        process.terminate()
        while (ready := process.get("/v2/health/ready")).status == 200:
            time.sleep(0.01)
        assert ready.json == {"ready": False, "phase": "Draining"}
        assert ready.headers["connection"] == "close"
        assert process.get("/v2/health/live").status == 200
        thread.join()
        assert answers[0].status == 200
        assert process.wait() == 0


def test_a_request_may_outlast_the_delay_but_not_the_timeout() -> None:
    with serving(slow(), "--drain-delay", "0", "--drain-timeout", "1", "--request-timeout", "50") as process:
        statuses: list[int] = []

        def ask() -> None:
            try:
                statuses.append(process.post("/score", {"data": [10**12]}).status)
            except (OSError, http.client.HTTPException):
                statuses.append(0)

        thread = threading.Thread(target=ask)
        thread.start()
        while b"requests_in_flight 1.0" not in process.get("/metrics").body:
            time.sleep(0.01)
        process.terminate()
        assert process.wait() == 0
        thread.join()
        assert len(statuses) == 1
        assert statuses[0] != 200


def test_no_request_is_lost_when_the_server_stops_under_load() -> None:
    with serving(linear(), "--drain-delay", "1") as process:
        body = json.dumps({"data": [[1, 0, 0, 0]]})
        answered: list[int] = []
        lost: list[BaseException] = []

        def ask_until_refused() -> None:
            while True:
                connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=60)
                try:
                    connection.connect()
                except OSError:
                    return  # nobody listens any more: the request was never sent
                try:
                    while connection.sock is not None:
                        connection.request("POST", "/score", body)
                        response = connection.getresponse()
                        response.read()
                        answered.append(response.status)
                        # As a load balancer does once readiness has fallen: no new connections.
                        if stopping.is_set() and response.getheader("connection") == "close":
                            return
                except (OSError, http.client.HTTPException) as error:
                    lost.append(error)
                    return
                finally:
                    connection.close()

        stopping = threading.Event()
        threads = [threading.Thread(target=ask_until_refused) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(answered) < 100:
            time.sleep(0.01)
        stopping.set()
        process.terminate()
        for thread in threads:
            thread.join()
        assert process.wait() == 0
        assert lost == []
        assert set(answered) == {200}


def test_options_come_from_the_environment_and_a_taken_port_is_told() -> None:
    with serving(linear()) as process:
        command = [sys.executable, "-m", "onnx_operator.server", "serve", "--model", "x", "--name", "m"]
        result = subprocess.run(
            command,
            env={
                "PYTHONPATH": "operator",
                "ONNX_SERVER_SERVE_PORT": str(process.port),
                "ONNX_SERVER_SERVE_HOST": "127.0.0.1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 1
        assert f"cannot listen on 127.0.0.1 port {process.port}" in result.stderr


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("onnx_operator.server.fetching.fetch, onnx_operator.model.sources", ["onnxruntime", "numpy", "uvicorn"]),
        ("onnx_operator.server.serve, onnx_operator.server.runtime.session", ["obstore", "aiohttp", "onnx"]),
        ("onnx_operator.server.__main__", ["onnxruntime", "numpy", "obstore", "pydantic"]),
    ],
)
def test_each_command_imports_only_what_it_needs(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([m for m in {absent!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": "operator"}, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_address_of_both_families_is_the_default() -> None:
    from onnx_operator.common.listening import listen

    with listen("::", 0) as listener:
        connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1])
        connection.connect()
        connection.close()


def test_identity_models_count_as_run_by_the_cpu() -> None:
    with serving(identity(), ready=False) as process:
        assert process.started()["executionProviders"] == ["CPUExecutionProvider"]
