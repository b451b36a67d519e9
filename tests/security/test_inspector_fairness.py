"""The inspector is shared by all namespaces: what one of them makes it do costs the others no verdict.

And what parses is taken for hostile: a child that was taken over gets no more out of the inspector than an honest one.
"""

import asyncio
import json
import random
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.report import InspectionRequest, InspectionResult
from onnx_operator.api.sources import SourceSettings
from onnx_operator.inspector import InspectorClient, service, wire
from onnx_operator.inspector.service import Policy
from onnx_operator.model.inspection import conversation
from onnx_operator.model.inspection.faults import ParserError
from onnx_operator.model.inspection.forking import Zygote
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.inspection.stopwatch import Stopwatch
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.refusal import RefusedError
from tests.security.fuzzing import Fuzz, mutated, pieces

CAPABILITIES = load_capabilities()


def chain(count: int) -> bytes:
    names = ["x", *(f"t{n}" for n in range(count - 1)), "y"]
    nodes = [helper.make_node("Relu", [names[n]], [names[n + 1]]) for n in range(count)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, ["N", 2])], [value("y", TensorProto.FLOAT, ["N", 2])]
    )
    made: onnx.ModelProto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    return made.SerializeToString()


class InMemory:
    """What a child reads; remembers how much at most was asked of it at a time."""

    def __init__(self, content: bytes, size: int | None = None) -> None:
        self.content = content
        self.bytes = len(content) if size is None else size
        self.most = 0
        self.given = 0

    async def size(self, name: str) -> int | None:
        return self.bytes if name == "m.onnx" else None

    async def read(self, name: str, begin: int, end: int) -> bytes:
        self.most = max(self.most, end - begin)
        self.given += end - begin
        return self.content[begin:end].ljust(end - begin, b"\0")

    def expect(self, name: str, begin: int, end: int) -> None:
        pass


@asynccontextmanager
async def inspector(folder: Path, **limits: float) -> AsyncIterator[Path]:
    stop = asyncio.Event()
    path = folder / "inspector.sock"
    task = asyncio.create_task(service.serve(path, InspectionLimits(**limits), Policy(), stop))
    while not path.exists():
        await asyncio.sleep(0.01)
        assert not task.done()
    try:
        yield path
    finally:
        stop.set()
        await task


