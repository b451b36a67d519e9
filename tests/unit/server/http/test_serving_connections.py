"""What the server makes of bytes on a connection, well-formed or not."""

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.unit.server.serving import Process, identity, linear, serving, slow, tensor

INFER = json.dumps({"inputs": [tensor("X", "FP32", [1, 4], [1, 0, 0, 0])]}).encode()
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: m\r\n\r\n"


def post(body: bytes = INFER, *lines: bytes, path: bytes = b"/v2/models/m/infer") -> bytes:
    return b"\r\n".join(
        [b"POST " + path + b" HTTP/1.1", b"Host: m", b"Content-Length: %d" % len(body), *lines, b"", body]
    )


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    with serving(linear(), "--max-body-bytes", "100000") as process:
        yield process


class Wire:
    """A plain socket to the server."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.rest = b""

    @classmethod
    def narrow(cls, port: int) -> "Wire":
        """One whose end takes little that is not read."""
        wire = cls.__new__(cls)
        wire.socket, wire.rest = socket.socket(), b""
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        wire.socket.settimeout(30)
        wire.socket.connect(("127.0.0.1", port))
        return wire

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer."""
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(first.split(" ")[1])
        if status == 100:
            return status, headers, b""
        length = int(headers["content-length"])
        while len(self.rest) < length:
            self._more()
        body, self.rest = self.rest[:length], self.rest[length:]
        return status, headers, body

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"the connection ended after {len(self.rest)} bytes: {self.rest[:500]!r}"
        self.rest += data

    def ended(self) -> bool:
        """Whether the server has closed, with nothing more to say."""
        return self.rest == b"" and self.socket.recv(65536) == b""


@pytest.fixture
def wire(server: Process) -> Iterator[Wire]:
    found = Wire(server.port)
    yield found
    found.socket.close()


