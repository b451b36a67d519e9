"""The pod's startup probe: one that waits for the whole start, so that a healthy one leaves no warning."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from onnx_operator.server.waiting import connect_tls, look, wait
from tests.unit.server.serving import ROOT, linear, serving

LOADING = b'{"ready":false,"phase":"Loading","phaseSeconds":12.5}'


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answer(status: str, body: bytes = b"{}") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


@contextlib.contextmanager
def telling(answers: Sequence[bytes], port: int = 0, after: float = 0.0) -> Iterator[int]:
    """A server that comes ``after`` seconds and gives one answer a connection; the last of them for ever."""
    port = port or free_port()
    ended = threading.Event()

    def run() -> None:
        time.sleep(after)
        left = list(answers)
        with socket.create_server(("127.0.0.1", port)) as listener:
            listener.settimeout(0.05)
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(1)
                        connection.recv(4096)
                        connection.sendall(left[0] if len(left) == 1 else left.pop(0))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield port
    finally:
        ended.set()
        thread.join()


def probe(port: int, *options: str) -> subprocess.CompletedProcess[str]:
    """What the kubelet runs in the container."""
    command = [sys.executable, "-m", "onnx_operator.server", "wait", f"--port={port}", *options]
    return subprocess.run(
        command, env={"PYTHONPATH": str(ROOT / "operator")}, capture_output=True, text=True, timeout=60
    )


def test_the_probe_begins_before_the_server_and_passes_as_soon_as_it_is_ready() -> None:
    port, passed = free_port(), []
    waiting = threading.Thread(target=lambda: passed.append(probe(port, "--timeout=50")))
    waiting.start()
    with serving(linear(), "--port", str(port)) as process:
        ready = time.monotonic()
        waiting.join()
        assert time.monotonic() - ready < 5
        assert process.get("/v2/health/ready").status == 200
    (found,) = passed
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_no_listener_refusals_broken_and_strange_answers_are_all_part_of_a_start() -> None:
    early = [answer("503 Service Unavailable", LOADING), b"", b"HTTP/1.1 200", b"\x00\xff", answer("404 Not Found")]
    with telling([*early, answer("200 OK")], after=0.3) as port:
        assert wait(port, 20, pause=0.01) == ""


def test_a_start_that_takes_too_long_fails_and_says_how_far_it_came() -> None:
    with telling([answer("503 Service Unavailable", LOADING)]) as port:
        found = probe(port, "--timeout=0.5")
    assert found.returncode != 0
    assert "not ready within 0.5 s" in found.stderr
    assert "phase Loading for 12.5 s" in found.stderr


def test_a_server_that_never_listens_or_never_answers_is_given_up_in_time() -> None:
    began = time.monotonic()
    assert "does not answer" in wait(free_port(), 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "not ready within" in wait(silent.getsockname()[1], 0.3)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "told",
    [
        answer("503 Service Unavailable", b"[]"),
        answer("503 Service Unavailable", b'{"phase":1,"phaseSeconds":"x"}'),
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"\xff" * 40_000,
    ],
)
def test_what_is_no_answer_of_our_server_is_no_readiness(told: bytes) -> None:
    with telling([told]) as port:
        ready, words = look(port, 2)
    assert not ready
    assert 0 < len(words) < 300


def test_a_server_that_speaks_tls_is_waited_for_too(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=elsewhere"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with serving(linear(), f"--tls-certificate={certificate}", f"--tls-key={key}") as process:
        assert wait(process.port, 10, connect_tls) == ""
        assert "not ready" in wait(process.port, 0.2)
