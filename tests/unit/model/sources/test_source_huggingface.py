import os
from contextlib import asynccontextmanager

import pytest
from webkit import Authority, Request, Server, read, settings

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources.base import SourceChangedError, SourceError
from onnx_operator.model.sources.huggingface import HubUri, HuggingFaceSource, parse_hub_uri
from tests.hub import Hub

MODEL, WEIGHTS, CARD = os.urandom(100_000), os.urandom(5000), b"# A model"
FILES = {"README.md": CARD, "onnx/model.onnx": MODEL, "onnx/model.onnx_data": WEIGHTS}


def pin_of(commit: str) -> SourcePin:
    return SourcePin(kind="Immutable", value=commit)


@asynccontextmanager
async def serving(authority: Authority, hub: Hub, uri="hf://org/model/onnx/model.onnx", credentials=None, **changes):
    async def handler(request: Request) -> None:
        await request.answer(*hub.answer(request.method, request.target, request.headers))

    async with Server(handler, authority.server) as server:
        hub.storage = hub.storage or f"{server.url}/storage"
        changed = settings(authority, hf={"ca_bundle": authority.pem, "endpoint": server.url}, **changes)
        async with HuggingFaceSource(uri, credentials=credentials or {}, settings=changed) as source:
            yield server, source


async def error_of(authority: Authority, hub: Hub, **changes) -> SourceError:
    async with serving(authority, hub, **changes) as (_, source):
        with pytest.raises(SourceError) as caught:
            await read(source, (await source.locate())[0])
    assert "T0KEN" not in caught.value.message
    return caught.value


async def test_files_are_pinned_by_the_commit_and_large_ones_vouched_for(authority) -> None:
    hub = Hub()
    commit = hub.commit(FILES)
    async with serving(authority, hub) as (_, source):
        assert await source.locate() == ["model.onnx"]
        stats = {name: await source.stat(name) for name in ("model.onnx", "model.onnx_data")}
        assert [stat.pin for stat in stats.values()] == [pin_of(commit)] * 2
        assert [stat.size for stat in stats.values()] == [len(MODEL), len(WEIGHTS)]
        assert all(stat.sha256 for stat in stats.values())
        for name, body in {"model.onnx": MODEL, "model.onnx_data": WEIGHTS}.items():
            got, stream = await read(source, name, 100, 4000)
            assert (got, stream.begin, stream.stat) == (body[100:4000], 100, stats[name])


async def test_a_small_file_has_no_digest_that_the_hub_vouches_for(authority) -> None:
    hub = Hub()
    commit = hub.commit(FILES)
    async with serving(authority, hub, "hf://org/model/README.md") as (_, source):
        stat = await source.stat("README.md")
        assert (stat.size, stat.pin, stat.sha256) == (len(CARD), pin_of(commit), None)
        assert (await read(source, "README.md"))[0] == CARD


async def test_all_files_are_of_the_commit_that_was_there_first(authority) -> None:
    hub = Hub()
    commit = hub.commit(FILES)
    async with serving(authority, hub) as (_, source):
        await source.stat("model.onnx")
        hub.commit({name: os.urandom(5000) for name in FILES})
        stat = await source.stat("model.onnx_data")
        assert stat.pin == pin_of(commit)
        assert (await read(source, "model.onnx_data", pin=stat.pin))[0] == WEIGHTS


async def test_a_pinned_commit_is_read_wherever_the_branch_leads_now_and_told_when_it_is_gone(authority) -> None:
    hub = Hub()
    old = hub.commit(FILES)
    new = hub.commit({**FILES, "onnx/model.onnx": WEIGHTS})
    async with serving(authority, hub) as (server, source):
        body, stream = await read(source, "model.onnx", 5, 10, pin_of(old))
        assert (body, stream.stat.pin) == (MODEL[5:10], pin_of(old))
        assert len(server.requests) == 2
        await read(source, "model.onnx", 5, 10, pin_of(old))
        assert len(server.requests) == 3
        del hub.commits[old]
        with pytest.raises(SourceChangedError) as caught:
            await read(source, "model.onnx_data", 0, 10, pin_of(old))
    assert caught.value.observed == pin_of(new)