@pytest.mark.parametrize(
    ("request_bytes", "words"),
    [
        (b"garbage\r\n\r\n", "not valid HTTP/1.1"),
        (b"GET / HTTP/1.1\nHost: m\n\n", "not valid HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nHost: m\rX: y\r\n\r\n", "not valid HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nHost : m\r\n\r\n", "not valid HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nHost: m\r\n folded\r\n\r\n", "not valid HTTP/1.1"),
        (b"GET / HTTP/1.1\r\n\r\n", "header host is missing"),
        (b"GET / HTTP/1.1\r\nHost: m\r\nHost: n\r\n\r\n", "header host came twice"),
        (b"POST /score HTTP/1.1\r\nHost: m\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "not valid HTTP"),
        (b"POST /score HTTP/1.1\r\nHost: m\r\nContent-Length: 5, 5\r\n\r\nhello", "not valid HTTP"),
        (b"POST /score HTTP/1.1\r\nHost: m\r\nContent-Length: +5\r\n\r\nhello", "not valid HTTP"),
        (b"POST /score HTTP/1.1\r\nHost: m\r\nContent-Length: 0x5\r\n\r\nhello", "not valid HTTP"),
        (
            b"POST /score HTTP/1.1\r\nHost: m\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "not valid HTTP",
        ),
        (b"POST /score HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", "not valid HTTP"),
        (b"POST /score HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", "not valid HTTP"),
        (b"POST /score HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", "not valid"),
        (b"POST /score HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n2\nab\n0\n\n", "not valid HTTP"),
        (b"GET / HTTP/9.9\r\nHost: m\r\n\r\n", "not valid HTTP/1.1"),
        (b"GET /\x00 HTTP/1.1\r\nHost: m\r\n\r\n", "not valid HTTP/1.1"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused_and_the_connection_ends(
    wire: Wire, request_bytes: bytes, words: str
) -> None:
    wire.send(request_bytes + LIVE)
    status, headers, body = wire.answer()
    assert status == 400
    assert words in json.loads(body)["error"]
    assert headers["connection"] == "close"
    assert wire.ended()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: m\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: m\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: m\r\n" + b"".join(b"X%d: a\r\n" % n for n in range(200)) + b"\r\n", 431),
        (post(b"x", b"Expect: the-unexpected"), 417),
    ],
)
def test_heads_have_their_limits(wire: Wire, request_bytes: bytes, status: int) -> None:
    wire.send(request_bytes)
    assert wire.answer()[0] == status
    assert wire.ended()


H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAAB")
"""What Java's client and ``curl --http2`` say on plain HTTP unless told otherwise."""


def chunked(body: bytes, *lines: bytes) -> bytes:
    head = [b"POST /v2/models/m/infer HTTP/1.1", b"Host: m", b"Transfer-Encoding: chunked", *lines, b"", b""]
    return b"\r\n".join(head) + b"%x\r\n%b\r\n0\r\nX-Trailer: a\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize("lines", [H2C, (b"Connection: upgrade", b"Upgrade: websocket")], ids=["h2c", "websocket"])
@pytest.mark.parametrize("send", [post, chunked], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [1, 7, 1 << 20], ids=["bytes", "pieces", "whole"])
def test_a_caller_who_offers_another_protocol_is_answered_in_this_one(
    wire: Wire, lines: tuple[bytes, ...], send: Callable[..., bytes], size: int
) -> None:
    asked = LIVE.replace(b"\r\n\r\n", b"\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
    sent = send(INFER, *lines) * 3 + asked + send(INFER) + asked * 2 + send(b"{}", *lines)
    for at in range(0, len(sent), size):
        wire.send(sent[at : at + size])
    answers = [wire.answer() for _ in range(8)]
    assert [status for status, _, _ in answers] == [200] * 7 + [400]
    assert b'"inputs\\" must be a list' in answers[-1][2]
    assert not any("connection" in headers for _, headers, _ in answers)
    assert answers[3][2] == b'{"live":true}'
    wire.send(LIVE)
    assert wire.answer()[0] == 200


@pytest.mark.parametrize(
    ("lines", "rest", "statuses"),
    [
        # What follows such a request is one in this protocol, or nothing that is understood.
        ((b"Content-Length: 0",), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400, 400]),
        ((b"Content-Length: 5",), b"hello" + LIVE, [400, 200]),
        # Connection: close counts beside it.
        ((b"Content-Length: 5", b"Connection: close"), b"hello" + LIVE, [400]),
        # Framing that could be read in two ways is refused as ever.
        ((b"Content-Length: 5", b"Transfer-Encoding: chunked"), b"0\r\n\r\n" + LIVE, [400]),
        ((b"Content-Length: 5", b"Content-Length: 5"), b"hello" + LIVE, [400]),
        ((b"Transfer-Encoding: gzip, chunked",), b"0\r\n\r\n" + LIVE, [400]),
        ((b"Transfer-Encoding: chunked",), b"5\nhello\n0\n\n" + LIVE, [400]),
        ((b"Transfer-Encoding: chunked",), b"zz\r\n" + LIVE, [400]),
        # So are bodies beyond the limit.
        ((b"Content-Length: 100001",), b"", [413]),
        ((b"Transfer-Encoding: chunked",), b"186A1\r\n" + b"a" * 100_001, [413]),
    ],
)
def test_offering_another_protocol_opens_no_way_around_the_limits(
    server: Process, lines: tuple[bytes, ...], rest: bytes, statuses: list[int]
) -> None:
    head = b"\r\n".join((b"POST /score HTTP/1.1", b"Host: m", *H2C, *lines, b"", b""))
    with Wire(server.port) as wire:
        wire.send(head + rest)
        assert [wire.answer()[0] for _ in statuses] == statuses
        if statuses[-1] != 200:
            assert wire.ended()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v2/health/live HTTP/1.1\r\nHost: m",
        b"GET /metrics HTTP/1.1\r\nHost: m",
        b"OPTIONS /score HTTP/1.1\r\nHost: m\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST",
    ],
    ids=["health", "metrics", "preflight"],
)
def test_bodies_that_nobody_reads_take_no_memory_from_those_who_have_the_token(head: bytes, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    options = ("--memory-budget", str(32 << 20), "--cors-allow-origin", "https://a.example")
    with serving(linear(), *options, "--token-file", str(token)) as process:
        body = b"x" * 2_090_000
        with Wire(process.port) as stranger, Wire(process.port) as other:
            for wire in (stranger, other):
                # All but the last byte: the server goes on waiting for it.
                wire.send(head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body[1:])
            rows = {"X": [[0.25, 0.5, 0.75, 1.0]] * 5000}
            assert process.post("/score", rows, Authorization="Bearer t").status == 200
            for wire in (stranger, other):
                wire.send(b"x" + LIVE)
                assert [wire.answer()[0], wire.answer()[0]] == [200, 200]


def test_a_tunnel_is_refused_and_nothing_after_it_is_read(wire: Wire) -> None:
    wire.send(b"CONNECT m:80 HTTP/1.1\r\nHost: m\r\n\r\n" + LIVE)
    status, headers, _ = wire.answer()
    assert (status, headers["connection"]) == (404, "close")
    assert wire.ended()


def test_100_continue_is_said_beside_an_offer_of_another_protocol(wire: Wire) -> None:
    head, _, body = post(INFER, *H2C, b"Expect: 100-continue").partition(b"\r\n\r\n")
    wire.send(head + b"\r\n\r\n")
    assert wire.answer()[0] == 100
    wire.send(body)
    assert wire.answer()[0] == 200


def test_requests_may_be_sent_without_waiting_and_are_answered_in_order(wire: Wire) -> None:
    wire.send(post() * 3 + LIVE + post(b"{}") + post())
    statuses = [wire.answer()[0] for _ in range(6)]
    assert statuses == [200, 200, 200, 200, 400, 200]


def test_more_requests_than_may_wait_are_all_answered(wire: Wire) -> None:
    wire.send(post() * 100)
    assert {wire.answer()[0] for _ in range(100)} == {200}


def test_a_request_may_come_byte_by_byte(wire: Wire) -> None:
    for byte in post():
        wire.send(bytes([byte]))
    assert wire.answer()[0] == 200
    wire.send(post())
    assert wire.answer()[0] == 200


def test_the_same_head_again_is_answered_by_its_own_body(wire: Wire) -> None:
    for number in (1, 2, 3):
        body = json.dumps({"inputs": [tensor("X", "FP32", [1, 4], [number, 0, 0, 0])]}).encode()
        wire.send(post(body))
        outputs = json.loads(wire.answer()[2])["outputs"]
        assert outputs[1]["data"][2] == pytest.approx(number * 0.2)
    # The body is shorter than the head says, then another request: nothing of one becomes part of the other.
    whole = post(body)
    wire.send(whole[:-5])
    time.sleep(0.2)
    wire.send(whole[-5:] + LIVE)
    assert wire.answer()[0] == 200
    assert wire.answer()[2] == b'{"live":true}'


def test_chunked_bodies_are_read(wire: Wire) -> None:
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (INFER[:10], INFER[10:]))
    for _ in range(2):
        wire.send(head + chunks + b"0\r\n\r\n")
        assert wire.answer()[0] == 200


