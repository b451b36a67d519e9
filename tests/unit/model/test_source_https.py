import asyncio
import hashlib
import os
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from webkit import Authority, FileServer, Request, Server, settings

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources import SourceChangedError, SourceError, open_source, transfer
from onnx_operator.model.sources import https as https_module

BODY = os.urandom(3 * 1024 * 1024 + 17)
SHA = hashlib.sha256(BODY).hexdigest()
V1 = SourcePin(kind="Conditional", value='"v1"')
SECRETS = ("SIGNATURE", "hunter2", "T0PSECRET")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


@asynccontextmanager
async def source_of(
    server: Server, authority: Authority, path="/m.onnx?sig=SIGNATURE%2F+a", credentials=None, **changes
):
    uri = server.url + path
    async with open_source(uri, credentials=credentials or {}, settings=settings(authority, **changes)) as source:
        yield source


async def error_of(handler, authority: Authority, out: Path, **changes) -> SourceError:
    async with Server(handler, authority.server) as server, source_of(server, authority, **changes) as source:
        with pytest.raises(SourceError) as caught:
            await source.download(out)
    assert "127.0.0.1" in caught.value.message
    assert not any(secret in caught.value.message for secret in SECRETS)
    assert caught.value.retriable == (caught.value.reason is Reason.SOURCE_UNREACHABLE)
    return caught.value


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(("etag", "pin"), [('"v1"', V1), ('W/"v1"', None), (None, None)])
async def test_stat_and_download(authority, out, etag, pin, ranges) -> None:
    progress: list[tuple[int, int | None]] = []
    async with (
        Server(FileServer(BODY, etag, ranges=ranges), authority.server) as server,
        source_of(server, authority) as source,
    ):
        stat = await source.stat()
        got = await source.download(out, progress=lambda *p: progress.append(p))
    assert (stat.size, stat.pin, stat.sha256) == (len(BODY), pin, None)
    assert (got.sha256, got.size, got.pin) == (SHA, len(BODY), pin)
    assert out.read_bytes() == BODY
    assert progress[-1] == (len(BODY), len(BODY))
    assert progress == sorted(progress)
    assert {request.target for request in server.requests} == {"/m.onnx?sig=SIGNATURE%2F+a"}
    assert {request.headers["accept-encoding"] for request in server.requests} == {"identity"}


async def test_empty_file(authority, out) -> None:
    async with Server(FileServer(b""), authority.server) as server, source_of(server, authority) as source:
        assert (await source.stat()).size == 0
        assert (await source.download(out)).size == 0


@pytest.mark.parametrize("conditions", [True, False])
async def test_a_pin_finds_something_else(authority, out, conditions) -> None:
    handler = FileServer(BODY, '"v2"', conditions=conditions)
    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        with pytest.raises(SourceChangedError) as caught:
            await source.download(out, pin=V1)
    assert caught.value.reason is Reason.SOURCE_CHANGED
    assert caught.value.observed == SourcePin(kind="Conditional", value='"v2"')


async def test_a_pin_finds_something_without_a_strong_etag(authority, out) -> None:
    handler = FileServer(BODY, 'W/"v1"', conditions=False)
    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        with pytest.raises(SourceChangedError) as caught:
            await source.download(out, pin=V1)
    assert caught.value.observed.kind == "None"


async def test_a_pin_without_version_is_a_plain_read(authority, out) -> None:
    async with Server(FileServer(BODY, None), authority.server) as server, source_of(server, authority) as source:
        got = await source.download(out, pin=SourcePin(kind="None", value="sha256:00"))
    assert got.sha256 == SHA
    assert "if-match" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("status", "reason", "requests"),
    [
        (401, Reason.SOURCE_UNAUTHORIZED, 1),
        (403, Reason.SOURCE_UNAUTHORIZED, 1),
        (404, Reason.SOURCE_NOT_FOUND, 1),
        (410, Reason.SOURCE_NOT_FOUND, 1),
        (400, Reason.SOURCE_REFUSED, 1),
        (500, Reason.SOURCE_UNREACHABLE, 3),
        (503, Reason.SOURCE_UNREACHABLE, 3),
    ],
)
async def test_statuses(authority, out, status, reason, requests) -> None:
    seen = []

    async def handler(request: Request) -> None:
        seen.append(request)
        await request.answer(status)

    assert (await error_of(handler, authority, out)).reason is reason
    assert len(seen) == requests


