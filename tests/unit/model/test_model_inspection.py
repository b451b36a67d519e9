import asyncio
import hashlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from modelkit import CAPABILITIES, linear, model, value
from onnx import helper
from webkit import FileServer, Request, Server, settings

from onnx_operator.api.report import InspectionRequest, InspectionResult
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.inspection import inspect
from onnx_operator.model.isolation import Parser, ParserError
from onnx_operator.model.limits import InspectionLimits

MODEL = linear(64).SerializeToString()
SHA = hashlib.sha256(MODEL).hexdigest()
PIN = SourcePin(kind="None", value="sha256:00")


@pytest_asyncio.fixture
async def parser() -> AsyncIterator[Parser]:
    async with Parser(InspectionLimits()) as started:
        yield started


async def ask(handler, authority, workdir: Path, parser: Parser, limits=None, **request) -> InspectionResult:
    async with Server(handler, authority.server) as server:
        asked = InspectionRequest(
            uri=f"{server.url}/m.onnx?sig=SIGNATURE",
            sources=settings(authority),
            capabilities=CAPABILITIES,
            **request,
        )
        result = await inspect(asked, workdir=workdir, limits=limits or InspectionLimits(), parser=parser)
    assert list(workdir.iterdir()) == []
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
async def test_accepted(authority, tmp_path, parser, etag, pin, wanted) -> None:
    result = await ask(FileServer(MODEL, etag), authority, tmp_path, parser, sha256=wanted)
    assert result.outcome == "Accepted"
    assert result.report is not None
    assert result.report.source == result.source == pin
    assert result.report.digest == f"sha256:{SHA}"
    assert result.report.size_bytes == len(MODEL)
    assert result.interface


async def test_another_digest(authority, tmp_path, parser) -> None:
    result = await ask(FileServer(MODEL), authority, tmp_path, parser, sha256="ab" * 32)
    assert result.refusal is not None
    assert result.refusal.reason == "DigestMismatch"
    assert SHA in result.refusal.message
    assert "ab" * 32 in result.refusal.message
    assert result.source == SourcePin(kind="Conditional", value='"v1"')


async def test_not_onnx(authority, tmp_path, parser) -> None:
    result = await ask(FileServer(b"<html>"), authority, tmp_path, parser)
    assert result.refusal is not None
    assert result.refusal.reason == "NotOnnx"
    assert result.source is not None


async def test_not_found(authority, tmp_path, parser) -> None:
    async def handler(request: Request) -> None:
        await request.answer(404)

    result = await ask(handler, authority, tmp_path, parser)
    assert result.refusal is not None
    assert (result.refusal.reason, result.refusal.retriable) == ("SourceNotFound", False)


async def test_unreachable_is_worth_another_try(authority, tmp_path, parser) -> None:
    async def handler(request: Request) -> None:
        await request.answer(503, {"Retry-After": "100"})

    result = await ask(handler, authority, tmp_path, parser)
    assert result.refusal is not None
    assert (result.refusal.reason, result.refusal.retriable) == ("SourceUnreachable", True)


@pytest.mark.parametrize("announced", [True, False])
async def test_too_large_names_the_setting(authority, tmp_path, parser, announced) -> None:
    async def silent_about_size(request: Request) -> None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + MODEL)
        await request.writer.drain()

    handler = FileServer(MODEL) if announced else silent_about_size
    result = await ask(handler, authority, tmp_path, parser, limits=InspectionLimits(max_model_bytes=1000))
    assert result.refusal is not None
    assert result.refusal.reason == "TooLarge"
    assert "inspection.maxModelBytes" in result.refusal.message


async def test_no_room_on_the_volume(authority, tmp_path, parser, monkeypatch) -> None:
    async def handler(request: Request) -> None:
        await request.answer(206, {"Content-Range": "bytes 0-0/2000000000", "ETag": '"v1"'}, b"x")

    before = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: before(path)._replace(free=1000))
    result = await ask(handler, authority, tmp_path, parser)
    assert result.refusal is not None
    assert result.refusal.reason == "TooLarge"
    assert "volume" in result.refusal.message


async def test_a_file_replaced_between_two_requests_is_read_as_it_is_now(authority, tmp_path, parser) -> None:
    old, new = FileServer(b"old", '"v1"'), FileServer(MODEL, '"v2"')
    seen = []

    async def handler(request: Request) -> None:
        seen.append(request)
        await (old if len(seen) == 1 else new)(request)

    result = await ask(handler, authority, tmp_path, parser)
    assert result.outcome == "Accepted"
    assert result.source == SourcePin(kind="Conditional", value='"v2"')


