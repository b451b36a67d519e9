"""Azure ML's ways of writing a script: its imports, raw requests, schemas, and where the model lies."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_operator.server.script.answers import ScriptAnswer
from onnx_operator.server.script.host import ScriptHost
from onnx_operator.server.script.modelpath import ModelNotFoundException, find
from onnx_operator.server.script.settings import ScriptError, ScriptSettings, entry_script, model_folder
from tests.unit.server.script.test_script_host import ask, hosting, said, write

RAW = """
from {package}.aml_request import AMLRequest, rawhttp
from {package}.aml_response import AMLResponse

def init(): pass

@rawhttp
def run(request):
    assert isinstance(request, AMLRequest)
    if request.method == "GET":
        return AMLResponse(str.encode(request.full_path), 200)
    if request.path == "/score/json":
        return AMLResponse(request.get_json(), 201, {{"X-Kind": "json"}}, json_str=True)
    if request.files:
        image = request.files["image"]
        return [image.filename, image.read().hex(), request.form.get("top", type=int), request.form["note"]]
    if request.path == "/score/split":
        return AMLResponse("x", 200, {{"X-A": "b\\r\\nSet-Cookie: c"}})
    return AMLResponse(bytes(reversed(request.get_data(False))), 200, {{"Content-Type": "image/png"}})
"""
PACKAGES = ["azureml.contrib.services", "azureml_inference_server_http.api"]


async def post(host: ScriptHost, body: bytes, kind: str, target: str = "/score") -> ScriptAnswer:
    return await host.score(body, [("content-type", kind)], target=target, seconds=30)


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_raw_script_takes_the_request_and_answers_as_it_likes(tmp_path: Path, package: str) -> None:
    async with hosting(write(tmp_path, RAW.format(package=package))) as host:
        reversed_body = await post(host, b"\x00\x01\xff", "image/png")
        got = await host.score(b"", [], method="GET", target="/score?a=b")
        as_json = await post(host, b'{"a": 1}', "application/json", "/score/json")
        bad_json = await post(host, b"{", "application/json", "/score/json")
        no_json = await post(host, b"{}", "text/plain", "/score/json")
        split = await post(host, b"{}", "text/plain", "/score/split")
    assert reversed_body.body == b"\xff\x01\x00"
    assert [v for n, v in reversed_body.headers if n.lower() == "content-type"] == ["image/png"]
    assert got.body == b"/score?a=b"
    assert (as_json.status, as_json.body, dict(as_json.headers)["X-Kind"]) == (201, b'{"a": 1}', "json")
    # As on Azure ML: what run() does not catch is an error of the script, whatever the caller sent.
    assert bad_json.status == no_json.status == 500
    assert said(bad_json).startswith("BodyError: the body is not JSON")
    assert said(no_json) == "BodyError: expected Content-Type: application/json"
    assert split.status == 500
    assert "the header 'X-A', which HTTP cannot carry" in said(split)


async def test_a_raw_script_reads_a_form_with_a_file(tmp_path: Path) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="top"\r\n\r\n3\r\n'
        b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\n\xc3\xa9t\xc3\xa9\r\n'
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n\x89PNG\r\n\x00\xff\r\n--b--\r\n"
    )
    async with hosting(write(tmp_path, RAW.format(package=PACKAGES[0]))) as host:
        answer = await post(host, body, "multipart/form-data; boundary=b")
    assert json.loads(answer.body) == ["a.png", b"\x89PNG\r\n\x00\xff".hex(), 3, "été"]


@pytest.fixture(scope="module")
def inference_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a script's requirements bring it: in a folder that only the script sees."""
    if importlib.util.find_spec("inference_schema") is not None:
        return Path(str(importlib.util.find_spec("inference_schema").origin)).parents[1]  # type: ignore[union-attr]
    folder = tmp_path_factory.mktemp("requirements")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run(
        [
            *command,
            "inference-schema==1.8",
            "wrapt==1.16.0",
            "pytz==2025.2",
            "python-dateutil==2.9.0.post0",
            "six==1.17.0",
        ],
        check=True,
    )
    return folder


SCHEMA = """
import numpy as np
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType

def init(): pass

@input_schema("data", NumpyParameterType(np.array([[0.1, 1.2]])))
@input_schema("scale", StandardPythonParameterType(1.0))
@output_schema(StandardPythonParameterType({"sum": 1.5}))
def run(data, scale=1.0):
    assert isinstance(data, np.ndarray)
    return {"sum": float(data.sum()) * scale}
"""


