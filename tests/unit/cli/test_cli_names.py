"""Models whose files have names that addresses cannot hold as they are."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from onnx_operator.cli.serving import addresses
from tests import models
from tests.unit.server.serving import Process

ROOT = Path(__file__).parents[3]
NAMES = ("my model (final)", "model#1", "größe", "what?", "50%20", "a;b=c&d", "v1.0@latest:x", "плюс+плюс")
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 0, 0, 0]}]}


@contextmanager
def served(folder: Path, name: str) -> Iterator[Process]:
    process = Process(folder, models.linear(), "--name", name)
    try:
        process.started()
        yield process
    finally:
        process.stop()


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "onnx_operator.cli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        timeout=120,
    )


def ask(url: str) -> Any:
    request = urllib.request.Request(url, json.dumps(BODY).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


@pytest.mark.parametrize("name", NAMES)
def test_the_address_that_is_printed_can_be_asked(tmp_path: Path, name: str) -> None:
    with served(tmp_path, name) as process:
        (line,) = [a for a in addresses("127.0.0.1", process.port, 1, name, page=False) if a.startswith("REST")]
        url = line.split(None, 1)[1]
        assert url.isascii()
        assert ask(url)["model_name"] == name
        # What describes itself says the same.
        with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/openapi.json", timeout=60) as described:
            paths = json.loads(described.read())["paths"]
        assert url.partition(str(process.port))[2] in paths
        assert f"/v1/models/{quote(name, safe='')}:predict" in paths


def test_predict_finds_such_a_model(tmp_path: Path) -> None:
    name = "my model#1 größe?"
    with served(tmp_path, name) as process:
        endpoint = f"http://127.0.0.1:{process.port}"
        done = run("predict", name, "--endpoint", endpoint, "--data", json.dumps(BODY), "--output", "json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["model_name"] == name


@pytest.mark.parametrize("form", ["{plain}", "file://{quoted}", "file://localhost{quoted}", "FILE://localhost{quoted}"])
def test_a_file_of_any_name_is_read_however_it_is_written(tmp_path: Path, form: str) -> None:
    path = tmp_path / "my model#1 (größe).onnx"
    path.write_bytes(models.linear())
    given = form.format(plain=path, quoted=quote(str(path)))
    done = run("predict", given, "--data", json.dumps(BODY), "--output", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model_name"] == "my model#1 (größe)"