async def test_a_file_that_keeps_changing(authority, tmp_path, parser) -> None:
    seen = []

    async def handler(request: Request) -> None:
        seen.append(request)
        await FileServer(MODEL, f'"v{len(seen)}"')(request)

    result = await ask(handler, authority, tmp_path, parser)
    assert result.refusal is not None
    assert (result.refusal.reason, result.refusal.retriable) == ("SourceUnreachable", True)


async def test_cancelling_leaves_nothing(authority, tmp_path, parser) -> None:
    async def handler(request: Request) -> None:
        await request.answer(200, {"Content-Length": "1000"}, b"x" * 10)
        await asyncio.sleep(60)

    task = asyncio.create_task(ask(handler, authority, tmp_path, parser))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.iterdir()) == []


def wide(count: int) -> bytes:
    nodes = [helper.make_node("Relu", ["x"], [f"h{i}"]) for i in range(count)]
    return model([*nodes, helper.make_node("Abs", ["x"], ["y"])], [value("x")], [value("y")]).SerializeToString()


async def judge(parser: Parser, path: Path) -> InspectionResult:
    return await parser.judge(path, source=PIN, sha256="00", capabilities=CAPABILITIES)


@pytest.mark.parametrize(
    "limits",
    [InspectionLimits(memory_bytes=1 << 20), InspectionLimits(wall_seconds=1), InspectionLimits(cpu_seconds=1)],
    ids=["memory", "time", "processor"],
)
async def test_limits_of_the_child(tmp_path, limits) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(await asyncio.to_thread(wide, 100_000))
    async with Parser(limits) as parser:
        result = await judge(parser, path)
        assert result.refusal is not None
        assert result.refusal.reason == "TooLarge"
        path.write_bytes(b"text")
        after = await judge(parser, path)
    assert after.refusal is not None
    assert after.refusal.reason == "NotOnnx"


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def running_child(parser: Parser) -> int:
    assert parser._process is not None
    for _ in range(1000):
        if found := children(parser._process.pid):
            return found[0]
        await asyncio.sleep(0.01)
    raise AssertionError("no child")


async def test_a_crash_is_the_files_fault(tmp_path, parser) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(await asyncio.to_thread(wide, 100_000))
    task = asyncio.create_task(judge(parser, path))
    os.kill(await running_child(parser), signal.SIGSEGV)
    result = await task
    assert result.refusal is not None
    assert result.refusal.reason == "Corrupt"
    assert "SIGSEGV" in result.refusal.message


async def test_a_model_that_crashes_onnx_is_refused(tmp_path, parser) -> None:
    """With onnx 1.23 this ends shape inference by SIGSEGV, which must cost a child and nothing else."""
    made = helper.make_node("LayerNormalization", ["x", "w", "w"], ["y", "m", "i"], axis=2**63 - 4)
    path = tmp_path / "m.onnx"
    path.write_bytes(model([made], [value("x", (2, 3)), value("w", (3,))], [value("y", None)]).SerializeToString())
    assert (await judge(parser, path)).outcome == "Refused"
    path.write_bytes(MODEL)
    assert (await judge(parser, path)).outcome == "Accepted"


async def test_cancelling_ends_the_child(tmp_path, parser) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(await asyncio.to_thread(wide, 100_000))
    task = asyncio.create_task(judge(parser, path))
    child = await running_child(parser)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert parser._process is not None
    while child in children(parser._process.pid):
        await asyncio.sleep(0.01)


async def test_a_lost_process_is_replaced(tmp_path, parser) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(await asyncio.to_thread(wide, 100_000))
    task = asyncio.create_task(judge(parser, path))
    child = await running_child(parser)
    assert parser._process is not None
    parser._process.kill()
    os.kill(child, signal.SIGKILL)
    with pytest.raises(ParserError):
        await task
    path.write_bytes(MODEL)
    assert (await judge(parser, path)).outcome == "Accepted"


async def test_the_child_has_no_environment_of_ours(monkeypatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    async with Parser(InspectionLimits()) as parser:
        assert parser._process is not None
        environment = Path(f"/proc/{parser._process.pid}/environ").read_text()
        while not environment:
            environment = Path(f"/proc/{parser._process.pid}/environ").read_text()
    assert "secret" not in environment
    assert "HOME=" not in environment


async def test_many_at_once(tmp_path, parser) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(MODEL)
    results = await asyncio.gather(*(judge(parser, path) for _ in range(50)))
    assert all(result.outcome == "Accepted" for result in results)
