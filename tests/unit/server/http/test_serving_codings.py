"""Compressed bodies and compressed answers, as callers of any kind send and ask for them."""

import gzip
import http.client
import json
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from onnx_operator.server.errors import RequestError
from onnx_operator.server.http import codings
from tests.unit.server.serving import Process, identity, serving

MIB = 1 << 20
BODY = b'{"data": [1, 2, 3]}'
ANSWER = {"y": [1, 2, 3]}


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "its old name": ("x-gzip", gzip.compress),
    "capitals": ("GZip", gzip.compress),
    "members": ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(b"") + gzip.compress(data[9:])),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd.compress),
    "frames": ("zstd", lambda data: zstd.compress(data[:9]) + zstd.compress(data[9:])),
    "none": ("Identity", bytes),
    "empty": ("", bytes),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    with serving(identity(), "--max-body-bytes", str(8 * MIB), "--memory-budget", str(512 * MIB)) as process:
        yield process


def score_of(count: int) -> bytes:
    return b'{"data": [%b]}' % b",".join([b"0.5"] * count)


@pytest.mark.parametrize("name", PACKERS)
def test_a_compressed_body_is_scored_as_if_it_were_not(server: Process, name: str) -> None:
    coding, packed = PACKERS[name]
    answer = server.post("/score", packed(BODY), Content_Encoding=coding)
    assert (answer.status, answer.json) == (200, ANSWER)
    tensor = {"name": "x", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}
    answer = server.post(
        "/v2/models/m/infer", packed(json.dumps({"inputs": [tensor]}).encode()), Content_Encoding=coding
    )
    assert answer.json["outputs"][0]["data"] == [1, 2, 3]


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("count", [60_000, 400_000])
def test_so_is_a_large_one(server: Process, name: str, count: int) -> None:
    coding, packed = PACKERS[name]
    answer = server.post("/score", packed(score_of(count)), Content_Encoding=coding)
    assert answer.status == 200
    assert answer.json["y"] == [0.5] * count


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_binary_tensors_may_be_compressed_both_ways(server: Process, name: str) -> None:
    """As tritonclient does: the header tells the length of the JSON part as it was before."""
    coding, packed = PACKERS[name]
    parameters = {"binary_data_size": 40_000}
    tensor = {"name": "x", "datatype": "FP32", "shape": [10_000], "parameters": parameters}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = {"Inference_Header_Content_Length": str(len(head))}
    sent = packed(head + bytes(40_000))
    answer = server.post("/v2/models/m/infer", sent, Content_Encoding=coding, **length, Accept_Encoding="gzip")
    assert answer.headers["content-encoding"] == "gzip"
    body = gzip.decompress(answer.body)
    told = int(answer.headers["inference-header-content-length"])
    assert json.loads(body[:told])["outputs"][0]["parameters"] == parameters
    assert body[told:] == bytes(40_000)
    # Clients that only say what they understand get it as it is: it hardly shrinks.
    for accepted in ("gzip, deflate", "*", "gzip;q=0", "gzip, deflate, br, zstd"):
        answer = server.post("/v2/models/m/infer", sent, Content_Encoding=coding, **length, Accept_Encoding=accepted)
        assert "content-encoding" not in answer.headers
        assert answer.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "identity, gzip", "gzip;q=1", "compress", "aws-chunked"])
@pytest.mark.parametrize("path", ["/score", "/v2/models/m/infer"])
def test_a_coding_that_is_not_understood_is_told_with_those_that_are(server: Process, path: str, coding: str) -> None:
    answer = server.post(path, BODY, Content_Encoding=coding)
    assert answer.status == 415
    assert answer.headers["accept-encoding"] == "gzip, deflate, zstd"
    assert "gzip, deflate, zstd" in answer.json["error"]


@pytest.mark.parametrize(
    ("coding", "body", "words"),
    [
        ("gzip", BODY, "not valid gzip"),
        ("gzip", gzip.compress(BODY, mtime=0)[:-3], "breaks off"),
        ("gzip", gzip.compress(BODY, mtime=0)[:-8] + bytes(8), "not valid gzip"),
        ("gzip", gzip.compress(BODY, mtime=0) + b"more", "not valid gzip"),
        ("gzip", gzip.compress(b"", mtime=0) * 101, "goes on"),
        ("gzip", gzip.compress(b"", mtime=0), "not valid JSON"),
        ("deflate", b"\xff" * 20, "not valid deflate"),
        ("deflate", zlib.compress(BODY) + b"more", "goes on"),
        ("deflate", zlib.compress(BODY)[:-5], "breaks off"),
        ("zstd", BODY, "not valid zstd"),
        ("zstd", zstd.compress(BODY)[:-3], "breaks off"),
        ("zstd", zstd.compress(b"") * 101, "goes on"),
        ("gzip", b"", "not valid JSON"),
    ],
)
def test_a_body_that_is_not_what_its_coding_says_is_refused(
    server: Process, coding: str, body: bytes, words: str
) -> None:
    answer = server.post("/score", body, Content_Encoding=coding)
    assert answer.status == 400
    assert words in answer.json["error"]


