"""Against a store made up here, which fails on command; a real one is in the integration tests."""

import asyncio
import hashlib
import os
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from webkit import FileServer, Request, Server, settings

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources import SourceChangedError, SourceError, open_source
from onnx_operator.model.sources import s3 as s3_module

BODY = os.urandom(300_000)
SHA = hashlib.sha256(BODY).hexdigest()
V1 = SourcePin(kind="Conditional", value='"v1"')
KEYS = {"AWS_ACCESS_KEY_ID": "theirkey", "AWS_SECRET_ACCESS_KEY": "theirsecret"}
LAST_MODIFIED = {"Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def store(body: bytes = BODY, **options) -> FileServer:
    options["extra"] = LAST_MODIFIED | options.get("extra", {})
    return FileServer(body, **options)


@asynccontextmanager
async def source_of(server: Server, uri="s3://bucket/a/m.onnx", credentials=KEYS, **changes):
    given = settings(s3={"endpoint": server.url, **changes})
    async with open_source(uri, credentials=credentials, settings=given) as source:
        yield source


async def error_of(handler, credentials=KEYS) -> SourceError:
    async with Server(handler, None) as server, source_of(server, credentials=credentials) as source:
        with pytest.raises(SourceError) as caught:
            await source.stat()
    assert "theirsecret" not in caught.value.message
    assert caught.value.retriable == (caught.value.reason is Reason.SOURCE_UNREACHABLE)
    return caught.value


@pytest.mark.parametrize(
    ("etag", "extra", "pin"),
    [
        ('"v1"', {}, V1),
        ('"v1"', {"x-amz-version-id": "abc"}, SourcePin(kind="Immutable", value="abc")),
        ('"v1"', {"x-amz-version-id": "null"}, V1),
        ('W/"v1"', {}, None),
        (None, {}, None),
    ],
)
async def test_stat_and_download(out, etag, extra, pin) -> None:
    async def handler(request: Request) -> None:
        # The body of a HEAD stays away; its length does not.
        if request.method == "HEAD":
            headers = LAST_MODIFIED | extra | ({"ETag": etag} if etag else {})
            return await request.answer(200, headers | {"Content-Length": str(len(BODY))})
        return await store(etag=etag, extra=extra)(request)

    async with Server(handler, None) as server, source_of(server) as source:
        stat = await source.stat()
        got = await source.download(out)
    assert (stat.size, stat.pin) == (len(BODY), pin)
    assert (got.sha256, got.pin) == (SHA, pin)
    assert out.read_bytes() == BODY
    assert server.requests[-1].target.startswith("/bucket/a/m.onnx")


def answering(status: int, code: str):
    async def handler(request: Request) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>theirkey</Message></Error>"
        await request.answer(status, {}, b"" if request.method == "HEAD" else text.encode())

    return handler


@pytest.mark.parametrize(
    ("status", "code", "reason", "words"),
    [
        (403, "AccessDenied", Reason.SOURCE_UNAUTHORIZED, "AccessDenied"),
        (403, "InvalidAccessKeyId", Reason.SOURCE_UNAUTHORIZED, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch", Reason.SOURCE_UNAUTHORIZED, "SignatureDoesNotMatch"),
        (400, "ExpiredToken", Reason.SOURCE_UNAUTHORIZED, "ExpiredToken"),
        (404, "NoSuchKey", Reason.SOURCE_NOT_FOUND, "The key a/m.onnx"),
        (404, "NoSuchBucket", Reason.SOURCE_NOT_FOUND, "The bucket bucket"),
        (400, "InvalidRequest", Reason.SOURCE_REFUSED, "InvalidRequest"),
        (301, "PermanentRedirect", Reason.SOURCE_REFUSED, "sources.s3.region"),
        (429, "SlowDown", Reason.SOURCE_UNREACHABLE, "429"),
        (500, "InternalError", Reason.SOURCE_UNREACHABLE, "500"),
        (503, "SlowDown", Reason.SOURCE_UNREACHABLE, "503"),
    ],
)
async def test_errors(status, code, reason, words) -> None:
    error = await error_of(answering(status, code))
    assert error.reason is reason
    assert words in error.message


async def test_without_keys_the_message_says_so() -> None:
    assert "without keys" in (await error_of(answering(403, "AccessDenied"), credentials={})).message


async def test_the_environment_does_not_count(out, monkeypatch) -> None:
    hostile = {
        "AWS_ACCESS_KEY_ID": "ourkey",
        "AWS_SECRET_ACCESS_KEY": "oursecret",
        "AWS_SESSION_TOKEN": "ourtoken",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_ENDPOINT": "http://127.0.0.1:1",
        "AWS_REGION": "mars-1",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/nonexistent",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/x",
        "AWS_METADATA_ENDPOINT": "http://127.0.0.1:1",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_S3_EXPRESS": "true",
        "AWS_REQUEST_PAYER": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
    }
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    async with Server(store(), None) as server, source_of(server) as source:
        await source.download(out)
        async with source_of(server, credentials={}) as source:
            await source.download(out)
    signed, unsigned = server.requests[:2], server.requests[2:]
    assert all("Credential=theirkey/" in request.headers["authorization"] for request in signed)
    assert all("/us-east-1/s3/" in request.headers["authorization"] for request in signed)
    assert not any("x-amz-security-token" in request.headers for request in server.requests)
    assert not any("authorization" in request.headers for request in unsigned)


async def test_a_session_token_is_sent() -> None:
    async with (
        Server(store(), None) as server,
        source_of(server, credentials=KEYS | {"AWS_SESSION_TOKEN": "theirtoken"}) as source,
    ):
        await source.stat()
    assert server.requests[0].headers["x-amz-security-token"] == "theirtoken"


@pytest.mark.parametrize("conditions", [True, False])
async def test_a_pin_finds_something_else(out, conditions) -> None:
    async with Server(store(etag='"v2"', conditions=conditions), None) as server, source_of(server) as source:
        with pytest.raises(SourceChangedError) as caught:
            await source.download(out, pin=V1)
    assert caught.value.observed == SourcePin(kind="Conditional", value='"v2"')


@pytest.mark.parametrize("there", [0, 1000, len(BODY), len(BODY) + 1])
async def test_resume(out, there) -> None:
    out.write_bytes((BODY + b"x")[:there])
    async with Server(store(), None) as server, source_of(server) as source:
        got = await source.download(out, pin=V1, resume=True)
    assert (got.sha256, got.size) == (SHA, len(BODY))
    assert out.read_bytes() == BODY


async def test_too_large(out) -> None:
    async with Server(store(), None) as server, source_of(server) as source:
        with pytest.raises(SourceError) as caught:
            await source.download(out, max_bytes=1000)
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("second_etag", ['"v1"', '"v2"'])
async def test_a_stream_that_breaks(out, second_etag) -> None:
    """It goes on with the same object, and never with another one."""
    gets = []

    async def handler(request: Request) -> None:
        if request.method == "GET":
            gets.append(request)
        if len(gets) == 1 and request.method == "GET":
            headers = LAST_MODIFIED | {"ETag": '"v1"', "Content-Length": str(len(BODY))}
            return await request.answer(200, headers, BODY[:200_000])
        if len(gets) > 0 and second_etag == '"v2"':
            return await store(os.urandom(len(BODY)), etag=second_etag)(request)
        return await store()(request)

    async with Server(handler, None) as server, source_of(server) as source:
        if second_etag == '"v2"':
            with pytest.raises(SourceError):
                await source.download(out)
        else:
            assert (await source.download(out)).sha256 == SHA


async def test_silence(out, monkeypatch) -> None:
    monkeypatch.setattr(s3_module, "_OPEN_SECONDS", 1.5)

    async def handler(request: Request) -> None:
        await asyncio.sleep(60)

    assert (await error_of(handler)).reason is Reason.SOURCE_UNREACHABLE


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://nowhere.invalid"])
async def test_no_store(endpoint) -> None:
    given = settings(s3={"endpoint": endpoint})
    async with open_source("s3://bucket/m", credentials=KEYS, settings=given) as source:
        with pytest.raises(SourceError) as caught:
            await source.stat()
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE
    assert endpoint in caught.value.message


@pytest.mark.parametrize(
    "uri", ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3://buc ket/key", "s3://b/folder/"]
)
def test_addresses_that_name_no_object(uri) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(uri, credentials={}, settings=settings())
    assert caught.value.reason is Reason.SOURCE_REFUSED


@pytest.mark.parametrize("name", list(KEYS))
def test_half_a_pair_of_keys(name) -> None:
    with pytest.raises(SourceError) as caught:
        open_source("s3://bucket/m", credentials={name: "x"}, settings=settings())
    assert caught.value.reason is Reason.SOURCE_UNAUTHORIZED


def test_virtual_hosted_style() -> None:
    given = settings(s3={"endpoint": "https://store.example", "virtual_hosted_style": True})
    source = open_source("s3://bucket/a/m.onnx", credentials=KEYS, settings=given)
    assert source._store.config["endpoint"] == "https://bucket.store.example"
