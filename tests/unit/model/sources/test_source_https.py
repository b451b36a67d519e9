import asyncio
import os
from contextlib import asynccontextmanager

import pytest
from webkit import Authority, FileServer, Request, Server, read, settings

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources.base import BrokenStreamError, FileStat, SourceChangedError, SourceError
from onnx_operator.model.sources.https import HttpsSource
from onnx_operator.model.sources.web import body, client

BODY = os.urandom(3 * 1024 * 1024 + 17)
V1 = SourcePin(kind="Conditional", value='"v1"')
SECRETS = ("SIGNATURE", "hunter2", "T0PSECRET")


@asynccontextmanager
async def source_of(
    server: Server, authority: Authority, path="/m.onnx?sig=SIGNATURE%2F+a", credentials=None, **changes
):
    uri = server.url + path
    # As the Secret's owner names it.
    credentials = {"HTTPS_HOSTS": server.url.removeprefix("https://"), **credentials} if credentials else {}
    async with HttpsSource(uri, credentials=credentials, settings=settings(authority, **changes)) as source:
        yield source


async def error_of(handler, authority: Authority, **changes) -> SourceError:
    async with Server(handler, authority.server) as server, source_of(server, authority, **changes) as source:
        with pytest.raises(SourceError) as caught:
            await read(source, "m.onnx")
    assert "127.0.0.1" in caught.value.message
    assert not any(secret in caught.value.message for secret in SECRETS)
    assert caught.value.retriable == (caught.value.reason is Reason.SOURCE_UNREACHABLE)
    return caught.value


async def break_of(handler, authority: Authority, begin: int = 0, end: int | None = None) -> str:
    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        with pytest.raises(BrokenStreamError) as caught:
            await read(source, "m.onnx", begin, end)
    return str(caught.value)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(("etag", "pin"), [('"v1"', V1), ('W/"v1"', None), (None, None)])
async def test_size_and_strong_etag_are_told_and_the_query_is_sent_as_it_was_given(authority, etag, pin, ranges):
    async with (
        Server(FileServer(BODY, etag, ranges=ranges), authority.server) as server,
        source_of(server, authority) as source,
    ):
        assert await source.locate() == ["m.onnx"]
        assert await source.stat("m.onnx") == FileStat(len(BODY), pin)
        body, stream = await read(source, "m.onnx")
    assert body == BODY
    assert (stream.stat, stream.begin) == (FileStat(len(BODY), pin), 0)
    assert {request.target for request in server.requests} == {"/m.onnx?sig=SIGNATURE%2F+a"}
    assert {request.headers["accept-encoding"] for request in server.requests} == {"identity"}


@pytest.mark.parametrize(("begin", "end"), [(0, 1), (0, 1000), (17, 18), (1_000_000, 3_000_000), (5, None)])
async def test_a_range_brings_exactly_the_bytes_asked_for(authority, begin, end) -> None:
    async with Server(FileServer(BODY), authority.server) as server, source_of(server, authority) as source:
        body, stream = await read(source, "m.onnx", begin, end, V1)
    assert body == BODY[begin:end]
    assert (stream.stat, stream.begin) == (FileStat(len(BODY), V1), begin)
    assert len(server.requests) == 1
    assert server.requests[0].headers["if-match"] == '"v1"'


async def test_hundreds_of_ranges_are_one_request_each_on_one_connection(authority) -> None:
    async with Server(FileServer(BODY), authority.server) as server, source_of(server, authority) as source:
        await source.stat("m.onnx")
        for number in range(150):
            begin = number * 16384
            assert (await read(source, "m.onnx", begin, begin + 16384, V1))[0] == BODY[begin : begin + 16384]
    assert (len(server.requests), server.connections) == (151, 1)


async def test_ranges_may_be_read_at_the_same_time(authority) -> None:
    async with Server(FileServer(BODY), authority.server) as server, source_of(server, authority) as source:
        begins = range(0, len(BODY), 300_000)
        parts = await asyncio.gather(*(read(source, "m.onnx", begin, begin + 300_000, V1) for begin in begins))
    assert b"".join(body for body, _ in parts) == BODY


