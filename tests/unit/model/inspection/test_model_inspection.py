import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from feedkit import ModelFeed
from modelkit import CAPABILITIES, linear, model, tensor, value
from onnx import TensorProto, helper
from webkit import FileServer, Request, Server, settings

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.report import InspectionRequest, InspectionResult
from onnx_operator.api.sources import SourceFile, SourcePin
from onnx_operator.model.inspection.faults import ParserError
from onnx_operator.model.inspection.feed import WHOLE_BYTES
from onnx_operator.model.inspection.inspection import inspect
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.limits import InspectionLimits
from tests.locales import of_the_images

MODEL = linear(64).SerializeToString()
SHA = hashlib.sha256(MODEL).hexdigest()


@pytest_asyncio.fixture
async def parser() -> AsyncIterator[Parser]:
    async with Parser(InspectionLimits()) as started:
        yield started


async def verify(parser: Parser, content: bytes) -> InspectionResult:
    return await parser.verify(ModelFeed(content), "m.onnx", size=len(content), capabilities=CAPABILITIES)


async def test_texts_change_case_by_the_rules_that_the_images_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The child that judges may open no file: the locale is there before it is forked."""
    for name, found in of_the_images(tmp_path).items():
        monkeypatch.setenv(name, found)
    text = TensorProto.STRING
    made = helper.make_node("StringNormalizer", ["x"], ["y"], case_change_action="LOWER", is_case_sensitive=0)
    words = model([made], inputs=[value("x", ("N",), text)], outputs=[value("y", ("M",), text)]).SerializeToString()
    async with Parser(InspectionLimits()) as parser:
        result = await parser.verify(ModelFeed(words), "m.onnx", size=len(words), capabilities=load_capabilities())
    assert result.report is not None
    assert result.report.notes == []


async def ask(handler, authority, parser: Parser, limits=None, **request) -> InspectionResult:
    async with Server(handler, authority.server) as server:
        asked = InspectionRequest(
            uri=f"{server.url}/m.onnx?sig=SIGNATURE",
            sources=settings(authority),
            capabilities=CAPABILITIES,
            **request,
        )
        result = await inspect(asked, limits=limits or InspectionLimits(), parser=parser)
    assert "SIGNATURE" not in result.model_dump_json()
    return result


@pytest.mark.parametrize(
    ("etag", "pin"),
    [
        ('"v1"', SourcePin(kind="Conditional", value='"v1"')),
        ('W/"v1"', SourcePin(kind="None", value=f"sha256:{SHA}")),
        (None, SourcePin(kind="None", value=f"sha256:{SHA}")),
    ],
)
@pytest.mark.parametrize("wanted", ["", SHA, f"sha256:{SHA.upper()}"])
async def test_accepted(authority, parser, etag, pin, wanted) -> None:
    result = await ask(FileServer(MODEL, etag), authority, parser, sha256=wanted)
    assert result.outcome == "Accepted"
    assert result.report is not None
    assert result.report.source == result.source == pin
    assert result.report.digest == f"sha256:{SHA}"
    assert result.report.size_bytes == len(MODEL)
    assert result.interface


async def test_another_digest(authority, parser) -> None:
    result = await ask(FileServer(MODEL), authority, parser, sha256="ab" * 32)
    assert result.refusal is not None
    assert result.refusal.reason == "DigestMismatch"
    assert SHA in result.refusal.message
    assert "ab" * 32 in result.refusal.message
    assert result.source == SourcePin(kind="Conditional", value='"v1"')


async def test_not_onnx(authority, parser) -> None:
    result = await ask(FileServer(b"<html>"), authority, parser)
    assert result.refusal is not None
    assert result.refusal.reason == "NotOnnx"
    assert result.source is not None


async def test_not_found(authority, parser) -> None:
    async def handler(request: Request) -> None:
        await request.answer(404)

    result = await ask(handler, authority, parser)
    assert result.refusal is not None
    assert (result.refusal.reason, result.refusal.retriable) == ("SourceNotFound", False)


async def test_unreachable_is_worth_another_try(authority, parser) -> None:
    async def handler(request: Request) -> None:
        await request.answer(503, {"Retry-After": "100"})

    result = await ask(handler, authority, parser)
    assert result.refusal is not None
    assert (result.refusal.reason, result.refusal.retriable) == ("SourceUnreachable", True)


@pytest.mark.parametrize("announced", [True, False])
async def test_too_large_names_the_setting(authority, parser, announced) -> None:
    async def silent_about_size(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + MODEL)
        await request.writer.drain()

    handler = FileServer(MODEL) if announced else silent_about_size
    result = await ask(handler, authority, parser, limits=InspectionLimits(max_model_bytes=1000))
    assert result.refusal is not None
    assert result.refusal.reason == "TooLarge"
    assert "inspection.maxModelBytes" in result.refusal.message


async def test_a_file_replaced_between_two_requests_is_read_as_it_is_now(authority, parser) -> None:
    old, new = FileServer(b"old", '"v1"'), FileServer(MODEL, '"v2"')
    seen = []

    async def handler(request: Request) -> None:
        seen.append(request)
        await (old if len(seen) == 1 else new)(request)

    result = await ask(handler, authority, parser)
    assert result.outcome == "Accepted"
    assert result.source == SourcePin(kind="Conditional", value='"v2"')


async def test_a_file_that_keeps_changing(authority, parser) -> None:
    seen = []

    async def handler(request: Request) -> None:
        seen.append(request)
        await FileServer(MODEL, f'"v{len(seen)}"')(request)

    result = await ask(handler, authority, parser)
    assert result.refusal is not None
    assert (result.refusal.reason, result.refusal.retriable) == ("SourceUnreachable", True)


async def test_cancelling_leaves_nothing(authority, parser) -> None:
    async def handler(request: Request) -> None:
        await request.answer(200, {"Content-Length": "1000"}, b"x" * 10)
        await asyncio.sleep(60)

    task = asyncio.create_task(ask(handler, authority, parser))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def wide(count: int) -> bytes:
    nodes = [helper.make_node("Relu", ["x"], [f"h{i}"]) for i in range(count)]
    return model([*nodes, helper.make_node("Abs", ["x"], ["y"])], [value("x")], [value("y")]).SerializeToString()


@pytest.mark.parametrize(
    "limits",
    [
        InspectionLimits(memory_bytes=1 << 20),
        InspectionLimits(answer_seconds=1),
        InspectionLimits(cpu_seconds=1, load_seconds=0),
    ],
    ids=["memory", "time", "processor"],
)
async def test_limits_of_the_child(limits) -> None:
    large = await asyncio.to_thread(wide, 100_000)
    async with Parser(limits) as parser:
        result = await verify(parser, large)
        assert result.refusal is not None
        assert result.refusal.reason == "TooLarge"
        after = await verify(parser, b"text")
    assert after.refusal is not None
    assert after.refusal.reason == "NotOnnx"


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def running_child(parser: Parser) -> int:
    assert parser.zygote.process is not None
    for _ in range(1000):
        if found := children(parser.zygote.process.pid):
            return found[0]
        await asyncio.sleep(0.01)
    raise AssertionError("no child")


async def test_a_crash_is_the_files_fault(parser) -> None:
    task = asyncio.create_task(verify(parser, await asyncio.to_thread(wide, 100_000)))
    os.kill(await running_child(parser), signal.SIGSEGV)
    result = await task
    assert result.refusal is not None
    assert result.refusal.reason == "Corrupt"
    assert "SIGSEGV" in result.refusal.message


async def test_a_model_that_crashes_onnx_is_refused(parser) -> None:
    """With onnx 1.23 this ends shape inference by SIGSEGV, which must cost a child and nothing else."""
    made = helper.make_node("LayerNormalization", ["x", "w", "w"], ["y", "m", "i"], axis=2**63 - 4)
    fatal = model([made], [value("x", (2, 3)), value("w", (3,))], [value("y", None)]).SerializeToString()
    assert (await verify(parser, fatal)).outcome == "Refused"
    assert (await verify(parser, MODEL)).outcome == "Accepted"


async def test_cancelling_ends_the_child(parser) -> None:
    task = asyncio.create_task(verify(parser, await asyncio.to_thread(wide, 100_000)))
    child = await running_child(parser)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert parser.zygote.process is not None
    while child in children(parser.zygote.process.pid):
        await asyncio.sleep(0.01)


async def test_a_lost_process_is_replaced(parser) -> None:
    task = asyncio.create_task(verify(parser, await asyncio.to_thread(wide, 100_000)))
    child = await running_child(parser)
    assert parser.zygote.process is not None
    parser.zygote.process.kill()
    os.kill(child, signal.SIGKILL)
    with pytest.raises(ParserError):
        await task
    assert (await verify(parser, MODEL)).outcome == "Accepted"


async def test_the_child_has_no_environment_of_ours(monkeypatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    async with Parser(InspectionLimits()) as parser:
        assert parser.zygote.process is not None
        environment = Path(f"/proc/{parser.zygote.process.pid}/environ").read_text()
        while not environment:
            environment = Path(f"/proc/{parser.zygote.process.pid}/environ").read_text()
    assert "secret" not in environment
    assert "HOME=" not in environment


async def test_many_at_once(parser) -> None:
    results = await asyncio.gather(*(verify(parser, MODEL) for _ in range(50)))
    assert all(result.outcome == "Accepted" for result in results)


def large_model() -> bytes:
    return linear(1500).SerializeToString()


LARGE = large_model()


class Counting(FileServer):
    """Remembers how many bytes went out."""

    sent = 0

    async def __call__(self, request: Request) -> None:
        if "range" in request.headers and self.ranges:
            self.sent += request.stop(len(self.body)) - request.start()
        else:
            self.sent += len(self.body)
        await super().__call__(request)


async def test_of_a_large_file_with_a_strong_pin_only_ranges_are_read(authority, parser) -> None:
    server = Counting(LARGE)
    result = await ask(server, authority, parser)
    assert len(LARGE) > WHOLE_BYTES
    assert result.outcome == "Accepted", result.refusal
    assert server.sent < len(LARGE) / 50
    assert result.report is not None
    assert result.report.digest == ""
    assert result.source == SourcePin(kind="Conditional", value='"v1"')
    assert result.files is not None
    assert result.files.files == [SourceFile(name="m.onnx", pin=result.source, size_bytes=len(LARGE))]


async def test_a_digest_that_nobody_could_prove_yet_is_handed_to_the_pods(authority, parser) -> None:
    wanted = hashlib.sha256(LARGE).hexdigest()
    result = await ask(FileServer(LARGE), authority, parser, sha256=wanted)
    assert result.files is not None
    assert result.files.files[0].sha256 == wanted


@pytest.mark.parametrize("etag", ['W/"v1"', None], ids=["weak", "none"])
@pytest.mark.parametrize("ranges", [True, False])
async def test_a_large_file_without_a_pin_is_streamed_once_and_hashed(authority, parser, etag, ranges) -> None:
    server = Counting(LARGE, etag, ranges)
    digest = hashlib.sha256(LARGE).hexdigest()
    result = await ask(server, authority, parser)
    assert result.source == SourcePin(kind="None", value=f"sha256:{digest}")
    assert result.report is not None
    assert result.report.digest == f"sha256:{digest}"
    streamed = len(LARGE) * (1 if ranges else 2)
    assert server.sent <= streamed + 1000, "once for the stat of a server that ignores ranges, once to read"
    refused = await ask(server, authority, parser, sha256="ab" * 32)
    assert refused.refusal is not None
    assert refused.refusal.reason == "DigestMismatch"


async def test_a_store_without_ranges_is_read_all_the_same(authority, parser) -> None:
    result = await ask(FileServer(LARGE, ranges=False), authority, parser)
    assert result.outcome == "Accepted", result.refusal
    assert result.source == SourcePin(kind="Conditional", value='"v1"')


@pytest.mark.parametrize("body", [MODEL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("etag", ['"v1"', None], ids=["pinned", "unpinned"])
async def test_a_server_that_sends_less_than_it_announces_is_tried_again_later(authority, parser, body, etag) -> None:
    async def short(request: Request) -> None:
        headers = {"Content-Length": str(len(body) + 1000)} | ({"ETag": etag} if etag else {})
        await request.answer(200, headers, body)

    result = await ask(short, authority, parser)
    assert result.refusal is not None
    assert (result.refusal.reason, result.refusal.retriable) == ("SourceUnreachable", True)


async def test_the_structure_that_is_refused_was_all_that_was_read(authority, parser) -> None:
    bad = model([helper.make_node("Nonsense", ["x", "w"], ["y"])], initializers=[tensor("w", 1500, 1500)])
    server = Counting(bad.SerializeToString())
    result = await ask(server, authority, parser)
    assert result.refusal is not None
    assert result.refusal.reason == "UnknownOperator"
    assert server.sent < 200_000
    assert result.source == SourcePin(kind="Conditional", value='"v1"')


async def test_a_wall_of_slow_readers_holds_up_no_other_model(authority, parser) -> None:
    """A store that stops answering in the middle of a structure keeps a child waiting, not the others."""
    hold = asyncio.Event()

    async def stuck(request: Request) -> None:
        if request.start() == 0 and request.stop(len(LARGE)) == 1:
            await FileServer(LARGE)(request)
        else:
            await hold.wait()

    waiting = [asyncio.create_task(ask(stuck, authority, parser)) for _ in range(10)]
    await asyncio.sleep(0.2)
    async with asyncio.timeout(30):
        assert (await ask(FileServer(MODEL), authority, parser)).outcome == "Accepted"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    hold.set()


class SlowBeside(ModelFeed):
    """A model whose external data takes for ever to be found."""

    async def size(self, name: str) -> int | None:
        if name != "m.onnx":
            await asyncio.Event().wait()
        return await super().size(name)


async def test_a_store_that_hesitates_over_external_data_keeps_nobody_from_being_checked() -> None:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="w.bin")
    waits = model([helper.make_node("MatMul", ["x", "w"], ["y"])], initializers=[weight]).SerializeToString()
    async with Parser(InspectionLimits(parsers=1)) as parser:
        slow = [
            asyncio.create_task(parser.verify(SlowBeside(waits), "m.onnx", size=len(waits), capabilities=CAPABILITIES))
            for _ in range(4)
        ]
        await asyncio.sleep(1)
        async with asyncio.timeout(60):
            assert (await verify(parser, MODEL)).outcome == "Accepted"
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_small_files_beside_a_model_are_hashed_and_not_kept(authority, parser) -> None:
    weights = [tensor(f"w{n}", 4, 4) for n in range(5)]
    made = model(
        [helper.make_node("Sum", ["x", *(w.name for w in weights)], ["y"])], [value("x", (4, 4))], [value("y", (4, 4))]
    )
    for weight in weights:
        external = made.graph.initializer.add(name=weight.name, data_type=weight.data_type, dims=weight.dims)
        external.data_location = TensorProto.EXTERNAL
        external.external_data.add(key="location", value=f"{weight.name}.bin")

    async def handler(request: Request) -> None:
        name = request.path.rpartition("/")[2]
        content = made.SerializeToString() if name == "m.onnx" else weights[int(name[1])].raw_data
        await FileServer(content, None)(request)

    async with Server(handler, authority.server) as server:
        asked = InspectionRequest(uri=f"{server.url}/m.onnx", sources=settings(authority), capabilities=CAPABILITIES)
        result = await inspect(asked, limits=InspectionLimits(), parser=parser)
    assert result.files is not None, result.refusal
    assert [file.sha256 for file in result.files.files[1:]] == [
        hashlib.sha256(weight.raw_data).hexdigest() for weight in weights
    ]
