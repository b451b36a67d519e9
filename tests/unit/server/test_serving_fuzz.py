"""Whatever comes over a connection, the server answers in HTTP, with the right code, and lives."""

import asyncio
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.server.dataplane.batching import Batcher, BatchPolicy
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.http.connection import Connection
from onnx_operator.server.http.routes import Routes
from onnx_operator.server.http.server import HttpServer, Limits
from onnx_operator.server.lifecycle import Lifecycle
from onnx_operator.server.metrics import HTTP_CODES, Metrics
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


def answers(pieces: list[bytes]) -> list[tuple[int, bytes]]:
    """Send the pieces over one connection to the real routes; return the answers."""

    async def main() -> bytes:
        lifecycle, metrics, plane = Lifecycle(), Metrics(), DataPlane("m")
        server = HttpServer(lifecycle, metrics, Limits(max_body_bytes=5000))
        faults: list[BaseException] = []
        server.report = faults.append  # type: ignore[method-assign]
        routes = Routes(server, plane, lifecycle, metrics)
        plane.attach(MODEL, Batcher(MODEL, BatchPolicy(8, inline=True, largest=1000), 1, metrics.run))
        routes.attach()
        connection, sink = Connection(server), Sink()
        connection.connection_made(sink)
        for piece in pieces:
            if not sink.ended:
                connection.data_received(piece)
            for _ in range(3):
                await asyncio.sleep(0)
        for _ in range(40):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        assert faults == []
        assert server.in_flight == 0
        server._sweeper.cancel()
        routes.close()
        plane.close()
        return bytes(sink.sent)

    rest, found = asyncio.run(main()), []
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
            for header in (b"", b"Inference-Header-Content-Length: 7\r\n", b"Content-Encoding: gzip\r\n"):
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