async def test_a_small_answer_that_nobody_reads_costs_no_connection_and_a_large_one_is_cut(authority) -> None:
    async with Server(FileServer(BODY), authority.server) as server, source_of(server, authority) as source:
        for _ in range(5):
            async with source.open("m.onnx", 0, 10_000):
                pass
        assert server.connections == 1
        for _ in range(2):
            async with source.open("m.onnx"):
                pass
        await source.stat("m.onnx")
    assert server.connections == 3


async def test_a_server_without_ranges_sends_the_file_from_its_beginning(authority) -> None:
    handler = FileServer(BODY, ranges=False)
    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        body, stream = await read(source, "m.onnx", 1_000_000, 1_000_010)
    assert (body, stream.begin) == (BODY, 0)


async def test_an_empty_file(authority) -> None:
    async with Server(FileServer(b""), authority.server) as server, source_of(server, authority) as source:
        assert (await source.stat("m.onnx")).size == 0
        assert (await read(source, "m.onnx"))[0] == b""
        assert (await read(source, "m.onnx", 0, 100))[0] == b""


@pytest.mark.parametrize("pin", [None, V1])
async def test_nothing_comes_from_behind_the_end(authority, pin) -> None:
    async with Server(FileServer(BODY), authority.server) as server, source_of(server, authority) as source:
        body, stream = await read(source, "m.onnx", len(BODY), None, pin)
    assert (body, stream.stat.size) == (b"", len(BODY))


@pytest.mark.parametrize("conditions", [True, False])
async def test_a_pin_finds_something_else(authority, conditions) -> None:
    handler = FileServer(BODY, '"v2"', conditions=conditions)
    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        with pytest.raises(SourceChangedError) as caught:
            await read(source, "m.onnx", 0, 100, V1)
    assert caught.value.reason is Reason.SOURCE_CHANGED
    assert caught.value.observed == SourcePin(kind="Conditional", value='"v2"')
    assert '"v1"' in caught.value.message


async def test_a_pin_finds_something_without_a_strong_etag(authority) -> None:
    handler = FileServer(BODY, 'W/"v1"', conditions=False)
    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        with pytest.raises(SourceChangedError) as caught:
            await read(source, "m.onnx", pin=V1)
    assert caught.value.observed.kind == "None"


async def test_a_pin_without_version_is_a_plain_read(authority) -> None:
    async with Server(FileServer(BODY, None), authority.server) as server, source_of(server, authority) as source:
        body, _ = await read(source, "m.onnx", pin=SourcePin(kind="None", value="sha256:00"))
    assert body == BODY
    assert "if-match" not in server.requests[0].headers


async def test_files_beside_the_model_are_read_from_the_same_folder(authority) -> None:
    handler = FileServer(BODY)
    async with (
        Server(handler, authority.server) as server,
        source_of(server, authority, "/a%20b/m.onnx", {"HTTPS_BEARER_TOKEN": "T0PSECRET"}) as source,
    ):
        for name in ("m.onnx", "weights.bin", "sub/w ä?#%.bin", "https:w"):
            assert (await source.stat(name)).pin == V1
    assert [request.target for request in server.requests] == [
        "/a%20b/m.onnx",
        "/a%20b/weights.bin",
        "/a%20b/sub/w%20%C3%A4%3F%23%25.bin",
        "/a%20b/https%3Aw",
    ]
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer T0PSECRET"}


