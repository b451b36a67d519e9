"""Against a store made up here; Azurite is in the integration tests."""

import base64

import pytest
from storekit import ObjectServer, answering, error_of, failing, path_of, query_of, trap, tries
from webkit import Request, Server, settings

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources import SourceChangedError, SourceError, azure, transfer
from onnx_operator.model.sources.azure import AzureSource
from onnx_operator.model.sources.azureaddress import is_blob_url

pytestmark = pytest.mark.usefixtures("quick_retries")
BODY = bytes(range(256)) * 100
V1 = SourcePin(kind="Conditional", value='"0x8D1"')
NAME = {"AZURE_STORAGE_ACCOUNT_NAME": "theirs"}
KEY = NAME | {"AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(b"their key").decode()}
SAS = NAME | {"AZURE_STORAGE_SAS_TOKEN": "?sv=2023-11-03&sp=r&sig=th%2Beir%3D"}
PRINCIPAL = NAME | {"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": "s3cret"}
URIS = [
    "az://models/a/m.onnx",
    "abfss://models@theirs.dfs.core.windows.net/a/m.onnx",
    "https://theirs.blob.core.windows.net/models/a/m.onnx",
]


def make(server: Server, uri=URIS[0], credentials=None, account="theirs", **more) -> AzureSource:
    given = settings(az={"endpoint": server.url, "account": account})
    return AzureSource(uri, credentials=credentials or {}, settings=given, **more)


def store(**options) -> ObjectServer:
    return ObjectServer(BODY, etag='"0x8D1"', **options)


def refusal(uri: str, credentials: dict[str, str], account="") -> SourceError:
    with pytest.raises(SourceError) as caught:
        AzureSource(uri, credentials=credentials, settings=settings(az={"account": account}))
    assert "s3cret" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("uri", URIS)
async def test_every_form_of_the_address_reads_the_same_blob(tmp_path, uri) -> None:
    async with Server(store(), None) as server, make(server, uri) as source:
        assert await source.locate() == ["m.onnx"]
        assert (await source.stat("m.onnx")).pin == V1
        got = await transfer.download(source, "m.onnx", tmp_path / "m", pin=V1)
    assert got.pin == V1
    assert (tmp_path / "m").read_bytes() == BODY
    assert {path_of(request) for request in server.requests} == {"/theirs/models/a/m.onnx"}


@pytest.mark.parametrize(
    ("uri", "endpoint"),
    [
        (URIS[0], "https://theirs.blob.core.windows.net"),
        (URIS[1], "https://theirs.blob.core.windows.net"),
        ("abfss://models@theirs.dfs.core.usgovcloudapi.net/m.onnx", "https://theirs.blob.core.usgovcloudapi.net"),
        ("https://theirs.blob.core.chinacloudapi.cn/models/m.onnx", "https://theirs.blob.core.chinacloudapi.cn"),
    ],
)
def test_without_an_endpoint_in_the_settings_it_is_the_account_s_own(uri, endpoint) -> None:
    named = {"AZURE_STORAGE_ACCOUNT_NAME": endpoint.removeprefix("https://")}
    assert AzureSource(uri, credentials=KEY | named, settings=settings())._store.config["endpoint"] == endpoint
    anonymous = AzureSource(uri, credentials={}, settings=settings(az={"account": "theirs"}))
    assert anonymous._store.config["endpoint"] == endpoint


async def test_a_blob_version_is_read_as_such() -> None:
    pin = SourcePin(kind="Immutable", value="2026-01-01T00:00:00.0000000Z")

    async def handler(request: Request) -> None:
        if query_of(request).get("versionid") == "gone":
            return await answering(404, "BlobNotFound")(request)
        return await store(extra={"x-ms-version-id": pin.value})(request)

    async with Server(handler, None) as server, make(server) as source:
        assert (await source.stat("m.onnx")).pin == pin
        assert await transfer.read(source, "m.onnx", 3, 6, pin=pin) == BODY[3:6]
        with pytest.raises(SourceChangedError) as caught:
            await transfer.read(source, "m.onnx", 3, 6, pin=SourcePin(kind="Immutable", value="gone"))
    assert query_of(server.requests[1])["versionid"] == pin.value
    assert caught.value.observed == pin


@pytest.mark.parametrize("conditions", [True, False])
async def test_a_pin_finds_something_else(conditions) -> None:
    async with Server(store(conditions=conditions), None) as server, make(server) as source:
        with pytest.raises(SourceChangedError) as caught:
            await transfer.read(source, "m.onnx", 3, 6, pin=SourcePin(kind="Conditional", value='"0x0"'))
    assert caught.value.observed == V1


@pytest.mark.parametrize(
    ("status", "code", "reason", "words"),
    [
        (401, "NoAuthenticationInformation", Reason.SOURCE_UNAUTHORIZED, "without keys"),
        (403, "AuthenticationFailed", Reason.SOURCE_UNAUTHORIZED, "AZURE_STORAGE_ACCOUNT_KEY"),
        (404, "ResourceNotFound", Reason.SOURCE_UNAUTHORIZED, "without keys"),
        (409, "PublicAccessNotPermitted", Reason.SOURCE_UNAUTHORIZED, "without keys"),
        (404, "BlobNotFound", Reason.SOURCE_NOT_FOUND, "no such key in the container models"),
        (404, "ContainerNotFound", Reason.SOURCE_NOT_FOUND, "The container models"),
        (400, "InvalidUri", Reason.SOURCE_REFUSED, "InvalidUri"),
        (503, "ServerBusy", Reason.SOURCE_UNREACHABLE, "503"),
    ],
)
async def test_what_the_store_answers_is_told_with_what_to_do(status, code, reason, words) -> None:
    error = await error_of(answering(status, code), make)
    assert error.reason is reason
    assert words in error.message


async def test_what_passes_is_tried_again() -> None:
    assert await tries(failing(2, 503, store()), make, BODY, V1) == 3


async def test_a_key_signs_and_a_token_is_sent_along() -> None:
    async with Server(store(), None) as server:
        for credentials in (KEY, SAS):
            async with make(server, credentials=credentials, account="") as source:
                await source.stat("m.onnx")
    by_key, by_token = server.requests
    assert by_key.headers["authorization"].startswith("SharedKey theirs:")
    assert "authorization" not in by_token.headers
    assert query_of(by_token) == {"sv": "2023-11-03", "sp": "r", "sig": "th+eir="}


async def test_a_service_principal_gets_a_token_for_storage(tmp_path, monkeypatch) -> None:
    async def authority(request: Request) -> None:
        await request.answer_json({"access_token": "granted", "expires_in": 3600, "token_type": "Bearer"})

    async with (
        trap(monkeypatch, tmp_path),
        Server(authority, None) as login,
        Server(store(), None) as server,
    ):
        monkeypatch.setattr(azure, "AUTHORITY", login.url)
        async with make(server, credentials=PRINCIPAL) as source:
            await source.stat("m.onnx")
    assert path_of(login.requests[0]) == "/tenant/oauth2/v2.0/token"
    assert server.requests[0].headers["authorization"] == "Bearer granted"


@pytest.mark.parametrize("status", [400, 401])
async def test_a_service_principal_that_is_not_accepted_is_unauthorized(monkeypatch, status) -> None:
    async with Server(answering(status, "x"), None) as login, Server(store(), None) as server:
        monkeypatch.setattr(azure, "AUTHORITY", login.url)
        async with make(server, credentials=PRINCIPAL) as source:
            with pytest.raises(SourceError) as caught:
                await source.stat("m.onnx")
    assert caught.value.reason is Reason.SOURCE_UNAUTHORIZED
    assert not server.requests


@pytest.mark.parametrize("credentials", [{}, KEY])
async def test_the_environment_does_not_count(tmp_path, monkeypatch, credentials) -> None:
    async with (
        trap(monkeypatch, tmp_path),
        Server(store(), None) as server,
        make(server, credentials=credentials) as source,
    ):
        await source.stat("m.onnx")
        await transfer.download(source, "m.onnx", tmp_path / "m")
    for request in server.requests:
        assert path_of(request) == "/theirs/models/a/m.onnx"
        assert query_of(request) == {}
        assert not any(name.startswith("x-ms-encryption") for name in request.headers)
        assert request.headers.get("authorization", "").startswith("SharedKey theirs:") == bool(credentials)


async def test_workload_identity_is_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_TOKEN", "podtoken")
    async with Server(store(), None) as server:
        for credentials in ({}, KEY):
            async with make(server, credentials=credentials, workload_identity=True) as source:
                await source.stat("m.onnx")
    ambient, given = server.requests
    assert ambient.headers["authorization"] == "Bearer podtoken"
    assert given.headers["authorization"].startswith("SharedKey theirs:")


@pytest.mark.parametrize("uri", URIS[1:])
def test_keys_are_never_sent_to_another_account(uri) -> None:
    for credentials in (KEY, SAS, PRINCIPAL):
        error = refusal(uri.replace("theirs", "others"), credentials)
        assert error.reason is Reason.SOURCE_UNAUTHORIZED
        assert "others" in error.message
        # Whoever writes the URI may not be allowed to read the Secret.
        assert "theirs" not in error.message


@pytest.mark.parametrize("credentials", [KEY, SAS, PRINCIPAL])
def test_keys_must_say_which_account_they_are_for(credentials) -> None:
    without = {name: value for name, value in credentials.items() if name not in NAME}
    error = refusal(URIS[1], without)
    assert error.reason is Reason.SOURCE_UNAUTHORIZED
    assert "AZURE_STORAGE_ACCOUNT_NAME" in error.message


@pytest.mark.parametrize("missing", ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"])
def test_half_a_service_principal(missing) -> None:
    error = refusal(URIS[1], {name: value for name, value in PRINCIPAL.items() if name != missing})
    assert error.reason is Reason.SOURCE_UNAUTHORIZED
    assert f"lack {missing};" in error.message


def test_a_token_without_a_signature() -> None:
    assert refusal(URIS[0], NAME | {"AZURE_STORAGE_SAS_TOKEN": "s3cret"}).reason is Reason.SOURCE_UNAUTHORIZED


@pytest.mark.parametrize(
    "uri",
    [
        "az://",
        "az://models",
        "az://models/",
        "az://Mo dels/key",
        "az://models/../x",
        "abfss://models/key",
        "abfss://models@theirs.example.com/key",
        "abfss://models@theirs.dfs.core.windows.net",
        "https://theirs.blob.core.windows.net/models",
        "https://theirs.blob.core.windows.net/models/%2e%2e/key",
        "https://user@theirs.blob.core.windows.net/models/key",
    ],
)
def test_addresses_that_name_no_blob(uri) -> None:
    assert refusal(uri, {}, account="ours").reason is Reason.SOURCE_REFUSED


def test_a_link_with_a_token_is_not_read_with_keys_and_never_repeated() -> None:
    error = refusal(URIS[2] + "?sv=1&sig=s3cret", KEY)
    assert error.reason is Reason.SOURCE_REFUSED
    assert "has a query" in error.message


def test_an_address_without_an_account_needs_one_in_the_settings() -> None:
    error = refusal("az://models/m.onnx", {})
    assert error.reason is Reason.SOURCE_REFUSED
    assert "sources.az.account" in error.message


@pytest.mark.parametrize(
    ("uri", "blob"),
    [
        ("https://theirs.blob.core.windows.net/models/a/m.onnx", True),
        ("https://theirs.dfs.core.windows.net/models/a/", True),
        ("https://theirs.blob.core.windows.net/models/a/m.onnx?sv=1&sig=x", False),
        ("https://theirs.blob.core.windows.net/models", False),
        ("https://theirs.blob.core.windows.net.example.com/models/m.onnx", False),
        ("https://theirs.blob.core.windows.net:8443/models/m.onnx", False),
        ("http://theirs.blob.core.windows.net/models/m.onnx", False),
        ("https://example.com/models/m.onnx", False),
        ("https://[/models/m.onnx", False),
    ],
)
def test_addresses_of_blobs_are_told_from_other_links(uri, blob) -> None:
    assert is_blob_url(uri) is blob
