"""A stranger's web server neither keeps an inspection busy, nor fills its memory, nor sends it where it may not go."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.model.sources import SourceError, open_source
from onnx_operator.model.sources.base import BrokenStreamError
from onnx_operator.model.sources.mlflowapi import MlflowAnswer, onnx_file
from onnx_operator.model.sources.ocimanifest import chosen_manifest, read_document, read_manifest
from onnx_operator.model.sources.web import answers
from onnx_operator.model.sources.web.challenges import challenges
from onnx_operator.model.sources.web.documents import ByteBudget, budget, decode
from tests.security.documents import ENTRY, WORST, misplaced, stuffed
from tests.security.fuzzing import Fuzz, mutated, pieces
from tests.unit.model.webkit import Authority, FileServer, Request, Server, read, settings

HANG_SECONDS = 60.0
LARGE = 256 << 10
MODEL = b"a model" * 100
DIGEST = "sha256:" + "0" * 64


def allowing(authority: Authority, hub: str = "", tracking: str = "", **changes):
    bundle = {"ca_bundle": authority.pem}
    return settings(
        authority,
        oci=bundle,
        hf=bundle | ({"endpoint": hub} if hub else {}),
        mlflow=bundle | ({"tracking_uri": tracking} if tracking else {}),
        **changes,
    )


async def looked_at(uri: str, given) -> None:
    """Find the model and look at it, as an inspection begins."""
    async with asyncio.timeout(HANG_SECONDS), open_source(uri, credentials={}, settings=given) as source:
        for name in await source.locate():
            await source.stat(name)
            async with source.open(name) as stream:
                async for _ in stream.pieces:
                    pass


async def refusal(uri: str, given) -> SourceError:
    with pytest.raises(SourceError) as caught:
        await looked_at(uri, given)
    return caught.value


# --- Documents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        b'ETag: "\xff"',
        b'ETag: "a\x80b"',
        b"Content-Encoding: \xff\xfe",
        b"Content-Range: bytes \xb2-\xb2/\xb2",
        b"Retry-After: \xb2",
        b"Location: https://\xff/",
        b'WWW-Authenticate: Bearer realm="https://127.0.0.1/\xff",service="\xff"',
        b'WWW-Authenticate: Bearer realm="https://127.0.0.1/",service="\xff"',
    ],
)
@pytest.mark.parametrize("status", [200, 206, 302, 401, 503])
async def test_bytes_that_are_no_text_in_a_header_harm_nobody(authority, headers: bytes, status: int) -> None:
    async def answer(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 1\r\n%b\r\n\r\na" % (status, headers))
        await request.writer.drain()
        request.complete = True

    async with Server(answer, authority.server) as server:
        for uri in (f"https://127.0.0.1:{server.port}/m.onnx", f"oci://127.0.0.1:{server.port}/m"):
            given = allowing(authority, allowed_networks=["127.0.0.1/32"])
            try:
                await looked_at(uri, given)
            except (SourceError, BrokenStreamError) as error:
                refused = str(error)
                assert refused.encode()


@pytest.mark.parametrize(
    "head",
    [
        b"302 X\r\nLocation: https://[]@/",
        b"302 X\r\nLocation: ftp://127.0.0.1/m.onnx",
        b"200 X\r\nContent-Encoding: gzip",
        b'401 X\r\nWWW-Authenticate: Bearer realm="ftp://127.0.0.1/"',
        b'401 X\r\nWWW-Authenticate: Bearer realm="https://127.0.0.1:1/token"',
        b"404 X",
    ],
)
async def test_a_refused_answer_keeps_no_connection(authority, head: bytes) -> None:
    closed = asyncio.Event()

    async def answer(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 %b\r\nContent-Length: 1000000\r\n\r\na" % head)
        try:
            while True:
                request.writer.write(b" ")
                await request.writer.drain()
                await asyncio.sleep(0.01)
        except OSError:
            closed.set()

    async with Server(answer, authority.server) as server:
        given = allowing(authority, allowed_networks=["127.0.0.1/32"])
        async with open_source(f"oci://127.0.0.1:{server.port}/m", credentials={}, settings=given) as source:
            with pytest.raises(SourceError):
                await source.locate()
            async with asyncio.timeout(HANG_SECONDS):
                await closed.wait()


def of_registry(body: bytes, path: str = "/manifests/") -> Callable[[Request], Awaitable[None]]:
    async def answer(request: Request) -> None:
        await (request.answer(200, {}, body) if path in request.target else request.answer(404))

    return answer


def of_token_service(body: bytes) -> Callable[[Request], Awaitable[None]]:
    async def answer(request: Request) -> None:
        if request.path == "/token":
            return await request.answer(200, {}, body)
        realm = f"https://{request.headers['host']}/token"
        return await request.answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}"'})

    return answer


def of_description(body: bytes) -> Callable[[Request], Awaitable[None]]:
    async def answer(request: Request) -> None:
        if request.path.endswith("/MLmodel"):
            return await request.answer(200, {}, body)
        if request.path.endswith("/mlflow-artifacts/artifacts"):
            return await request.answer_json({"files": [{"path": "MLmodel", "is_dir": False}]})
        return await request.answer_json({"artifact_uri": "mlflow-artifacts:/0/a"})

    return answer


def uri_at(kind: str, server: Server) -> str:
    return {
        "manifest": f"oci://127.0.0.1:{server.port}/m",
        "token": f"oci://127.0.0.1:{server.port}/m",
        "hub": "hf://org/model",
        "mlflow": "models:/m/1",
        "description": "models:/m/1",
    }[kind]


DOCUMENTS = {
    "manifest": (of_registry, "the manifest or index", LARGE),
    "token": (of_token_service, "the registry's token service", 64 << 10),
    "hub": (lambda body: of_registry(body, "/api/models/"), "the hub's list of files", LARGE),
    "mlflow": (lambda body: of_registry(body, "/api/2.0/"), "the MLflow server's answer", LARGE),
    "description": (of_description, "the MLmodel file", LARGE),
}


async def answered(authority: Authority, kind: str, body: bytes) -> SourceError:
    make = DOCUMENTS[kind][0]
    async with Server(make(body), authority.server) as server:
        return await refusal(uri_at(kind, server), allowing(authority, server.url, server.url))


@pytest.mark.parametrize("kind", DOCUMENTS)
async def test_a_document_that_is_too_large_is_refused_by_name_size_and_limit(authority, kind: str) -> None:
    _, name, limit = DOCUMENTS[kind]
    body = b" " * (4 << 20)
    error = await answered(authority, kind, body)
    assert error.reason is Reason.SOURCE_REFUSED
    assert name in error.message
    assert f"at most {limit}" in error.message


@pytest.mark.parametrize("kind", ["manifest", "token", "hub", "mlflow"])
async def test_an_endless_document_is_left_at_its_limit(authority, kind: str) -> None:
    sent = 0

    def make(_: bytes):
        inner = DOCUMENTS[kind][0](b"")

        async def endless(request: Request) -> None:
            nonlocal sent
            if kind == "token" and request.path != "/token":
                return await inner(request)
            request.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                request.writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                await request.writer.drain()
                sent += 0x10000

        return endless

    async with Server(make(b""), authority.server) as server:
        error = await refusal(uri_at(kind, server), allowing(authority, server.url, server.url))
    assert error.reason is Reason.SOURCE_REFUSED
    # What lies in sockets' buffers is beyond anyone's reach.
    assert sent < 32 << 20


MALFORMED = {
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"manifests":' * 10_000,
    "deep field": b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "huge integer": b'{"layers":[{"size":' + b"9" * 100_000 + b"}]}",
    "huge integer elsewhere": b'{"x":' + b"9" * 100_000 + b"}",
    "lone surrogate": b'{"x":"\\ud800"}',
    "lone surrogate's bytes": b'{"x":"\xed\xa0\x80"}',
    "no UTF-8": b'{"x":"\xff"}',
    "UTF-16": '{"x":1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "nothing": b"",
    "NUL": b"\x00",
    "two": b"{}{}",
    "text": b'"x"',
    "number": b"1",
    "list": b"[]",
    "null": b"null",
    **{f"misplaced {name}": misplaced(each, 64 << 10, "layers") for name, each in WORST.items()},
    **{f"misplaced versions {name}": misplaced(each, 60 << 10, "model_versions") for name, each in WORST.items()},
    "size of a fraction": b'{"layers":[{"size":1.5}]}',
    "size of a text": b'{"layers":[{"size":"1"}]}',
    "size of a truth": b'{"layers":[{"size":true}]}',
    "size NaN": b'{"layers":[{"size":NaN}]}',
    "wrong everywhere": b'{"token":[],"sha":{},"siblings":"","artifact_uri":1,"manifests":"","layers":1}',
    "the last of two": b'{"layers":[],"layers":1,"token":"a","token":1,"sha":"","sha":1,"artifact_uri":"","files":1}',
}


@pytest.mark.parametrize("kind", DOCUMENTS)
async def test_a_malformed_document_is_a_refusal(authority, kind: str) -> None:
    for name, body in MALFORMED.items():
        error = await answered(authority, kind, body)
        assert error.reason in (Reason.SOURCE_REFUSED, Reason.SOURCE_NOT_FOUND), name
        assert len(error.message) < 1000, name
        assert error.message.isprintable(), name


def test_the_beginning_of_a_long_description_is_enough(authority) -> None:
    text = b"flavors:\n  onnx:\n    data: m.onnx\nsignature:\n  inputs: '" + b"x" * (1 << 20)

    async def found() -> None:
        async with Server(of_description(text), authority.server) as server:
            given = allowing(authority, server.url, server.url)
            async with open_source("models:/m/1", credentials={}, settings=given) as source:
                assert await source.locate() == ["m.onnx"]

    asyncio.run(found())


MEASURE = """
import sys
from onnx_operator.model.sources.mlflowapi import MlflowAnswer
from onnx_operator.model.sources.ocimanifest import read_document
from onnx_operator.model.sources.web.documents import decode
from onnx_operator.model.sources.base import SourceError
bodies = sys.stdin.buffer.read().split(b"\\n")
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
read_document(b"{}", "x"); decode(MlflowAnswer, b"{}", "x", "x")
before = peak()
for body in bodies:
    for read in (read_document, lambda body, shown: decode(MlflowAnswer, body, shown, "x")):
        try:
            read(body, "x")
        except SourceError:
            pass
