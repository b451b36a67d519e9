"""The ``mlflow`` source against a real tracking server, with a model that MLflow's own client logs."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceSettings
from onnx_operator.model.sources import SourceError, open_source, transfer
from tests.cluster import servers
from tests.unit.model.webkit import read

LOG = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, numpy, onnx
from onnx import helper, numpy_helper

mlflow.set_tracking_uri(sys.argv[1])
weights = numpy_helper.from_array(numpy.random.default_rng(1).random((64, 64), numpy.float32), "w")
x, y = (helper.make_tensor_value_info(name, 1, ["n", 64]) for name in "xy")
graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weights])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
with mlflow.start_run() as run:
    logged = mlflow.onnx.log_model(
        model, name="model", registered_model_name="My model", pip_requirements=["onnx"], **json.loads(sys.argv[2])
    )
    onnx.save(model, "plain.onnx")
    mlflow.log_artifact("plain.onnx", "extra files")
client = mlflow.MlflowClient()
client.set_registered_model_alias("My model", "champion", "1")
client.transition_model_version_stage("My model", "1", "Production")
print(json.dumps({"run": run.info.run_id, "id": logged.model_id}))
"""


class Logged:
    """A server, and what lies on it: version 1 with external data, and version 2 without."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.artifacts = folder / "server" / "artifacts"
        (folder / "client").mkdir()
        self.first = self._log(folder / "client", save_as_external_data=True)
        self.second = self._log(folder / "client", save_as_external_data=False)
        self.plain = (folder / "client" / "plain.onnx").read_bytes()

    def _log(self, folder: Path, **options: bool) -> dict[str, str]:
        command = [servers.python_with("mlflow"), "-c", LOG, self.url, json.dumps(options)]
        environment = {**os.environ, "GIT_PYTHON_REFRESH": "quiet", "DO_NOT_TRACK": "true"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]) if done.stdout else {})

    def folder_of(self, model: dict[str, str]) -> Path:
        return self.artifacts / "0" / "models" / model["id"] / "artifacts"

    def source(self, uri: str):
        # Nothing but the settings' own server may be reached.
        settings = SourceSettings.model_validate({"mlflow": {"tracking_uri": self.url}})
        return open_source(uri, credentials={}, settings=settings)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "server").mkdir()
    with servers.mlflow(folder / "server") as url:
        yield Logged(url, folder)


@pytest.mark.parametrize(
    ("uri", "version"),
    [
        ("models:/My model/1", 1),
        ("models://My model/2", 2),
        ("models:/My model/latest", 2),
        ("models:/My model/Production", 1),
        ("models:/My model@champion", 1),
    ],
)
async def test_versions_stages_and_aliases(logged, tmp_path, uri, version) -> None:
    folder = logged.folder_of(logged.first if version == 1 else logged.second)
    async with logged.source(uri) as source:
        assert await source.locate() == ["model.onnx"]
        body = (folder / "model.onnx").read_bytes()
        stat = await source.stat("model.onnx")
        assert stat.size == len(body)
        got, stream = await read(source, "model.onnx", 10, 50, stat.pin)
        assert got[10 - stream.begin :][:40] == body[10:50]
        done = await transfer.download(source, "model.onnx", tmp_path / "m", pin=stat.pin)
    assert done.sha256 == hashlib.sha256(body).hexdigest()


async def test_external_data_lies_beside_the_model(logged) -> None:
    (data,) = (path for path in logged.folder_of(logged.first).iterdir() if path.suffix == ".data")
    async with logged.source("models:/My model/1") as source:
        assert (await source.stat(data.name)).size == 64 * 64 * 4
        assert (await read(source, data.name))[0] == data.read_bytes()


async def test_logged_models_and_artifacts_of_a_run(logged) -> None:
    for uri, name in (
        (f"models:/{logged.second['id']}", "model.onnx"),
        (f"mlflow://{logged.second['run']}/extra files", "plain.onnx"),
        (f"mlflow://{logged.second['run']}/extra files/plain.onnx", "plain.onnx"),
    ):
        async with logged.source(uri) as source:
            assert await source.locate() == [name]
            assert (await read(source, name))[0] == logged.plain


@pytest.mark.parametrize(
    "uri",
    [
        "models:/My model/9",
        "models:/Other/1",
        "models:/My model@nobody",
        "models:/My model/Staging",
        "models:/m-00000000000000000000000000000000",
        "mlflow://0123456789abcdef0123456789abcdef/m.onnx",
    ],
)
async def test_what_the_server_does_not_have_is_not_found(logged, uri) -> None:
    async with logged.source(uri) as source:
        with pytest.raises(SourceError) as caught:
            await source.stat((await source.locate())[0])
    assert caught.value.reason is Reason.SOURCE_NOT_FOUND
    assert uri in caught.value.message


async def test_a_file_that_a_run_does_not_have_is_not_found(logged) -> None:
    async with logged.source(f"mlflow://{logged.first['run']}/nothing.onnx") as source:
        with pytest.raises(SourceError) as caught:
            await source.stat("nothing.onnx")
    assert caught.value.reason is Reason.SOURCE_NOT_FOUND
