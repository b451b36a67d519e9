"""Leader election on a real API server: one leader, a quick handover, and an end when in doubt."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from onnx_operator.controller.cluster.kinds import CONFIG_MAP, LEASE, Object
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.lease import RENEW_DEADLINE_SECONDS, Lease, LeaseLostError
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


async def test_a_leader_that_was_stopped_writes_nothing_afterwards(kube: Kube, namespace: str) -> None:
    """Whatever line it was stopped at: what comes next may be a write, before any timer has fired."""
    now = [100.0]
    lease = Lease(kube, namespace, "onnx-operator", "stopped", clock=lambda: now[0])
    kube.may_write = lease.check
    with pytest.raises(LeaseLostError):
        await kube.create(CONFIG_MAP, _config_map(namespace, "early"))
    await lease.acquire()
    await kube.create(CONFIG_MAP, _config_map(namespace, "a"))
    now[0] += RENEW_DEADLINE_SECONDS
    found = await kube.get(CONFIG_MAP, namespace, "a")
    assert found is not None
    for write in (
        kube.create(CONFIG_MAP, _config_map(namespace, "late")),
        kube.apply(CONFIG_MAP, _config_map(namespace, "late")),
        kube.merge(CONFIG_MAP, namespace, "a", {"data": {"late": "1"}}),
        kube.replace(CONFIG_MAP, {**found, "data": {"late": "1"}}),
        kube.delete(CONFIG_MAP, namespace, "a", found["metadata"]["uid"]),
    ):
        with pytest.raises(LeaseLostError):
            await write
    assert await kube.get(CONFIG_MAP, namespace, "a") == found
    assert await kube.get(CONFIG_MAP, namespace, "late") is None
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(lease.hold(), 10)


async def test_what_is_stopped_on_its_way_to_a_connection_is_not_sent(kube: Kube, namespace: str) -> None:
    now = [0.0]
    lease = Lease(kube, namespace, "onnx-operator", "stopped", clock=lambda: now[0])
    await lease.acquire()
    kube.may_write = lease.check
    await kube.create(CONFIG_MAP, _config_map(namespace, "a"))
    late = asyncio.create_task(kube.create(CONFIG_MAP, _config_map(namespace, "b")))
    # It is on its way, and has sent nothing yet.
    await asyncio.sleep(0)
    now[0] = RENEW_DEADLINE_SECONDS
    with pytest.raises(LeaseLostError):
        await late
    assert await kube.get(CONFIG_MAP, namespace, "b") is None


async def test_whoever_has_let_the_lease_go_writes_nothing(kube: Kube, namespace: str) -> None:
    lease = Lease(kube, namespace, "onnx-operator", "gone")
    kube.may_write = lease.check
    await lease.acquire()
    await kube.create(CONFIG_MAP, _config_map(namespace, "a"))
    await lease.release()
    with pytest.raises(LeaseLostError):
        await kube.create(CONFIG_MAP, _config_map(namespace, "b"))


def _config_map(namespace: str, name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}
