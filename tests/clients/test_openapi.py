"""The descriptions that the server gives of itself, held against the server by others' tools."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from examples.catalogue import EXAMPLES
from tests.cluster.servers import python_with
from tests.unit.server.serving import Process, model_bytes, node, serving, value

STRINGS = model_bytes(
    [node("StringConcat", ["first", "second"], ["both"])],
    [value("first", TensorProto.STRING, ["N"]), value("second", TensorProto.STRING, ["N"])],
    [value("both", TensorProto.STRING, ["N"])],
)
MIXED = model_bytes(
    [node("Cast", ["n"], ["f"], to=TensorProto.FLOAT), node("Add", ["f", "x"], ["y"]), node("Not", ["b"], ["c"])],
    [value("n", TensorProto.INT64, [2]), value("x", TensorProto.FLOAT, [2]), value("b", TensorProto.BOOL, ["N", 1])],
    [value("y", TensorProto.FLOAT, [2]), value("c", TensorProto.BOOL, ["N", 1])],
)
MODELS = {
    "iris": (EXAMPLES / "sklearn-iris" / "sklearn-iris.onnx").read_bytes(),
    "strings": STRINGS,
    "mixed": MIXED,
}
VALIDATE = "import json, sys; from openapi_spec_validator import validate; validate(json.load(sys.stdin))"
# A schema cannot say all that a model asks of its inputs, such as that names come once.
UNSAID = "positive_data_acceptance"


@pytest.fixture(scope="module", params=sorted(MODELS))
def server(request: pytest.FixtureRequest) -> Iterator[Process]:
    with serving(MODELS[request.param]) as process:
        yield process


@pytest.fixture(scope="module")
def python() -> Path:
    return python_with("schemathesis")


@pytest.mark.parametrize("document", ["/openapi.json", "/swagger.json"])
def test_the_document_is_valid(server: Process, python: Path, document: str) -> None:
    body = json.dumps(server.get(document).json)
    done = subprocess.run([python, "-c", VALIDATE], input=body, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def examples(document: Any) -> Iterator[tuple[str, Any]]:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if "example" in body:
                yield path, body["example"]


def test_its_examples_work_when_they_are_pasted(server: Process) -> None:
    found = list(examples(server.get("/openapi.json").json))
    assert [path for path, _ in found] == ["/v2/models/m/infer", "/score"]
    for path, example in found:
        assert server.post(path, example).status == 200
    swagger = server.get("/swagger.json").json
    assert server.post("/score", swagger["definitions"]["ServiceInput"]["example"]).status == 200


def test_the_server_does_what_its_document_says(server: Process, python: Path, tmp_path: Path) -> None:
    command = [python.with_name("schemathesis"), "run", f"http://127.0.0.1:{server.port}/openapi.json"]
    options = ["--max-examples", "60", "--workers", "1", "--seed", "1", "--exclude-checks", UNSAID, "--no-color"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    document = server.get("/openapi.json").json
    count = sum(len(operations) for operations in document["paths"].values())
    assert f"{count} / {count}" in done.stdout or f"Tested: {count}" in done.stdout, done.stdout[-2000:]
