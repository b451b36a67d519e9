import asyncio
import base64
import hashlib
import json
import os
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webkit import Authority, FileServer, Request, Server, read, settings

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources.base import SourceChangedError, SourceError, is_confined
from onnx_operator.model.sources.oci import OciSource
from onnx_operator.model.sources.ociauth import login
from onnx_operator.model.sources.ocimanifest import chosen_manifest, parse_reference, read_document, read_manifest
from onnx_operator.model.sources.web import client

MODEL, WEIGHTS = os.urandom(100_000), os.urandom(50_000)
SECRETS = ("hunter2", "T0KEN")
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(data: bytes, title: str = "", media_type: str = LAYER, **annotations: str) -> dict:
    notes = {key.replace("__", "."): value for key, value in annotations.items()}
    notes |= {"org.opencontainers.image.title": title} if title else {}
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), "annotations": notes}


ARTIFACT = {"layers": [layer(MODEL, "m.onnx"), layer(WEIGHTS, "w.bin")]}


@dataclass
class Registry:
    """Speaks as much of the distribution protocol as a reader sees; the tag is that of the last push."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    auth: str = ""
    """The challenge; empty: everybody may read."""
    accepted: str = ""
    """Authorization that is accepted where there is a challenge."""
    storage: str = ""
    """Where blobs are redirected to."""

    def push(self, manifest: dict, *blobs: bytes, tag: str = "v1") -> str:
        body = json.dumps(manifest).encode()
        self.manifests[tag] = self.manifests[digest_of(body)] = body
        self.blobs |= {digest_of(blob): blob for blob in blobs}
        return digest_of(body)

    async def __call__(self, request: Request) -> None:
        if self.auth and request.headers.get("authorization") != self.accepted:
            return await request.answer(401, {"WWW-Authenticate": self.auth})
        _, _, kind, name = request.path.removeprefix("/v2").rsplit("/", 3)
        if kind == "manifests" and name in self.manifests:
            return await request.answer(200, {}, self.manifests[name])
        if kind == "blobs" and name in self.blobs:
            if self.storage:
                return await request.answer(307, {"Location": f"{self.storage}/{name}"})
            return await FileServer(self.blobs[name], None)(request)
        return await request.answer(404)


@asynccontextmanager
async def serving(authority: Authority, registry: Registry, path="/team/m:v1", credentials=None, **changes):
    async with Server(registry, authority.server) as server:
        uri = f"oci://127.0.0.1:{server.port}{path}"
        changed = settings(authority, oci={"ca_bundle": authority.pem}, **changes)
        config = {"auths": {f"127.0.0.1:{server.port}": credentials}} if credentials else None
        given = {"DOCKERCONFIGJSON": json.dumps(config)} if config else {}
        async with OciSource(uri, credentials=given, settings=changed) as source:
            yield server, source


async def error_of(authority: Authority, registry, **changes) -> SourceError:
    async with serving(authority, registry, **changes) as (_, source):
        with pytest.raises(SourceError) as caught:
            await read(source, (await source.locate())[0])
    assert not any(secret in caught.value.message for secret in SECRETS)
    assert caught.value.retriable == (caught.value.reason is Reason.SOURCE_UNREACHABLE)
    return caught.value


async def test_files_of_an_artifact_are_pinned_by_digests_that_vouch_for_them(authority) -> None:
    registry = Registry()
    registry.push(ARTIFACT, MODEL, WEIGHTS)
    async with serving(authority, registry) as (server, source):
        assert await source.locate() == ["m.onnx"]
        stat = await source.stat("w.bin")
        assert (stat.size, stat.pin, f"sha256:{stat.sha256}") == (
            len(WEIGHTS),
            SourcePin(kind="Immutable", value=digest_of(WEIGHTS)),
            digest_of(WEIGHTS),
        )
        for name, body in {"m.onnx": MODEL, "w.bin": WEIGHTS}.items():
            got, stream = await read(source, name, 100, 5000)
            assert (got, stream.begin, stream.stat.size) == (body[100:5000], 100, len(body))
        assert sum("manifests" in request.target for request in server.requests) == 1
        assert server.connections == 1


async def test_all_files_of_an_artifact_are_listed_and_none_of_an_image(authority) -> None:
    registry = Registry()
    registry.push({"layers": [*ARTIFACT["layers"], layer(b"", "sub/vocab.txt")]}, MODEL, WEIGHTS, b"")
    async with serving(authority, registry) as (_, source):
        assert await source.listing() == ["m.onnx", "w.bin", "sub/vocab.txt"]
    registry.push({"layers": [layer(MODEL)]}, MODEL)
    async with serving(authority, registry) as (_, source):
        assert await source.listing() is None


async def test_a_pinned_file_is_read_whatever_the_tag_leads_to_now(authority) -> None:
    registry = Registry()
    registry.push({"layers": [layer(MODEL, "m.onnx")]}, MODEL)
    registry.push({"layers": [layer(WEIGHTS, "m.onnx")]}, WEIGHTS)
    pin = SourcePin(kind="Immutable", value=digest_of(MODEL))
    async with serving(authority, registry) as (server, source):
        body, stream = await read(source, "m.onnx", 0, 10, pin)
        assert (body, stream.stat.pin, stream.stat.size) == (MODEL[:10], pin, len(MODEL))
        assert len(server.requests) == 1
        del registry.blobs[digest_of(MODEL)]
        with pytest.raises(SourceChangedError) as caught:
            await read(source, "m.onnx", 0, 10, pin)
    assert caught.value.observed == SourcePin(kind="Immutable", value=digest_of(WEIGHTS))


async def test_a_digest_in_the_uri_is_compared_with_what_the_registry_sends(authority) -> None:
    registry = Registry()
    digest = registry.push(ARTIFACT, MODEL, WEIGHTS)
    async with serving(authority, registry, f"/m@{digest}") as (_, source):
        assert await source.locate() == ["m.onnx"]
    registry.manifests[digest] += b" "
    error = await error_of(authority, registry, path=f"/m:v1@{digest}")
    assert error.reason is Reason.SOURCE_REFUSED
    assert digest in error.message


async def test_layers_of_an_image_are_archives_the_last_first(authority) -> None:
    gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    image = {"layers": [layer(b"1"), layer(b"2", media_type=gzip), layer(b"3", media_type=f"{LAYER}+gzip")]}
    registry = Registry()
    inner = registry.push(image, b"1", b"2", b"3")
    entry = {"digest": inner, "size": 1}
    registry.push(
        {
            "manifests": [
                {**entry, "digest": digest_of(b"arm"), "platform": {"os": "linux", "architecture": "arm64"}},
                {**entry, "platform": {"os": "linux", "architecture": "amd64"}},
                {**entry, "platform": {"os": "unknown", "architecture": "unknown"}},
            ]
        }
    )
    async with serving(authority, registry) as (_, source):
        names = await source.locate()
        assert [name.partition("-")[0] for name in names] == ["layers/02", "layers/01", "layers/00"]
        assert [name.partition(".")[2] for name in names] == ["tar.gz", "tar.gz", "tar"]
        assert [(await read(source, name))[0] for name in names] == [b"3", b"2", b"1"]


@pytest.mark.parametrize(
    ("titles", "model"),
    [(["a.onnx", "a.onnx.data", "README.md"], "a.onnx"), (["model.zip", "x.txt"], "model.zip"), (["model"], "model")],
)
async def test_the_model_is_found_among_the_files_of_an_artifact(authority, titles, model) -> None:
    registry = Registry()
    registry.push({"layers": [layer(title.encode(), title) for title in titles]})
    async with serving(authority, registry) as (_, source):
        assert await source.locate() == [model]


async def test_a_folder_that_was_packed_is_an_archive(authority) -> None:
    registry = Registry()
    registry.push({"layers": [layer(b"x", "folder", f"{LAYER}+gzip", io__deis__oras__content__unpack="true")]})
    async with serving(authority, registry) as (_, source):
        assert await source.locate() == ["folder.tar.gz"]


@pytest.mark.parametrize(
    ("manifest", "reason", "words"),
    [
        ({"layers": [layer(b"1", "a.onnx"), layer(b"2", "b.onnx")]}, Reason.SOURCE_REFUSED, "a.onnx, b.onnx"),
        ({"layers": [layer(b"1", "a.txt"), layer(b"2", "b.txt")]}, Reason.SOURCE_NOT_FOUND, "no .onnx"),
        ({"layers": [layer(b"1", "../a.onnx")]}, Reason.SOURCE_REFUSED, "leads out"),
        ({"layers": []}, Reason.SOURCE_NOT_FOUND, "no files"),
        ({"layers": [layer(b"", media_type="application/vnd.oci.empty.v1+json")]}, Reason.SOURCE_NOT_FOUND, "no files"),
        ({"layers": [layer(b"1", media_type=f"{LAYER}+zstd")]}, Reason.SOURCE_REFUSED, "tar+zstd"),
        ({"layers": [{"digest": "sha256:1", "size": 1}]}, Reason.SOURCE_REFUSED, "digest"),
        ({"layers": [layer(b"1", "a") | {"size": -1}]}, Reason.SOURCE_REFUSED, "size"),
        ({"layers": [layer(b"1")] * 1001}, Reason.SOURCE_REFUSED, "more than 1000"),
        ({"fsLayers": []}, Reason.SOURCE_REFUSED, "no layers"),
        ({"manifests": []}, Reason.SOURCE_REFUSED, "index of 0"),
        ([], Reason.SOURCE_REFUSED, "malformed manifest"),
    ],
)
async def test_manifests_without_a_model(authority, manifest, reason, words) -> None:
    registry = Registry()
    registry.push(manifest)
    error = await error_of(authority, registry)
    assert error.reason is reason
    assert words in error.message


async def test_an_index_that_leads_to_itself_ends(authority) -> None:
    registry = Registry()
    for depth in range(20):
        below = digest_of(registry.manifests.get("v1", b""))
        registry.push({"manifests": [{"digest": below, "size": depth}]})
    assert "index of indexes" in (await error_of(authority, registry)).message


KEYS = st.sampled_from(["layers", "manifests", "digest", "size", "mediaType", "annotations", "platform", "os", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(KEYS, JSON, max_size=5))
def test_any_document_is_read_or_refused(document) -> None:
    with suppress(SourceError):
        read = read_document(json.dumps(document).encode(), "oci://r/m")
        with suppress(SourceError):
            chosen_manifest(read, "oci://r/m")
        assert all(is_confined(name) for name in read_manifest(read, "oci://r/m").blobs)


@pytest.mark.parametrize("body", [b"<html>", b"[" * 100_000, b"\xff"])
async def test_an_answer_that_is_no_json_is_refused(authority, body) -> None:
    registry = Registry(manifests={"v1": body})
    error = await error_of(authority, registry)
    assert error.reason is Reason.SOURCE_REFUSED
    assert "JSON" in error.message


async def test_a_huge_manifest_is_refused_before_it_has_been_read(authority) -> None:
    sent = []

    async def handler(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            request.writer.write(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
            await request.writer.drain()
            sent.append(1)

    error = await error_of(authority, handler)
    assert error.reason is Reason.SOURCE_REFUSED
    assert "262144" in error.message
    assert len(sent) < 50


async def test_a_manifest_that_trickles_is_given_up(authority, monkeypatch) -> None:
    monkeypatch.setattr(client, "_OPEN_SECONDS", 1.0)

    async def handler(request: Request) -> None:
        await request.answer(200, {"Content-Length": "1000"})
        while True:
            request.writer.write(b" ")
            await request.writer.drain()
            await asyncio.sleep(0.1)

    assert (await error_of(authority, handler)).reason is Reason.SOURCE_UNREACHABLE


ACCOUNT = {"auth": base64.b64encode(b"user:hunter2").decode()}
BASIC = f"Basic {ACCOUNT['auth']}"


async def test_a_registry_that_takes_passwords(authority) -> None:
    registry = Registry(auth='Basic realm="x"', accepted=BASIC)
    registry.push(ARTIFACT, MODEL, WEIGHTS)
    async with serving(authority, registry, credentials=ACCOUNT) as (server, source):
        assert (await read(source, "m.onnx"))[0] == MODEL
    assert [request.headers.get("authorization") for request in server.requests] == [None, BASIC, BASIC]


@asynccontextmanager
async def token_service(authority: Authority, registry: Registry, status: int = 200):
    """Another origin, which gives T0KEN1, T0KEN2 … of which the last is accepted."""
    made = []

    async def handler(request: Request) -> None:
        made.append(request)
        registry.accepted = f"Bearer T0KEN{len(made)}"
        await request.answer_json({"token": f"T0KEN{len(made)}"}, status)

    async with Server(handler, authority.server) as server:
        registry.auth = f'Bearer realm="{server.url}/token?a=b",service="reg istry",scope="repository:other:push"'
        yield server


@pytest.mark.parametrize(("account", "sent"), [(None, None), (ACCOUNT, BASIC)])
async def test_a_registry_that_takes_tokens(authority, account, sent) -> None:
    registry = Registry()
    registry.push(ARTIFACT, MODEL, WEIGHTS)
    async with (
        token_service(authority, registry) as tokens,
        serving(authority, registry, credentials=account) as (server, source),
    ):
        assert (await read(source, "m.onnx"))[0] == MODEL
        assert (await read(source, "m.onnx", 0, 5))[0] == MODEL[:5]
    (asked,) = tokens.requests
    assert asked.headers.get("authorization") == sent
    query = parse_qs(urlsplit(asked.target).query)
    assert query == {"a": ["b"], "service": ["reg istry"], "scope": ["repository:team/m:pull"]}
    headers = [request.headers.get("authorization") for request in server.requests]
    assert headers == [None, "Bearer T0KEN1", "Bearer T0KEN1", "Bearer T0KEN1"]


async def test_a_token_that_expired_is_renewed_once_for_all_who_wait(authority) -> None:
    registry = Registry()
    registry.push(ARTIFACT, MODEL, WEIGHTS)
    async with token_service(authority, registry) as tokens, serving(authority, registry) as (_, source):
        await source.locate()
        registry.accepted = "Bearer T0KEN2"
        parts = await asyncio.gather(*(read(source, "m.onnx", begin, begin + 10) for begin in range(0, 100, 10)))
    assert b"".join(body for body, _ in parts) == MODEL[:100]
    assert len(tokens.requests) == 2


async def test_credentials_never_follow_a_redirect_to_where_blobs_are_kept(authority) -> None:
    async with Server(FileServer(MODEL, None), authority.server) as storage:
        registry = Registry(auth="Basic", accepted=BASIC, storage=storage.url)
        registry.push(ARTIFACT, MODEL, WEIGHTS)
        async with serving(authority, registry, credentials=ACCOUNT) as (_, source):
            assert (await read(source, "m.onnx"))[0] == MODEL
    assert [request.headers.get("authorization") for request in storage.requests] == [None]


@pytest.mark.parametrize(
    ("realm", "words"),
    [
        ("https://169.254.169.254/token", "sources.allowedNetworks"),
        ("http://127.0.0.1:1/token", "not an https address"),
        ("file:///etc/passwd", "not an https address"),
        ("https://[", "cannot be read"),
        ("https://[]@/token", "cannot be read"),
        ("https://u:hunter2@127.0.0.1/", "carries a user"),
    ],
)
async def test_addresses_where_no_token_is_asked_for(authority, realm, words) -> None:
    registry = Registry(auth=f'Bearer realm="{realm}"', accepted="never")
    error = await error_of(authority, registry, credentials=ACCOUNT, allowed_networks=["127.0.0.0/8"])
    assert error.reason is Reason.SOURCE_REFUSED
    assert words in error.message


@pytest.mark.parametrize("account", [None, ACCOUNT])
@pytest.mark.parametrize("challenge", ['Basic realm="x"', "Bearer", "Negotiate", "x" * 1000])
async def test_a_refused_visitor_is_told_which_secret_to_check(authority, account, challenge) -> None:
    error = await error_of(authority, Registry(auth=challenge, accepted="never"), credentials=account)
    assert error.reason is Reason.SOURCE_UNAUTHORIZED
    assert "kubernetes.io/dockerconfigjson" in error.message
    assert "team/m" in error.message


async def test_a_token_service_that_refuses_the_account_says_so(authority) -> None:
    registry = Registry()
    async with token_service(authority, registry, status=401):
        error = await error_of(authority, registry, credentials=ACCOUNT)
    assert error.reason is Reason.SOURCE_UNAUTHORIZED
    assert "not accepted" in error.message


async def test_a_registry_that_is_its_own_token_service_and_refuses_everything_ends(authority) -> None:
    async def handler(request: Request) -> None:
        await request.answer(
            401, {"WWW-Authenticate": f'Bearer realm="https://{request.headers["host"]}/token",service="s"'}
        )

    assert (await error_of(authority, handler, credentials=ACCOUNT)).reason is Reason.SOURCE_UNAUTHORIZED


@pytest.mark.parametrize("answer", [{}, {"token": 1}, {"token": "a\r\nb"}, [], {"token": ""}])
async def test_a_token_service_that_gives_nothing(authority, answer) -> None:
    async def handler(request: Request) -> None:
        await request.answer_json(answer)

    async with Server(handler, authority.server) as tokens:
        error = await error_of(authority, Registry(auth=f'Bearer realm="{tokens.url}"', accepted="never"))
    assert error.reason is Reason.SOURCE_REFUSED


async def test_a_missing_artifact(authority) -> None:
    assert (await error_of(authority, Registry())).reason is Reason.SOURCE_NOT_FOUND


async def test_private_registries_are_refused_unless_allowed(authority) -> None:
    error = await error_of(authority, Registry(), allowed_networks=[])
    assert error.reason is Reason.SOURCE_REFUSED
    assert "sources.allowedNetworks" in error.message


async def test_registries_without_tls_are_read_where_the_settings_name_them() -> None:
    registry = Registry()
    registry.push(ARTIFACT, MODEL, WEIGHTS)
    async with Server(registry, None) as server:
        where = f"127.0.0.1:{server.port}"
        plain = settings(oci={"plain_http_registries": [where]})
        async with OciSource(f"oci://{where}/m:v1", credentials={}, settings=plain) as source:
            assert (await read(source, "m.onnx"))[0] == MODEL
        async with OciSource(
            f"oci://{where}/m:v1", credentials={}, settings=settings(connect_timeout_seconds=0.2)
        ) as source:
            with pytest.raises(SourceError):
                await source.locate()


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("oci://ghcr.io/org/m:v1", ("ghcr.io", "org/m", "v1")),
        ("oci://localhost:5000/m", ("localhost:5000", "m", "latest")),
        ("oci://[::1]:5000/a/b/c", ("[::1]:5000", "a/b/c", "latest")),
        (f"oci://r.example/m@{digest_of(b'')}", ("r.example", "m", digest_of(b""))),
        (f"oci://r.example/m:v1@{digest_of(b'')}", ("r.example", "m", digest_of(b""))),
        ("oci://docker.io/m", ("registry-1.docker.io", "library/m", "latest")),
        ("oci://docker.io/org/m", ("registry-1.docker.io", "org/m", "latest")),
    ],
)
def test_references(uri, parts) -> None:
    reference = parse_reference(uri)
    assert (reference.host, reference.repository, reference.version) == parts


@pytest.mark.parametrize(
    "uri",
    [
        "oci://",
        "oci://r.example",
        "oci://r.example/",
        "oci:///m",
        "oci://u:hunter2@r.example/m",
        "oci://r.example/M",
        "oci://r.example/a//b",
        "oci://r.example/../b",
        "oci://r.example/m:",
        "oci://r.example/m:a b",
        "oci://r.example/m@",
        "oci://r.example/m@sha256:12",
        "oci://r.example/m@md5:d41d8cd98f00b204e9800998ecf8427e",
        "oci://r.example/m?x=y",
        "oci://r.example:99999/m",
        "oci://r.exa mple/m",
        "oci://r.example/m\r\nX: y",
    ],
)
def test_uris_that_name_nothing(uri) -> None:
    with pytest.raises(SourceError) as caught:
        OciSource(uri, credentials={}, settings=settings())
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("uri", "entries", "account"),
    [
        ("oci://r.example/m", {"r.example": {"username": "u", "password": "p"}}, ("u", "p")),
        ("oci://r.example/m", {"https://r.example": ACCOUNT}, ("user", "hunter2")),
        ("oci://r.example/m", {"https://r.example/v2/": ACCOUNT}, ("user", "hunter2")),
        ("oci://docker.io/m", {"https://index.docker.io/v1/": ACCOUNT}, ("user", "hunter2")),
        ("oci://r.example/team/m", {"r.example/team": ACCOUNT, "r.example": {"username": "u"}}, ("user", "hunter2")),
        ("oci://r.example/teams/m", {"r.example/team": ACCOUNT}, None),
        ("oci://r.example/m", {"r.example:5000": ACCOUNT, "other.example": ACCOUNT}, None),
        ("oci://r.example/m", {"r.example": {}}, None),
        ("oci://r.example/m", {}, None),
    ],
)
def test_only_the_account_of_the_uris_registry_counts(uri, entries, account) -> None:
    assert login(json.dumps({"auths": entries}), parse_reference(uri)) == account


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("nonsense", "no valid .dockerconfigjson"),
        ("[]", "no valid .dockerconfigjson"),
        ('{"auths": {"r.example": {"auth": "%%%"}}}', "no valid .dockerconfigjson"),
        ('{"auths": {"r.example": []}}', "no valid .dockerconfigjson"),
        ('{"auths": {"r.example": {"identitytoken": "hunter2"}}}', "identity token"),
    ],
)
def test_credentials_that_cannot_be_read_are_named(config, words) -> None:
    with pytest.raises(SourceError) as caught:
        OciSource("oci://r.example/m", credentials={"DOCKERCONFIGJSON": config}, settings=settings())
    assert caught.value.reason is Reason.SOURCE_UNAUTHORIZED
    assert words in caught.value.message
    assert "hunter2" not in caught.value.message
