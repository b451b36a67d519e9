"""The controller's own parts on a real API server, one step at a time: no watch, no node, a real inspector."""

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path

from onnx_operator.api import names
from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.controller.cluster.kube import CONTROLLER_REVISION, DEPLOYMENT, ONNX_MODEL, Kube
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.reconcile import Reconciler
from onnx_operator.controller.revision.sealkey import obtain_keys
from onnx_operator.controller.settings.settings import parse_settings
from onnx_operator.inspector import InspectorClient
from onnx_operator.inspector.service import Policy, serve
from onnx_operator.model.limits import InspectionLimits

SEAL = "onnx-operator-seal"


@asynccontextmanager
async def inspector(folder: Path):
    """An inspector that listens at a socket below ``folder``."""
    socket, stop = folder / "inspector.sock", asyncio.Event()
    task = asyncio.create_task(serve(socket, InspectionLimits(), Policy(), stop))
    while not socket.exists():
        await asyncio.sleep(0.05)
    yield socket
    stop.set()
    await task


class Operator:
    """One life of an operator: its keys, and what it looks at when it is told to."""

    def __init__(self, kube: Kube, reconciler: Reconciler, queue: KeyedQueue, client: InspectorClient):
        self.kube, self.reconciler, self.queue, self.client = kube, reconciler, queue, client

    async def settle(self, namespace: str, name: str) -> None:
        """Look at a model, and again for as long as something is under way."""
        key = (namespace, name)
        await self.reconciler.reconcile(key)
        for _ in range(100):
            if not any(c["reason"] == "Inspecting" for c in await self.conditions(namespace, name)):
                return
            async with asyncio.timeout(60):
                found = await self.queue.get()
            await self.reconciler.reconcile(found)
            self.queue.done(found)
        raise AssertionError("it never settles")

    async def conditions(self, namespace: str, name: str) -> list[dict]:
        model = await self.kube.get(ONNX_MODEL, namespace, name)
        return (model.get("status") or {}).get("conditions", [])


class Desk:
    """A namespace with models, and operators that come and go."""

    def __init__(self, kube: Kube, cluster, namespace: str, socket: Path, url: str, authority: str):
        self.kube, self.cluster, self.namespace, self.socket, self.url = kube, cluster, namespace, socket, url
        self.settings = {
            "serverImage": "localhost/onnx-server:1",
            "sources": {"allowedNetworks": ["127.0.0.0/8"], "https": {"caBundle": authority}},
        }
        self._clients: list[InspectorClient] = []

    async def operator(self, home: str | None = None, **settings) -> Operator:
        """An operator that starts now; ``home`` is its namespace, where its key is."""
        loaded = parse_settings({**self.settings, **settings})
        keys = await obtain_keys(self.kube, home or self.namespace, SEAL)
        client, queue = InspectorClient(self.socket), KeyedQueue()
        self._clients.append(client)
        made = Reconciler(self.kube, loaded, load_capabilities(), client, queue, f"test-{os.getpid()}", keys)
        return Operator(self.kube, made, queue, client)

    async def aclose(self) -> None:
        for client in self._clients:
            await client.aclose()

    async def write(self, name: str = "m", **spec) -> dict:
        """Apply a model as its user does."""
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"model": {"uri": f"{self.url}/m.onnx"} | spec.pop("model", {}), **spec},
        }
        return await self.kube.apply(ONNX_MODEL, manifest, manager="user")

    async def deployment(self, name: str = "m", namespace: str | None = None):
        return await self.kube.get(DEPLOYMENT, namespace or self.namespace, name)

    async def revisions(self, name: str = "m") -> list[dict]:
        found = await self.kube.list(CONTROLLER_REVISION, self.namespace, {names.LABEL_MODEL: name})
        return sorted(found, key=lambda r: r["revision"])

    async def reasons(self, name: str = "m") -> dict[str, str]:
        model = await self.kube.get(ONNX_MODEL, self.namespace, name)
        return {c["type"]: c["reason"] for c in (model.get("status") or {}).get("conditions", [])}

    def kubectl(self, *arguments: str, **options) -> str:
        return self.cluster.kubectl(*arguments, f"--namespace={self.namespace}", **options)
