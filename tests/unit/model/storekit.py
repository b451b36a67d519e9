"""A store of objects made up here, which fails on command."""

from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from webkit import Handler, Request, Server, settings

from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources import Source, SourceError, objects, transfer

LAST_MODIFIED = {"Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}


@pytest.fixture
def quick_retries(monkeypatch) -> None:
    """Nobody waits between two tries."""
    monkeypatch.setattr(objects, "FIRST_DELAY_SECONDS", 0.001)


async def error_of(handler: Handler, make: Callable[[Server], Source]) -> SourceError:
    """What a source tells of a store that answers like this."""
    async with Server(handler, None) as server, make(server) as source:
        with pytest.raises(SourceError) as caught:
            await source.stat("m.onnx")
    return caught.value


async def tries(handler: Handler, make: Callable[[Server], Source], body: bytes, pin: SourcePin) -> int:
    """Read ``body`` from a store that answers like this, and count the requests that it took."""
    async with Server(handler, None) as server, make(server) as source:
        assert await transfer.read(source, "m.onnx", 5, 9, pin=pin) == body[5:9]
    return len(server.requests)


@dataclass
class ObjectServer:
    """Serves one object under every path, with ranges and conditions as far as it is told to."""

    body: bytes
    etag: str | None = '"v1"'
    ranges: bool = True
    conditions: bool = True
    extra: dict[str, str] = field(default_factory=dict)

    async def __call__(self, request: Request) -> None:
        headers = LAST_MODIFIED | self.extra | ({"ETag": self.etag} if self.etag else {})
        if self.conditions and request.headers.get("if-match", self.etag) != self.etag:
            return await request.answer(412, {})
        if request.method == "HEAD":
            # The body of a HEAD stays away; its length does not.
            return await request.answer(200, headers | {"Content-Length": str(len(self.body))})
        if "range" not in request.headers or not self.ranges:
            return await request.answer(200, headers, self.body)
        start = request.start()
        if start >= len(self.body):
            return await request.answer(416, headers | {"Content-Range": f"bytes */{len(self.body)}"})
        stop = request.stop(len(self.body))
        span = f"bytes {start}-{stop - 1}/{len(self.body)}"
        return await request.answer(206, headers | {"Content-Range": span}, self.body[start:stop])


def failing(times: int, status: int, then: Handler, code: str = "SlowDown") -> Handler:
    """Answer ``status`` as often as told, and by ``then`` from there on."""
    left = [times]

    async def handler(request: Request) -> None:
        if left[0]:
            left[0] -= 1
            return await answering(status, code)(request)
        return await then(request)

    return handler


def answering(status: int, code: str) -> Handler:
    """Answer all requests with an error as these stores write it."""

    async def handler(request: Request) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>theirkey</Message></Error>"
        await request.answer(status, {}, b"" if request.method == "HEAD" else text.encode())

    return handler


def path_of(request: Request) -> str:
    """The path that was asked for, decoded."""
    return unquote(urlsplit(request.target).path)


def query_of(request: Request) -> dict[str, str]:
    """The query of a request."""
    return {name: values[0] for name, values in parse_qs(urlsplit(request.target).query).items()}


@asynccontextmanager
async def trap(monkeypatch, tmp_path):
    """An environment full of our own identity, with a server that must never be asked."""
    async with Server(answering(500, "Trap"), None) as server:
        home = tmp_path / "home"
        adc = home / ".config" / "gcloud" / "application_default_credentials.json"
        adc.parent.mkdir(parents=True)
        adc.write_text(
            '{"type": "authorized_user", "client_id": "ours", "client_secret": "oursecret", "refresh_token": "ours"}'
        )
        for name, value in _hostile(server.url, str(adc)).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HOME", str(home))
        yield server
        assert not server.requests, "something else than the store was asked"


def _hostile(url: str, file: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "ourkey",
        "AWS_SECRET_ACCESS_KEY": "oursecret",
        "AWS_SESSION_TOKEN": "ourtoken",
        "AWS_ENDPOINT_URL": url,
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ENDPOINT": url,
        "AWS_REGION": "mars-1",
        "AWS_DEFAULT_REGION": "mars-1",
        "AWS_BUCKET": "ours",
        "AWS_WEB_IDENTITY_TOKEN_FILE": file,
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/ours",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/x",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": url,
        "AWS_METADATA_ENDPOINT": url,
        "AWS_PROXY_URL": url,
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_S3_EXPRESS": "true",
        "AWS_REQUEST_PAYER": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_SERVER_SIDE_ENCRYPTION": "sse-c",
        "AWS_SSE_CUSTOMER_KEY_BASE64": "b3VyIGtleSBvZiAzMiBieXRlcywgYWxsIG91ciBvd24=",
        "GOOGLE_SERVICE_ACCOUNT": file,
        "GOOGLE_SERVICE_ACCOUNT_PATH": file,
        "SERVICE_ACCOUNT": file,
        "GOOGLE_SERVICE_ACCOUNT_KEY": '{"client_email": "ours", "private_key": "ours", "private_key_id": "ours"}',
        "GOOGLE_APPLICATION_CREDENTIALS": file,
        "GOOGLE_BEARER_TOKEN": "ourtoken",
        "GOOGLE_BASE_URL": url,
        "GOOGLE_BUCKET": "ours",
        "GOOGLE_PROXY_URL": url,
        "GOOGLE_SKIP_SIGNATURE": "false",
        "GCE_METADATA_HOST": url.removeprefix("http://"),
        "AZURE_STORAGE_ACCOUNT_NAME": "ours",
        "AZURE_STORAGE_ACCOUNT_KEY": "b3Vycw==",
        "AZURE_STORAGE_SAS_TOKEN": "sig=ours",
        "AZURE_STORAGE_TOKEN": "ourtoken",
        "AZURE_TENANT_ID": "ours",
        "AZURE_CLIENT_ID": "ours",
        "AZURE_CLIENT_SECRET": "oursecret",
        "AZURE_FEDERATED_TOKEN_FILE": file,
        "AZURE_AUTHORITY_HOST": url,
        "AZURE_STORAGE_ENDPOINT": url,
        "AZURE_ENDPOINT": url,
        "AZURE_STORAGE_USE_EMULATOR": "true",
        "AZURE_USE_AZURE_CLI": "true",
        "AZURE_CONTAINER_NAME": "ours",
        "AZURE_ENCRYPTION_KEY": "b3VyIGtleSBvZiAzMiBieXRlcywgYWxsIG91ciBvd24=",
        "AZURE_MSI_ENDPOINT": url,
        "AZURE_IDENTITY_ENDPOINT": url,
        "AZURE_PROXY_URL": url,
        "AZURE_SKIP_SIGNATURE": "false",
        "IDENTITY_ENDPOINT": url,
        "MSI_ENDPOINT": url,
        "AZURITE_BLOB_STORAGE_URL": url,
    }


__all__ = [
    "LAST_MODIFIED",
    "ObjectServer",
    "answering",
    "error_of",
    "failing",
    "path_of",
    "query_of",
    "quick_retries",
    "settings",
    "trap",
    "tries",
]
