import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_operator.api.report import Capabilities, InspectionRequest, InspectionResult
from onnx_operator.api.sources import SourceSettings
from onnx_operator.controller.inspector import InspectorClient, InspectorUnavailableError, service
from onnx_operator.controller.inspector.service import Policy
from onnx_operator.model.inspection.isolation import ForbiddenCallError
from onnx_operator.model.inspection.limits import InspectionLimits

CAPABILITIES = Capabilities(onnx_runtime_version="1.32.0", ir_version=14, opsets={"ai.onnx": 28}, operators={})


def model_bytes() -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, ["N"])],
        [value("y", TensorProto.FLOAT, ["N"])],
    )
    made: onnx.ModelProto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return made.SerializeToString()


def request(endpoint: str, uri: str = "s3://bucket/m.onnx") -> InspectionRequest:
    return InspectionRequest(
        uri=uri,
        credentials={"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "very-secret"},
        sources=SourceSettings.model_validate({"s3": {"endpoint": endpoint}}),
        capabilities=CAPABILITIES,
    )


@asynccontextmanager
async def store(answer) -> AsyncIterator[str]:
    app = aiohttp.web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = aiohttp.web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def give_model(_: aiohttp.web.Request) -> aiohttp.web.Response:
    headers = {"ETag": '"v1"', "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}
    return aiohttp.web.Response(body=model_bytes(), headers=headers)


@asynccontextmanager
async def inspector(folder: Path, policy: Policy = Policy(), **limits: int) -> AsyncIterator[Path]:  # noqa: B008
    stop = asyncio.Event()
    socket = folder / "inspector.sock"
    task = asyncio.create_task(service.serve(socket, InspectionLimits(**limits), policy, stop))
    while not socket.exists():
        await asyncio.sleep(0.01)
        assert not task.done()
    try:
        yield socket
    finally:
        stop.set()
        await task


async def test_inspect_over_the_socket(tmp_path: Path) -> None:
    async with store(give_model) as endpoint, inspector(tmp_path) as socket, InspectorClient(socket) as client:
        assert await client.healthy()
        result = await client.inspect(request(endpoint))
        assert stat.S_IMODE(socket.stat().st_mode) == 0o660
    assert isinstance(result, InspectionResult)
    assert result.outcome == "Accepted"
    assert result.source is not None
    assert result.source.value == '"v1"'
    assert [path.name for path in tmp_path.iterdir()] == ["inspector.sock"]


async def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    async with inspector(tmp_path) as socket, InspectorClient(socket) as client:
        result = await client.inspect(request("http://127.0.0.1:1"))
        assert result.refusal is not None
        assert result.refusal.reason == "SourceUnreachable"
        refused = await client.inspect(request("", "https://127.0.0.1/m.onnx"))
        assert refused.refusal is not None
        assert refused.refusal.reason == "SourceRefused"


async def test_nobody_there(tmp_path: Path) -> None:
    async with InspectorClient(tmp_path / "nothing.sock") as client:
        assert not await client.healthy()
        with pytest.raises(InspectorUnavailableError, match=r"nothing\.sock"):
            await client.inspect(request(""))


async def test_a_fault_of_the_inspector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("very-secret")

    monkeypatch.setattr(service, "inspect", fail)
    async with inspector(tmp_path) as socket, InspectorClient(socket) as client:
        with pytest.raises(InspectorUnavailableError, match="500") as caught:
            await client.inspect(request(""))
        assert await client.healthy()
    assert "very-secret" not in str(caught.value)


async def test_a_call_that_the_sandbox_lacks_is_told_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ForbiddenCallError(334)

    monkeypatch.setattr(service, "inspect", fail)
    async with inspector(tmp_path) as socket, InspectorClient(socket) as client:
        with pytest.raises(InspectorUnavailableError, match="system call 334"):
            await client.inspect(request(""))


async def test_the_client_gives_up(tmp_path: Path) -> None:
    async def hang(_: aiohttp.web.Request) -> aiohttp.web.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with (
        store(hang) as endpoint,
        inspector(tmp_path) as socket,
        InspectorClient(socket, timeout_seconds=0.3) as client,
    ):
        with pytest.raises(InspectorUnavailableError, match=r"inspection\.timeoutSeconds"):
            await client.inspect(request(endpoint))


async def test_work_ends_when_the_client_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(*_: object, **__: object) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(service, "inspect", endless)
    async with inspector(tmp_path) as socket:
        client = InspectorClient(socket)
        task = asyncio.create_task(client.inspect(request("")))
        await begun.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await client.aclose()
        await ended.wait()


async def test_a_malformed_request_is_not_repeated(tmp_path: Path) -> None:
    async with inspector(tmp_path) as socket:
        connector = aiohttp.UnixConnector(path=str(socket))
        async with aiohttp.ClientSession(connector=connector) as session:
            body = '{"uri": 1, "credentials": {"AWS_SECRET_ACCESS_KEY": ["very-secret"]}}'
            async with session.post("http://inspector/inspect", data=body) as response:
                text = await response.text()
    assert response.status == 400
    assert "very-secret" not in text


async def test_no_more_inspections_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = most = 0

    async def count(*_: object, **__: object) -> InspectionResult:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return InspectionResult(outcome="Refused")

    monkeypatch.setattr(service, "inspect", count)
    async with inspector(tmp_path, inspections=3) as socket, InspectorClient(socket) as client:
        await asyncio.gather(*(client.inspect(request("")) for _ in range(20)))
    assert most == 3


@pytest.mark.parametrize("allowed", [True, False])
async def test_the_operators_identity_is_used_only_where_the_inspectors_own_settings_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    asked: list[bool] = []

    async def look(request: InspectionRequest, **_: object) -> InspectionResult:
        asked.append(request.workload_identity)
        return InspectionResult(outcome="Refused")

    monkeypatch.setattr(service, "inspect", look)
    policy = Policy(operator_identity=allowed)
    async with inspector(tmp_path, policy) as socket, InspectorClient(socket) as client:
        await client.inspect(request("").model_copy(update={"workload_identity": True, "credentials": {}}))
        await client.inspect(request(""))
    assert asked == [allowed, False]


async def test_it_starts_over_an_old_socket(tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "inspector.sock").unlink(missing_ok=True)
        async with inspector(tmp_path) as socket, InspectorClient(socket) as client:
            assert await client.healthy()


def test_cloud_credentials_leave_the_environment() -> None:
    environment = {"AWS_SECRET_ACCESS_KEY": "x", "AZURE_CLIENT_SECRET": "x", "HTTPS_PASSWORD": "x", "PATH": "/bin"}
    service.scrub_environment(environment)
    assert environment == {"PATH": "/bin"}
