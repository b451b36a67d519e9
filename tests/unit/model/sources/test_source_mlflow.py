import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webkit import FileServer, Request, Server, read, settings
from yarl import URL

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources.base import SourceChangedError, SourceError
from onnx_operator.model.sources.mlflow import MlflowSource
from onnx_operator.model.sources.mlflowapi import ModelUri, artifact_folder, onnx_file, parse_model_uri
from onnx_operator.model.sources.web import client

MODEL, WEIGHTS = os.urandom(100_000), os.urandom(5000)
RUN, LOGGED = "3131ed1eec7047b0b8b574cd7beda23b", "m-1ddd2aed560244d68e66c02efa9276dc"
DESCRIPTION = """artifact_path: model
flavors:
  onnx:
    code: null
    data: the model.onnx
    providers:
    - CPUExecutionProvider
  python_function:
    data: other.onnx
    env:
      data: no.onnx
mlflow_version: 3.17.2
"""
FOLDER = {"MLmodel": DESCRIPTION.encode(), "the model.onnx": MODEL, "0.data": WEIGHTS, "second.onnx": b"2"}


@dataclass
class Tracking:
    """As much of a tracking server as a reader of models sees; "My model" has versions 2 and 10."""

    artifact_uri: str = f"mlflow-artifacts:/0/models/{LOGGED}/artifacts"
    files: dict[str, bytes] = field(default_factory=lambda: dict(FOLDER))
    etag: str | None = '"e"'
    authorization: str | None = None
    within: list = field(default_factory=lambda: [{"path": "vocab.txt", "is_dir": False}])
    """What lies in the folder ``sub.onnx``."""

    async def __call__(self, request: Request) -> None:
        if request.headers.get("authorization") != self.authorization:
            return await request.answer(401)
        call = request.path.partition("/api/2.0/")[2]
        query = {name: values[0] for name, values in parse_qs(urlsplit(request.target).query).items()}
        root = "mlflow-artifacts/artifacts"
        if call == root:
            if query["path"].endswith("/sub.onnx"):
                return await request.answer_json({"files": self.within})
            listed = [{"path": name, "is_dir": False, "file_size": len(body)} for name, body in self.files.items()]
            return await request.answer_json({"files": [*listed, {"path": "sub.onnx", "is_dir": True}]})
        if call.startswith(f"{root}/0/"):
            body = self.files.get(call.rpartition("/")[2].replace("%20", " "))
            return await (request.answer(404) if body is None else FileServer(body, self.etag)(request))
        answer = self._answer(call.removeprefix("mlflow/"), query)
        message = {"error_code": "X", "message": "Not found\x00 here."}
        return await request.answer_json(answer or message, 200 if answer else 400)

    def _answer(self, call: str, query: dict[str, str]) -> dict | None:
        versions = [{"version": "2", "current_stage": "Production"}, {"version": "10", "current_stage": "None"}]
        match call, query:
            case "registered-models/alias", {"name": "My model", "alias": "champion"}:
                return {"model_version": versions[0]}
            case "registered-models/get-latest-versions", {"name": "My model", **rest}:
                chosen = [each for each in versions if rest.get("stages", each["current_stage"]) in each.values()]
                return {"model_versions": chosen}
            case "model-versions/get-download-uri", {"name": "My model", "version": "2" | "10" as version}:
                return {"artifact_uri": f"models:/{LOGGED}" if version == "10" else self.artifact_uri}
            case "runs/get", {"run_id": "3131ed1eec7047b0b8b574cd7beda23b"}:
                return {"run": {"info": {"artifact_uri": "mlflow-artifacts:/0/run/artifacts"}}}
        return {"model": {"info": {"artifact_uri": self.artifact_uri}}} if call == f"logged-models/{LOGGED}" else None


