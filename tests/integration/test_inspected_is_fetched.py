"""From an inspection to the file that a pod serves: a real S3 server, the real inspector, manifests, fetch, runtime."""

import asyncio
import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import InspectionRequest, InspectionResult
from onnx_operator.controller.revision.render import RenderInput, render
from onnx_operator.controller.settings.settings import Settings, parse_settings
from onnx_operator.model.inspection.inspection import inspect
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.server.fetching.fetch import Retries, run
from onnx_operator.server.runtime.session import SessionSettings, load
from tests.cluster.fixtures import built_program
from tests.cluster.stores import KEY_ID, SECRET, S3Gateway
from tests.unit.controller.samples import pool

KEYS = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
WIDTH = 1200
"""The weights, 5.8 MB, are more than inspection reads whole."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Gateway]:
    folder, versions = (tmp_path_factory.mktemp(name) for name in ("store", "versions"))
    with S3Gateway.serve(built_program("versitygw"), folder, versions) as found:
        yield found


def write_model(folder: Path, seed: int = 0, *, external: bool) -> Path:
    """A model whose answer depends on all of its weights."""
    weights = np.random.default_rng(seed).standard_normal((WIDTH, WIDTH), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDTH])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "net.onnx"
    # onnx appends to external data that is there.
    (folder / "net.weights").unlink(missing_ok=True)
    onnx.save_model(model, path, save_as_external_data=external, location="net.weights", size_threshold=0)
    return path


class Desk:
    """One model's way from the store to the runtime."""

    def __init__(self, gateway: S3Gateway, folder: Path, bucket: str) -> None:
        self.gateway = gateway
        self.folder = folder
        self.bucket = gateway.make_bucket(bucket)
        self.termination = folder / "termination"

    def settings(self) -> Settings:
        return parse_settings({"serverImage": "server:1", "sources": {"s3": {"endpoint": self.gateway.endpoint}}})

    def upload(self, path: Path, key: str) -> None:
        obstore.put(self.bucket, key, path.read_bytes())

    def inspected(self, uri: str, sha256: str = "", *, whole_folder: bool = False) -> InspectionResult:
        request = InspectionRequest(
            uri=uri,
            sha256=sha256,
            credentials=KEYS,
            sources=self.settings().sources,
            whole_folder=whole_folder,
            capabilities=load_capabilities(),
        )
        return asyncio.run(inspect(request, limits=InspectionLimits()))

    def fetched(self, uri: str, result: InspectionResult) -> tuple[int, Path, Any]:
        """What fetch does with what the pod's manifest tells it: exit code, the served file, the message."""
        assert result.report is not None
        assert result.files is not None
        spec = OnnxModelSpec.model_validate({"model": {"uri": uri, "credentials": {"secretName": "s"}}})
        inputs = RenderInput("net", "default", spec, result.report, result.files, pool(), self.settings())
        deployment = next(m for m in render(inputs) if m["kind"] == "Deployment")
        pod = deployment["spec"]["template"]["spec"]
        volume = self.folder / "volume"
        # The one thing that the kubelet does here: the volume lies elsewhere.
        environment = KEYS | {
            e["name"]: e["value"].replace("$$", "$").replace('"/models"', json.dumps(str(volume)))
            for e in pod["initContainers"][0]["env"]
            if "value" in e
        }
        code = run(environment, Retries(attempts=2, first_delay=0.05))
        served = next(a for a in pod["containers"][0]["args"] if a.startswith("--model="))
        path = re.sub("^--model=/models", str(volume), served)
        return code, Path(path), json.loads(self.termination.read_text())

    def answer(self, path: Path) -> Any:
        session = load(path, SessionSettings(("CPU",), 1, 1)).session
        return session.run(None, {"x": np.ones((1, WIDTH), np.float32)})[0]


@pytest.fixture
def desk(gateway: S3Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any) -> Desk:
    found = Desk(gateway, tmp_path, "b" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12])
    monkeypatch.setenv("ONNX_TERMINATION_LOG", str(found.termination))
    return found


