"""What a tenant's registry sends never takes the memory of the inspector that all tenants share, nor its time."""

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from onnx_operator.api.report import InspectionRequest
from onnx_operator.api.sources import SourceSettings
from onnx_operator.inspector.client import InspectorClient
from onnx_operator.model.limits import InspectionLimits
from onnx_operator.model.refusal import RefusedError
from onnx_operator.model.sources.web import documents
from tests.security.documents import ENTRY, WORST, stuffed
from tests.unit.model.modelkit import CAPABILITIES

LIMIT = 256 << 10
HANG_SECONDS = 120.0
TOLERATED_BYTES = 64 << 20
"""Of growth, whatever is sent: all inspections with their connections, and one document's elements at a time."""


@asynccontextmanager
async def inspector(folder: Path) -> AsyncIterator[tuple[Path, int]]:
    """The sidecar as the operator starts it: its socket and process."""
    socket, settings = folder / "s", folder / "settings.yaml"
    settings.write_text("serverImage: none\n")
    command = [sys.executable, "-m", "onnx_operator.controller", "inspector"]
    arguments = ["--settings", str(settings), "--inspector-socket", str(socket)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([*command, *arguments], env=environment)
    try:
        async with asyncio.timeout(HANG_SECONDS):
            while not socket.exists():
                assert process.poll() is None
                await asyncio.sleep(0.05)
        yield socket, process.pid
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)


@asynccontextmanager
async def registry(answers: dict[str, tuple[bytes, bytes]]) -> AsyncIterator[int]:
    """Answers a manifest by its repository: headers and body; whatever else is asked for waits without an answer."""
    streams: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        streams.add(writer)
        try:
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
                _, _, repository, kind, name = path.split("/", 4)
                if (kind, name) == ("manifests", "latest"):
                    head, body = answers[repository.rstrip("0123456789")]
                    writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in streams:
            writer.transport.abort()


def whole(body: bytes) -> tuple[bytes, bytes]:
    return b"Content-Length: %d" % len(body), body


def chunked(body: bytes) -> tuple[bytes, bytes]:
    return b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def peak(pid: int) -> int:
    """Most bytes that the process ever had in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


EVIL = {
    # 1.4 million objects of one key in 4 MiB: what took 2 GiB of 16 models.
    "huge": whole(b'{"manifests":[%b],"x":[%b]}' % (ENTRY, b",".join([b'{"":0}'] * ((4 << 20) // 7 - 200)))),
    "hidden": chunked(b'{"manifests":[%b],"x":[%b]}' % (ENTRY, b",".join([b'{"":0}'] * ((4 << 20) // 7 - 200)))),
} | {name: whole(stuffed(element, LIMIT)) for name, element in WORST.items()}


@pytest.mark.parametrize("tenants", [1, 4])
async def test_evil_metadata_of_many_models_takes_little_of_the_inspector(tmp_path: Path, tenants: int) -> None:
    """16 models of each tenant, whose registry answers with the costliest index, then lets wait for the manifest."""
    async with (
        inspector(tmp_path) as (socket, pid),
        registry(EVIL) as port,
        InspectorClient(socket) as client,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as others,
    ):
        sources = SourceSettings.model_validate(
            {
                "allowedNetworks": ["127.0.0.1/32"],
                "oci": {"plainHttpRegistries": [f"127.0.0.1:{port}"]},
                "readTimeoutSeconds": 2,
            }
        )

        async def ask(tenant: int, number: int) -> str:
            name = list(EVIL)[number % len(EVIL)]
            request = InspectionRequest(
                tenant=f"t{tenant}",
                uri=f"oci://127.0.0.1:{port}/{name}{number}",
                sources=sources,
                capabilities=CAPABILITIES,
            )
            try:
                result = await client.inspect(request)
            except RefusedError as error:
                return str(error)
            assert result.refusal is not None
            return f"{name}: {result.refusal.message}"

        async def healthy() -> None:
            async with others.get("http://inspector/healthz") as response:
                assert (await response.json())["status"] == "ok"

        await healthy()
        before = peak(pid)
        tasks = [asyncio.create_task(ask(tenant, number)) for tenant in range(tenants) for number in range(16)]
        async with asyncio.timeout(HANG_SECONDS):
            while not all(task.done() for task in tasks):
                await healthy()
                await asyncio.sleep(0.2)
        answers = [task.result() for task in tasks]
        growth = peak(pid) - before
        print(f"{len(tasks)} models: {growth >> 20} MiB beside {before >> 20} MiB")
        assert growth < TOLERATED_BYTES
        large = [answer for answer in answers if answer.startswith(("huge", "hidden"))]
        assert len(large) >= 2 * tenants
        assert all("the manifest or index" in answer and str(LIMIT) in answer for answer in large)
        # What fits and is well-formed is followed, and waited for in vain.
        assert any("in time" in answer for answer in answers)


def test_documents_of_all_inspections_fit_so_that_none_waits_for_a_slow_one_of_another_tenant() -> None:
    largest = max(kind.limit for kind in vars(documents).values() if isinstance(kind, documents.DocumentKind))
    assert InspectionLimits.inspections * largest <= documents.BUDGET_BYTES