async def test_an_address_with_a_query_has_no_files_beside_it(authority) -> None:
    async with Server(FileServer(BODY), authority.server) as server, source_of(server, authority) as source:
        with pytest.raises(SourceError) as caught:
            await source.stat("weights.bin")
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert "weights.bin" in caught.value.message
    assert "SIGNATURE" not in caught.value.message
    assert not server.requests


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "", "a\\b", "a\nb"])
async def test_names_that_leave_the_folder_are_never_asked_for(authority, name) -> None:
    async with Server(FileServer(BODY), authority.server) as server, source_of(server, authority, "/m") as source:
        with pytest.raises(SourceError) as caught:
            await read(source, name)
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert not server.requests


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/m.onnx", "m.onnx"),
        ("/a/my%20model.zip?x=y.bin", "my model.zip"),
        ("/o/models%2Fm.onnx?alt=media", "m.onnx"),
        ("", "model.onnx"),
        ("/download/", "model.onnx"),
        ("/a/..%2f..", "model.onnx"),
        ("/a%00b", "model.onnx"),
    ],
)
async def test_the_file_is_named_by_its_address(path, name) -> None:
    async with HttpsSource(f"https://example.com{path}", credentials={}, settings=settings()) as source:
        assert await source.locate() == [name]


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
async def test_statuses(authority, status, reason, requests) -> None:
    seen = []

    async def handler(request: Request) -> None:
        seen.append(request)
        await request.answer(status)

    assert (await error_of(handler, authority)).reason is reason
    assert len(seen) == requests


@pytest.mark.parametrize(
    ("credentials", "words"), [({}, "asks for credentials"), ({"HTTPS_BEARER_TOKEN": "T0PSECRET"}, "not accepted")]
)
async def test_a_refused_visitor_is_told_what_to_check(authority, credentials, words) -> None:
    async def handler(request: Request) -> None:
        await request.answer(403)

    error = await error_of(handler, authority, credentials=credentials)
    assert words in error.message
    assert "HTTPS_BEARER_TOKEN" in error.message


async def test_too_many_requests_then_the_file(authority) -> None:
    answered = []

    async def handler(request: Request) -> None:
        answered.append(request)
        if len(answered) == 1:
            return await request.answer(429, {"Retry-After": "1"})
        return await FileServer(BODY)(request)

    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        assert (await read(source, "m.onnx"))[0] == BODY


async def test_a_long_retry_after_is_not_waited_for(authority) -> None:
    seen = []

    async def handler(request: Request) -> None:
        seen.append(request)
        await request.answer(429, {"Retry-After": "3600"})

    assert (await error_of(handler, authority)).reason is Reason.SOURCE_UNREACHABLE
    assert len(seen) == 1


async def test_a_kept_connection_that_the_server_closed_is_made_anew(authority) -> None:
    async def handler(request: Request) -> None:
        await FileServer(BODY)(request)
        request.complete = False

    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        for _ in range(3):
            assert (await read(source, "m.onnx", 0, 100))[0] == BODY[:100]
    assert server.connections == 3


async def test_silence_before_the_head(authority) -> None:
    async def handler(request: Request) -> None:
        await asyncio.sleep(60)

    assert (await error_of(handler, authority)).reason is Reason.SOURCE_UNREACHABLE