@pytest.mark.parametrize("way", ["file", "folder", "prefix", "archive", "prefix of an archive"])
def test_the_model_that_was_inspected_is_the_one_that_answers(desk: Desk, way: str) -> None:
    source = desk.folder / "export"
    path = write_model(source, external=way != "file")
    bucket = desk.bucket.config["bucket"]
    if "archive" in way:
        packed = desk.folder / "net.zip"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in source.iterdir():
                archive.write(file, f"v1/{file.name}")
        desk.upload(packed, "team/net.zip")
        desk.upload(packed.with_name("export") / "net.weights", "team/README.md")
    else:
        for file in source.iterdir():
            desk.upload(file, f"team/{file.name}")
    names = {"file": "net.onnx", "folder": "net.onnx", "archive": "net.zip"}
    uri = f"s3://{bucket}/team/{names.get(way, '')}"

    result = desk.inspected(uri)
    assert result.outcome == "Accepted", result.refusal
    code, served, message = desk.fetched(uri, result)

    assert code == 0, message
    assert served.relative_to(desk.folder / "volume").as_posix() == ("v1/net.onnx" if "archive" in way else "net.onnx")
    np.testing.assert_allclose(desk.answer(served), desk.answer(path), rtol=1e-5)


def test_weights_that_change_after_the_inspection_are_never_served(desk: Desk) -> None:
    source = desk.folder / "export"
    write_model(source, external=True)
    for file in source.iterdir():
        desk.upload(file, file.name)
    uri = f"s3://{desk.bucket.config['bucket']}/net.onnx"
    result = desk.inspected(uri)
    write_model(source, 1, external=True)
    desk.upload(source / "net.weights", "net.weights")
    code, served, message = desk.fetched(uri, result)
    assert code == 1
    assert message["reason"] == "SourceChanged"
    assert "net.weights" in message["message"]
    # What pods find instead is looked at, and is another revision's.
    again = desk.inspected(uri)
    assert again.source != result.source
    assert desk.fetched(uri, again)[0] == 0
    np.testing.assert_allclose(desk.answer(served), desk.answer(source / "net.onnx"), rtol=1e-5)


def test_a_digest_that_the_store_does_not_vouch_for_is_proven_by_the_pod(desk: Desk) -> None:
    path = write_model(desk.folder / "export", external=False)
    desk.upload(path, "net.onnx")
    uri = f"s3://{desk.bucket.config['bucket']}/net.onnx"
    right, wrong = hashlib.sha256(path.read_bytes()).hexdigest(), "ab" * 32

    accepted = desk.inspected(uri, wrong)
    assert accepted.outcome == "Accepted", accepted.refusal
    code, served, message = desk.fetched(uri, accepted)
    assert (code, message["reason"]) == (1, "DigestMismatch")
    assert right in message["message"]
    assert wrong in message["message"]
    assert not served.exists()


def test_all_files_of_a_folder_reach_a_script_as_they_were_inspected(desk: Desk) -> None:
    source = desk.folder / "export"
    write_model(source, external=True)
    (source / "assets" / "deep").mkdir(parents=True)
    (source / "assets" / "vocab.txt").write_text("first")
    (source / "assets" / "deep" / "preprocess.pkl").write_bytes(b"\x80")
    for file in source.rglob("*"):
        if file.is_file():
            desk.upload(file, f"team/{file.relative_to(source).as_posix()}")
    uri = f"s3://{desk.bucket.config['bucket']}/team/"

    result = desk.inspected(uri, whole_folder=True)
    assert result.outcome == "Accepted", result.refusal
    code, _, message = desk.fetched(uri, result)
    assert code == 0, message
    volume = desk.folder / "volume"
    there = {path.relative_to(volume).as_posix() for path in volume.rglob("*") if path.is_file()}
    assert there == {"net.onnx", "net.weights", "assets/vocab.txt", "assets/deep/preprocess.pkl"}
    assert (volume / "assets" / "vocab.txt").read_text() == "first"

    (source / "assets" / "vocab.txt").write_text("other")
    desk.upload(source / "assets" / "vocab.txt", "team/assets/vocab.txt")
    shutil.rmtree(volume)
    code, _, message = desk.fetched(uri, result)
    assert (code, message["reason"]) == (1, "SourceChanged")
    assert "assets/vocab.txt" in message["message"]
    assert desk.inspected(uri, whole_folder=True).source != result.source