@asynccontextmanager
async def serving(tracking, uri="models:/My model/2", credentials=None, **changes):
    async with Server(tracking, None) as server:
        changed = settings(**({"mlflow": {"tracking_uri": server.url + "/base/"}, "allowed_networks": []} | changes))
        async with MlflowSource(uri, credentials=credentials or {}, settings=changed) as source:
            yield server, source


async def error_of(tracking, **changes) -> SourceError:
    async with serving(tracking, **changes) as (_, source):
        with pytest.raises(SourceError) as caught:
            await source.stat((await source.locate())[0])
    assert "hunter2" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    "uri",
    [
        "models:/My model/2",
        "models:/My model/10",
        "models://My model/latest",
        "models:/My model/Production",
        "models:/My model@champion",
        f"models:/{LOGGED}",
    ],
)
async def test_the_onnx_flavor_of_a_model_is_found_with_its_files(uri) -> None:
    async with serving(Tracking(), uri) as (_, source):
        assert await source.locate() == ["the model.onnx"]
        for name, body in {"the model.onnx": MODEL, "0.data": WEIGHTS}.items():
            stat = await source.stat(name)
            assert (stat.size, stat.pin) == (len(body), SourcePin(kind="Conditional", value='"e"'))
            got, stream = await read(source, name, 10, 4000, stat.pin)
            assert (got, stream.begin) == (body[10:4000], 10)


@pytest.mark.parametrize(("path", "name"), [("a/the model.onnx", "the model.onnx"), ("a", "the model.onnx")])
async def test_a_file_or_a_folder_of_a_run(path, name) -> None:
    async with serving(Tracking(), f"mlflow://{RUN}/{path}") as (server, source):
        assert await source.locate() == [name]
        assert (await read(source, name))[0] == MODEL
    assert server.requests[-1].path.endswith("/artifacts/0/run/artifacts/a/the%20model.onnx")


async def test_all_files_of_a_models_folder_are_listed() -> None:
    async with serving(Tracking()) as (_, source):
        assert sorted(await source.listing()) == sorted([*FOLDER, "sub.onnx/vocab.txt"])
    async with serving(Tracking(), f"mlflow://{RUN}/a/the%20model.onnx") as (_, source):
        assert await source.listing() is None


async def test_a_server_that_lists_folders_without_end_is_given_up() -> None:
    tracking = Tracking(within=[{"path": "sub.onnx", "is_dir": True}])
    async with serving(tracking) as (_, source):
        with pytest.raises(SourceError, match="holds more than 1000 files, or 100 folders"):
            await source.listing()


async def test_a_folder_without_a_description_holds_the_one_model() -> None:
    tracking = Tracking(files={"m.onnx": MODEL, "x.txt": b""})
    async with serving(tracking) as (_, source):
        assert await source.locate() == ["m.onnx"]
    tracking.files["n.onnx"] = b""
    error = await error_of(tracking)
    assert error.reason is Reason.SOURCE_REFUSED
    assert "m.onnx, n.onnx" in error.message


async def test_artifacts_without_an_etag_have_no_pin_and_replaced_ones_are_noticed() -> None:
    tracking = Tracking(etag=None)
    async with serving(tracking) as (_, source):
        assert (await source.stat("0.data")).pin is None
        tracking.etag = '"new"'
        with pytest.raises(SourceChangedError) as caught:
            await read(source, "0.data", pin=SourcePin(kind="Conditional", value='"old"'))
    assert caught.value.observed.value == '"new"'


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "hunter2"}, "Bearer hunter2"),
        ({"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "hunter2"}, "Basic dTpodW50ZXIy"),
    ],
)
async def test_credentials_are_those_of_the_tracking_server(credentials, header) -> None:
    tracking = Tracking(authorization=header)
    async with serving(tracking, credentials=credentials) as (_, source):
        assert await source.locate() == ["the model.onnx"]
        assert (await read(source, "0.data"))[0] == WEIGHTS
    for given_, words in ((None, "asks for credentials"), ({"MLFLOW_TRACKING_TOKEN": "x"}, "not accepted")):
        error = await error_of(tracking, credentials=given_)
        assert error.reason is Reason.SOURCE_UNAUTHORIZED
        assert words in error.message
        assert "MLFLOW_TRACKING_TOKEN" in error.message