async def test_a_head_that_never_ends(authority, monkeypatch) -> None:
    monkeypatch.setattr(client, "_OPEN_SECONDS", 1.0)

    async def handler(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            request.writer.write(b"X-A: b\r\n")
            await request.writer.drain()
            await asyncio.sleep(0.1)

    assert (await error_of(handler, authority)).reason is Reason.SOURCE_UNREACHABLE


async def test_silence_in_the_body(authority) -> None:
    async def handler(request: Request) -> None:
        await request.answer(200, {"Content-Length": str(len(BODY))}, BODY[:1000])
        await asyncio.sleep(60)

    assert "stalled" in await break_of(handler, authority)


async def test_a_trickle(authority, monkeypatch) -> None:
    monkeypatch.setattr(body, "SLOW_WINDOW_SECONDS", 0.5)

    async def handler(request: Request) -> None:
        await request.answer(200, {"Content-Length": str(len(BODY))})
        for byte in BODY:
            request.writer.write(bytes([byte]))
            await request.writer.drain()
            await asyncio.sleep(0.05)

    assert "slow" in await break_of(handler, authority)


async def test_a_slow_reader_is_not_the_servers_fault(authority, monkeypatch) -> None:
    monkeypatch.setattr(body, "SLOW_WINDOW_SECONDS", 0.2)
    got = b""
    async with (
        Server(FileServer(BODY[:3000]), authority.server) as server,
        source_of(server, authority) as source,
        source.open("m.onnx") as stream,
    ):
        await asyncio.sleep(0.6)
        async for piece in stream.pieces:
            await asyncio.sleep(0.3)
            got += piece
    assert got == BODY[:3000]


async def test_a_body_shorter_than_promised(authority) -> None:
    async def handler(request: Request) -> None:
        await request.answer(200, {"Content-Length": str(len(BODY))}, BODY[:-10])

    assert "shorter" in await break_of(handler, authority)


@pytest.mark.parametrize(
    "span", ["bytes 0-9/100", "bytes 11-20/100", "chunks 10-19/100", "bytes", "", "bytes 9" + "9" * 5000 + "-1/1"]
)
async def test_an_answer_with_another_range_is_not_taken_for_the_one_asked_for(authority, span) -> None:
    async def handler(request: Request) -> None:
        await request.answer(206, {"Content-Range": span}, BODY[:10])

    assert "another range" in await break_of(handler, authority, 10, 20)


async def test_more_bytes_than_asked_for_are_cut(authority) -> None:
    async def handler(request: Request) -> None:
        await request.answer(206, {"Content-Range": "bytes 10-99/100"}, BODY[10:100])

    async with Server(handler, authority.server) as server, source_of(server, authority) as source:
        assert (await read(source, "m.onnx", 10, 20))[0] == BODY[10:20]


async def test_a_range_refused_although_the_file_is_longer_is_no_end_of_the_file(authority) -> None:
    async def handler(request: Request) -> None:
        await request.answer(416, {"Content-Range": "bytes */100"})

    assert "refuses the range" in await break_of(handler, authority, 10, 20)


async def test_no_tls(authority) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        uri = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/m"
        async with HttpsSource(uri, credentials={}, settings=settings(authority)) as source:
            with pytest.raises(SourceError) as caught:
                await source.stat("m")
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE
    assert "TLS" in caught.value.message


async def test_an_unknown_authority(authority) -> None:
    async with (
        Server(FileServer(BODY), authority.server) as server,
        HttpsSource(server.url + "/m", credentials={}, settings=settings()) as source,
    ):
        with pytest.raises(SourceError) as caught:
            await source.stat("m")
    assert caught.value.reason is Reason.SOURCE_UNREACHABLE
    assert "sources.https.caBundle" in caught.value.message


async def test_nobody_listens_and_names_that_do_not_exist(authority) -> None:
    for uri in ("https://127.0.0.1:1/m", "https://nowhere.invalid/m"):
        async with HttpsSource(uri, credentials={}, settings=settings(authority)) as source:
            with pytest.raises(SourceError) as caught:
                await source.stat("m")
        assert caught.value.reason is Reason.SOURCE_UNREACHABLE


async def test_an_encoded_body_is_refused(authority) -> None:
    error = await error_of(FileServer(BODY, extra={"Content-Encoding": "gzip"}), authority)
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
async def test_credentials_stay_with_their_origin(authority, credentials, header) -> None:
    async with Server(FileServer(BODY), authority.server) as other:

        async def handler(request: Request) -> None:
            if request.target.startswith("/first"):
                return await request.answer(302, {"Location": "/second?a=b"})
            return await request.answer(307, {"Location": f"{other.url}/third?sig=SIGNATURE%2F"})

        async with (
            Server(handler, authority.server) as server,
            source_of(server, authority, "/first", credentials) as source,
        ):
            assert (await read(source, "first"))[0] == BODY
    assert [request.target for request in server.requests] == ["/first", "/second?a=b"]
    assert [request.headers.get("authorization") for request in server.requests] == [header, header]
    assert [request.target for request in other.requests] == ["/third?sig=SIGNATURE%2F"]
    assert "authorization" not in other.requests[0].headers


async def test_ranges_pay_a_redirect_once_until_the_place_it_led_to_is_gone(authority) -> None:
    gone = []

    async def store(request: Request) -> None:
        if request.path in gone:
            return await request.answer(403)
        return await FileServer(BODY)(request)

    async with Server(store, authority.server) as other:

        async def handler(request: Request) -> None:
            await request.answer(302, {"Location": f"{other.url}/place{len(gone)}"})

        async with Server(handler, authority.server) as server, source_of(server, authority) as source:
            await source.stat("m.onnx")
            for number in range(10):
                await read(source, "m.onnx", number, number + 10, V1)
            assert len(server.requests) == 1
            gone.append("/place0")
            for number in range(10):
                assert (await read(source, "m.onnx", number, number + 10, V1))[0] == BODY[number : number + 10]
            assert len(server.requests) == 2
            await source.stat("m.onnx")
            assert len(server.requests) == 3


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
        "https://[]@/m",
    ],
)
async def test_redirects_that_are_not_followed(authority, location) -> None:
    async def handler(request: Request) -> None:
        # An empty or broken location leads back here, and so into a loop.
        await request.answer(302, {"Location": location})

    error = await error_of(handler, authority, allowed_networks=["127.0.0.0/8"])
    assert error.reason is Reason.SOURCE_REFUSED