def test_a_frame_that_asks_for_a_larger_window_than_http_allows_is_refused(server: Process) -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    answer = server.post("/score", packer.compress(score_of(900_000)) + packer.flush(), Content_Encoding="zstd")
    assert answer.status == 400
    assert "memory" in answer.json["error"]


BOMB = 256 * MIB


def bombs() -> dict[str, bytes]:
    """Many zeros in few bytes."""
    gz, z, zs = zlib.compressobj(wbits=31), zlib.compressobj(), zstd.ZstdCompressor()
    packers: dict[str, Any] = {"gzip": gz, "deflate": z, "zstd": zs}
    block = bytes(MIB)
    return {
        name: b"".join(packer.compress(block) for _ in range(BOMB // MIB)) + packer.flush()
        for name, packer in packers.items()
    }


def peak(process: Process) -> int:
    lines = Path(f"/proc/{process.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_few_bytes_that_stand_for_very_many_are_refused_and_take_no_memory(server: Process) -> None:
    before = peak(server)
    for coding, bomb in bombs().items():
        assert len(bomb) < 2 * MIB
        for path in ("/score", "/v2/models/m/infer"):
            answer = server.post(path, bomb, Content_Encoding=coding)
            assert answer.status == 413
            assert f"larger than {8 * MIB} bytes once it is unpacked" in answer.json["error"]
            assert server.get("/v2/health/live").status == 200
    # The body, what is made of it, and a heap's holes; never all of them.
    assert peak(server) - before < 64 * MIB
    assert server.post("/score", BODY).json == ANSWER


def test_what_is_unpacked_counts_for_the_memory_of_requests() -> None:
    with serving(identity(), "--memory-budget", str(16 * MIB)) as process:
        packed = gzip.compress(b" " * (4 * MIB) + BODY)
        assert len(packed) < 16 * 1024
        answer = process.post("/score", packed, Content_Encoding="gzip")
        assert answer.status == 413
        assert "raise the pod's memory limit" in answer.json["error"]
        # It is all given back, also what many at once took.
        for _ in range(20):
            process.post("/score", packed, Content_Encoding="gzip")
            assert process.post("/score", gzip.compress(score_of(9000)), Content_Encoding="gzip").status == 200
        for _ in range(20):
            answer = process.post("/score", gzip.compress(b" " * MIB + BODY), Content_Encoding="gzip")
            assert answer.json == ANSWER


def test_what_a_compressed_answer_takes_is_given_back() -> None:
    with serving(identity(), "--memory-budget", str(24 * MIB)) as process:
        for _ in range(20):
            answer = process.post("/score", score_of(50_000), Accept_Encoding="gzip")
            assert answer.status == 200
            assert json.loads(gzip.decompress(answer.body))["y"] == [0.5] * 50_000


def test_a_script_gets_the_body_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text(
        "from azureml.contrib.services.aml_request import rawhttp\n"
        "def init(): pass\n"
        "@rawhttp\n"
        "def run(request):\n"
        "    kept = {n.lower(): v for n, v in request.headers.items()}\n"
        "    body = request.get_data()\n"
        "    return {'length': len(body), 'told': kept['content-length'], 'coding': kept.get('content-encoding')}\n"
    )
    with serving(identity(), "--script", str(tmp_path)) as process:
        for size in (10, 1_000_000):
            answer = process.post("/score", gzip.compress(b" " * size), Content_Encoding="gzip")
            assert answer.json == {"length": size, "told": str(size), "coding": None}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_script_never_gets_a_packed_body_whatever_the_method(tmp_path: Path, method: str) -> None:
    (tmp_path / "score.py").write_text(
        "from azureml.contrib.services.aml_request import rawhttp\n"
        "def init(): pass\n"
        "@rawhttp\n"
        "def run(request):\n"
        "    kept = {n.lower(): v for n, v in request.headers.items()}\n"
        "    return [request.method, request.get_data().decode(), kept.get('content-encoding')]\n"
    )
    with serving(identity(), "--script", str(tmp_path)) as process:
        answer = process.request(method, "/score", gzip.compress(BODY), Content_Encoding="gzip")
        assert (answer.status, answer.json) == (200, [method, BODY.decode(), None])
        answer = process.request(method, "/score", BODY, Content_Encoding="gzip")
        assert (answer.status, "not valid gzip" in answer.json["error"]) == (400, True)
        answer = process.request(method, "/score", BODY, Content_Encoding="br")
        assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip, deflate, zstd")
        answer = process.request(method, "/score", b"", Content_Encoding="gzip")
        assert answer.json == [method, "", None]


# Answers.


UNPACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "zstd": zstd.decompress,
}


@pytest.mark.parametrize("coding", UNPACKERS)
@pytest.mark.parametrize("count", [2000, 200_000])
def test_a_caller_who_takes_compressed_answers_gets_them(server: Process, coding: str, count: int) -> None:
    answer = server.post("/score", score_of(count), Accept_Encoding=coding)
    assert answer.headers["content-encoding"] == coding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(UNPACKERS[coding](answer.body)) == {"y": [0.5] * count}
    tensor = {"name": "x", "datatype": "FP32", "shape": [count], "data": [0.5] * count}
    answer = server.post("/v2/models/m/infer", {"inputs": [tensor]}, Accept_Encoding=coding)
    assert json.loads(UNPACKERS[coding](answer.body))["outputs"][0]["data"] == [0.5] * count


def test_a_scripts_answers_are_compressed_unless_it_has_done_so(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text(
        "import gzip\n"
        "from azureml.contrib.services.aml_request import rawhttp\n"
        "from azureml.contrib.services.aml_response import AMLResponse\n"
        "def init(): pass\n"
        "@rawhttp\n"
        "def run(request):\n"
        "    if request.get_data() != b'packed': return [1] * 2001\n"
        "    answer = AMLResponse(gzip.compress(b'[' + b'1,' * 2000 + b'1]'), 200)\n"
        "    answer.headers['Content-Encoding'] = 'gzip'\n"
        "    answer.headers['Content-Type'] = 'application/json'\n"
        "    return answer\n"
    )
    with serving(identity(), "--script", str(tmp_path)) as process:
        for body in (b"", b"packed"):
            answer = process.post("/score", body, Accept_Encoding="gzip")
            assert len(answer.body) < 1000
            assert json.loads(gzip.decompress(answer.body)) == [1] * 2001


def test_small_answers_and_those_of_other_callers_are_sent_as_they_are(server: Process) -> None:
    for answer in (
        server.post("/score", BODY, Accept_Encoding="gzip"),
        server.post("/score", score_of(2000)),
        server.post("/score", score_of(2000), Accept_Encoding="br"),
    ):
        assert "content-encoding" not in answer.headers
        assert answer.json
    assert server.post("/score", score_of(2000)).headers["vary"] == "Accept-Encoding"


def test_descriptions_are_compressed_too_and_a_head_tells_what_a_get_would(server: Process) -> None:
    got = server.request("GET", "/openapi.json", Accept_Encoding="gzip")
    assert json.loads(gzip.decompress(got.body))["openapi"] == "3.1.0"
    head = server.request("HEAD", "/openapi.json", Accept_Encoding="gzip")
    assert head.headers["content-length"] == got.headers["content-length"]
    assert head.body == b""


def test_answers_keep_their_order_on_a_connection_that_does_not_wait(server: Process) -> None:
    large = score_of(300_000)
    head = b"POST /score HTTP/1.1\r\nHost: m\r\nAccept-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as asked, asked.makefile("rb") as answers:
        asked.sendall(head % len(large) + large + head % len(BODY) + BODY)
        for expected in ({"y": [0.5] * 300_000}, ANSWER):
            assert answers.readline().startswith(b"HTTP/1.1 200 ")
            headers = http.client.parse_headers(answers)
            body = answers.read(int(headers["Content-Length"]))
            packed = headers.get("Content-Encoding") == "gzip"
            assert json.loads(gzip.decompress(body) if packed else body) == expected


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (b"gzip", "gzip"),
        (b"GZIP", "gzip"),
        (b"x-gzip", "gzip"),
        (b"gzip, deflate", "gzip"),
        (b"gzip, deflate, br, zstd", "zstd"),
        (b"gzip;q=0.5, deflate;q=0.9", "deflate"),
        (b"gzip ; q=0.5 , deflate; q=0.25", "gzip"),
        (b"*", "zstd"),
        (b"*;q=0", ""),
        (b"zstd;q=0, *", "gzip"),
        (b"identity", ""),
        (b"identity, gzip;q=0.5", ""),
        (b"identity;q=0.5, gzip;q=0.5", "gzip"),
        (b"identity;q=0, br", ""),
        (b"gzip;q=0", ""),
        (b"gzip;q=nan", ""),
        (b"gzip;q=1e400", ""),
        (b"gzip;q=-1", ""),
        (b"", ""),
        (b",;,;q", ""),
        (b"gzip," + b"a" * 300, ""),
    ],
)
def test_weights_decide(accept: bytes, coding: str) -> None:
    assert codings.chosen(accept) == coding


@pytest.mark.parametrize("name", [name for name in PACKERS if PACKERS[name][0] not in ("", "Identity")])
def test_no_more_is_made_of_a_body_than_was_reserved(name: str) -> None:
    coding, packed = PACKERS[name]
    body = packed(bytes(3 * MIB))
    reserved: list[int] = []
    assert codings.unpack(codings.coding_of(coding.encode()), body, 3 * MIB, reserved.append) == bytes(3 * MIB)
    assert reserved == sorted(reserved)
    assert reserved[-1] <= 3 * MIB + codings.PIECE

    def refuse(amount: int) -> None:
        if amount > MIB:
            raise RequestError("no memory", 503)

    with pytest.raises(RequestError, match="no memory"):
        codings.unpack(codings.coding_of(coding.encode()), body, 3 * MIB, refuse)