async def test_too_many_requests_then_the_file(authority, out) -> None:
    answered = []

    async def handler(request: Request) -> None:
        answered.append(request)
        if len(answered) == 1:
            return await request.answer(429, {"Retry-After": "1"})
        return await FileServer(BODY)(request)

    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        assert (await source.download(out)).sha256 == SHA


async def test_a_long_retry_after_is_not_waited_for(authority, out) -> None:
    async def handler(request: Request) -> None:
        await request.answer(429, {"Retry-After": "3600"})

    assert (await error_of(handler, authority, out)).reason is Reason.SOURCE_UNREACHABLE


async def test_silence_before_the_head(authority, out) -> None:
    async def handler(request: Request) -> None:
        await asyncio.sleep(60)

    assert (await error_of(handler, authority, out)).reason is Reason.SOURCE_UNREACHABLE


async def test_a_head_that_never_ends(authority, out, monkeypatch) -> None:
    monkeypatch.setattr(https_module, "_OPEN_SECONDS", 1.0)

    async def handler(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            request.writer.write(b"X-A: b\r\n")
            await request.writer.drain()
            await asyncio.sleep(0.1)

    assert (await error_of(handler, authority, out)).reason is Reason.SOURCE_UNREACHABLE


async def test_silence_in_the_body(authority, out) -> None:
    async def handler(request: Request) -> None:
        await request.answer(200, {"Content-Length": str(len(BODY))}, BODY[:1000])
        await asyncio.sleep(60)

    assert (await error_of(handler, authority, out)).reason is Reason.SOURCE_UNREACHABLE


async def test_a_trickle(authority, out, monkeypatch) -> None:
    monkeypatch.setattr(transfer, "SLOW_WINDOW_SECONDS", 0.5)

    async def handler(request: Request) -> None:
        await request.answer(200, {"Content-Length": str(len(BODY))})
        for byte in BODY:
            request.writer.write(bytes([byte]))
            await request.writer.drain()
            await asyncio.sleep(0.05)

    error = await error_of(handler, authority, out)
    assert error.reason is Reason.SOURCE_UNREACHABLE
    assert "slow" in error.message


async def test_a_body_that_is_always_short(authority, out) -> None:
    async def handler(request: Request) -> None:
        await request.answer(200, {"Content-Length": str(len(BODY))}, BODY[:-10])

    assert (await error_of(handler, authority, out)).reason is Reason.SOURCE_UNREACHABLE


async def test_no_tls(authority) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        uri = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/m"
        async with open_source(uri, credentials={}, settings=settings(authority)) as source:
            with pytest.raises(SourceError) as caught:
                await source.stat()
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE
    assert "TLS" in caught.value.message


async def test_an_unknown_authority(authority, out) -> None:
    async with (
        Server(FileServer(BODY), authority.server) as server,
        open_source(server.url + "/m", credentials={}, settings=settings()) as source,
    ):
        with pytest.raises(SourceError) as caught:
            await source.stat()
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE
    assert "sources.https.caBundle" in caught.value.message


async def test_nobody_listens_and_names_that_do_not_exist(authority) -> None:
    for uri in ("https://127.0.0.1:1/m", "https://nowhere.invalid/m"):
        async with open_source(uri, credentials={}, settings=settings(authority)) as source:
            with pytest.raises(SourceError) as caught:
                await source.stat()
        assert caught.value.reason is Reason.SOURCE_UNREACHABLE


async def test_a_broken_stream_continues_under_the_same_etag(authority, out) -> None:
    async def handler(request: Request) -> None:
        start = request.start()
        size = len(BODY) - start
        headers = {"ETag": '"v1"', "Content-Length": str(size)}
        headers |= {"Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"} if start else {}
        await request.answer(206 if start else 200, headers, BODY[start : start + 1_000_000])

    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        got = await source.download(out)
    assert got.sha256 == SHA
    assert out.read_bytes() == BODY
    assert len(server.requests) > 1
    assert {request.headers["if-match"] for request in server.requests[1:]} == {'"v1"'}


async def test_a_broken_stream_without_an_etag_starts_over(authority, out) -> None:
    tries = []

    async def handler(request: Request) -> None:
        tries.append(request)
        body = BODY if len(tries) > 1 else BODY[:1000]
        await request.answer(200, {"Content-Length": str(len(BODY))}, body)

    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        assert (await source.download(out)).sha256 == SHA
    assert all("range" not in request.headers for request in server.requests)


@pytest.mark.parametrize("conditions", [True, False])
async def test_a_file_replaced_in_the_middle_is_never_mixed(authority, out, conditions) -> None:
    other = FileServer(os.urandom(len(BODY)), '"v2"', conditions=conditions)
    tries = []

    async def handler(request: Request) -> None:
        tries.append(request)
        if len(tries) > 1:
            return await other(request)
        return await request.answer(200, {"ETag": '"v1"', "Content-Length": str(len(BODY))}, BODY[:1_500_000])

    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        with pytest.raises(SourceChangedError):
            await source.download(out)


@pytest.mark.parametrize("there", [0, 1, 1_000_000, len(BODY)])
@pytest.mark.parametrize("ranges", [True, False])
async def test_resume(authority, out, there, ranges) -> None:
    out.write_bytes(BODY[:there])
    async with (
        Server(FileServer(BODY, ranges=ranges), authority.server) as server,
        source_of(server, authority) as source,
    ):
        got = await source.download(out, pin=V1, resume=True)
    assert (got.sha256, got.size) == (SHA, len(BODY))
    assert out.read_bytes() == BODY
    if there:
        assert server.requests[0].headers["range"] == f"bytes={there}-"


async def test_resume_over_a_longer_file_starts_over(authority, out) -> None:
    out.write_bytes(BODY + b"more")
    async with Server(FileServer(BODY), authority.server) as server, source_of(server, authority) as source:
        assert (await source.download(out, pin=V1, resume=True)).sha256 == SHA
    assert out.read_bytes() == BODY


async def test_resume_without_a_pin_starts_over(authority, out) -> None:
    out.write_bytes(b"x" * 100)
    async with Server(FileServer(BODY, None), authority.server) as server, source_of(server, authority) as source:
        pin = SourcePin(kind="None", value=f"sha256:{SHA}")
        assert (await source.download(out, pin=pin, resume=True)).sha256 == SHA


@pytest.mark.parametrize("announced", [True, False])
async def test_too_large(authority, out, announced) -> None:
    async def handler(request: Request) -> None:
        if announced:
            return await request.answer(200, {}, BODY)
        request.writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY)
        return await request.writer.drain()

    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        with pytest.raises(SourceError) as caught:
            await source.download(out, max_bytes=100_000)
    assert caught.value.reason is Reason.TOO_LARGE
    assert out.stat().st_size <= 100_000


