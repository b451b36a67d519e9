"""What a server answers to ``kubectl onnx predict`` takes the token nowhere, and ends the command in words."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from onnx_operator.cli.__main__ import main

DEEP = b"[" * 100_000


class _Handler(BaseHTTPRequestHandler):
    def answer(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("Authorization")))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.wfile.write(server.says)

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


class Peer(ThreadingHTTPServer):
    """Says the same to everybody, and remembers who asked with which token."""

    daemon_threads = True

    def __init__(self, says: bytes = b"") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.says = says
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


def said(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.0 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as server:
        yield server
        server.shutdown()


def ask(peer: Peer, *more: str) -> Any:
    return CliRunner().invoke(main, ["predict", "m", "--endpoint", peer.url, *more])


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
def test_a_redirect_takes_no_token_along(peer: Peer, tmp_path: Path, status: str) -> None:
    token = tmp_path / "token"
    token.write_text("secret-token")
    with Peer(said(b"{}")) as thief:
        peer.says = said(b"", status, f"Location: {thief.url}/score\r\n")
        done = ask(peer, "--data", '{"data": [1]}', "--token-file", str(token))
        thief.shutdown()
    assert peer.asked == [("/score", "Bearer secret-token")]
    assert thief.asked == []
    assert done.exit_code == 1
    assert "redirects to" in done.output


ANSWERS = {
    "nothing": b"",
    "no HTTP": b"\x00\x01\x02 SSH-2.0\r\n",
    "deep": said(DEEP),
    "deep error": said(DEEP, "500 Oops"),
    "no JSON": said(b"<html>"),
    "half": b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "headers without end": b"HTTP/1.0 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n",
    "long line": b"HTTP/1.0 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
    "huge number": said(
        b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1,6],"data":[' + b"9" * 400 + b",1,1,1,1,1]}]}"
    ),
    "endless number": said(b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[' + b"9" * 5000 + b"]}]}"),
    "shape of text": said(b'{"outputs":[{"name":"y","datatype":"FP32","shape":"12","data":[1]}]}'),
    "shape of map": said(b'{"outputs":[{"name":"y","datatype":"FP32","shape":{"-1":2},"data":[1]}]}'),
    "data of map": said(b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":{"a":1}}]}'),
    "name of list": said(b'{"outputs":[{"name":[1],"datatype":{},"shape":[0],"data":[1]}]}'),
    "negative": said(b'{"outputs":[{"name":"y","datatype":"FP32","shape":[-1],"data":[1,2,3]}]}'),
    "fraction": said(b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1.5],"data":[1,2,3]}]}'),
    "rows of numbers": said(b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":"abc"}]}'),
    "inputs of nothing": said(b'{"inputs":[null]}'),
    "inputs of text": said(b'{"inputs":"abc"}'),
    "inputs unnamed": said(b'{"inputs":[{"name":[],"datatype":1}]}'),
}


@pytest.mark.parametrize("given", ["--data", "--input"])
@pytest.mark.parametrize("kind", ANSWERS)
def test_no_answer_ends_in_a_traceback(peer: Peer, tmp_path: Path, kind: str, given: str) -> None:
    peer.says = ANSWERS[kind]
    (tmp_path / "x.json").write_text("[1.0]")
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]})
    done = ask(peer, given, body if given == "--data" else f"x={tmp_path / 'x.json'}")
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code in (0, 1, 2)
    assert "Traceback" not in done.output


@pytest.mark.parametrize("body", ["[" * 100_000, "9" * 5000, "\ud800", "NaN", ""])
def test_no_data_of_the_callers_ends_in_a_traceback(peer: Peer, tmp_path: Path, body: str) -> None:
    peer.says = said(b"{}")
    file = tmp_path / "data.json"
    file.write_bytes(body.encode(errors="surrogatepass"))
    done = ask(peer, "--data", f"@{file}")
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    done = ask(peer, "--input", f"x={file}")
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