def test_a_client_that_asks_first_is_told_to_go_on_or_not(wire: Wire) -> None:
    request = post(INFER, b"Expect: 100-continue")
    wire.send(request[: -len(INFER)])
    assert wire.answer()[0] == 100
    wire.send(INFER)
    assert wire.answer()[0] == 200
    wire.send(post(b"", b"Expect: 100-continue", path=b"/nowhere").replace(b"Content-Length: 0", b"Content-Length: 9"))
    assert wire.answer()[0] == 404
    assert wire.ended()


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(wire: Wire) -> None:
    wire.send(b"POST /score HTTP/1.1\r\nHost: m\r\nContent-Length: 100001\r\n\r\n")
    status, headers, body = wire.answer()
    assert (status, headers["connection"]) == (413, "close")
    assert json.loads(body) == {"error": "the body is larger than 100000 bytes"}


def test_a_client_that_sends_no_more_still_gets_its_answer() -> None:
    with serving(slow(), "--request-timeout", "60") as process, Wire(process.port) as wire:
        wire.send(post(json.dumps({"data": [50_000]}).encode(), path=b"/score"))
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.answer()[0] == 200
        assert wire.ended()


def test_old_clients_are_answered_and_the_connection_ends(wire: Wire) -> None:
    wire.send(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    status, headers, _ = wire.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert wire.ended()


def test_an_old_client_may_keep_its_connection(wire: Wire) -> None:
    for _ in range(2):
        wire.send(b"GET /v2/health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        status, headers, _ = wire.answer()
        assert (status, headers["connection"]) == (200, "keep-alive")


def test_a_refused_request_does_not_disturb_the_next(wire: Wire) -> None:
    for path in (b"/nowhere", b"/v2/models/other/infer"):
        wire.send(post(b"x" * 50_000, path=path))
        assert wire.answer()[0] == 404
    wire.send(post())
    assert wire.answer()[0] == 200


def test_a_slow_body_is_given_up() -> None:
    with serving(linear(), "--request-timeout", "0.5") as process, Wire(process.port) as wire:
        wire.send(post()[:-3])
        status, headers, body = wire.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert "the request's body did not come in time" in json.loads(body)["error"]


def test_ten_thousand_idle_connections_leave_room_for_requests(server: Process) -> None:
    import resource

    # Both ends are descriptors: this process's and, inherited, the server's.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 1000)
    assert count >= 10_000, f"the system allows {hard} open files"
    idle: list[socket.socket] = []
    try:
        with serving(linear()) as process:
            for _ in range(count):
                connection = socket.socket()
                connection.connect(("127.0.0.1", process.port))
                idle.append(connection)
            assert process.post("/v2/models/m/infer", INFER).status == 200
            idle[0].sendall(LIVE)
            assert idle[0].recv(100).startswith(b"HTTP/1.1 200")
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_answer_that_nobody_reads_holds_up_nobody_else(server: Process) -> None:
    wire = Wire(server.port)
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.socket.setblocking(False)
    sent = 0
    for _ in range(2000):
        try:
            sent += wire.socket.send(b"GET /openapi.json HTTP/1.1\r\nHost: m\r\n\r\n")
        except BlockingIOError:
            break
    assert server.post("/v2/models/m/infer", INFER).status == 200
    wire.socket.close()
    assert server.post("/v2/models/m/infer", INFER).status == 200


def begin_large_answer(port: int) -> Wire:
    """Ask for some 15 MB, more than the system's buffers take, as the last answer of the connection; read its head."""
    numbers = np.random.default_rng(0).random(1_500_000, np.float32)
    request = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [len(numbers)],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": numbers.nbytes},
                }
            ]
        }
    ).encode()
    wire = Wire.narrow(port)
    wire.send(
        post(
            request + numbers.tobytes(),
            b"Inference-Header-Content-Length: %d" % len(request),
            b"Connection: close",
        )
    )
    while b"\r\n\r\n" not in wire.rest:
        wire._more()
    return wire


