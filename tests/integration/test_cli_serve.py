"""``kubectl onnx serve`` and ``predict`` as people run them: the real commands and a real store."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import onnx
import pytest
from onnx import numpy_helper

from examples.catalogue import EXAMPLES
from tests.cluster.fixtures import built_program
from tests.cluster.stores import KEY_ID, SECRET, S3Gateway

ROOT = Path(__file__).parents[2]
IRIS = EXAMPLES / "sklearn-iris" / "sklearn-iris.onnx"
ROW = [[5.1, 3.5, 1.4, 0.2]]
SCRIPT = """
import json, numpy, onnxruntime
from azureml.core.model import Model
def init():
    global session
    session = onnxruntime.InferenceSession(Model.get_model_path("sklearn-iris"))
def run(raw_data):
    rows = numpy.array(json.loads(raw_data)["data"], dtype=numpy.float32)
    return {"flowers": session.run(["label"], {"measures": rows})[0].tolist()}
"""
MANIFEST = f"""
apiVersion: onnx-operator.dev/v1alpha1
kind: OnnxModel
metadata: {{name: flowers}}
spec:
  model: {{uri: {IRIS}, version: "3"}}
  batching: {{maxBatchSize: 4}}
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "operator"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A server that somebody started on their machine."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.url}{path}", data, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def serve(model: object, environment: dict[str, str], *options: str, standard_input: str = "") -> Iterator[Running]:
    port = free_port()
    command = [sys.executable, "-m", "onnx_operator.cli", "serve", str(model), "--port", str(port), "--grpc-port", "0"]
    process = subprocess.Popen(
        [*command, *options],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(standard_input)
        process.stdin.close()
        # Closed already: what waits for the process must not flush it.
        process.stdin = None
        running = Running(process, port)
        for _ in range(600):
            try:
                if running.ask("/v2/health/ready")["ready"]:
                    break
            except OSError:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                time.sleep(0.05)
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def run(environment: dict[str, str], *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onnx_operator.cli", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False, **options)


def flower(answer: Any) -> Any:
    return answer["outputs"][0]["data"]


def test_a_file_is_served_with_its_page(environment: dict[str, str]) -> None:
    with serve(IRIS, environment) as running:
        request = {"inputs": [{"name": "measures", "datatype": "FP32", "shape": [1, 4], "data": ROW[0]}]}
        assert flower(running.ask("/v2/models/sklearn-iris/infer", request)) == ["setosa"]
        assert running.ask("/page/facts.json")["name"] == "sklearn-iris"
        with urllib.request.urlopen(f"{running.url}/") as page:
            assert b"<!DOCTYPE html>" in page.read()


def test_archives_and_folders_are_served(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    model = onnx.load(EXAMPLES / "mxnet" / "mxnet.onnx")
    onnx.save_model(model, folder / "digits.onnx", save_as_external_data=True, size_threshold=0, location="weights")
    archive = tmp_path / "digits.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in folder.iterdir():
            packed.write(file, file.name)
    answers = []
    for given in (folder, archive):
        with serve(given, environment, "--name", "digits", "--no-page") as running:
            body = json.loads((EXAMPLES / "mxnet" / "request.json").read_text())
            answers.append(flower(running.ask("/v2/models/digits/infer", body)))
            with pytest.raises(urllib.error.HTTPError, match="404"):
                running.ask("/")
    assert answers[0] == pytest.approx(answers[1])


def test_a_manifest_brings_its_name_version_and_script(environment: dict[str, str], tmp_path: Path) -> None:
    manifest = tmp_path / "model.yaml"
    manifest.write_text(MANIFEST)
    with serve(manifest, environment) as running:
        assert running.ask("/v2/models/flowers/versions/3")["versions"] == ["3"]
    scored = (
        MANIFEST
        + "  scoring: {configMapName: score}\n---\n"
        + json.dumps({"kind": "ConfigMap", "metadata": {"name": "score"}, "data": {"score.py": SCRIPT}})
    )
    with serve("-", environment, standard_input=scored) as running:
        assert running.ask("/score", {"data": ROW}) == {"flowers": ["setosa"]}


def test_a_manifest_says_which_web_pages_may_ask(environment: dict[str, str], tmp_path: Path) -> None:
    manifest = tmp_path / "model.yaml"
    manifest.write_text(MANIFEST + "  endpoint: {cors: {allowOrigins: ['https://app.example']}}\n")
    with serve(manifest, environment) as running:
        asked = urllib.request.Request(f"{running.url}/v2", headers={"Origin": "https://app.example"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        asked.add_header("Origin", "https://evil.example")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(asked, timeout=30)


def test_a_model_of_a_store_is_downloaded_once(environment: dict[str, str], tmp_path: Path) -> None:
    for name in ("files", "versions"):
        (tmp_path / name).mkdir()
    with S3Gateway.serve(built_program("versitygw"), tmp_path / "files", tmp_path / "versions") as gateway:
        obstore.put(gateway.make_bucket("models"), "zoo/iris.onnx", IRIS.read_bytes())
        keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": gateway.endpoint}
        for _ in range(2):
            with serve("s3://models/zoo/iris.onnx", environment | keys) as running:
                assert running.ask("/score", {"data": ROW})["label"] == ["setosa"]
        kept = [path for path in (tmp_path / "cache").rglob("*.onnx") if path.is_file()]
        assert [path.name for path in kept] == ["iris.onnx"]


READER = """
import os
def init():
    global found
    root = os.environ["AZUREML_MODEL_DIR"]
    found = {os.path.relpath(os.path.join(folder, name), root): os.path.getsize(os.path.join(folder, name))
             for folder, folders, names in os.walk(root) for name in names}
def run(raw_data):
    return found
"""


def test_a_script_finds_all_files_of_its_models_folder(environment: dict[str, str], tmp_path: Path) -> None:
    files = {"model.onnx": IRIS.read_bytes(), "labels.json": b"{}", "assets/vocab.txt": b"a"}
    expected = {name: len(content) for name, content in files.items()}
    (tmp_path / "score.py").write_text(READER)
    (tmp_path / "model").mkdir()
    with zipfile.ZipFile(tmp_path / "iris.zip", "w") as packed:
        for name, content in files.items():
            (tmp_path / "model" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "model" / name).write_bytes(content)
            packed.writestr(f"iris/{name}", content)
    for name in ("files", "versions"):
        (tmp_path / name).mkdir()
    with S3Gateway.serve(built_program("versitygw"), tmp_path / "files", tmp_path / "versions") as gateway:
        bucket = gateway.make_bucket("models")
        for name, content in files.items():
            obstore.put(bucket, f"zoo/iris/{name}", content)
        keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": gateway.endpoint}
        for uri in (tmp_path / "model", tmp_path / "iris.zip", "s3://models/zoo/iris/", "s3://models/zoo/iris"):
            with serve(uri, environment | keys, "--script", str(tmp_path / "score.py")) as running:
                assert running.ask("/score", {}) == expected
        with serve(
            "s3://models/zoo/iris/model.onnx", environment | keys, "--script", str(tmp_path / "score.py")
        ) as running:
            assert running.ask("/score", {}) == {"model.onnx": expected["model.onnx"]}


def test_a_refused_model_is_told_and_nothing_starts(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(IRIS.read_bytes()[:300])
    for command in ("serve", "predict"):
        done = run(environment, command, tmp_path / "broken.onnx")
        assert done.returncode == 1
        assert "Corrupt" in done.stderr
    done = run(environment, "serve", tmp_path / "nowhere.onnx")
    assert done.returncode == 2
    assert "SourceNotFound" in done.stderr


def test_a_taken_port_is_named(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(environment, "serve", IRIS, "--port", port)
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Deployment", "holds 0 documents of kind OnnxModel"),
        ("{", "cannot be read as YAML"),
        (MANIFEST + "  session: {intraOpThreads: many}", "spec.session.intraOpThreads"),
        (MANIFEST + "  warmUp: {shapes: {measures: [-1]}}", "spec.warmUp.shapes.measures"),
        (MANIFEST + "  warmUp: {shapes: {measures: [3, 5]}}", "spec.warmUp.shapes.measures is [3, 5]; expected sizes"),
        (MANIFEST + "  warmUp: {values: {height: [1]}}", "spec.warmUp.values.height: the model has no such"),
        (MANIFEST + "  warmUp: {values: {x: [1]}}\n  scoring: {script: pass}", "spec.warmUp: with spec.scoring"),
        (MANIFEST + "  scoring: {configMapName: score}", "the ConfigMap 'score' is not in the same file"),
        (MANIFEST + "  scoring: {image: 'a/b'}", "runs in a cluster only"),
    ],
)
def test_a_wrong_manifest_is_told_what_is_wrong(environment: dict[str, str], text: str, words: str) -> None:
    done = run(environment, "serve", "-", input=text)
    assert done.returncode == 1
    assert words in done.stderr


def test_one_prediction_needs_no_server(environment: dict[str, str], tmp_path: Path) -> None:
    array = np.array(ROW, np.float32)
    np.save(tmp_path / "row.npy", array)
    (tmp_path / "row.pb").write_bytes(numpy_helper.from_array(array).SerializeToString())
    (tmp_path / "row.json").write_text(json.dumps(ROW))
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"data": ROW}))
    ways = [["--data", json.dumps({"data": ROW})], ["--data", f"@{body}"]]
    ways += [["--input", f"measures={tmp_path}/row.{ending}"] for ending in ("npy", "pb", "json")]
    for way in ways:
        done = run(environment, "predict", IRIS, *way, "--output", "json")
        assert done.returncode == 0, done.stderr
        assert flower(json.loads(done.stdout)) == ["setosa"]
    shown = run(environment, "predict", IRIS, *ways[0])
    assert re.search(r"label\s+BYTES \[1\]", shown.stdout)
    assert "setosa" in shown.stdout
    assert "made-up values" in run(environment, "predict", IRIS).stderr


def test_a_running_endpoint_is_asked_and_its_refusal_told(environment: dict[str, str], tmp_path: Path) -> None:
    np.save(tmp_path / "row.npy", np.array(ROW, np.float32))
    with serve(IRIS, environment) as running:
        there = ["--endpoint", running.url, "--output", "json"]
        done = run(environment, "predict", "sklearn-iris", "--input", f"measures={tmp_path}/row.npy", *there)
        assert flower(json.loads(done.stdout)) == ["setosa"]
        done = run(environment, "predict", "--data", json.dumps({"data": ROW}), *there)
        assert json.loads(done.stdout)["label"] == ["setosa"]
        done = run(environment, "predict", "--data", json.dumps({"data": [[1]]}), *there)
        assert done.returncode == 1
        assert "expected shape" in done.stderr
    done = run(environment, "predict", "--endpoint", running.url, "--data", "{}")
    assert done.returncode == 2
    assert "does not answer" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "measures"], "expected NAME=FILE"),
        (["--input", "measures=row.txt"], "expected .npy, .npz, .pb or .json"),
        (["--input", "measures=nowhere.npy"], "cannot be read"),
        (["--data", "@nowhere.json"], "No such file"),
        (["--data", "{}", "--input", "a=b.npy"], "not both"),
        (["--endpoint", "nonsense", "--data", "{}"], "expected http://HOST:PORT"),
    ],
)
def test_wrong_options_are_named(environment: dict[str, str], arguments: list[str], words: str) -> None:
    done = run(environment, "predict", IRIS, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