async def test_an_encoded_body_is_refused(authority, out) -> None:
    error = await error_of(FileServer(BODY, extra={"Content-Encoding": "gzip"}), authority, out)
    assert error.reason is Reason.SOURCE_REFUSED
    assert "gzip" in error.message


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        ({"HTTPS_BEARER_TOKEN": "T0PSECRET"}, "Bearer T0PSECRET"),
        ({"HTTPS_USERNAME": "u", "HTTPS_PASSWORD": "hunter2"}, "Basic dTpodW50ZXIy"),
        ({"AWS_ACCESS_KEY_ID": "x"}, None),
    ],
)
async def test_credentials_stay_with_their_origin(authority, out, credentials, header) -> None:
    async with Server(FileServer(BODY), authority.server) as other:

        async def handler(request: Request) -> None:
            if request.target.startswith("/first"):
                return await request.answer(302, {"Location": "/second?a=b"})
            return await request.answer(307, {"Location": f"{other.url}/third?sig=SIGNATURE%2F"})

        async with (
            Server(handler, authority.server) as server,
            source_of(server, authority, "/first", credentials) as source,
        ):
            assert (await source.download(out)).sha256 == SHA
    assert [request.target for request in server.requests] == ["/first", "/second?a=b"]
    assert [request.headers.get("authorization") for request in server.requests] == [header, header]
    assert [request.target for request in other.requests] == ["/third?sig=SIGNATURE%2F"]
    assert "authorization" not in other.requests[0].headers


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/m",
        "https://169.254.169.254/latest/meta-data?x=SIGNATURE",
        "https://[::1]:1/m",
        "https://[::ffff:10.0.0.1]/m",
        "https://u:hunter2@127.0.0.1/m",
        "file:///etc/passwd",
        "https://",
        "",
        "https://[",
    ],
)
async def test_redirects_that_are_not_followed(authority, out, location) -> None:
    async def handler(request: Request) -> None:
        # An empty or broken location leads back here, and so into a loop.
        await request.answer(302, {"Location": location})

    error = await error_of(handler, authority, out, allowed_networks=["127.0.0.0/8"])
    assert error.reason is Reason.SOURCE_REFUSED