def test_a_last_answer_reaches_a_caller_who_takes_it_slowly() -> None:
    with serving(identity(), "--request-timeout", "60") as process, begin_large_answer(process.port) as wire:
        time.sleep(4)
        assert len(json.loads(wire.answer()[2])["outputs"][0]["data"]) == 1_500_000
        assert wire.ended()


def test_a_server_that_stops_lets_callers_take_the_answers_that_it_has_for_them() -> None:
    with (
        serving(identity(), "--request-timeout", "60", "--drain-delay", "0") as process,
        begin_large_answer(process.port) as wire,
    ):
        process.terminate()
        time.sleep(1)
        assert len(json.loads(wire.answer()[2])["outputs"][0]["data"]) == 1_500_000
        assert process.wait() == 0


def certificates(directory: Path) -> dict[str, Path]:
    """A CA, a server's certificate for 127.0.0.1 and a client's."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    files: dict[str, Path] = {}
    for who in ("ca", "server", "client"):
        key = ca_key if who == "ca" else ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(who))
            .issuer_name(name("ca"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=who == "ca", path_length=None), critical=True)
        )
        if who == "server":
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        signed = builder.sign(ca_key, hashes.SHA256())
        files[who] = directory / f"{who}.pem"
        files[who].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        files[f"{who}-key"] = directory / f"{who}-key.pem"
        files[f"{who}-key"].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return files


def ask_tls(port: int, context: ssl.SSLContext) -> int:
    plain = socket.create_connection(("127.0.0.1", port), timeout=30)
    with plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
        secured.sendall(post())
        answer = secured.recv(65536)
        if not answer:
            raise OSError("the server has closed")
        return int(answer.split(b" ")[1])


def test_tls_and_client_certificates(tmp_path: Path) -> None:
    files = certificates(tmp_path)
    options = ["--tls-certificate", str(files["server"]), "--tls-key", str(files["server-key"])]
    trusting = ssl.create_default_context(cafile=str(files["ca"]))
    with serving(linear(), *options) as process:
        assert ask_tls(process.port, trusting) == 200
        with pytest.raises(OSError):
            ask_tls(process.port, ssl.create_default_context())
    with serving(linear(), *options, "--tls-client-ca", str(files["ca"])) as process:
        with pytest.raises(OSError):
            ask_tls(process.port, trusting)
        known = ssl.create_default_context(cafile=str(files["ca"]))
        known.load_cert_chain(files["client"], files["client-key"])
        assert ask_tls(process.port, known) == 200


def test_a_wrong_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("nothing")
    with serving(
        linear(), "--tls-certificate", str(tmp_path / "c.pem"), "--tls-key", str(tmp_path / "c.pem"), ready=False
    ) as process:
        assert process.wait() == 1
        assert "are not a certificate and its key" in "".join(process.other)


def test_a_token_is_asked_of_all_but_probes_and_metrics(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    with serving(linear(), "--token-file", str(tmp_path / "token")) as process:
        assert process.get("/v2/health/ready").status == 200
        assert process.get("/metrics").status == 200
        for path in ("/v2/models/m", "/v2", "/openapi.json", "/nowhere"):
            assert process.get(path).status == 401
        refused = process.post("/v2/models/m/infer", INFER, Authorization="Bearer wrong")
        assert refused.status == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert process.post("/v2/models/m/infer", INFER, Authorization="Bearer s3cret").status == 200
        assert process.post("/v2/models/m/infer", INFER).status == 401


def test_failures_are_logged_with_request_id_and_trace(tmp_path: Path) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with serving(slow(), "--request-timeout", "0.3", "--access-log") as process:
        answer = process.post("/score", {"data": [10**12]}, traceparent=trace, X_Request_Id="abc-1")
        assert answer.status == 504
        assert answer.headers["x-request-id"] == "abc-1"
        process.stop()
        (line,) = [entry for entry in process.log if entry.get("path") == "/score"]
        assert line["requestId"] == "abc-1"
        assert line["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736"
        assert (line["code"], line["method"], line["level"]) == (504, "POST", "warning")