async def test_schema_decorators_hand_over_typed_parameters(tmp_path: Path, inference_schema: Path) -> None:
    settings = write(tmp_path, SCHEMA)
    # As install-requirements lays it out.
    (tmp_path / "site-packages").symlink_to(inference_schema)
    host = ScriptHost(replace(settings, requirements=tmp_path))
    facts = await host.start()
    try:
        answer = await ask(host, {"Data": [[1, 2], [3, 4]], "scale": 2.0})
        missing = await ask(host, {"scale": 2.0})
        plain = await post(host, b"{}", "text/plain")
        listed = await ask(host, [1])
    finally:
        await host.stop()
    assert json.loads(answer.body) == {"sum": 20.0}
    assert (missing.status, said(missing)) == (
        400,
        "the parameter 'data' is missing; expected an object with: data",
    )
    assert plain.status == 415
    assert listed.status == 400
    assert facts.swagger is not None
    assert facts.swagger["swagger"] == "2.0"
    taken = facts.swagger["definitions"]["ServiceInput"]
    assert taken["properties"]["data"]["type"] == "array"
    assert taken["example"] == {"scale": 1.0, "data": [[0.1, 1.2]]}


async def test_a_swagger_file_beside_the_script_is_used(tmp_path: Path) -> None:
    settings = write(tmp_path, "def init(): pass\ndef run(raw_data): return 1\n")
    (tmp_path / "scoring" / "swagger.json").write_text('{"swagger": "2.0", "mine": true}')
    host = ScriptHost(settings)
    facts = await host.start()
    await host.stop()
    assert facts.swagger == {"swagger": "2.0", "mine": True}


async def test_an_installed_azure_package_wins_over_ours(tmp_path: Path) -> None:
    settings = write(
        tmp_path,
        """
        from azureml.core.model import Model
        from azureml.contrib.services.aml_response import AMLResponse
        def init(): pass
        def run(raw_data): return [Model.get_model_path("m"), AMLResponse.__module__]
        """,
    )
    package = tmp_path / "site-packages" / "azureml" / "core"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text("class Model:\n    get_model_path = staticmethod(lambda name: 'theirs')\n")
    async with hosting(replace(settings, requirements=tmp_path)) as host:
        answer = await ask(host)
    assert json.loads(answer.body) == ["theirs", "onnx_operator.server.script.web"]


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return folder


@pytest.mark.parametrize(
    ("files", "name", "expected"),
    [
        (["model.onnx"], "mnist", "model.onnx"),
        (["mnist.onnx"], "mnist.onnx", "mnist.onnx"),
        (["model.onnx"], "resnet50v2.onnx", "model.onnx"),
        (["a.onnx", "b.onnx"], "b", "b.onnx"),
        (["model.onnx", "weights.bin"], "bert", ""),
        (["model.onnx", "weights.bin"], "model.onnx", "model.onnx"),
        (["model.onnx", "labels.json"], "labels.json", "labels.json"),
        (["bert/model.onnx", "bert/weights.bin"], "bert", "bert"),
        (["bert/model.onnx"], "bert", "bert/model.onnx"),
        (["m/1/model.onnx", "m/2/model.onnx", "m/10/model.onnx"], "m", "m/10/model.onnx"),
    ],
)
def test_a_models_name_leads_to_its_file_or_folder(tmp_path: Path, files: list[str], name: str, expected: str) -> None:
    assert find(fill(tmp_path, *files), name, None) == tmp_path / expected


def test_a_version_is_chosen_where_there_are_several(tmp_path: Path) -> None:
    fill(tmp_path, "m/1/model.onnx", "m/2/model.onnx")
    assert find(tmp_path, "m", "1") == tmp_path / "m/1/model.onnx"
    with pytest.raises(ModelNotFoundException, match="no version 3; there are: 1, 2"):
        find(tmp_path, "m", "3")


@pytest.mark.parametrize("name", ["model.pkl", "../secret.pkl", "/etc/passwd.txt"])
def test_what_is_not_there_is_an_error_that_names_what_is(tmp_path: Path, name: str) -> None:
    fill(tmp_path, "secret.pkl", "passwd.txt", "models/model.onnx", "models/labels.json")
    with pytest.raises(ModelNotFoundException, match=r"which holds: labels\.json, model\.onnx"):
        find(tmp_path / "models", name, None)


async def test_a_missing_model_fails_the_start_with_its_name(tmp_path: Path) -> None:
    settings: ScriptSettings = write(
        tmp_path,
        """
        from azureml.core import Model
        from azureml.exceptions import ModelNotFoundException
        def init():
            global path
            try:
                path = Model.get_model_path("model.pkl", version=1, _workspace=None)
            except ModelNotFoundException as error:
                path = error.message
        def run(raw_data):
            return path
        """,
    )
    fill(tmp_path / "models", "model.onnx")
    async with hosting(settings) as host:
        assert "which holds: model.onnx" in json.loads((await ask(host)).body)


