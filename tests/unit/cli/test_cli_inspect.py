"""``kubectl onnx inspect`` as a person or a script runs it."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import models

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}


def inspect(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onnx_operator.cli", "inspect", *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "linear.onnx"
    path.write_bytes(models.linear())
    return path


def test_a_valid_model_is_described_to_people(model: Path) -> None:
    done = inspect(model)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{model}: valid"
    rows = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    assert ["input", "x", "FP32", "[batch, 4]"] in [[part.strip() for part in row] for row in rows]
    assert ["output", "y", "FP32", "[batch, 3]"] in [[part.strip() for part in row] for row in rows]


def test_a_valid_model_is_described_to_scripts_and_its_digest_may_be_given_in_capitals(model: Path) -> None:
    digest = hashlib.sha256(model.read_bytes()).hexdigest()

    done = inspect(model, "--output", "json", "--sha256", digest.upper())

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["digest"] == f"sha256:{digest}"
    assert [tensor["name"] for tensor in report["inputs"]] == ["x"]


def test_a_refused_model_ends_with_1_and_names_the_node(tmp_path: Path) -> None:
    path = tmp_path / "unknown.onnx"
    path.write_bytes(models.unknown_operator())

    done = inspect(path)

    assert done.returncode == 1, done.stderr
    assert "UnknownOperator:" in done.stdout
    assert "mystery" in done.stdout
    assert "FancyGelu" in done.stdout


def test_a_truncated_file_ends_with_1_and_a_reason_that_scripts_can_read(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(models.linear()[:-20])

    done = inspect(path, "--output", "json")

    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["reason"] == "Corrupt"


def test_another_digest_than_asked_for_is_refused_naming_both(model: Path) -> None:
    done = inspect(model, "--sha256", "0" * 64)

    assert done.returncode == 1, done.stderr
    assert "DigestMismatch:" in done.stdout
    assert "0" * 64 in done.stdout
    assert hashlib.sha256(model.read_bytes()).hexdigest() in done.stdout


@pytest.mark.parametrize("source", ["nothing.onnx", ".", "http://127.0.0.1/model.onnx"])
def test_what_cannot_be_read_ends_with_2(source: str) -> None:
    done = inspect(source)

    assert done.returncode == 2, done.stderr
    assert source in done.stdout
    assert done.stderr == ""


def test_who_interrupts_a_slow_read_gets_no_verdict() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"https://127.0.0.1:{server.getsockname()[1]}/m.onnx"
        command = [sys.executable, "-m", "onnx_operator.cli", "inspect", uri, "--allow-network", "127.0.0.0/8"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=ENVIRONMENT, text=True, **pipes) as process:
            server.settimeout(60)
            connection, _ = server.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                out, told = process.communicate(timeout=60)

    assert process.returncode == 130
    assert out == ""
    assert told == f"{uri}: not inspected: interrupted\n"