@asynccontextmanager
async def store(files: dict[str, bytes]) -> AsyncIterator[str]:
    async def give(request: aiohttp.web.Request) -> aiohttp.web.Response:
        headers = {"ETag": '"v1"', "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}
        return aiohttp.web.Response(body=files[request.path.rpartition("/")[2]], headers=headers)

    app = aiohttp.web.Application()
    app.router.add_route("*", "/{path:.*}", give)
    runner = aiohttp.web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_another_namespaces_heavy_models_keep_nobody_from_a_verdict(tmp_path: Path) -> None:
    """A dozen models of many nodes in one namespace; a small one in another has its verdict before most of them."""
    count, places = 12, InspectionLimits().parsers
    files = {"heavy.onnx": chain(3_000), "small.onnx": chain(1)}
    async with store(files) as endpoint, inspector(tmp_path) as path, InspectorClient(path) as client:

        async def ask(tenant: str, name: str) -> InspectionResult:
            return await client.inspect(
                InspectionRequest(
                    tenant=tenant,
                    uri=f"s3://bucket/{name}",
                    credentials={"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"},
                    sources=SourceSettings.model_validate({"s3": {"endpoint": endpoint}}),
                    capabilities=CAPABILITIES,
                )
            )

        heavy = [asyncio.create_task(ask("greedy", "heavy.onnx")) for _ in range(count)]
        # Until one is through: all the others that may have begun by then.
        await asyncio.wait(heavy, return_when=asyncio.FIRST_COMPLETED)
        done = sum(task.done() for task in heavy)
        for _ in range(2):
            assert (await ask("other", "small.onnx")).outcome == "Accepted"
        assert sum(task.done() for task in heavy) - done <= places
        for task in heavy:
            task.cancel()
        await asyncio.gather(*heavy, return_exceptions=True)


async def test_a_namespace_that_is_alone_uses_all_places_but_one() -> None:
    limits = InspectionLimits(parsers=3)
    async with Parser(limits) as parser:
        heavy = chain(6_000)
        tasks = [
            asyncio.create_task(
                parser.verify(InMemory(heavy), "m.onnx", size=len(heavy), capabilities=CAPABILITIES, tenant="t")
            )
            for _ in range(4)
        ]
        while parser.places.waiting < 2:
            await asyncio.sleep(0.01)
            assert not all(task.done() for task in tasks)
        assert parser.places.held == 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert parser.places.held == parser.places.waiting == parser.readers.held == 0


async def test_time_for_which_others_have_the_places_is_not_an_inspections_own() -> None:
    now = 0.0
    watch = Stopwatch(lambda: now)
    async with Parser(InspectionLimits(parsers=1)) as parser:
        ticket = await parser.places.acquire("other")
        small = chain(1)
        task = asyncio.create_task(
            parser.verify(
                InMemory(small), "m.onnx", size=len(small), capabilities=CAPABILITIES, tenant="t", stopwatch=watch
            )
        )
        now += 1
        while not parser.places.waiting:
            await asyncio.sleep(0.01)
        now += 1_000_000
        parser.places.release(ticket)
        assert (await task).outcome == "Accepted"
        now += 1
    assert watch.seconds == 2


class TakenOver(Zygote):
    """A process whose children say what the test says."""

    def __init__(self, limits: InspectionLimits, child: Callable[[socket.socket], None]) -> None:
        super().__init__(limits)
        self._child = child
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        pass

    async def aclose(self) -> None:
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def submit(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)

        def run() -> None:
            with theirs, suppress(OSError):
                self._child(theirs)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()
        return ours


def taken_over(limits: InspectionLimits, child: Callable[[socket.socket], None]) -> Parser:
    parser = Parser(limits)
    parser.zygote = TakenOver(limits, child)
    return parser


async def converse(
    child: Callable[[socket.socket], None], feed: InMemory | None = None, limits: InspectionLimits | None = None
) -> InspectionResult:
    async with taken_over(limits or InspectionLimits(answer_seconds=20), child) as parser:
        return await parser.verify(feed or InMemory(bytes(100)), "m.onnx", size=100, capabilities=CAPABILITIES)


def received(connection: socket.socket, limit: int) -> bytes:
    data = connection.recv(min(limit, 1 << 20))
    if not data:
        raise OSError
    return data


def answered(connection: socket.socket, question: object) -> bytes:
    connection.sendall(json.dumps(question).encode() + b"\n")
    # Byte by byte, because what comes behind may already be another message.
    head = b""
    while not head.endswith(b"\n"):
        head += received(connection, 1)
    left = json.loads(head).get("bytes", 0)
    while left > 0:
        left -= len(received(connection, left))
    return head


async def test_a_child_that_reads_the_same_range_for_ever_is_our_fault_and_ended() -> None:
    feed = InMemory(bytes(100), size=1 << 20)

    def child(connection: socket.socket) -> None:
        while True:
            answered(connection, {"read": ["m.onnx", 0, 1 << 20]})

    with pytest.raises(ParserError, match="reads"):
        await converse(child, feed)
    assert feed.given < 80 << 20


async def test_a_large_read_never_lies_in_memory_at_once() -> None:
    feed = InMemory(b"", size=64 << 20)

    def child(connection: socket.socket) -> None:
        answered(connection, {"size": "m.onnx"})
        answered(connection, {"read": ["m.onnx", 0, 50 << 20]})
        connection.sendall(b'{"outcome": "Refused"}\n{"status": 0}\n')

    assert (await converse(child, feed)).outcome == "Refused"
    assert feed.given == 50 << 20
    assert feed.most <= 2 << 20


@pytest.mark.parametrize(
    "question",
    [
        {"expect": ["m.onnx", 0, 10]},
        {"chatter": 1},
        {"size": "x" * 60_000},
        {"read": ["m.onnx", 0, 1 << 61]},
        {"read": ["m.onnx", 5, 5]},
        {"read": ["m.onnx", -1, 5]},
        {"read": ["m.onnx", 0]},
        {"read": "m.onnx"},
        {"read": [["m.onnx"], 0, 1]},
        {"read": ["m.onnx", True, 5]},
        {"size": ["m.onnx"]},
        {"size": {}},
        {"status": "x"},
        {"status": 1e300},
        {"outcome": "Perhaps"},
        {"outcome": "Accepted", "report": 5},
        {"size": "x" * (1 << 20)},
        [1],
    ],
    ids=lambda question: json.dumps(question)[:40],
)
async def test_a_child_that_says_what_no_honest_one_says_is_our_fault(
    question: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "_QUESTIONS", 5_000)
    line = json.dumps(question)
    number = 0

    def child(connection: socket.socket) -> None:
        nonlocal number
        while True:
            number += 1
            # A new name each time, where names are what it has.
            connection.sendall(line.replace('"x', f'"{number}x').encode() + b"\n")
            if '"outcome"' in line:
                connection.sendall(b'{"status": 0}\n')
                return

    with pytest.raises(ParserError):
        await converse(child)


@pytest.mark.parametrize("said", [b"\xff\n", b"[" * 100_000 + b"\n", b"x" * (5 << 20), b"null\n", b'"x"\n'])
async def test_a_child_that_speaks_no_json_is_our_fault(said: bytes) -> None:
    with pytest.raises(ParserError):
        await converse(lambda connection: connection.sendall(said))


async def test_a_child_that_takes_nothing_of_what_it_asked_for_is_given_up() -> None:
    hold = threading.Event()

    def child(connection: socket.socket) -> None:
        connection.sendall(b'{"size": "m.onnx"}\n{"read": ["m.onnx", 0, 20000000]}\n')
        hold.wait(60)

    waiting = asyncio.create_task(
        converse(child, InMemory(b"", size=1 << 30), InspectionLimits(answer_seconds=1, cpu_seconds=1))
    )
    await asyncio.sleep(3)
    hold.set()
    result = await waiting
    assert result.refusal is not None
    assert result.refusal.reason == "TooLarge"


async def test_children_that_were_given_much_are_few_and_of_more_than_one_namespace() -> None:
    limits = InspectionLimits(readers=4)
    hold = threading.Event()

    def child(connection: socket.socket) -> None:
        answered(connection, {"size": "m.onnx"})
        answered(connection, {"read": ["m.onnx", 0, 2 << 20]})
        hold.wait(60)
        connection.sendall(b'{"outcome": "Refused"}\n{"status": 0}\n')

    async with taken_over(limits, child) as parser:

        def ask(tenant: str) -> asyncio.Task[InspectionResult]:
            feed = InMemory(b"", size=64 << 20)
            return asyncio.create_task(
                parser.verify(feed, "m.onnx", size=64 << 20, capabilities=CAPABILITIES, tenant=tenant)
            )

        tasks = [ask("greedy") for _ in range(10)]
        while parser.readers.waiting < 8:
            await asyncio.sleep(0.01)
        assert parser.readers.held == 2
        tasks.append(ask("other"))
        while parser.readers.held < 3:
            await asyncio.sleep(0.01)
        hold.set()
        results = await asyncio.gather(*tasks)
    assert [result.outcome for result in results] == ["Refused"] * 11
    assert parser.readers.held == 0


QUESTIONS = [
    b'{"size": "m.onnx"}\n',
    b'{"read": ["m.onnx", 0, 100]}\n',
    b'{"expect": ["m.onnx", 0, 100]}\n',
    b'{"turn": true}\n',
    b'{"outcome": "Refused", "refusal": {"reason": "Corrupt", "message": "m", "retriable": false}}\n',
    b'{"error": "Traceback"}\n',
    b'{"memory": true}\n',
    b'{"status": 9}\n',
]


@pytest.mark.fuzz
async def test_whatever_a_child_says_there_is_a_result_or_a_fault_of_ours(fuzz: Fuzz) -> None:
    for rng in fuzz(200):
        talk = b"".join(rng.choice(QUESTIONS) for _ in range(rng.randint(1, 8)))
        said = pieces(rng, mutated(rng, talk) if rng.random() < 0.9 else talk)

        def child(connection: socket.socket, said: list[bytes] = said) -> None:
            for piece in said:
                connection.sendall(piece)

        try:
            result = await converse(child)
        except ParserError:
            continue
        assert isinstance(result, InspectionResult)


RESULT = InspectionResult.model_validate(
    {
        "outcome": "Accepted",
        "source": {"kind": "Conditional", "value": '"v1"'},
        "interface": "0123456789ab",
        "report": {
            "source": {"kind": "Conditional", "value": '"v1"'},
            "sizeBytes": 5,
            "irVersion": 8,
            "opsets": {"ai.onnx": 17},
            "inputs": [{"name": "x", "datatype": "FP32", "shape": ["N", 2]}],
            "outputs": [],
            "memory": {"weightsBytes": 1, "activationsBytes": 1, "residentBytes": 1},
        },
        "files": {
            "files": [{"name": "m.onnx", "pin": {"kind": "Conditional", "value": '"v1"'}, "sizeBytes": 5}],
            "model": "m.onnx",
        },
    }
)


def http_answer(rng: random.Random) -> bytes:
    lines = [wire.write_state(rng.random() < 0.5) for _ in range(rng.randrange(4))]
    last = wire.write_result(RESULT) if rng.random() < 0.8 else wire.write_error("of ours")
    body = b"".join([*lines, mutated(rng, last) if rng.random() < 0.8 else last])
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
    if rng.random() < 0.5:
        answer = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        answer = head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    return mutated(rng, answer) if rng.random() < 0.5 else answer


@pytest.mark.fuzz
async def test_whatever_the_inspector_answers_the_controller_has_a_result_or_knows_that_there_is_none(
    fuzz: Fuzz, tmp_path: Path
) -> None:
    """As if the inspector had been taken over."""
    answer: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in answer:
                writer.write(piece)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "hostile.sock")
    request = InspectionRequest(uri="s3://bucket/m.onnx", capabilities=CAPABILITIES)
    results = longest = 0
    for rng in fuzz(300):
        answer[:] = pieces(rng, http_answer(rng))
        async with InspectorClient(tmp_path / "hostile.sock", silence_seconds=5) as client:
            try:
                result = await client.inspect(request)
            except RefusedError as error:
                longest = max(longest, len(str(error)))
                continue
            assert isinstance(result, InspectionResult)
            results += 1
    assert results
    assert longest < 3000, "what it says goes into a status"
    server.close()
    await asyncio.sleep(0.05)


