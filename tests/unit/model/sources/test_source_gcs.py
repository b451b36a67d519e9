"""Against a store made up here; fake-gcs-server is in the integration tests."""

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from storekit import ObjectServer, answering, error_of, failing, path_of, query_of, trap, tries
from webkit import Request, Server, settings

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources import SourceChangedError, SourceError, transfer
from onnx_operator.model.sources.gcs import GcsSource

pytestmark = pytest.mark.usefixtures("quick_retries")
BODY = bytes(range(256)) * 100
GENERATION = {"x-goog-generation": "1700000000000001"}
PIN = SourcePin(kind="Immutable", value="1700000000000001")


@pytest.fixture(scope="module")
def service_account() -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return {
        "type": "service_account",
        "client_email": "reader@theirs.example",
        "private_key_id": "k1",
        "private_key": pem,
    }


def make(server: Server, uri="gs://bucket/a/m.onnx", credentials=None, **more) -> GcsSource:
    given = settings(gs={"endpoint": server.url})
    return GcsSource(uri, credentials=credentials or {}, settings=given, **more)


def store(**options) -> ObjectServer:
    return ObjectServer(BODY, extra=GENERATION, **options)


async def test_an_object_is_pinned_by_its_generation(tmp_path) -> None:
    async with Server(store(), None) as server, make(server) as source:
        assert await source.locate() == ["m.onnx"]
        assert (await source.stat("m.onnx")).pin == PIN
        got = await transfer.download(source, "m.onnx", tmp_path / "m", pin=PIN)
        assert await transfer.read(source, "m.onnx", 10, 20, pin=PIN) == BODY[10:20]
    assert (got.size, got.pin) == (len(BODY), PIN)
    assert (tmp_path / "m").read_bytes() == BODY
    assert {path_of(request) for request in server.requests} == {"/bucket/a/m.onnx"}
    assert [query_of(request).get("generation") for request in server.requests] == [None, PIN.value, PIN.value]


async def test_a_generation_that_was_overwritten_tells_the_new_one() -> None:
    async def handler(request: Request) -> None:
        if query_of(request).get("generation") == "1":
            return await answering(404, "NoSuchKey")(request)
        return await store()(request)

    async with Server(handler, None) as server, make(server) as source:
        with pytest.raises(SourceChangedError) as caught:
            await transfer.read(source, "m.onnx", 0, 5, pin=SourcePin(kind="Immutable", value="1"))
    assert caught.value.observed == PIN


@pytest.mark.parametrize(
    ("status", "code", "reason", "words"),
    [
        (401, "AuthenticationRequired", Reason.SOURCE_UNAUTHORIZED, "without keys"),
        (403, "AccessDenied", Reason.SOURCE_UNAUTHORIZED, "GOOGLE_SERVICE_ACCOUNT_KEY"),
        (404, "NoSuchKey", Reason.SOURCE_NOT_FOUND, "no such key in the bucket bucket"),
        (404, "NoSuchBucket", Reason.SOURCE_NOT_FOUND, "The bucket bucket"),
        (400, "InvalidArgument", Reason.SOURCE_REFUSED, "InvalidArgument"),
        (429, "SlowDown", Reason.SOURCE_UNREACHABLE, "429"),
        (503, "ServiceUnavailable", Reason.SOURCE_UNREACHABLE, "503"),
    ],
)
async def test_what_the_store_answers_is_told_with_what_to_do(status, code, reason, words) -> None:
    error = await error_of(answering(status, code), make)
    assert error.reason is reason
    assert words in error.message


async def test_what_passes_is_tried_again() -> None:
    assert await tries(failing(2, 503, store()), make, BODY, PIN) == 3


async def test_the_environment_does_not_count(tmp_path, monkeypatch, service_account) -> None:
    key = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(service_account)}
    async with trap(monkeypatch, tmp_path), Server(store(), None) as server:
        for credentials in ({}, key):
            async with make(server, credentials=credentials) as source:
                await source.stat("m.onnx")
    unsigned, signed = server.requests
    assert "authorization" not in unsigned.headers
    assert signed.headers["authorization"].startswith("Bearer ey")
    assert all(path_of(request) == "/bucket/a/m.onnx" for request in server.requests)


async def test_a_key_that_names_another_store_is_used_at_ours_and_signs(tmp_path, monkeypatch, service_account) -> None:
    async with trap(monkeypatch, tmp_path) as elsewhere, Server(store(), None) as server:
        content = service_account | {"gcs_base_url": elsewhere.url, "disable_oauth": True, "token_uri": elsewhere.url}
        async with make(server, credentials={"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(content)}) as source:
            await source.stat("m.onnx")
    assert server.requests[0].headers["authorization"].startswith("Bearer ey")


async def test_workload_identity_is_the_environment(monkeypatch, tmp_path, service_account) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(service_account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    async with Server(store(), None) as server, make(server, workload_identity=True) as source:
        await source.stat("m.onnx")
    assert server.requests[0].headers["authorization"].startswith("Bearer ey")


@pytest.mark.parametrize(
    "key", ["no JSON", "[]", "{}", '{"private_key": "x", "private_key_id": "s3cret", "client_email": "x"}']
)
def test_a_key_that_is_none_is_refused_without_being_shown(key) -> None:
    with pytest.raises(SourceError) as caught:
        GcsSource("gs://bucket/m.onnx", credentials={"GOOGLE_SERVICE_ACCOUNT_KEY": key}, settings=settings())
    assert caught.value.reason is Reason.SOURCE_UNAUTHORIZED
    assert "GOOGLE_SERVICE_ACCOUNT_KEY" in caught.value.message
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize(
    "uri", ["gs://", "gs://bucket", "gs://bucket/", "gs:///key", "gs://Buc ket/key", "gs://bb/../x"]
)
def test_addresses_that_name_no_object(uri) -> None:
    with pytest.raises(SourceError) as caught:
        GcsSource(uri, credentials={}, settings=settings())
    assert caught.value.reason is Reason.SOURCE_REFUSED