@pytest.mark.parametrize(
    "uri", ["models:/My model/3", "models:/Other/1", "models:/My model@x", "models:/My model/Staging", "mlflow://a/b"]
)
async def test_what_the_server_does_not_have(uri) -> None:
    error = await error_of(Tracking(), uri=uri)
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert uri in error.message
    assert "\x00" not in error.message


@pytest.mark.parametrize(
    "artifact_uri",
    [
        "file:///srv/mlruns/0",
        "/srv/mlruns/0",
        "dbfs:/m",
        "https://elsewhere.example/api/2.0/mlflow-artifacts/artifacts/a",
        "https://[/a",
        "https://[]@/a",
    ],
)
async def test_artifacts_that_only_the_server_can_read_are_refused_with_advice(artifact_uri) -> None:
    error = await error_of(Tracking(artifact_uri=artifact_uri))
    assert error.reason is Reason.SOURCE_REFUSED
    assert "--artifacts-destination" in error.message


async def test_artifacts_in_a_store_are_read_there_with_the_same_settings_and_credentials() -> None:
    asked = []

    async def store(request: Request) -> None:
        asked.append(request)
        body = {"/bucket/a/m/MLmodel": DESCRIPTION.encode(), "/bucket/a/m/the%20model.onnx": MODEL}.get(request.path)
        if body is None:
            return await request.answer(404)
        headers = {"ETag": '"s3"', "Last-Modified": "Wed, 25 Nov 2026 02:17:03 GMT"}
        if request.method == "HEAD":
            return await request.answer(200, {**headers, "Content-Length": str(len(body))})
        return await request.answer(200, headers, body)

    async with (
        Server(store, None) as s3,
        serving(
            Tracking(artifact_uri="s3://bucket/a/m"),
            credentials={"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hunter2"},
            s3={"endpoint": s3.url},
        ) as (_, source),
    ):
        assert await source.locate() == ["the model.onnx"]
        assert (await source.stat("the model.onnx")).pin == SourcePin(kind="Conditional", value='"s3"')
        assert (await read(source, "the model.onnx"))[0] == MODEL
    assert all("Credential=key/" in request.headers["authorization"] for request in asked)


async def test_a_model_that_leads_to_itself_ends() -> None:
    error = await error_of(Tracking(artifact_uri=f"models:/{LOGGED}"))
    assert error.reason is Reason.SOURCE_REFUSED


@pytest.mark.parametrize("content", [[], {}, {"artifact_uri": 0.5}, {"artifact_uri": ""}])
async def test_a_server_that_is_no_mlflow_is_named(content) -> None:
    async def handler(request: Request) -> None:
        await request.answer_json(content)

    error = await error_of(handler)
    assert error.reason is Reason.SOURCE_REFUSED
    assert "sources.mlflow.trackingUri" in error.message


@pytest.mark.parametrize(
    ("headers", "reason"),
    [({"Content-Length": "9999"}, Reason.SOURCE_UNREACHABLE), ({}, Reason.SOURCE_REFUSED)],
)
async def test_a_description_that_is_cut_or_endless(headers, reason) -> None:
    async def handler(request: Request) -> None:
        if request.path.endswith("/MLmodel"):
            return await request.answer(200, headers, b" " * (5000 if headers else 3 << 20))
        return await Tracking()(request)

    assert (await error_of(handler)).reason is reason


async def test_a_server_of_which_every_answer_is_slow_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr(client, "_OPEN_SECONDS", 0.5)

    async def handler(request: Request) -> None:
        await asyncio.sleep(0.3)
        await Tracking()(request)

    error = await error_of(handler, uri="models:/My model@champion")
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert "in time" in error.message


