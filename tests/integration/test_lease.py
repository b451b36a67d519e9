"""Leader election on a real API server: one leader, a quick handover, and an end when in doubt."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from onnx_operator.controller.cluster.kube import LEASE, Kube
from onnx_operator.controller.cluster.lease import Lease, LeaseLostError
from tests.cluster.cluster import Cluster


@pytest.fixture
async def kube(apiserver: Cluster):
    connection = await Kube.connect(str(apiserver.kubeconfig))
    yield connection
    await connection.close()


async def test_the_first_leads_and_the_second_takes_over_when_it_is_released(kube: Kube, namespace: str) -> None:
    first, second = (Lease(kube, namespace, "onnx-operator", name) for name in ("first", "second"))
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(3)
    assert not waiting.done()
    await first.release()
    await asyncio.wait_for(waiting, 10)
    lease = await kube.get(LEASE, namespace, "onnx-operator")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == "second"
    assert lease["spec"]["leaseTransitions"] >= 1


async def test_a_leader_whose_lease_is_taken_stops(kube: Kube, namespace: str) -> None:
    lease = Lease(kube, namespace, "onnx-operator", "first")
    await lease.acquire()
    holding = asyncio.create_task(lease.hold())
    found = await kube.get(LEASE, namespace, "onnx-operator")
    assert found is not None
    await kube.replace(LEASE, {**found, "spec": {**found["spec"], "holderIdentity": "thief"}})
    with pytest.raises(LeaseLostError, match="another replica"):
        await asyncio.wait_for(holding, 20)


@asynccontextmanager
async def cuttable(kubeconfig: Path, folder: Path) -> AsyncIterator[tuple[Path, Callable[[], None]]]:
    """A kubeconfig whose API server is reached through a proxy, and what cuts the proxy off for good."""
    config = yaml.safe_load(kubeconfig.read_text())
    target = urlsplit(config["clusters"][0]["cluster"]["server"])
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(target.hostname, target.port)
        writers.extend((writer, far_writer))
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_server(handle, "127.0.0.1", 0)

    def cut() -> None:
        server.close()
        for writer in writers:
            writer.transport.abort()

    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    try:
        yield path, cut
    finally:
        cut()


async def test_a_leader_that_is_cut_off_stops_before_another_may_begin(
    apiserver: Cluster, namespace: str, tmp_path: Path
) -> None:
    async with cuttable(apiserver.kubeconfig, tmp_path) as (kubeconfig, cut):
        kube = await Kube.connect(str(kubeconfig))
        lease = Lease(kube, namespace, "onnx-operator", "cut-off")
        await lease.acquire()
        cut()
        with pytest.raises(LeaseLostError, match="not renewed"):
            await asyncio.wait_for(lease.hold(), 30)
        await kube.close()
