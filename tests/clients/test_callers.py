"""HTTP clients of other languages, as they come: each in a process of its own, against the server of a pod."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.cluster.errors import ClusterUnavailableError
from tests.cluster.servers import debian_program, python_with
from tests.unit.server.serving import Process, model_bytes, node, serving, value

PROGRAMS = Path(__file__).with_name("programs")
ROWS = np.arange(4000, dtype=np.float32).reshape(-1, 4)
BODY = json.dumps({"data": ROWS.tolist()}).encode()
ANSWER = {"y": ROWS[:, :3].tolist()}
MODES = {"plain", "chunked", "gzip", "together"}


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    """A model that takes four numbers a row and gives back three."""
    content = model_bytes(
        [node("MatMul", ["x", "W"], ["y"])],
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("y", TensorProto.FLOAT, ["N", 3])],
        {"W": np.eye(4, 3, dtype=np.float32)},
    )
    with serving(content, "--name", "linear") as process:
        yield process


def program(name: str, what: str) -> str:
    """Its path. Raises :class:`ClusterUnavailableError` where it is missing."""
    found = shutil.which(name)
    if found is None:
        raise ClusterUnavailableError(f"{name} is missing in PATH; {what}")
    return found


def go(folder: Path) -> list[str]:
    """Go's client, built."""
    built = folder / "ask"
    compiler = program("go", "install Go 1.26 or later")
    subprocess.run([compiler, "build", "-o", built, PROGRAMS / "ask.go"], check=True, capture_output=True, cwd=folder)
    return [str(built)]


def node_fetch(_: Path) -> list[str]:
    return [program("node", "install Node.js 20 or later"), str(PROGRAMS / "ask.mjs")]


def java(_: Path) -> list[str]:
    return [debian_program("java", "openjdk-17-jdk-headless"), str(PROGRAMS / "Ask.java")]


def results(command: list[str], process: Process, folder: Path) -> dict[str, tuple[int, Any]]:
    """By what it tried: the status and the answer."""
    (folder / "body").write_bytes(BODY)
    (folder / "results").mkdir()
    url = f"http://127.0.0.1:{process.port}/score"
    done = subprocess.run(
        [*command, url, folder / "body", folder / "results"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for file in (folder / "results").iterdir():
        status, _, body = file.read_bytes().partition(b"\n")
        found[file.name] = int(status), json.loads(body)
    return found


@pytest.mark.parametrize("client", [java, go, node_fetch])
def test_a_client_of_another_language_is_answered_however_it_sends(client: Any, server: Process, tmp_path: Path):
    found = results(client(tmp_path), server, tmp_path)

    assert found.keys() >= MODES
    assert {name: answer for name, answer in found.items() if answer != (200, ANSWER)} == {}


@pytest.mark.parametrize(
    "options",
    [
        ("--http2",),
        ("--http2", "--compressed"),
        ("--http2", "--header", "Transfer-Encoding: chunked"),
        ("--http2", "--header", "Expect: 100-continue"),
        ("--http1.0",),
    ],
    ids=" ".join,
)
def test_curl_offers_http2_and_is_answered_in_http1(options: tuple[str, ...], server: Process, tmp_path: Path):
    (tmp_path / "body").write_bytes(BODY)
    url = f"http://127.0.0.1:{server.port}/score"
    asked = ["--data-binary", f"@{tmp_path / 'body'}", "--output", str(tmp_path / "answer"), url]
    command = [shutil.which("curl") or "curl", "--silent", "--show-error", *options]
    # Twice over one connection.
    command += ["--write-out", "%{http_code} ", *asked, "--next", *command[1:], "--write-out", "%{http_code}", *asked]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("200 200", "")
    assert json.loads((tmp_path / "answer").read_bytes()) == ANSWER


@pytest.mark.parametrize("coding", ["gzip", "zstd", "deflate"])
def test_curl_unpacks_what_it_asked_for(coding: str, server: Process):
    asked = ["--compressed", "--header", f"Accept-Encoding: {coding}", "--data-binary", "@-"]
    command = [shutil.which("curl") or "curl", "--silent", "--show-error", "--dump-header", "/dev/stderr", *asked]

    done = subprocess.run([*command, f"http://127.0.0.1:{server.port}/score"], input=BODY, capture_output=True)

    assert f"Content-Encoding: {coding}".encode() in done.stderr
    assert json.loads(done.stdout) == ANSWER


def test_tritons_client_finds_what_it_asks_for_and_compresses_both_ways(server: Process):
    script = Path(__file__).with_name("triton_extras.py")
    command = [str(python_with("tritonclient")), str(script), str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)

    assert told["answers"].keys() == {
        f"{binary} {request} {response}"
        for binary in (True, False)
        for request in (None, "gzip", "deflate")
        for response in (None, "gzip", "deflate")
    }
    assert set(told["answers"].values()) == {0.0}
    assert told["config"]["max_batch_size"] == 32
    assert told["config"]["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    assert told["statistics"]["model_stats"][0]["inference_stats"]["success"]["count"] >= len(told["answers"])
    assert told["all"]["model_stats"][0]["name"] == "linear"
    assert told["index"] == [{"name": "linear", "version": "1", "state": "READY", "reason": ""}]
    assert told["metadata"]["versions"] == ["1"]
    assert told["ready"] is True