@pytest.mark.parametrize(
    ("uri", "files", "name"),
    [
        ("hf://org/model", {"README.md": b"", "onnx/model.onnx": b"m"}, "onnx/model.onnx"),
        ("hf://org/model/", {"model.onnx": b"m", "model.onnx_data": b"w"}, "model.onnx"),
        ("hf://org/model/small/", {"small/a.onnx": b"m", "large/b.onnx": b"", "small.onnx": b""}, "a.onnx"),
        ("hf://org/model@v1/small/", {"small/a.onnx": b"m"}, "a.onnx"),
        ("hf://org/model@refs/pr/1", {"a.onnx": b"m"}, "a.onnx"),
        ("hf://org/model@refs%2Fpr%2F1/a b.onnx", {"a b.onnx": b"m", "a%20b.onnx": b""}, "a b.onnx"),
    ],
)
async def test_the_one_model_of_a_repository_or_folder_is_found(authority, uri, files, name) -> None:
    hub = Hub()
    for ref in ("main", "v1", "refs/pr/1"):
        commit = hub.commit(files, ref)
        hub.refs["main"] = hub.refs["v1"] = hub.refs["refs/pr/1"] = commit
    async with serving(authority, hub, uri) as (_, source):
        assert await source.locate() == [name]
        assert (await source.stat(name)).pin == pin_of(commit)
        assert (await read(source, name))[0] == b"m"


@pytest.mark.parametrize(
    ("uri", "names"),
    [
        ("hf://org/model", ["README.md", "onnx/m.onnx", "onnx/sub/vocab.txt"]),
        ("hf://org/model/onnx/", ["m.onnx", "sub/vocab.txt"]),
        ("hf://org/model/onnx/m.onnx", None),
    ],
)
async def test_all_files_of_a_repository_or_folder_are_listed(authority, uri, names) -> None:
    hub = Hub()
    hub.commit({"README.md": b"", "onnx/m.onnx": b"m", "onnx/sub/vocab.txt": b""})
    async with serving(authority, hub, uri) as (_, source):
        assert await source.listing() == names


@pytest.mark.parametrize(
    ("files", "reason", "words"),
    [
        ({"a.onnx": b"", "b/c.onnx": b""}, Reason.SOURCE_REFUSED, "a.onnx, b/c.onnx"),
        ({"model.safetensors": b""}, Reason.SOURCE_NOT_FOUND, "no .onnx"),
        ({"../a.onnx": b""}, Reason.SOURCE_REFUSED, "leads out"),
    ],
)
async def test_repositories_without_the_one_model(authority, files, reason, words) -> None:
    hub = Hub()
    hub.commit(files)
    error = await error_of(authority, hub, uri="hf://org/model")
    assert error.reason is reason
    assert words in error.message


@pytest.mark.parametrize(
    "uri", ["hf://org/other/m.onnx", "hf://org/model/m.onnx", "hf://org/model@v9/onnx/model.onnx", "hf://org/other"]
)
async def test_what_the_hub_does_not_have(authority, uri) -> None:
    hub = Hub()
    hub.commit(FILES)
    error = await error_of(authority, hub, uri=uri)
    assert error.reason is Reason.SOURCE_NOT_FOUND
    assert uri in error.message


async def test_a_renamed_repository_is_followed_with_its_token(authority) -> None:
    hub = Hub(renamed="org/former", token="T0KEN")
    commit = hub.commit(FILES)
    uri = "hf://org/former/onnx/model.onnx"
    async with serving(authority, hub, uri, {"HF_TOKEN": "T0KEN"}) as (_, source):
        stat = await source.stat("model.onnx")
        assert (stat.pin, stat.size) == (pin_of(commit), len(MODEL))
        assert (await read(source, "model.onnx", 1, 5))[0] == MODEL[1:5]


@pytest.mark.parametrize(("token", "words"), [("", "asks for credentials"), ("T0KEN-other", "not accepted")])
async def test_private_and_gated_repositories_say_what_to_do(authority, token, words) -> None:
    hub = Hub(token="T0KEN")
    hub.commit(FILES)
    error = await error_of(authority, hub, credentials={"HF_TOKEN": token})
    assert error.reason is Reason.SOURCE_UNAUTHORIZED
    assert words in error.message
    assert "HF_TOKEN" in error.message
    assert "gated" in error.message


@asynccontextmanager
async def storage(authority: Authority, hub: Hub):
    async def handler(request: Request) -> None:
        status, headers, body = hub.answer(request.method, request.target, request.headers)
        await request.answer(status, headers | {"X-Repo-Commit": "0" * 40, "X-Linked-Etag": f'"{"0" * 64}"'}, body)

    async with Server(handler, authority.server) as server:
        hub.storage = f"{server.url}/storage"
        yield server


async def test_the_token_stays_with_the_hub_and_only_the_hub_is_believed(authority) -> None:
    hub = Hub(token="T0KEN")
    commit = hub.commit(FILES)
    async with (
        storage(authority, hub) as other,
        serving(authority, hub, credentials={"HF_TOKEN": "T0KEN"}) as (server, source),
    ):
        stat = await source.stat("model.onnx")
        assert (await read(source, "model.onnx"))[0] == MODEL
    assert stat.pin == pin_of(commit)
    assert stat.sha256 != "0" * 64
    assert {request.headers.get("authorization") for request in server.requests} == {"Bearer T0KEN"}
    assert {request.headers.get("authorization") for request in other.requests} == {None}


