"""Against a store made up here, which fails on command; a real one is in the integration tests."""

import asyncio
import os
import tracemalloc
from contextlib import asynccontextmanager
from functools import partial

import pytest
import storekit
from storekit import ObjectServer, answering, failing, path_of, trap, tries
from webkit import Request, Server, settings

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources import SourceChangedError, SourceError, objects, transfer
from onnx_operator.model.sources.s3 import S3Source

pytestmark = pytest.mark.usefixtures("quick_retries")
BODY = os.urandom(300_000)
V1 = SourcePin(kind="Conditional", value='"v1"')
KEYS = {"AWS_ACCESS_KEY_ID": "theirkey", "AWS_SECRET_ACCESS_KEY": "theirsecret"}


def make(server: Server, uri="s3://bucket/a/m.onnx", credentials=KEYS, **changes) -> S3Source:
    return S3Source(uri, credentials=credentials, settings=settings(s3={"endpoint": server.url, **changes}))


@asynccontextmanager
async def source_of(handler, **options):
    async with Server(handler, None) as server, make(server, **options) as source:
        yield source, server


async def error_of(handler, credentials=KEYS) -> SourceError:
    error = await storekit.error_of(handler, partial(make, credentials=credentials))
    assert "theirsecret" not in error.message
    assert error.retriable == (error.reason is Reason.SOURCE_UNREACHABLE)
    return error


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
async def test_a_file_is_pinned_as_strongly_as_the_store_allows(tmp_path, etag, extra, pin) -> None:
    async with source_of(ObjectServer(BODY, etag=etag, extra=extra)) as (source, server):
        stat = await source.stat("m.onnx")
        got = await transfer.download(source, "m.onnx", tmp_path / "m")
    assert (stat.size, stat.pin) == (len(BODY), pin)
    assert (got.size, got.pin) == (len(BODY), pin)
    assert (tmp_path / "m").read_bytes() == BODY
    assert {path_of(request) for request in server.requests} == {"/bucket/a/m.onnx"}