async def test_a_redirect_loop_ends(authority, out) -> None:
    hops = []

    async def handler(request: Request) -> None:
        hops.append(request)
        await request.answer(302, {"Location": f"/{len(hops)}"})

    assert (await error_of(handler, authority, out)).reason is Reason.SOURCE_REFUSED
    assert len(hops) == 6


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_private_addresses_are_refused_before_a_connection(authority, host) -> None:
    async with Server(FileServer(BODY), authority.server) as server:
        uri = f"https://{host}:{server.port}/m?sig=SIGNATURE"
        async with open_source(uri, credentials={}, settings=settings(authority, allowed_networks=[])) as source:
            with pytest.raises(SourceError) as caught:
                await source.stat()
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert "sources.allowedNetworks" in caught.value.message
    assert "SIGNATURE" not in caught.value.message
    assert not server.requests


async def test_proxies_of_the_environment_are_not_used(authority, out, monkeypatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Server(FileServer(BODY), authority.server) as server, source_of(server, authority) as source:
        assert (await source.stat()).size == len(BODY)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "model.onnx",
        "http://example.com/m",
        "ftp://example.com/m",
        "file:///etc/passwd",
        "https://",
        "https:///m",
        "https://u:hunter2@example.com/m",
        "https://example.com:99999/m",
        "https://[::1/m",
        "https://exa mple.com/",
        "https://example.com/\r\nX: y",
    ],
)
def test_addresses_that_are_never_read(uri) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(uri, credentials={}, settings=settings())
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert "hunter2" not in caught.value.message


def test_credentials_that_no_header_can_carry() -> None:
    with pytest.raises(SourceError) as caught:
        open_source("https://example.com/m", credentials={"HTTPS_BEARER_TOKEN": "a\r\nb"}, settings=settings())
    assert caught.value.reason is Reason.SOURCE_UNAUTHORIZED


async def test_a_malformed_ca_bundle_is_named() -> None:
    broken = settings(https={"ca_bundle": "nonsense"})
    async with open_source("https://127.0.0.1:1/m", credentials={}, settings=broken) as source:
        with pytest.raises(SourceError) as caught:
            await source.stat()
    assert "sources.https.caBundle" in caught.value.message