async def test_the_hub_may_be_private_but_not_where_it_redirects_to(authority) -> None:
    hub = Hub()
    hub.commit(FILES)
    async with serving(authority, hub, "hf://org/model/README.md", allowed_networks=[]) as (_, source):
        assert (await read(source, "README.md"))[0] == CARD
    async with storage(authority, hub) as other:
        error = await error_of(authority, hub, allowed_networks=[])
    assert error.reason is Reason.SOURCE_REFUSED
    assert "sources.allowedNetworks" in error.message
    assert not other.connections


async def test_a_mirror_without_commits_is_read_without_a_pin(authority) -> None:
    async def handler(request: Request) -> None:
        await request.answer(200, {"X-Repo-Commit": "main"}, MODEL)

    async with Server(handler, authority.server) as server:
        changed = settings(authority, hf={"ca_bundle": authority.pem, "endpoint": f"{server.url}/api/hf/"})
        async with HuggingFaceSource("hf://org/model/m.onnx", credentials={}, settings=changed) as source:
            assert (await source.stat("m.onnx")).pin is None
            assert (await read(source, "m.onnx"))[0] == MODEL
    assert {request.path for request in server.requests} == {"/api/hf/org/model/resolve/main/m.onnx"}


@pytest.mark.parametrize("content", [[], {}, {"siblings": 1, "sha": ""}, {"siblings": [1], "sha": ""}])
async def test_an_endpoint_that_is_no_hub_is_named(authority, content) -> None:
    async def handler(request: Request) -> None:
        await request.answer_json(content)

    async with Server(handler, authority.server) as server:
        changed = settings(authority, hf={"ca_bundle": authority.pem, "endpoint": server.url})
        async with HuggingFaceSource("hf://org/model", credentials={}, settings=changed) as source:
            with pytest.raises(SourceError) as caught:
                await source.locate()
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert "sources.hf.endpoint" in caught.value.message


@pytest.mark.parametrize("endpoint", ["", "hub.example", "ftp://hub.example", "https://u:p@hub.example", "https://["])
def test_a_malformed_endpoint_is_named(endpoint) -> None:
    with pytest.raises(SourceError) as caught:
        HuggingFaceSource("hf://org/model", credentials={}, settings=settings(hf={"endpoint": endpoint}))
    assert "sources.hf.endpoint" in caught.value.message


@pytest.mark.parametrize(
    ("uri", "parsed"),
    [
        ("hf://org/m", HubUri("org/m", "main", "", "")),
        ("hf://org/m/a.onnx", HubUri("org/m", "main", "", "a.onnx")),
        ("hf://org/m@v1.0/a/b/c.onnx", HubUri("org/m", "v1.0", "a/b/", "c.onnx")),
        ("hf://org/m/a@b.onnx", HubUri("org/m", "main", "", "a@b.onnx")),
        ("hf://org/m@refs/convert/onnx/a.onnx", HubUri("org/m", "refs/convert/onnx", "", "a.onnx")),
        ("hf://org/m@feature%2Fx/a.onnx", HubUri("org/m", "feature/x", "", "a.onnx")),
        ("hf://org/m/a/", HubUri("org/m", "main", "a/", "")),
        ("hf://org/m/a b/50%20?#1.onnx", HubUri("org/m", "main", "a b/", "50%20?#1.onnx")),
        ("hf://org/m@v1/a#@b.onnx", HubUri("org/m", "v1", "", "a#@b.onnx")),
    ],
)
def test_uris(uri, parsed) -> None:
    assert parse_hub_uri(uri) == parsed


@pytest.mark.parametrize(
    "uri",
    [
        "hf://",
        "hf://m.onnx",
        "hf:///org/m",
        "hf://org/",
        "hf://org/..",
        "hf://../m/a.onnx",
        "hf://org/m@",
        "hf://org/m@/a.onnx",
        "hf://org/m@%2e%2e/a.onnx",
        "hf://org/m/../../a",
        "hf://org/m//",
        "hf://org/m/a//b",
        "hf://org/m?download=true",
        "hf://org/m@v1#b",
        "hf://org/m/a\nb",
        "hf://u:p@org/m/a.onnx",
    ],
)
def test_uris_that_name_nothing(uri) -> None:
    with pytest.raises(SourceError) as caught:
        HuggingFaceSource(uri, credentials={}, settings=settings())
    assert caught.value.reason is Reason.SOURCE_REFUSED
