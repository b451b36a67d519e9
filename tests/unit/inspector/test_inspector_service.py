import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import Capabilities, InspectionRequest, InspectionResult, Refusal
from onnx_operator.api.sources import SourceSettings
from onnx_operator.controller.endpoints import Health, start_endpoints
from onnx_operator.inspector import InspectorClient, service, wire
from onnx_operator.inspector.service import Policy
from onnx_operator.model.inspection.faults import ForbiddenCallError
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.refusal import RefusedError

CAPABILITIES = Capabilities(onnx_runtime_version="1.32.0", ir_version=14, opsets={"ai.onnx": 28}, operators={})


REFUSED = InspectionResult(outcome="Refused", refusal=Refusal(reason=Reason.NOT_ONNX, message="m"))


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
        with pytest.raises(RefusedError, match=r"nothing\.sock"):
            await client.inspect(request(""))


async def test_a_fault_of_the_inspector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("very-secret")

    monkeypatch.setattr(service, "inspect", fail)
    async with inspector(tmp_path) as socket, InspectorClient(socket) as client:
        with pytest.raises(RefusedError, match="inspector's log") as caught:
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
        with pytest.raises(RefusedError, match="system call 334"):
            await client.inspect(request(""))


async def test_what_it_counts_is_among_the_metrics_of_the_operator(tmp_path: Path) -> None:
    app = service.application(InspectionLimits(), Policy(), Counting())
    runner = aiohttp.web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await aiohttp.web.UnixSite(runner, str(tmp_path / "inspector.sock")).start()
    async with InspectorClient(tmp_path / "inspector.sock") as client:
        endpoints = await start_endpoints(Health(inspector=client), "127.0.0.1", 0)
        address = f"http://127.0.0.1:{endpoints.addresses[0][1]}/metrics"
        async with aiohttp.ClientSession() as session:
            for _ in ("it answers", "it is gone"):
                async with session.get(address) as response:
                    lines = (await response.text()).splitlines()
                assert "onnx_operator_inspector_forbidden_calls_total 3.0" in lines
                assert "onnx_operator_inspector_exceeded_limits_total 5.0" in lines
                await runner.cleanup()
        await endpoints.cleanup()