async def test_a_redirect_loop_ends(authority) -> None:
    hops = []

    async def handler(request: Request) -> None:
        hops.append(request)
        await request.answer(302, {"Location": f"/{len(hops)}"})

    assert (await error_of(handler, authority)).reason is Reason.SOURCE_REFUSED
    assert len(hops) == 6


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
async def test_private_addresses_are_refused_before_a_connection(authority, host) -> None:
    async with Server(FileServer(BODY), authority.server) as server:
        uri = f"https://{host}:{server.port}/m?sig=SIGNATURE"
        async with HttpsSource(uri, credentials={}, settings=settings(authority, allowed_networks=[])) as source:
            with pytest.raises(SourceError) as caught:
                await source.stat("m")
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert "sources.allowedNetworks" in caught.value.message
    assert "SIGNATURE" not in caught.value.message
    assert not server.connections


async def test_proxies_of_the_environment_are_not_used(authority, monkeypatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Server(FileServer(BODY), authority.server) as server, source_of(server, authority) as source:
        assert (await source.stat("m.onnx")).size == len(BODY)


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
        HttpsSource(uri, credentials={}, settings=settings())
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert "hunter2" not in caught.value.message


def test_credentials_that_no_header_can_carry() -> None:
    with pytest.raises(SourceError) as caught:
        HttpsSource(
            "https://example.com/m",
            credentials={"HTTPS_BEARER_TOKEN": "a\r\nb", "HTTPS_HOSTS": "example.com"},
            settings=settings(),
        )
    assert caught.value.reason is Reason.SOURCE_UNAUTHORIZED


async def test_a_malformed_ca_bundle_is_named() -> None:
    broken = settings(https={"ca_bundle": "nonsense"})
    async with HttpsSource("https://127.0.0.1:1/m", credentials={}, settings=broken) as source:
        with pytest.raises(SourceError) as caught:
            await source.stat("m")
    assert "sources.https.caBundle" in caught.value.message


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("https://h/my model.onnx", "a blank in a name as %20"),
        ("https://h/a#b.onnx?sig=SIGNATURE", "# of a name as %23"),
    ],
)
def test_an_address_that_is_no_url_says_how_to_write_it(uri, words) -> None:
    with pytest.raises(SourceError) as caught:
        HttpsSource(uri, credentials={}, settings=settings())
    assert caught.value.reason is Reason.SOURCE_REFUSED
    assert words in caught.value.message
    assert "SIGNATURE" not in caught.value.message