async def test_the_server_may_be_private_but_not_where_it_redirects_to() -> None:
    async with Server(Tracking(), None) as other:

        async def handler(request: Request) -> None:
            await request.answer(302, {"Location": f"https://127.0.0.1:{other.port}/x"})

        error = await error_of(handler)
    assert error.reason is Reason.SOURCE_REFUSED
    assert "sources.allowedNetworks" in error.message
    assert not other.connections


@pytest.mark.parametrize(
    ("tracking_uri", "words"),
    [("", "needs an MLflow tracking server"), ("databricks", "'databricks'"), ("file:///x", "not an https or http")],
)
def test_a_missing_or_malformed_tracking_server_names_the_setting(tracking_uri, words) -> None:
    with pytest.raises(SourceError) as caught:
        MlflowSource("models:/m/1", credentials={}, settings=settings(mlflow={"tracking_uri": tracking_uri}))
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert "sources.mlflow.trackingUri" in caught.value.message
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("uri", "parsed"),
    [
        ("models:/m/12", ModelUri(registered="m", version="12")),
        ("models://a@b/Staging", ModelUri(registered="a@b", stage="Staging")),
        ("models:/50%20 #1/2", ModelUri(registered="50%20 #1", version="2")),
        ("mlflow://run-1/a b#c%20?.onnx", ModelUri(run="run-1", path="a b#c%20?.onnx")),
        ("models:/a@b@c", ModelUri(registered="a@b", alias="c")),
        (f"mlflow://{RUN}/a/b/", ModelUri(run=RUN, path="a/b")),
        ("mlflow://run-1/m.tar.gz", ModelUri(run="run-1", path="m.tar.gz")),
    ],
)
def test_uris(uri, parsed) -> None:
    assert parse_model_uri(uri) == parsed


@pytest.mark.parametrize(
    "uri",
    [
        "models:/",
        "models:/m",
        "models:/m/",
        "models:/m/1/2",
        "models:/@a",
        "models:/m@",
        "models:/../1",
        "models:/m/1?x=y",
        "models:/m/1#x",
        "models:/m\n/1",
        "models:/m@a?x=y",
        "mlflow://",
        "mlflow://run",
        "mlflow://run/",
        "mlflow:/run/a",
        "mlflow://run/../a",
        "mlflow://u:hunter2@host/a",
    ],
)
def test_uris_that_name_nothing(uri) -> None:
    with pytest.raises(SourceError) as caught:
        parse_model_uri(uri)
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("mlflow-artifacts:/0/a/", "0/a"),
        ("mlflow-artifacts://host:5000/0/a", "0/a"),
        ("https://t.example/api/2.0/mlflow-artifacts/artifacts/0/a", "0/a"),
        ("s3://b/a", "s3://b/a/"),
        ("gs://b/a/", "gs://b/a/"),
        ("wasbs://c@acc.blob.core.windows.net/a", "abfss://c@acc.dfs.core.windows.net/a/"),
    ],
)
def test_where_artifacts_lie(uri, folder) -> None:
    found = artifact_folder(uri, URL("https://t.example"), "models:/m/1")
    assert (found.proxied or found.uri) == folder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flavors:\n  sklearn:\n    pickled_model: model.pkl\n  python_function:\n    data: m.onnx\n", "sklearn"),
        ("", "none"),
        ("flavors:\n  onnx:\n    data: ../../m.onnx\n", "leads out"),
    ],
)
def test_descriptions_without_an_onnx_file_are_refused(text, words) -> None:
    with pytest.raises(SourceError) as caught:
        onnx_file(text, "models:/m/1")
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert words in caught.value.message


@given(st.text(alphabet="flavorsonxdt: \n\t'\"-{&*|", max_size=300))
def test_any_description_is_read_or_refused(text) -> None:
    try:
        onnx_file(text, "models:/m/1")
    except SourceError as error:
        assert error.message  # noqa: PT017