class Counting(Parser):
    """A parser that has ended children already."""

    def __init__(self) -> None:
        super().__init__(InspectionLimits())
        self._endings.forbidden_calls, self._endings.exceeded_limits = 3, 5


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"[" * 9999),
        *(b'{"forbiddenCalls": -1}', b'{"forbiddenCalls": 1e400}'),
        *(b'{"exceededLimits": true}', b'{"exceededLimits": 9007199254740993}'),
    ],
)
def test_counts_that_are_none_are_not_believed(body: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.read_counts(body)


async def hang(_: aiohttp.web.Request) -> aiohttp.web.Response:
    await asyncio.sleep(600)
    raise AssertionError


async def test_an_inspection_that_takes_too_long_is_given_up_and_tried_again(tmp_path: Path) -> None:
    async with (
        store(hang) as endpoint,
        inspector(tmp_path, timeout_seconds=1) as socket,
        InspectorClient(socket) as client,
    ):
        result = await client.inspect(request(endpoint))
    assert result.refusal is not None
    assert (result.refusal.reason, result.refusal.retriable) == ("SourceUnreachable", True)
    assert "inspection.timeoutSeconds" in result.refusal.message


async def test_time_in_the_queue_is_nobodys_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one waits for longer than an inspection may take, and gets its verdict."""

    async def slow(*_: object, **__: object) -> InspectionResult:
        await asyncio.sleep(1)
        return REFUSED

    monkeypatch.setattr(service, "inspect", slow)
    async with inspector(tmp_path, timeout_seconds=6, inspections=1) as socket, InspectorClient(socket) as client:
        results = await asyncio.gather(*(client.inspect(request("")) for _ in range(9)))
    assert results == [REFUSED] * 9


@pytest.mark.parametrize("says", [b"", b'HTTP/1.1 200 OK\r\n\r\n{"state":"running"}\n'], ids=["at once", "later"])
async def test_an_inspector_that_falls_silent_is_noticed(tmp_path: Path, says: bytes) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        while await reader.read(1000):
            pass
        writer.close()
        await writer.wait_closed()

    socket = tmp_path / "mute.sock"
    server = await asyncio.start_unix_server(mute, socket)
    async with InspectorClient(socket, silence_seconds=0.5) as client:
        with pytest.raises(RefusedError, match=r"nothing for 0\.5 s"):
            await client.inspect(request(""))
        assert await client.healthy() == bool(says), "it tells no more than whether there is an answer"
    server.close()
    await asyncio.sleep(0.1)


async def test_one_that_waits_for_long_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "KEEPALIVE_SECONDS", 0.1)
    told = []
    read_line = wire.read_line
    monkeypatch.setattr(wire, "read_line", lambda line: told.append(line) or read_line(line))
    release = asyncio.Event()

    async def wait(*_: object, **__: object) -> InspectionResult:
        await release.wait()
        return REFUSED

    monkeypatch.setattr(service, "inspect", wait)
    async with (
        inspector(tmp_path, inspections=1) as socket,
        InspectorClient(socket, silence_seconds=20) as client,
    ):
        tasks = [asyncio.create_task(client.inspect(request(""))) for _ in range(2)]
        while not {b'{"state":"queued"}', b'{"state":"running"}'} <= set(told) or len(told) < 20:
            await asyncio.sleep(0.01)
            assert not any(task.done() for task in tasks)
        release.set()
        await asyncio.gather(*tasks)


async def test_thousands_of_waiting_models_take_few_connections_and_capabilities_go_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[int] = []
    read_request = wire.read_request
    monkeypatch.setattr(wire, "read_request", lambda body, store: bodies.append(len(body)) or read_request(body, store))
    most, puts = 0, 0
    put = wire.CapabilityStore.put

    def count(self: wire.CapabilityStore, digest: str, body: bytes) -> None:
        nonlocal puts
        puts += 1
        put(self, digest, body)

    monkeypatch.setattr(wire.CapabilityStore, "put", count)

    async def look(asked: InspectionRequest, **_: object) -> InspectionResult:
        nonlocal most
        own = [each for each in Path("/proc/net/unix").read_text().splitlines() if each.endswith(str(socket))]
        most = max(most, len(own))
        assert asked.capabilities in (CAPABILITIES, load_capabilities())
        return REFUSED

    monkeypatch.setattr(service, "inspect", look)
    bundled = load_capabilities()
    async with inspector(tmp_path) as socket, InspectorClient(socket, requests=8, per_tenant=4) as client:
        asked = request("")
        await asyncio.gather(
            *(
                client.inspect(asked.model_copy(update={"tenant": f"t{n % 7}", "capabilities": bundled}))
                for n in range(1000)
            )
        )
        assert puts == 0, "the bundled ones every inspector has"
        await client.inspect(asked)
        await client.inspect(asked)
        assert puts == 1
    # The listening socket, and the inspector's end of each connection.
    assert most <= 1 + 8
    assert max(bodies) < 8_000


async def test_of_the_places_on_the_socket_one_namespace_leaves_some_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()

    async def wait(asked: InspectionRequest, **_: object) -> InspectionResult:
        if asked.tenant == "many":
            await release.wait()
        return REFUSED

    monkeypatch.setattr(service, "inspect", wait)
    async with inspector(tmp_path) as socket, InspectorClient(socket) as client:
        many = [
            asyncio.create_task(client.inspect(request("").model_copy(update={"tenant": "many"}))) for _ in range(200)
        ]
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await client.inspect(request("").model_copy(update={"tenant": "other"}))
        assert not any(task.done() for task in many)
        release.set()
        await asyncio.gather(*many)


async def test_who_crowds_gives_way_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two namespaces with stores that never answer hold all places; a third one gets in nevertheless."""
    monkeypatch.setattr(service, "_CROWDING_SECONDS", 0.2)
    monkeypatch.setattr(service, "_LOOK_SECONDS", 0.05)

    async def stuck(asked: InspectionRequest, **_: object) -> InspectionResult:
        if asked.tenant != "third":
            await asyncio.Event().wait()
        return REFUSED

    monkeypatch.setattr(service, "inspect", stuck)
    async with (
        inspector(tmp_path, inspections=4, inspections_per_tenant=2) as socket,
        InspectorClient(socket, requests=100, per_tenant=100) as client,
    ):
        held = [
            asyncio.create_task(client.inspect(request("").model_copy(update={"tenant": tenant})))
            for tenant in ("first", "second")
            for _ in range(2)
        ]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in held), "nobody else waits"
        async with asyncio.timeout(60):
            await client.inspect(request("").model_copy(update={"tenant": "third"}))
        gone = [task.result() for task in held if task.done()]
        assert 1 <= len(gone) <= 2
        assert all(each.refusal and each.refusal.retriable for each in gone)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)


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
        return REFUSED

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
        return REFUSED

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