async def refuses(
    folder: Path, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], words: str
) -> None:
    """The client refuses what such an inspector says."""
    server = await asyncio.start_unix_server(serve, folder / "hostile.sock")
    async with InspectorClient(folder / "hostile.sock") as client:
        with pytest.raises(RefusedError, match=words):
            await client.inspect(InspectionRequest(uri="s3://bucket/m.onnx", capabilities=CAPABILITIES))
    server.close()
    await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"interface": "no hash"},
        {"source": None},
        {"files": None},
        {"report": None},
        {"refusal": {"reason": "NotOnnx", "message": "m"}},
        {"outcome": "Refused"},
        {"outcome": "Refused", "refusal": {"reason": "RolledBack", "message": "no verdict on a model"}},
        {
            "files": {
                "files": [{"name": "../m", "pin": {"kind": "None", "value": "v"}, "sizeBytes": 1}],
                "model": "../m",
            }
        },
        {"files": {"files": [{"name": "m", "pin": {"kind": "None", "value": "v"}, "sizeBytes": -1}], "model": "m"}},
        {"files": {"files": [{"name": "m", "pin": {"kind": "None", "value": "v"}, "sizeBytes": 2**60}], "model": "m"}},
    ],
    ids=lambda changes: json.dumps(changes)[:60],
)
async def test_a_result_that_no_inspection_gives_is_none(tmp_path: Path, changes: dict[str, object]) -> None:
    line = json.dumps({"result": RESULT.model_dump(mode="json", by_alias=True) | changes}).encode() + b"\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(line), line))
        await writer.drain()
        writer.close()

    await refuses(tmp_path, serve, "result")


