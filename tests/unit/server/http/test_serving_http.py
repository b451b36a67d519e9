"""What a client of the running server sees: status codes, limits, and probes that always answer."""

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.unit.server.serving import Process, linear, serving, slow, tensor

INFER = {"id": "1", "inputs": [tensor("X", "FP32", [1, 4], [[1, 0, 0, 0]])]}
FOREVER = {"data": [10**12]}


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    with serving(linear(), "--version", "7", "--max-body-bytes", "300000") as process:
        yield process


@pytest.fixture(scope="module")
def busy() -> Iterator[Process]:
    """One worker, one place in the queue, and a model that may take as long as the caller says."""
    with serving(slow(), "--workers", "1", "--queue", "1", "--request-timeout", "3") as process:
        yield process


@pytest.mark.parametrize("prefix", ["/v2/models/m", "/v2/models/m/versions/7"])
def test_a_model_is_described_ready_and_answers(server: Process, prefix: str) -> None:
    assert server.get(prefix).json["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}]
    assert server.get(prefix + "/ready").json == {"name": "m", "ready": True, "phase": "Serving"}
    answer = server.post(prefix + "/infer", INFER)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["outputs"][0] == {"name": "label", "datatype": "INT64", "shape": [1], "data": [2]}


def test_health_and_server_metadata(server: Process) -> None:
    assert server.get("/v2").json["name"] == "onnx-operator"
    assert server.get("/v2/health/live").json == {"live": True}
    assert server.get("/v2/health/ready").json == {"ready": True, "phase": "Serving"}
    assert server.request("HEAD", "/v2/health/ready").status == 200


def test_score_over_http(server: Process) -> None:
    assert server.post("/score", {"data": [[1, 0, 0, 0]]}).json["label"] == [2]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nowhere", 404, "there is nothing at /nowhere"),
        ("GET", "/v2/", 404, "there is nothing at /v2/"),
        ("GET", "/score", 405, "GET is not allowed at /score"),
        ("DELETE", "/v2/models/m", 405, "DELETE is not allowed"),
        ("GET", "/v2/models/other", 404, "unknown model 'other'; this server serves model m version 7"),
        ("GET", "/v2/models/m/versions/8", 404, "unknown version '8'; this server serves model m version 7"),
        ("POST", "/v2/models/other/infer", 404, "unknown model 'other'"),
        ("GET", "/v2/models/%F0%9F%98%80%0A", 404, "unknown model"),
    ],
)
def test_wrong_addresses_are_told_in_json(server: Process, method: str, path: str, status: int, words: str) -> None:
    answer = server.request(method, path)
    assert answer.status == status
    assert words in answer.json["error"]
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v2/models/m/infer", b'{"inputs": [}', "line 1 column 13"),
        ("/v2/models/m/infer", b'{"id": "\\ud800", "inputs": 3}', '"inputs" must be a list'),
        ("/v2/models/m/infer", b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        ("/v2/models/m/infer", b'{"inputs": [' + b"[" * 500 + b"]" * 500 + b"]}", 'an object with a "name"'),
        ("/score", b"", "not valid JSON"),
        ("/score", b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        ("/score", b'{"data": ' + b"[" * 500 + b"]" * 500 + b"}", "expected shape [N, 4]"),
        ("/score", b'{"data": [[NaN, 1, 1, 1]]}', "NaN is not a JSON value"),
    ],
)
def test_bad_bodies_are_refused(server: Process, path: str, body: bytes, words: str) -> None:
    answer = server.post(path, body)
    assert answer.status == 400
    assert words in answer.json["error"]
    assert server.get("/v2/health/live").status == 200


def test_an_odd_id_is_echoed_as_valid_json(server: Process) -> None:
    answer = server.post(
        "/v2/models/m/infer", b'{"id": "\\ud800", ' + json.dumps(INFER)[len('{"id": "1", ') :].encode()
    )
    assert answer.status == 200
    assert answer.json["id"] == "\ud800"


def test_large_bodies_are_refused_declared_or_not(server: Process) -> None:
    answer = server.post("/score", b'{"data": "' + b"a" * 300_000 + b'"}')
    assert answer.status == 413
    assert answer.json == {"error": "the body is larger than 300000 bytes"}
    assert answer.headers["connection"] == "close"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(
        "POST",
        "/score",
        (b"a" * 50_000 for _ in range(7)),
        encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    response = connection.getresponse()
    assert response.status == 413
    response.read()
    connection.close()


def metric(server: Process, name: str) -> float:
    lines = server.get("/metrics").body.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_metrics_count_by_protocol_and_code(server: Process) -> None:
    counted = 'onnx_server_requests_total{code="400",protocol="rest"}'
    before = metric(server, counted)
    server.post("/v2/models/m/infer", {})
    assert metric(server, counted) == before + 1
    text = server.get("/metrics").body.decode()
    assert 'onnx_server_model_info{execution_providers="CPUExecutionProvider",model="m",version="7"} 1.0' in text
    for name in (
        "process_resident_memory_bytes",
        "onnx_server_model_load_seconds",
        "onnx_server_ready 1.0",
        "onnx_server_requests_in_flight 0.0",
        'onnx_server_request_duration_seconds_count{protocol="score"}',
    ):
        assert name in text
    assert "/nowhere" not in text


def test_many_callers_each_get_their_own_answer(server: Process) -> None:
    def ask(number: int) -> Any:
        body = {"id": str(number), "inputs": [tensor("X", "FP32", [1, 4], [number, 0, 0, 0])]}
        return server.post("/v2/models/m/infer", body).json

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(100)))
    for number, answer in enumerate(answers):
        assert answer["id"] == str(number)
        assert answer["outputs"][1]["data"][1] == pytest.approx(number / 10)


def wait_for(condition: Any) -> None:
    import time

    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to be")


def test_probes_answer_while_a_long_inference_runs_and_a_full_server_says_so(busy: Process) -> None:
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(busy.post("/score", FOREVER))) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: metric(busy, "onnx_server_requests_in_flight") == 2)
    assert busy.get("/v2/health/live").status == 200
    assert busy.get("/v2/health/ready").status == 200
    full = busy.post("/score", {"data": [1]})
    assert full.status == 429
    assert full.headers["retry-after"] == "1"
    assert "full" in full.json["error"]
    assert metric(busy, "onnx_server_requests_rejected_total") == 1
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [504, 504]
    assert answers[0].json == {"error": "no answer within 3 s"}
    # The inference that nobody waits for any more has made room.
    assert busy.post("/score", {"data": [1]}).json == {"total": 64.0}