print(peak() - before)
"""


def test_the_costliest_documents_of_full_size_take_few_megabytes_while_they_are_read() -> None:
    bodies = [stuffed(element, LARGE) for element in WORST.values()]
    bodies += [misplaced(each, LARGE, field) for each in WORST.values() for field in ("layers", "files", "message")]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], input=b"\n".join(bodies), capture_output=True, timeout=HANG_SECONDS, check=True
    )
    assert int(done.stdout) < 24 << 10


async def test_documents_share_a_budget_in_the_order_in_which_they_ask() -> None:
    shared = ByteBudget(10)
    log: list[str] = []
    gates = {name: asyncio.Event() for name in "abcd"}

    async def hold(name: str, size: int) -> None:
        async with shared.hold(size):
            assert shared.free >= 0
            log.append(name)
            await gates[name].wait()

    tasks = {name: asyncio.create_task(hold(name, size)) for name, size in {"a": 6, "b": 9, "c": 4, "d": 99}.items()}
    await asyncio.sleep(0)
    assert log == ["a"]
    tasks["b"].cancel()
    await asyncio.sleep(0.01)
    assert log == ["a", "c"]
    gates["a"].set()
    gates["c"].set()
    await asyncio.sleep(0.01)
    assert log == ["a", "c", "d"]
    gates["d"].set()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert shared.free == 10


@pytest.mark.fuzz
def test_the_budget_is_whole_again_whatever_was_cancelled(fuzz: Fuzz) -> None:
    async def run(rng) -> None:
        shared = ByteBudget(rng.randint(1, 100))

        async def hold(size: int, turns: int) -> None:
            async with shared.hold(size):
                assert 0 <= shared.free <= shared.size
                for _ in range(turns):
                    await asyncio.sleep(0)

        tasks = [asyncio.create_task(hold(rng.randint(0, 120), rng.randrange(4))) for _ in range(rng.randint(1, 20))]
        for _ in range(rng.randrange(30)):
            rng.choice(tasks).cancel()
            await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), HANG_SECONDS)
        assert shared.free == shared.size

    for rng in fuzz(200):
        asyncio.run(run(rng))


async def test_what_was_read_leaves_the_budget_whole(authority) -> None:
    whole = budget().free
    for kind in DOCUMENTS:
        await answered(authority, kind, b"{}")
        await answered(authority, kind, b" " * (LARGE + 1))
    assert budget().free == whole == budget().size


# --- Headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ('BEARER Realm = "https://a/b?c=d,e" ,service=s', [("bearer", {"realm": "https://a/b?c=d,e", "service": "s"})]),
        ('Negotiate, Bearer realm="a\\"b"', [("negotiate", {}), ("bearer", {"realm": 'a"b'})]),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        ('Bearer error="x", realm="never ends', [("bearer", {"error": "x"})]),
        ('realm="of nobody"', []),
        ("Bearer realm=", [("bearer", {"realm": ""})]),
    ],
)
def test_challenges(header: str, found: list) -> None:
    assert challenges(header) == found


UNITS = ["a", "a ", " ", 'a="', '"', "\\", "a=b,", "a=", "=", ",", '\\"', 'a="b",', "a = ", "\t", '"a" ', "é", "a\\"]


def test_no_challenge_keeps_one_busy() -> None:
    """64 KiB each, where aiohttp lets 8 KiB pass; of which a pattern that looked for parameters took 0.9 s."""
    texts = [unit * ((64 << 10) // len(unit)) for unit in UNITS]
    headers = [frame.format(text) for text in texts for frame in ("{}", "Bearer {}", 'Bearer realm="{}', "Bearer {}=")]
    code = (
        "import sys, json; from onnx_operator.model.sources.web.challenges import challenges\n"
        "for header in json.load(sys.stdin): challenges(header)"
    )
    subprocess.run([sys.executable, "-c", code], input=json.dumps(headers).encode(), timeout=HANG_SECONDS, check=True)


@pytest.mark.fuzz
def test_fuzzed_challenges_are_read(fuzz: Fuzz) -> None:
    for rng in fuzz(2000):
        header = "".join(rng.choice([*UNITS, "Bearer ", "realm", "Basic"]) for _ in range(rng.randrange(60)))
        for scheme, given in challenges(header):
            assert scheme == scheme.lower()
            assert all(name in header.lower() for name in given)


# --- Heads and bodies ------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\n"
ENDLESS = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "interim answers with headers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 100),
    "headers": (HEAD, b"X-Header: %b\r\n" % (b"a" * 1000)),
    "short headers": (HEAD, b"a:\r\n" * 100),
    "a header": (HEAD + b"X: ", b"a" * 1000),
    "a header's name": (HEAD, b"a" * 1000),
    "a folded header": (HEAD + b"X: a", b"\r\n a"),
    "a reason": (b"HTTP/1.1 200 ", b"a" * 1000),
    "a version": (b"HTTP/1.", b"1" * 1000),
    "empty lines": (b"", b"\r\n" * 1000),
    "a chunk's extension": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * 1000),
    "chunks' extensions": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1;%b\r\na\r\n" % (b"a" * 1000)),
    "a chunk's size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 1000),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"X-Trailer: aaaa\r\n" * 100),
}


class Flood:
    """Sends ``begin``, then ``more`` without an end, and counts on each connection."""

    def __init__(self, begin: bytes, more: bytes) -> None:
        self.begin, self.more = begin, more
        self.sent: list[int] = []

    async def __call__(self, request: Request) -> None:
        self.sent.append(0)
        request.writer.write(self.begin)
        while not request.writer.is_closing():
            request.writer.write(self.more)
            await request.writer.drain()
            self.sent[-1] += len(self.more)
            await asyncio.sleep(0)


@pytest.mark.parametrize("name", ENDLESS)
async def test_an_answer_without_an_end_is_cut_off(authority, name: str) -> None:
    flood = Flood(*ENDLESS[name])
    async with Server(flood, authority.server) as server:
        with pytest.raises((SourceError, BrokenStreamError)) as caught:
            await looked_at(f"https://127.0.0.1:{server.port}/m.onnx", allowing(authority))
    assert isinstance(caught.value, BrokenStreamError) or caught.value.retriable
    # Bounded by bytes, not by time: what was sent beyond the limit lay in the sockets' buffers.
    assert flood.sent
    assert max(flood.sent) < 16 << 20


@pytest.mark.parametrize("begin", [b"", HEAD, HEAD + b"X: ", HEAD + b"Content-Length: 900\r\n\r\n"])
async def test_an_answer_in_drops_is_given_up(authority, begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_operator.model.sources.web.client._OPEN_SECONDS", 1.0)
    monkeypatch.setattr("onnx_operator.model.sources.web.body.SLOW_WINDOW_SECONDS", 1.0)

    async def drops(request: Request) -> None:
        request.writer.write(begin)
        while not request.writer.is_closing():
            request.writer.write(b"a")
            await request.writer.drain()
            await asyncio.sleep(0.1)

    async with Server(drops, authority.server) as server, asyncio.timeout(HANG_SECONDS):
        given = allowing(authority)
        uri = f"https://127.0.0.1:{server.port}/m.onnx"
        async with open_source(uri, credentials={}, settings=given) as source:
            with pytest.raises((SourceError, BrokenStreamError)):
                await read(source, "m.onnx")


async def test_small_chunks_with_a_few_interim_answers_are_read(authority) -> None:
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in MODEL * 100)

    async def answer(request: Request) -> None:
        early = b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 20
        request.writer.write(early + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\nX: trailer\r\n\r\n")
        await request.writer.drain()
        request.complete = True

    async with Server(answer, authority.server) as server:
        uri = f"https://127.0.0.1:{server.port}/m.onnx"
        async with open_source(uri, credentials={}, settings=allowing(authority)) as source:
            for _ in range(3):
                async with source.open("m.onnx") as stream:
                    assert b"".join([bytes(piece) async for piece in stream.pieces]) == MODEL * 100
    assert server.connections == 1


async def test_a_server_that_goes_on_unasked_is_not_listened_to(authority) -> None:
    """Answers that nobody asked for, on a connection that waits for the next request."""
    flood = Flood(HEAD + b"Content-Length: 1\r\n\r\na", HEAD + b"Content-Length: 1\r\n\r\nb")
    async with Server(flood, authority.server) as server:
        uri = f"https://127.0.0.1:{server.port}/m.onnx"
        async with open_source(uri, credentials={}, settings=allowing(authority)) as source, asyncio.timeout(10):
            for _ in range(3):
                async with source.open("m.onnx") as stream:
                    assert b"".join([bytes(piece) async for piece in stream.pieces]) == b"a"
                await asyncio.sleep(0.1)
    assert max(flood.sent) < 16 << 20


def test_connections_are_bounded_by_what_aiohttp_is_given() -> None:
    async def made() -> type:
        connector = answers.BoundedConnector()
        protocol = connector._factory()
        await connector.close()
        return type(protocol)

    assert asyncio.run(made()) is answers.BoundedAnswers


# --- Addresses -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def forbidden() -> AsyncIterator[Server]:
    """A server that must never be connected to: at 127.0.0.2, where only 127.0.0.1 is allowed."""

    async def answer(request: Request) -> None:
        await request.answer(200, {}, b"secret")

    server = Server(answer, None)
    async with server:
        server._server.close()
        server._server = await asyncio.start_server(server._connected, "127.0.0.2", 0)
        server.port = server._server.sockets[0].getsockname()[1]
        yield server


def redirecting(to: str, start: str) -> Callable[[Request], Awaitable[None]]:
    """Plays registry, hub and tracking server, and sends away what asks for a path with ``start`` in it."""
    layer = {"digest": DIGEST, "size": 6, "annotations": {"org.opencontainers.image.title": "m.onnx"}}

    async def answer(request: Request) -> None:
        if start in request.target:
            return await request.answer(307, {"Location": to})
        if "/manifests/" in request.target:
            return await request.answer_json({"layers": [layer]})
        if "/api/models/" in request.target:
            return await request.answer_json({"sha": "0" * 40, "siblings": [{"rfilename": "m.onnx"}]})
        if request.path.endswith("/mlflow-artifacts/artifacts"):
            return await request.answer_json({"files": [{"path": "m.onnx", "is_dir": False}]})
        if "/api/2.0/mlflow/" in request.target:
            return await request.answer_json({"artifact_uri": "mlflow-artifacts:/0/a"})
        return await FileServer(b"secret")(request)

    return answer


WAYS = {
    "a file": ("https://127.0.0.1:{port}/m.onnx", "/m.onnx"),
    "a presigned link": ("https://127.0.0.1:{port}/m.onnx?X-Amz-Signature=a", "/m.onnx"),
    "a manifest": ("oci://127.0.0.1:{port}/m", "/manifests/"),
    "a layer": ("oci://127.0.0.1:{port}/m", "/blobs/"),
    "a list of files": ("hf://org/model", "/api/models/"),
    "a file of the hub": ("hf://org/model/m.onnx", "/resolve/"),
    "an answer of MLflow": ("models:/m/1", "/api/2.0/mlflow/"),
    "a list of artifacts": ("models:/m/1", "/mlflow-artifacts/artifacts?"),
    "an artifact": ("models:/m/1", "/mlflow-artifacts/artifacts/"),
}


@pytest.mark.parametrize("way", WAYS)
async def test_no_redirect_of_any_kind_of_source_leads_where_it_may_not(authority, way: str) -> None:
    uri, start = WAYS[way]
    async with forbidden() as secret:
        for host in ("127.0.0.2", "[::ffff:127.0.0.2]"):
            to = f"https://{host}:{secret.port}/x"
            async with Server(redirecting(to, start), authority.server) as server:
                given = allowing(authority, server.url, server.url, allowed_networks=["127.0.0.1/32"])
                error = await refusal(uri.format(port=server.port), given)
            assert error.reason is Reason.SOURCE_REFUSED
            assert "sources.allowedNetworks" in error.message
        assert not secret.connections


async def test_no_registry_sends_for_tokens_where_it_may_not(authority) -> None:
    async with forbidden() as secret:

        async def answer(request: Request) -> None:
            await request.answer(401, {"WWW-Authenticate": f'Bearer realm="https://127.0.0.2:{secret.port}/token"'})

        async with Server(answer, authority.server) as server:
            given = allowing(authority, allowed_networks=["127.0.0.1/32"])
            error = await refusal(f"oci://127.0.0.1:{server.port}/m", given)
        assert error.reason is Reason.SOURCE_REFUSED
        assert not secret.connections


@pytest.mark.parametrize("uri", ["https://192.0.2.1/m.onnx", "oci://203.0.113.9/a/m:1", "https://10.0.0.1/m.onnx"])
async def test_no_proxy_of_the_environment_is_asked_to_go_where_we_may_not(uri: str, monkeypatch) -> None:
    """A proxy would resolve and connect in our place, unseen by the guard: for addresses of users none is asked."""
    async with forbidden() as proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.2:{proxy.port}")
        error = await refusal(uri, settings(allowed_networks=[]))
        assert error.reason is Reason.SOURCE_REFUSED
        assert "not a public address" in error.message
        assert not proxy.connections


# --- Fuzzers ---------------------------------------------------------------------------------------------------------

LAYER = {
    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
    "digest": DIGEST,
    "size": 5,
    "annotations": {"org.opencontainers.image.title": "m.onnx", "io.deis.oras.content.unpack": "true"},
}
VALID = {
    "index": b'{"schemaVersion":2,"manifests":[%b,{"digest":"","platform":null}]}' % ENTRY,
    "manifest": json.dumps(
        {"schemaVersion": 2, "config": {}, "layers": [LAYER, LAYER | {"annotations": None}]}
    ).encode(),
    "version": b'{"model_version":{"version":"3","tags":[{}]},"model_versions":[{"version":3},{"version":"4"}]}',
    "run": b'{"run":{"info":{"artifact_uri":"s3://b/a","x":1.5}},"files":[{"path":"m.onnx","is_dir":false}]}',
}
DESCRIPTION = b"flavors:\n  onnx:\n    data: m.onnx\n    x: &a [*a, *a]\n  python_function:\n    loader: y\nrun_id: z\n"


@pytest.mark.fuzz
def test_fuzzed_documents_are_read_or_refused(fuzz: Fuzz) -> None:
    def registry(body: bytes) -> None:
        document = read_document(body, "oci://r/m")
        if chosen_manifest(document, "oci://r/m") is None:
            manifest = read_manifest(document, "oci://r/m")
            assert all(".." not in name.split("/") and "\0" not in name for name in manifest.blobs)
            assert all(0 <= blob.size < 2**63 for blob in manifest.blobs.values())

    def mlflow(body: bytes) -> None:
        decode(MlflowAnswer, body, "models:/m/1", "malformed")

    def description(body: bytes) -> None:
        assert ".." not in onnx_file(body.decode(errors="replace"), "models:/m/1").split("/")

    for rng in fuzz(3000):
        if rng.random() < 0.2:
            read, body = description, mutated(rng, DESCRIPTION)
        else:
            read, body = rng.choice([registry, mlflow]), mutated(rng, rng.choice(list(VALID.values())))
        if rng.random() < 0.1:
            body = body.replace(
                rng.choice([b"5", b'"', b"{", b"null"]), rng.choice([b"1e999", b"[" * 300, b"9" * 5000])
            )
        try:
            read(body)
        except SourceError as error:
            refused = error.message
            assert 0 < len(refused) < 1000


ANSWERS = [
    HEAD + b'Content-Length: 5\r\nETag: "a"\r\n\r\nmodel',
    b'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/5\r\nContent-Length: 1\r\nETag: "a"\r\n\r\nm',
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nmod\r\n2\r\nel\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /other.onnx\r\nContent-Length: 0\r\n\r\n",
    b'HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm="https://127.0.0.1/"\r\nContent-Length: 0\r\n\r\n',
    b"HTTP/1.1 503 X\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nmodel",
    HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(VALID["manifest"]), VALID["manifest"]),
]


@pytest.mark.fuzz
async def test_fuzzed_answers_over_tls_are_read_or_refused(authority, fuzz: Fuzz, monkeypatch) -> None:
    monkeypatch.setattr("onnx_operator.model.sources.web.client._OPEN_SECONDS", 0.5)
    monkeypatch.setattr("onnx_operator.model.sources.web.client._ATTEMPTS", 1)
    cuts: list[bytes] = []

    async def answer(request: Request) -> None:
        for piece in cuts:
            request.writer.write(piece)
            await request.writer.drain()
        request.complete = False

    async with Server(answer, authority.server) as server:
        given = allowing(authority, server.url, server.url, allowed_networks=["127.0.0.1/32"], read_timeout_seconds=0.2)
        for rng in fuzz(120):
            cuts[:] = pieces(rng, mutated(rng, rng.choice(ANSWERS)))
            uri = rng.choice(["https://127.0.0.1:{port}/m.onnx", "oci://127.0.0.1:{port}/m", "hf://o/m/m.onnx"])
            try:
                await looked_at(uri.format(port=server.port), given)
            except (SourceError, BrokenStreamError) as error:
                refused = str(error)
                # It goes into a status, as JSON.
                assert refused.encode()