@pytest.mark.parametrize(
    ("status", "code", "reason", "words"),
    [
        (403, "AccessDenied", Reason.SOURCE_UNAUTHORIZED, "AccessDenied"),
        (403, "InvalidAccessKeyId", Reason.SOURCE_UNAUTHORIZED, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch", Reason.SOURCE_UNAUTHORIZED, "SignatureDoesNotMatch"),
        (400, "ExpiredToken", Reason.SOURCE_UNAUTHORIZED, "ExpiredToken"),
        (404, "NoSuchKey", Reason.SOURCE_NOT_FOUND, "no such key in the bucket bucket"),
        (404, "NoSuchBucket", Reason.SOURCE_NOT_FOUND, "The bucket bucket"),
        (400, "InvalidRequest", Reason.SOURCE_REFUSED, "InvalidRequest"),
        (301, "PermanentRedirect", Reason.SOURCE_REFUSED, "sources.s3.region"),
        (429, "SlowDown", Reason.SOURCE_UNREACHABLE, "429"),
        (500, "InternalError", Reason.SOURCE_UNREACHABLE, "500"),
        (503, "SlowDown", Reason.SOURCE_UNREACHABLE, "503"),
    ],
)
async def test_what_the_store_answers_is_told_with_what_to_do(status, code, reason, words) -> None:
    error = await error_of(answering(status, code))
    assert error.reason is reason
    assert words in error.message


async def test_without_keys_the_message_says_so() -> None:
    assert "without keys" in (await error_of(answering(403, "AccessDenied"), credentials={})).message


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_passes_is_tried_again(status) -> None:
    assert await tries(failing(3, status, ObjectServer(BODY)), make, BODY, V1) == 4


async def test_what_does_not_pass_is_asked_once_more_for_its_cause_only() -> None:
    async with source_of(answering(403, "AccessDenied")) as (source, server):
        with pytest.raises(SourceError):
            await source.stat("m.onnx")
        with pytest.raises(SourceError):
            await transfer.read(source, "m.onnx", 0, 1, pin=None)
    assert [request.method for request in server.requests] == ["HEAD", "GET", "GET"]


async def test_small_reads_are_one_request_each_on_a_kept_connection() -> None:
    async with source_of(ObjectServer(BODY)) as (source, server):
        for offset in range(0, 200_000, 10_000):
            assert await transfer.read(source, "m.onnx", offset, offset + 7, pin=V1) == BODY[offset : offset + 7]
    assert len(server.requests) == 20
    assert server.connections == 1
    assert all(request.headers["if-match"] == '"v1"' for request in server.requests)


async def test_files_beside_the_model_are_named_from_its_folder() -> None:
    async with source_of(ObjectServer(BODY), uri="s3://bucket/a/b/") as (source, server):
        await source.stat("weights/part 1.bin")
        for name in ("../secret", "/secret", "a//b", ""):
            with pytest.raises(SourceError) as caught:
                await source.stat(name)
            assert caught.value.reason is Reason.SOURCE_REFUSED
    assert [path_of(request) for request in server.requests] == ["/bucket/a/b/weights/part 1.bin"]


def listed(**sizes: int):
    contents = "".join(
        f"<Contents><Key>a/{key}</Key><Size>{size}</Size><ETag>&quot;v1&quot;</ETag>"
        "<LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
        for key, size in sizes.items()
    )

    async def handler(request: Request) -> None:
        if "list-type=2" in request.target:
            body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
            return await request.answer(200, {"Content-Type": "application/xml"}, body.encode())
        if path_of(request).partition("/a/")[2] in {key for key in sizes if key}:
            return await ObjectServer(BODY)(request)
        return await answering(404, "NoSuchKey")(request)

    return handler


@pytest.mark.parametrize("uri", ["s3://bucket/a/", "s3://bucket/a"])
async def test_all_objects_below_a_prefix_are_listed_but_for_marks_of_folders(uri) -> None:
    # The prefix itself, and a folder with something in it, as consoles mark them.
    objects_there = {"m.onnx": 9, "a": 7, "sub/vocab.txt": 0, "sub/deep/b": 1, "": 0, "sub/": 0, "sub/deep": 0}
    async with source_of(listed(**objects_there), uri=uri) as (source, _):
        assert sorted(await source.listing()) == ["a", "m.onnx", "sub/deep/b", "sub/vocab.txt"]


async def test_names_that_lie_in_hundreds_of_folders_take_no_memory_for_each() -> None:
    deep = {"m.onnx": 9} | {f"{number:04}/" + "d/" * 400 + "f": 0 for number in range(900)}
    async with source_of(listed(**deep), uri="s3://bucket/a/") as (source, _):
        found = await source._listed("a/")
        source._listed = lambda _: asyncio.sleep(0, found)
        tracemalloc.start()
        try:
            assert sorted(await source.listing()) == sorted(deep)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 4 << 20


async def test_an_empty_folders_mark_is_listed_and_is_no_file_when_it_is_asked_for() -> None:
    async with source_of(listed(**{"m.onnx": 9, "empty/": 0}), uri="s3://bucket/a/") as (source, _):
        assert sorted(await source.listing()) == ["empty", "m.onnx"]
        with pytest.raises(SourceError) as caught:
            await source.stat("empty")
    assert caught.value.reason is Reason.SOURCE_NOT_FOUND


async def test_the_address_of_an_object_lists_nothing() -> None:
    async with source_of(listed(**{"m.onnx": 9})) as (source, _):
        assert await source.listing() is None


async def test_a_store_without_ranges_sends_all(tmp_path) -> None:
    async with source_of(ObjectServer(BODY, ranges=False)) as (source, _):
        assert await transfer.read(source, "m.onnx", 1000, 2000, pin=V1) == BODY[1000:2000]
        async with source.open("m.onnx", 1000, 2000, pin=V1) as stream:
            assert stream.begin == 0
        got = await transfer.download(source, "m.onnx", tmp_path / "m", pin=V1)
    assert got.size == len(BODY)
    assert (tmp_path / "m").read_bytes() == BODY


@pytest.mark.parametrize("credentials", [KEYS, {}])
async def test_the_environment_does_not_count(tmp_path, monkeypatch, credentials) -> None:
    async with (
        trap(monkeypatch, tmp_path),
        source_of(ObjectServer(BODY), credentials=credentials) as (source, server),
    ):
        await source.stat("m.onnx")
        await transfer.download(source, "m.onnx", tmp_path / "m")
    for request in server.requests:
        assert request.headers["host"] == server.url.removeprefix("http://")
        assert not any(name.startswith(("x-amz-server-side", "x-amz-security-token")) for name in request.headers)
        if credentials:
            assert "Credential=theirkey/" in request.headers["authorization"]
            assert "/us-east-1/s3/" in request.headers["authorization"]
        else:
            assert "authorization" not in request.headers
    assert os.environ["AWS_ACCESS_KEY_ID"] == "ourkey", "the environment itself is left as it was"


async def test_workload_identity_is_the_environment(monkeypatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "podkey", "AWS_SECRET_ACCESS_KEY": "podsecret"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    async with Server(ObjectServer(BODY), None) as server:
        given = settings(s3={"endpoint": server.url})
        for credentials in ({}, KEYS):
            source = S3Source("s3://b-1/m.onnx", credentials=credentials, settings=given, workload_identity=True)
            await source.stat("m.onnx")
    used = [
        request.headers["authorization"].partition("Credential=")[2].partition("/")[0] for request in server.requests
    ]
    assert used == ["podkey", "theirkey"]


async def test_a_session_token_is_sent() -> None:
    async with source_of(ObjectServer(BODY), credentials=KEYS | {"AWS_SESSION_TOKEN": "theirtoken"}) as (
        source,
        server,
    ):
        await source.stat("m.onnx")
    assert server.requests[0].headers["x-amz-security-token"] == "theirtoken"


@pytest.mark.parametrize("conditions", [True, False])
async def test_a_pin_finds_something_else(tmp_path, conditions) -> None:
    async with source_of(ObjectServer(BODY, etag='"v2"', conditions=conditions)) as (source, _):
        with pytest.raises(SourceChangedError) as caught:
            await transfer.download(source, "m.onnx", tmp_path / "m", pin=V1)
    assert caught.value.observed == SourcePin(kind="Conditional", value='"v2"')


async def test_a_version_that_is_gone_tells_what_is_there_now() -> None:
    async def handler(request: Request) -> None:
        if "versionId=old" in request.target:
            return await answering(404, "NoSuchVersion")(request)
        return await ObjectServer(BODY, extra={"x-amz-version-id": "new"})(request)

    async with source_of(handler) as (source, _):
        with pytest.raises(SourceChangedError) as caught:
            await transfer.read(source, "m.onnx", 0, 5, pin=SourcePin(kind="Immutable", value="old"))
    assert caught.value.observed == SourcePin(kind="Immutable", value="new")


@pytest.mark.parametrize("second_etag", ['"v1"', '"v2"'])
async def test_a_stream_that_breaks_goes_on_with_the_same_object_or_not_at_all(tmp_path, second_etag) -> None:
    gets = []

    async def handler(request: Request) -> None:
        if request.method == "GET":
            gets.append(request)
        if len(gets) == 1 and request.method == "GET":
            headers = {"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}", "Content-Length": str(len(BODY))}
            headers |= {"ETag": '"v1"', "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}
            return await request.answer(206, headers, BODY[:200_000])
        if gets and second_etag == '"v2"':
            return await ObjectServer(os.urandom(len(BODY)), etag=second_etag)(request)
        return await ObjectServer(BODY)(request)

    async with source_of(handler) as (source, _):
        if second_etag == '"v2"':
            with pytest.raises(SourceChangedError):
                await transfer.download(source, "m.onnx", tmp_path / "m")
        else:
            await transfer.download(source, "m.onnx", tmp_path / "m")
            assert (tmp_path / "m").read_bytes() == BODY
            assert gets[1].start() > 0


async def test_a_store_that_says_nothing_is_unreachable(monkeypatch) -> None:
    monkeypatch.setattr(objects, "OPEN_SECONDS", 1.0)

    async def handler(_: Request) -> None:
        await asyncio.sleep(60)

    assert (await error_of(handler)).reason is Reason.SOURCE_UNREACHABLE


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://nowhere.invalid"])
async def test_no_store(endpoint) -> None:
    source = S3Source("s3://bucket/m.onnx", credentials=KEYS, settings=settings(s3={"endpoint": endpoint}))
    with pytest.raises(SourceError) as caught:
        await source.stat("m.onnx")
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE
    assert endpoint in caught.value.message


async def test_a_certificate_that_nobody_vouches_for_names_the_setting(authority) -> None:
    async with Server(ObjectServer(BODY), authority.server) as server:
        with pytest.raises(SourceError) as caught:
            await make(server).stat("m.onnx")
        assert (await make(server, ca_bundle=authority.pem).stat("m.onnx")).size == len(BODY)
    assert "sources.s3.caBundle" in caught.value.message


@pytest.mark.parametrize(
    "uri", ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3://buc ket/key", "s3://b/../x"]
)
def test_addresses_that_name_no_object(uri) -> None:
    with pytest.raises(SourceError) as caught:
        S3Source(uri, credentials={}, settings=settings())
    assert caught.value.reason is Reason.SOURCE_REFUSED


@pytest.mark.parametrize("name", list(KEYS))
def test_half_a_pair_of_keys(name) -> None:
    with pytest.raises(SourceError) as caught:
        S3Source("s3://bucket/m.onnx", credentials={name: "x"}, settings=settings())
    assert caught.value.reason is Reason.SOURCE_UNAUTHORIZED


def test_virtual_hosted_style_puts_the_bucket_into_the_host_name() -> None:
    given = settings(s3={"endpoint": "https://store.example", "virtual_hosted_style": True})
    source = S3Source("s3://bucket/a/m.onnx", credentials=KEYS, settings=given)
    assert source._store.config["endpoint"] == "https://bucket.store.example"
