"""``kubectl onnx inspect`` as a person or a script runs it."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onnx_operator.api.warm_up import WarmUpInputs
from onnx_operator.cli import warming
from tests import models
from tests.corpus.remade import divides

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "operator")}


def inspect(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onnx_operator.cli", "inspect", *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


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
                try:
                    out, told = process.communicate(timeout=60)
                finally:
                    process.kill()

    assert process.returncode == 130
    assert out == ""
    assert told == f"{uri}: not inspected: interrupted\n"


def warmed(path: Path, content: bytes) -> tuple[int, dict[str, Any]]:
    path.write_bytes(content)
    done = inspect(path, "--warm-up", "--output", "json")
    return done.returncode, json.loads(done.stdout)["warmUp"]


def test_who_asks_for_a_warm_up_learns_what_warms_the_model_and_how_long_a_run_takes(model: Path) -> None:
    done = inspect(model, "--warm-up")

    assert done.returncode == 0, done.stderr
    assert "warm-up: warm, by made-up inputs" in done.stdout
    assert '"shapes":{"x":[1,4]}' in done.stdout
    assert "1 row " in done.stdout


def test_what_a_warm_up_tells_can_be_given_back_as_spec_warm_up(tmp_path: Path) -> None:
    code, told = warmed(tmp_path / "m.onnx", models.linear())

    assert code == 0
    assert told["outcome"] == "Warmed"
    assert WarmUpInputs.model_validate(told["inputs"]).shapes == {"x": [1, 4]}
    assert told["batching"] == ""
    assert set(told["seconds"]) >= {"1", "2", "32"}


def test_a_model_for_which_no_input_is_found_is_told_to_serve_unwarmed_before_it_is_rolled_out(tmp_path: Path) -> None:
    code, told = warmed(tmp_path / "m.onnx", models.fails_warm_up())

    assert code == 0
    assert told["outcome"] == "Unwarmed"
    assert "spec.warmUp" in told["message"]
    assert told["batching"] != ""


def test_a_made_up_input_that_ends_the_process_ends_neither_the_command_nor_the_model(tmp_path: Path) -> None:
    code, told = warmed(tmp_path / "m.onnx", divides().SerializeToString())

    assert code == 0
    assert told["outcome"] in ("Warmed", "Unwarmed")


def test_a_model_that_cannot_start_is_told_so_although_its_structure_is_good(tmp_path: Path) -> None:
    code, told = warmed(tmp_path / "m.onnx", models.crashes_at_load())

    assert code == 1
    assert told["outcome"] == "Failed"
    assert "SIGFPE" in told["message"]


@pytest.mark.parametrize(("code", "said"), [(-9, "by SIGKILL"), (-40, "by signal 40"), (3, "with exit code 3")])
def test_whatever_ends_a_warm_up_is_told(code: int, said: str) -> None:
    assert warming._how(code) == said