async def test_a_script_may_import_what_it_uses_on_azure_alone(tmp_path: Path) -> None:
    settings = write(
        tmp_path,
        """
        from azureml.core import Dataset, Datastore, Environment, Experiment, Keyvault, Model, Run, Workspace
        from azureml.core.run import Run as SameRun
        from azureml.core.workspace import Workspace as SameWorkspace
        from azureml.exceptions import RunEnvironmentException, WorkspaceException

        def said(call):
            try:
                return str(call())
            except (WorkspaceException, RunEnvironmentException) as error:
                return "says: " + error.message.partition(";")[0]

        def init():
            global run_, model
            run_ = Run.get_context()
            assert run_ is SameRun.get_context()
            run_.log("accuracy", 0.5)
            run_.log_list("losses", [1, 2])
            run_.tag("kind", "test")
            workspace = run_.experiment.workspace
            model = Model(workspace, name="iris", version=3)
            assert model.get_model_path("iris", _workspace=workspace) == model.download(target_dir=".")

        def run(raw_data):
            return [
                run_.id.startswith("OfflineRun_"), run_.get_tags(), [model.name, model.version, model.id],
                said(Workspace.from_config), said(lambda: Workspace.get(name="w", resource_group="g")),
                said(lambda: Workspace("id", "group", "name")), said(lambda: Model.get_model_path("iris")[-10:]),
                said(lambda: run_.experiment.workspace.get_default_keyvault()), said(lambda: run_.get_secret("key")),
                said(lambda: Dataset.get_by_name(None, "d")), said(lambda: Run.get_context(allow_offline=False)),
            ]
        """,
    )
    fill(tmp_path / "models", "model.onnx")
    async with hosting(settings) as host:
        answer = await ask(host)
    here = "there is no Azure ML workspace here"
    assert json.loads(answer.body) == [
        True,
        {"kind": "test"},
        ["iris", 3, "iris:3"],
        f"says: Workspace.from_config(): {here}",
        f"says: Workspace.get(): {here}",
        f"says: Workspace(): {here}",
        "model.onnx",
        f"says: Run.experiment.workspace.get_default_keyvault: {here}",
        f"says: Run.get_secret('key'): {here}",
        f"says: Dataset.get_by_name(): {here}",
        "says: Run.get_context(allow_offline=False): this is not a run on Azure ML",
    ]


PROJECT = {
    "src/score.py": "from src.words import WORD\ndef init(): pass\n"
    "def run(data): return [WORD, open('words.txt').read()]\n",
    "src/__init__.py": "",
    "src/words.py": "WORD = 'ours'\n",
    "src/words.txt": "in src",
    "settings.py": "TIMEOUT = 3\n",
    "words.txt": "at the top",
}


@pytest.mark.parametrize(
    ("script", "entry", "read"),
    [
        (".", "", "at the top"),
        (".", "src/score.py", "at the top"),
        ("src/score.py", "", "in src"),
    ],
)
async def test_an_entry_script_in_a_folder_finds_its_projects_modules(
    tmp_path: Path, script: str, entry: str, read: str
) -> None:
    settings = write(tmp_path, PROJECT["settings.py"], "settings.py")
    project = fill(settings.script, *PROJECT)
    for name, text in PROJECT.items():
        (project / name).write_text(text)
    async with hosting(replace(settings, script=project / script, entry_script=entry)) as host:
        assert json.loads((await ask(host)).body) == ["ours", read]


def test_an_entry_script_is_found_whichever_way_its_folder_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = fill(tmp_path / "project", "src/score.py", "notes/today.txt")
    monkeypatch.chdir(project / "notes")
    for given in (Path(".."), Path("../../project"), project / "notes" / ".."):
        found = entry_script(given, "src/../src/score.py")
        assert (found.path.resolve(), found.name) == (project / "src" / "score.py", "src/score.py")


@pytest.mark.parametrize(
    ("entry", "files", "message"),
    [
        ("../score.py", ["a/score.py"], r"holds no script \.\./score\.py; expected a path in it"),
        ("b.py", ["a/score.py"], r"holds no script b\.py"),
        ("/etc/passwd", ["a/score.py"], r"holds no script /etc/passwd; expected a path in it"),
        ("a/../../score.py", ["a/score.py"], "expected a path in it"),
        ("", ["a/score.py", "b/score.py"], r"holds a/score\.py, b/score\.py; expected score\.py, or"),
        ("", [".hidden/score.py"], "holds no Python file"),
    ],
)
async def test_an_entry_script_that_is_not_there_is_named(
    tmp_path: Path, entry: str, files: list[str], message: str
) -> None:
    (tmp_path / "score.py").write_text("")
    folder = fill(tmp_path / "project", *files)
    with pytest.raises(ScriptError, match=message):
        entry_script(folder, entry)


@pytest.mark.parametrize(
    ("files", "model", "expected"),
    [
        (["model.onnx", "vocab.txt"], "model.onnx", ""),
        (["onnx/model.onnx", "vocab.txt"], "onnx/model.onnx", ""),
        (["iris/model.onnx", "iris/vocab.txt"], "iris/model.onnx", "iris"),
        (["a/b/model.onnx", "a/vocab.txt", ".work/x"], "a/b/model.onnx", "a"),
    ],
)
def test_a_script_is_given_the_folder_of_all_that_came_with_the_model(
    tmp_path: Path, files: list[str], model: str, expected: str
) -> None:
    fill(tmp_path, *files)
    assert model_folder(tmp_path / model, tmp_path) == tmp_path / expected
    assert model_folder(tmp_path / model) == (tmp_path / model).parent
