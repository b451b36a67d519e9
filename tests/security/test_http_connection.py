"""Whatever comes over a connection, the server answers in HTTP, with the right code, and lives."""

import asyncio
import gzip
import itertools
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.api.contract import Phase
from onnx_operator.server.dataplane.admission import Admission, Answered
from onnx_operator.server.dataplane.batching import Batcher, BatchPolicy
from onnx_operator.server.dataplane.budget import Budget
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.http.connection import Connection
from onnx_operator.server.http.incoming import RequestReader
from onnx_operator.server.http.limits import Limits
from onnx_operator.server.http.routes import Routes
from onnx_operator.server.http.server import HttpServer
from onnx_operator.server.lifecycle import Lifecycle
from onnx_operator.server.metrics import HTTP_CODES, Metrics
from tests.security.fuzzing import Fuzz, mutated, pieces
from tests.unit.server.serving import linear, load_bytes, serving, tensor

MODEL = load_bytes(linear())
GOOD = json.dumps({"inputs": [tensor("X", "FP32", [1, 4], [1, 0, 0, 0])]}).encode()
HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: m\r\n"


class Sink(asyncio.Transport):
    """A client that reads everything."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.ended = False

    def write(self, data: Any) -> None:
        assert not self.ended, "the server wrote after its end"
        self.sent += data

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Endpoint:
    """The real routes around a model, whose connections take bytes from the test. One event loop for all of it."""

    def __init__(
        self, token: str = "", budget: int = 1 << 30, on_answered: Callable[[Answered], None] | None = None
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self.faults: list[BaseException] = []
        self.loop.run_until_complete(self._start(token, budget, on_answered))

    async def _start(self, token: str, budget: int, on_answered: Callable[[Answered], None] | None) -> None:
        lifecycle, metrics, self.plane = Lifecycle(), Metrics(), DataPlane("m")
        self.lifecycle = lifecycle
        lifecycle.enter(Phase.SERVING)
        limits = Limits(max_body_bytes=5000)
        self.admission = Admission(metrics, limits.places, token, on_answered=on_answered)
        self.server = HttpServer(lifecycle, self.admission, limits, Budget(budget))
        self.server.report = self.faults.append  # type: ignore[method-assign]
        self.routes = Routes(self.server, self.plane, lifecycle, metrics)
        batcher = Batcher(MODEL, BatchPolicy(8, inline=True, largest=1000), 1, metrics.run)
        self.plane.attach(MODEL, batcher)
        self.routes.attach()

    def close(self) -> None:
        self.server._sweeper.cancel()
        self.routes.close()
        self.plane.close()
        self.loop.close()

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *sent: list[bytes]) -> list[list[tuple[int, bytes]]]:
        """Send each list of pieces over a connection of its own, taking turns; return the answers of each."""
        return self.loop.run_until_complete(self._send(sent))

    async def _send(self, sent: tuple[list[bytes], ...]) -> list[list[tuple[int, bytes]]]:
        connections = [Connection(self.server) for _ in sent]
        sinks = [Sink() for _ in sent]
        for connection, sink in zip(connections, sinks, strict=True):
            connection.connection_made(sink)
        for pieces_of_turn in itertools.zip_longest(*sent):
            for connection, sink, piece in zip(connections, sinks, pieces_of_turn, strict=True):
                if piece and not sink.ended:
                    connection.data_received(piece)
            for _ in range(3):
                await asyncio.sleep(0)
        for _ in range(40):
            await asyncio.sleep(0)
        for connection in connections:
            connection.connection_lost(None)
        for _ in range(3):
            await asyncio.sleep(0)
        assert self.faults == []
        assert self.admission.present == 0
        assert self.server.budget.used == self.server.budget.of_loop == 0
        assert not self.server.connections
        return [answers_in(bytes(sink.sent)) for sink in sinks]


def answers_in(rest: bytes) -> list[tuple[int, bytes]]:
    """Codes and bodies of the answers that a connection has sent, each checked to be one."""
    found = []
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        match = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
        assert match, head
        status = int(match[1])
        if status == 100:
            continue
        assert status in HTTP_CODES
        length = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index]
        body, rest = rest[:length], rest[length:]
        if status != 200:
            assert json.loads(body)["error"]
        found.append((status, body))
    return found


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as found:
        yield found


def answers(pieces: list[bytes]) -> list[tuple[int, bytes]]:
    """Send the pieces over one connection to the real routes; return the answers."""
    with Endpoint() as endpoint:
        return endpoint.send(pieces)[0]


def post(body: bytes, *lines: bytes, path: bytes = b"/v2/models/m/infer") -> bytes:
    head = [b"POST " + path + b" HTTP/1.1", b"Host: m", b"Content-Length: %d" % len(body), *lines, b"", b""]
    return b"\r\n".join(head) + body


def probe(path: bytes) -> bytes:
    """What the kubelet asks, byte for byte."""
    return (
        b"GET %b HTTP/1.1\r\nHost: 10.244.0.5:8080\r\nUser-Agent: kube-probe/1.35\r\nAccept: */*\r\n"
        b"Connection: close\r\n\r\n" % path
    )


def chunked(body: bytes, size: int, trailers: bytes = b"") -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    text = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + text + b"0\r\n" + trailers + b"\r\n"


OTHER = json.dumps({"inputs": [tensor("X", "FP32", [1, 4], [0, 1, 0, 0])]}).encode()
REQUESTS = [
    post(GOOD),
    post(OTHER),
    post(GOOD, b"X-Request-Id: 1"),
    post(b'{"data":[[0,0,1,0]]}', path=b"/score"),
    post(b"{}"),
    b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n\r\n" + post(OTHER),
    chunked(GOOD, 7, b"X-Request-Id: 2\r\n"),
    post(gzip.compress(GOOD, mtime=0), b"Content-Encoding: gzip", b"Accept-Encoding: gzip"),
    post(GOOD, b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAA"),
    chunked(OTHER, 9).replace(b"Host: m\r\n", b"Host: m\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"),
    probe(b"/v2/health/ready"),
]


@pytest.mark.parametrize("evil", REQUESTS, ids=range(len(REQUESTS)))
def test_a_request_cut_at_any_byte_is_answered_as_if_whole_and_changes_nobody_elses(evil: bytes) -> None:
    """Between its two pieces others ask, over another connection, with every head that could be mistaken for it."""
    victims = [post(GOOD), probe(b"/v2/health/ready")]
    with Endpoint() as endpoint:
        (expected,) = endpoint.send([evil])
        expected_of = [endpoint.send([victim])[0] for victim in victims]
        live = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
        (first,) = endpoint.send([live])
        for at in range(1, len(evil)):
            victim, theirs = victims[at % 2], expected_of[at % 2]
            # The beginning comes behind a request that is answered at once, as when a connection looks idle again.
            mine, others = endpoint.send(
                [live + evil[:at], evil[at:]], [victim[: at % len(victim)], victim[at % len(victim) :]]
            )
            assert mine == first + expected
            assert others == theirs
            assert endpoint.send([victim])[0] == theirs


@pytest.mark.parametrize("path", [b"/v2/health/ready", b"/v2/health/live"])
def test_the_kubelets_probe_cannot_be_made_somebody_elses_request(endpoint: Endpoint, path: bytes) -> None:
    (expected,) = endpoint.send([probe(path)])
    assert expected[0][0] == 200
    opening = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\nPOST /score HTTP/1.1\r\nContent-Length: 0\r\nX: "
    for more in (b"G", b"", b"\r\n"):
        endpoint.send([opening, probe(path) + more])
        assert endpoint.send([probe(path)])[0] == expected


def test_nobody_scores_with_anothers_token() -> None:
    with Endpoint("s3cret") as endpoint:
        body = b'{"data":[[1,0,0,0]]}'
        known = post(body, b"Authorization: Bearer s3cret", path=b"/score")
        for before in (b"", b"\r\n", b"\r\n\r\n", b"\r\n\r\n\r\n"):
            assert endpoint.send([before + known])[0][0][0] == 200
            for theirs in (
                before + body,
                before + post(body, path=b"/score"),
                post(body, b"X: Bearer s3cret", path=b"/score"),
            ):
                assert 200 not in [status for status, _ in endpoint.send([theirs])[0]]
        for at in range(len(known)):
            cut = known[:at] + known[at + 1 :]
            for status, _ in endpoint.send([cut])[0]:
                assert status != 200 or b"s3cret" in cut


@pytest.mark.parametrize(
    "head",
    [
        b"POST /score HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: gzip, chunked\r\n",
        b"POST /score HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        b"POST /score HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: \r\nTransfer-Encoding: chunked\r\n",
        b"POST /score HTTP/1.0\r\nHost: m\r\nTransfer-Encoding: chunked\r\n",
        b"POST /score HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n",
        b"POST /score HTTP/2.0\r\nHost: m\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_a_body_of_doubtful_length_is_refused_and_nothing_after_it_is_read(endpoint: Endpoint, head: bytes) -> None:
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
    (found,) = endpoint.send([head + b"\r\n" + body + probe(b"/v2/health/live")])
    assert [status for status, _ in found] == [400]


@pytest.mark.parametrize("version", [b"0.9", b"2.0"])
def test_another_version_of_the_protocol_is_not_answered_as_this_one(endpoint: Endpoint, version: bytes) -> None:
    request = probe(b"/v2/health/live").replace(b"HTTP/1.1", b"HTTP/" + version)
    for _ in range(2):
        (found,) = endpoint.send([request])
        assert [status for status, _ in found] == [400]


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_server_that_drains_ends_a_connection_with_one_answer_whatever_was_sent_at_once(pieces: int) -> None:
    both = post(GOOD) + post(OTHER)
    with Endpoint() as endpoint:
        (expected,) = endpoint.send([post(GOOD)])
        endpoint.lifecycle.draining = True
        (found,) = endpoint.send([both[: len(both) // pieces], both[len(both) // pieces :]])
        assert found == expected


def test_what_comes_after_a_body_is_no_header() -> None:
    seen: list[Answered] = []
    trailers = b"X-Request-Id: from-a-trailer\r\nAuthorization: Bearer x\r\nContent-Length: 5\r\nHost: other\r\n"
    with Endpoint(on_answered=seen.append) as endpoint:
        (found,) = endpoint.send([chunked(GOOD, 50, trailers)])
        assert [status for status, _ in found] in ([200], [400])
        (answered,) = seen
        assert answered.headers().keys() == {"host", "transfer-encoding"}
        # Too many of them end the connection, as too many headers do.
        (found,) = endpoint.send([chunked(GOOD, 50, b"".join(b"X: %d\r\n" % n for n in range(20_000)))])
        assert found[0][0] in (200, 431)


@pytest.mark.parametrize(
    "opening",
    [
        b"GET / HTTP/1.1\r\nHost: m\r\nX: ",
        b"GET / HTTP/1.1\r\nHost: m\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ],
)
def test_a_header_that_never_ends_is_not_kept(endpoint: Endpoint, opening: bytes) -> None:
    """The parser tells of a header once it is whole: what it holds until then has a bound of ours."""
    (found,) = endpoint.send([opening, *[b"a" * 8192] * 200])
    assert [status for status, _ in found] in ([431], [400])


def test_small_chunks_take_no_more_memory_than_their_bytes(endpoint: Endpoint) -> None:
    kept: list[int] = []

    class Spy(RequestReader):
        def on_message_complete(self) -> None:
            kept.append(len(self._chunks))
            super().on_message_complete()

    async def send() -> None:
        connection = Connection(endpoint.server)
        connection._requests = Spy(connection, endpoint.server)
        connection.connection_made(Sink())
        connection.data_received(chunked(GOOD, 2))
        connection.connection_lost(None)

    endpoint.loop.run_until_complete(send())
    assert kept == [2]


def test_a_body_that_is_broken_off_is_let_go_before_its_connection(endpoint: Endpoint) -> None:
    """The budget counts it no more once it is refused; whoever keeps the connection must not keep the bytes."""

    async def send() -> None:
        connection = Connection(endpoint.server)
        connection.connection_made(Sink())
        connection.data_received(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1000\r\n" + b" " * 4096)
        assert sum(map(len, connection._requests._chunks)) == 4096
        connection.data_received(b"broken")
        assert (connection.phase, connection._requests._chunks) == ("linger", [])
        connection.connection_lost(None)

    endpoint.loop.run_until_complete(send())


def test_bodies_that_arrive_are_counted_and_refused_beyond_the_budget() -> None:
    with Endpoint(budget=40_000) as endpoint:
        # 8 bytes for each: the first two fit, the third not while they are there, and what could never fit is told so.
        head = post(GOOD + b" " * (2000 - len(GOOD)))
        pieces = [head[:-1], head[-1:]]
        one, two, three = endpoint.send(pieces, pieces, pieces)
        assert sorted([one[0][0], two[0][0], three[0][0]]) == [200, 200, 503]
        assert endpoint.send([post(b" " * 5000)])[0] == [(400, ANY)]
    with Endpoint(budget=30_000) as endpoint:
        ((status, body),) = endpoint.send([post(b" " * 5000)])[0]
        assert status == 413
        assert b"raise the pod's memory limit" in body
        ((status, _),) = endpoint.send([chunked(b" " * 5000, 100)])[0]
        assert status == 413


@pytest.mark.fuzz
def test_pipelines_of_requests_damaged_and_cut_anywhere_are_answered_or_refused(fuzz: Fuzz, endpoint: Endpoint) -> None:
    alone: dict[bytes, tuple[int, bytes]] = {}
    for request in REQUESTS:
        (alone[request],) = endpoint.send([request])[0]
    for rng in fuzz(300):
        connections = []
        expected: list[list[tuple[int, bytes]] | None] = []
        for _ in range(rng.randint(1, 3)):
            requests = [rng.choice(REQUESTS[:-1]) for _ in range(rng.randint(1, 5))]
            if rng.random() < 0.5:
                # As if nobody else were there: each gets its own answer.
                connections.append(pieces(rng, b"".join(requests)))
                expected.append([alone[request] for request in requests])
            else:
                damaged = [mutated(rng, request) if rng.random() < 0.5 else request for request in requests]
                connections.append(pieces(rng, b"".join(damaged)))
                expected.append(None)
        for found, wanted in zip(endpoint.send(*connections), expected, strict=True):
            if wanted is not None:
                assert found == wanted
            assert all(status < 500 for status, _ in found)
        assert endpoint.send([probe(b"/v2/health/ready")])[0] == [alone[REQUESTS[-1]]]


lines = st.sampled_from(
    [
        b"GET /v2 HTTP/1.1\r\n",
        HEAD,
        b"POST /score HTTP/1.1\r\n",
        b"Host: m\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: %d\r\n" % len(GOOD),
        b"Content-Length: 99999999\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Content-Encoding: zstd\r\n",
        b"Accept-Encoding: gzip\r\n",
        b"Inference-Header-Content-Length: 10\r\n",
        b"X: " + b"y" * 3000 + b"\r\n",
        b"\r\n",
        b"0\r\n\r\n",
        b"5\r\nhello\r\n",
        b"FFFFFFFFFFFFFFFFF\r\n",
        GOOD,
        b"{}",
        b"\n",
        b"\r",
        b"\x00\xff",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(lines, lines, st.binary(max_size=20)), max_size=14), st.randoms())
def test_any_bytes_are_answered_and_alike_however_they_are_cut(parts: list[bytes], random: Any) -> None:
    whole = b"".join(parts)
    expected = answers([whole] if whole else [])
    pieces, rest = [], whole
    while rest:
        size = random.choice([1, 2, 7, 50, 400, 5000])
        pieces.append(rest[:size])
        rest = rest[size:]
    assert [status for status, _ in answers(pieces)] == [status for status, _ in expected]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_body_gets_a_4xx_and_the_next_request_its_own_answer(data: st.DataObject) -> None:
    body = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    header = data.draw(
        st.sampled_from([b"", b"Inference-Header-Content-Length: %d\r\n" % data.draw(st.integers(0, 200))])
    )
    request = HEAD + header + b"Content-Length: %d\r\n\r\n%b" % (len(body), bytes(body))
    good = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD)
    found = answers([request + good, good])
    assert len(found) == 3
    assert found[0][0] in (200, 400)
    assert found[1][0] == found[2][0] == 200
    assert json.loads(found[2][1])["outputs"][0]["data"] == [2]


def bad_requests() -> bytes:
    """A few hundred bad requests of many kinds, none of which ends its connection."""
    bodies = [b"", b"{", b"[]", b"{}", b'{"inputs": 5}', GOOD[:-1], GOOD.replace(b"FP32", b"FP64"), b"\xff" * 30]
    bodies += [GOOD.replace(b"1, 4", b"1, 5"), GOOD.replace(b"X", b"Y"), b'{"inputs": [' + b"[" * 500, b"9" * 4000]
    paths = [b"/v2/models/m/infer", b"/score", b"/v2/models/other/infer", b"/nowhere"]
    found = []
    for path in paths:
        for body in bodies:
            codings = (b"Content-Encoding: gzip\r\n", b"Content-Encoding: zstd\r\n", b"Content-Encoding: br\r\n")
            for header in (b"", b"Inference-Header-Content-Length: 7\r\n", *codings):
                head = b"POST %b HTTP/1.1\r\nHost: m\r\n%bContent-Length: %d\r\n\r\n" % (path, header, len(body))
                found.append(head + body)
    return b"".join(found)


def resident_bytes(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024  # type: ignore[index]


def send_bad_requests(count: int) -> tuple[int, set[bytes], int]:
    """Send so many; return how many answers came, their codes, and by how many bytes the server has grown."""
    batch = bad_requests()
    each = batch.count(b"HTTP/1.1\r\n")
    with serving(linear()) as process:
        codes: set[bytes] = set()
        answered, first = 0, 0
        connection = socket.create_connection(("127.0.0.1", process.port), timeout=60)
        rest = b""
        for turn in range(max(2, count // each)):
            connection.sendall(batch)
            seen = 0
            while seen < each:
                rest += connection.recv(1 << 20)
                found = re.findall(rb"HTTP/1\.1 (\d{3}) ", rest)
                seen += len(found)
                codes |= set(found)
                rest = rest[-12:] if not rest.endswith(b"}") else b""
                rest = rest if b"HTTP/1.1 " not in rest else b""
            answered += seen
            if turn == max(1, count // each // 10):
                first = resident_bytes(process.process.pid)
        connection.close()
        time.sleep(0.2)
        assert process.post("/v2/models/m/infer", GOOD).status == 200
        assert len(list(Path(f"/proc/{process.process.pid}/fd").iterdir())) < 40
        return answered, codes, resident_bytes(process.process.pid) - first


@pytest.mark.parametrize("count", [30_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_bad_requests_leave_nothing_behind(count: int) -> None:
    answered, codes, grown = send_bad_requests(count)
    print(f"{answered} bad requests, codes {sorted(codes)}, grown by {grown / 2**20:.1f} MiB")
    assert answered >= count * 0.95
    assert codes == {b"400", b"404", b"415"}
    assert grown < 4 << 20