@pytest.mark.parametrize(
    "endless",
    [b"x" * 1000, b'{"state":"running"}', b'{"result":{"outcome":"' + b"x" * 1000],
    ids=["text", "states in one line", "result"],
)
async def test_a_line_without_an_end_is_not_gathered_for_ever(tmp_path: Path, endless: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(endless * 1000)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    await refuses(tmp_path, serve, "bytes")


@pytest.mark.fuzz
async def test_whatever_is_asked_the_inspector_goes_on_and_repeats_no_credentials(
    fuzz: Fuzz, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def look(*_: object, **__: object) -> InspectionResult:
        return RESULT

    # Mutated addresses must not be asked.
    monkeypatch.setattr(service, "inspect", look)
    secret = "very-secret-value"
    asked = InspectionRequest(
        tenant="t",
        uri="s3://bucket/m.onnx",
        credentials={"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": secret},
        capabilities=CAPABILITIES,
    )
    digest, texts = wire.CapabilityTexts().text(CAPABILITIES)
    bodies = [wire.write_request(asked, digest), asked.model_dump_json(by_alias=True).encode()[:4000], texts[:3000]]
    targets = [b"POST /inspect", b"PUT /capabilities/" + digest.encode(), b"GET /healthz"]
    async with inspector(tmp_path) as path:
        for rng in fuzz(300):
            body = rng.choice(bodies)
            body = mutated(rng, body) if rng.random() < 0.9 else body
            head = rng.choice(targets) + b" HTTP/1.1\r\nHost: i\r\nContent-Length: %d\r\n\r\n" % len(body)
            message = (mutated(rng, head) if rng.random() < 0.3 else head) + body
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                for piece in pieces(rng, message):
                    writer.write(piece)
                    await writer.drain()
                writer.write_eof()
                async with asyncio.timeout(30):
                    told = await reader.read(1 << 20)
                assert secret.encode() not in told
                assert b"HTTP/1.1 500" not in told, told
            except OSError:
                pass
            finally:
                writer.close()
        async with InspectorClient(path) as client:
            assert await client.healthy()
            assert await client.inspect(asked) == RESULT
    assert secret not in caplog.text
