"""Who may come in is one promise, whatever protocol a caller speaks: REST, ``/score`` or gRPC."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from onnx_operator.server.rpc import inference_pb2 as pb
from tests.unit.server.serving import Process, serving, slow, tensor

Answer = tuple[str, str]
"""The code, as the protocol and ``/metrics`` name it, and the words of an error."""
SHORT, FOREVER = 1, 10**12
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SECONDS = 3


def rest(process: Process, rounds: int, token: str) -> Answer:
    body = {"inputs": [tensor("n", "INT64", [1], [rounds])]}
    answer = process.post(
        "/v2/models/m/infer", body, Authorization=f"Bearer {token}", X_Request_Id="42", traceparent=PARENT
    )
    return str(answer.status), answer.json.get("error", "")


def score(process: Process, rounds: int, token: str) -> Answer:
    answer = process.post(
        "/score", {"data": [rounds]}, Authorization=f"Bearer {token}", X_Request_Id="42", traceparent=PARENT
    )
    return str(answer.status), answer.json.get("error", "")


def rpc(process: Process, rounds: int, token: str) -> Answer:
    port = next(entry["grpcPort"] for entry in process.log if "grpcPort" in entry)
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="n", datatype="INT64", shape=[1]).contents.int64_contents.append(rounds)
    metadata = (("authorization", f"Bearer {token}"), ("x-request-id", "42"), ("traceparent", PARENT))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        try:
            ask(request.SerializeToString(), metadata=metadata, timeout=60)
        except grpc.RpcError as error:
            return error.code().name, error.details()  # type: ignore[attr-defined]
    return "OK", ""


Ask = Callable[[Process, int, str], Answer]


class Protocol:
    """How to ask, and what each outcome is called."""

    def __init__(self, name: str, ask: Ask, good: str, full: str, stranger: str, late: str) -> None:
        self.name, self.ask = name, ask
        self.good, self.full, self.stranger, self.late = good, full, stranger, late


PROTOCOLS = [
    Protocol("rest", rest, "200", "429", "401", "504"),
    Protocol("score", score, "200", "429", "401", "504"),
    Protocol("grpc", rpc, "OK", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "DEADLINE_EXCEEDED"),
]
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One inference at once, one place to wait in, a token, and a log of every request."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("s3cret")
    options = ("--workers", "1", "--queue", "1", "--request-timeout", str(SECONDS), "--grpc-port", "0")
    with serving(slow(), *options, "--token-file", str(token), "--access-log") as process:
        yield process


def figures(process: Process) -> dict[str, float]:
    lines = process.get("/metrics").body.decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("onnx_server")}


def counted(protocol: Protocol, code: str) -> str:
    return f'onnx_server_requests_total{{code="{code}",protocol="{protocol.name}"}}'


def wait_for(condition: Callable[[], Any]) -> Any:
    pause = threading.Event()
    for _ in range(600):
        if found := condition():
            return found
        pause.wait(0.05)
    raise AssertionError("it never came to be")


def rises(process: Process, before: dict[str, float], name: str) -> None:
    # gRPC's threads leave their counts to the event loop.
    wait_for(lambda: figures(process).get(name, 0) == before.get(name, 0) + 1)


@every_protocol
@pytest.mark.parametrize("token", ["", "s3cre", "s3crett", "S3CRET"])
def test_a_caller_without_the_token_is_refused_in_the_same_words_and_counted(
    server: Process, protocol: Protocol, token: str
) -> None:
    before = figures(server)
    code, words = protocol.ask(server, SHORT, token)
    assert (code, words) == (protocol.stranger, "send the endpoint's token as authorization: Bearer TOKEN")
    rises(server, before, counted(protocol, protocol.stranger))
    assert figures(server)["onnx_server_requests_rejected_total"] == before["onnx_server_requests_rejected_total"]


class Crowd:
    """Callers who take every place of a protocol until their time is over."""

    def __init__(self, process: Process, protocol: Protocol) -> None:
        self.answers: list[Answer] = []
        self._threads = [
            threading.Thread(target=lambda: self.answers.append(protocol.ask(process, FOREVER, "s3cret")))
            for _ in range(2)
        ]

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()


@every_protocol
def test_a_full_server_says_so_in_the_same_words_and_counts_it(server: Process, protocol: Protocol) -> None:
    before = figures(server)
    assert before["onnx_server_requests_in_flight"] == 0
    with Crowd(server, protocol) as crowd:
        wait_for(lambda: figures(server)["onnx_server_requests_in_flight"] == 2)
        code, words = protocol.ask(server, SHORT, "s3cret")
        assert (code, words) == (protocol.full, "the server is full (2 requests run or wait); try again shortly")
        rises(server, before, counted(protocol, protocol.full))
        rises(server, before, "onnx_server_requests_rejected_total")
        # Who is refused anyway takes no place, and is told nothing of others.
        assert protocol.ask(server, SHORT, "stranger")[0] == protocol.stranger
    assert crowd.answers == [(protocol.late, f"no answer within {SECONDS} s")] * 2
    wait_for(lambda: figures(server)["onnx_server_requests_in_flight"] == 0)
    assert protocol.ask(server, SHORT, "s3cret") == (protocol.good, "")
    rises(server, before, counted(protocol, protocol.good))


def test_callers_of_one_port_cannot_take_the_places_of_the_other(server: Process) -> None:
    _, web, other = PROTOCOLS
    before = figures(server)
    with Crowd(server, web):
        wait_for(lambda: figures(server)["onnx_server_requests_in_flight"] == 2)
        # The only worker is busy, so it waits in vain, but it may wait.
        assert other.ask(server, SHORT, "s3cret")[0] in (other.late, other.good)
    assert figures(server)["onnx_server_requests_rejected_total"] == before["onnx_server_requests_rejected_total"]


@every_protocol
def test_the_log_of_every_request_tells_of_each_alike(server: Process, protocol: Protocol) -> None:
    def told(code: str) -> list[dict[str, Any]]:
        return [entry for entry in server.log if entry["message"] == "request" and str(entry["code"]) == code]

    good, late = len(told(protocol.good)), len(told(protocol.late))
    protocol.ask(server, SHORT, "s3cret")
    assert wait_for(lambda: told(protocol.good)[good:])[-1].items() >= {"level": "info", "requestId": "42"}.items()
    protocol.ask(server, FOREVER, "s3cret")
    entry = wait_for(lambda: told(protocol.late)[late:])[-1]
    assert entry.items() >= {"level": "warning", "error": f"no answer within {SECONDS} s"}.items()


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """A collector of OpenTelemetry on this machine: its address, and the spans that it has been sent."""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received = ExportTraceServiceRequest.FromString(body)
            spans.extend(
                s for of_resource in received.resource_spans for ss in of_resource.scope_spans for s in ss.spans
            )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", spans
        finally:
            server.shutdown()
            thread.join()


def test_traces_of_all_protocols_go_to_the_collector_that_the_environment_names() -> None:
    with collector() as (endpoint, spans):
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        with serving(slow(), "--version", "7", "--grpc-port", "0", variables=variables) as process:
            began = time.time_ns()
            for protocol in PROTOCOLS:
                assert protocol.ask(process, SHORT, "") == (protocol.good, "")
            process.get("/v2/health/live")
            process.terminate()
            assert process.wait() == 0
    told = {span.name: span for span in spans}
    assert told.keys() == {"POST /v2/models/m/infer", "POST /score", "inference.GRPCInferenceService/ModelInfer"}
    for span in spans:
        assert span.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
        assert span.parent_span_id.hex() == "00f067aa0ba902b7"
        assert began <= span.start_time_unix_nano < span.end_time_unix_nano <= time.time_ns()
