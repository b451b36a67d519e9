"""The controller's own parts on a real API server, one step at a time: no node, a real inspector."""

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from onnx_operator.api import names
from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.controller.cluster.kinds import CONTROLLER_REVISION, DEPLOYMENT, ONNX_MODEL
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.cluster.reflector import Reflectors
from onnx_operator.controller.cluster.sight import Sight
from onnx_operator.controller.cluster.store import Store
from onnx_operator.controller.reconcile import Reconciler
from onnx_operator.controller.revision.sealkey import obtain_keys
from onnx_operator.controller.rollout.revising import Revising
from onnx_operator.controller.rollout.shapes import shapes
from onnx_operator.controller.settings.settings import parse_settings
from onnx_operator.inspector import InspectorClient
from onnx_operator.inspector.service import Policy, serve
from onnx_operator.model.limits import InspectionLimits
from tests import models
from tests.integration.sights import caught_up, following
from tests.unit.model.webkit import FileServer, Request, Server

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

    def __init__(
        self, kube: Kube, reconciler: Reconciler, queue: KeyedQueue, store: Store, reflectors: Reflectors
    ) -> None:
        self.kube, self.reconciler, self.queue, self.store = kube, reconciler, queue, store
        self.reflectors = reflectors

    async def settle(self, namespace: str, name: str) -> None:
        """Look at a model, and again for as long as something is under way."""
        key = (namespace, name)
        await caught_up(self.kube, self.store, namespace)
        await self.reconciler.reconcile(key)
        for _ in range(100):
            # A new model says nothing before it has been read for a while.
            found = [c["reason"] for c in await self.conditions(namespace, name)]
            if found and "Inspecting" not in found:
                return
            async with asyncio.timeout(60):
                taken = await self.queue.get()
            await caught_up(self.kube, self.store, namespace)
            await self.reconciler.reconcile(taken)
            self.queue.done(taken)
        raise AssertionError("it never settles")

    async def conditions(self, namespace: str, name: str) -> list[dict]:
        model = await self.kube.get(ONNX_MODEL, namespace, name)
        return (model.get("status") or {}).get("conditions", [])


class Desk:
    """A namespace with models, and operators that come and go."""

    def __init__(self, kube: Kube, cluster, namespace: str, socket: Path, url: str, authority: str, files: FileServer):
        self.kube, self.cluster, self.namespace, self.socket, self.url = kube, cluster, namespace, socket, url
        self.files = files
        self.kubeconfig = cluster.kubeconfig
        """By which operators reach the API server."""
        self.settings = {
            "serverImage": "localhost/onnx-server:1",
            "sources": {"allowedNetworks": ["127.0.0.0/8"], "https": {"caBundle": authority}},
        }
        self.requests: list[Request] = []
        """What was asked of the server that holds the models."""
        self._open = AsyncExitStack()

    async def operator(self, home: str | None = None, **settings) -> Operator:
        """An operator that starts now; ``home`` is its namespace, where its key is."""
        loaded = parse_settings({**self.settings, **settings})
        # Each has a connection of its own, by which it hears of its own writes.
        kube = await Kube.connect(str(self.kubeconfig))
        keys = await obtain_keys(kube, home or self.namespace, SEAL)
        client, queue = InspectorClient(self.socket), KeyedQueue()
        revising = Revising(kube, loaded, keys)
        self._open.push_async_callback(client.aclose)
        self._open.push_async_callback(kube.close)
        store = Store(shapes(revising.own, models=loaded.model_selector))
        reflectors = await self._open.enter_async_context(following(kube, store, self.namespace))
        sight = Sight(kube, store)
        made = Reconciler(kube, loaded, load_capabilities(), client, queue, f"test-{os.getpid()}", revising, sight)
        return Operator(kube, made, queue, store, reflectors)

    async def aclose(self) -> None:
        await self._open.aclose()

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
        return {kind: condition["reason"] for kind, condition in (await self.conditions(name)).items()}

    async def conditions(self, name: str = "m") -> dict[str, dict]:
        model = await self.kube.get(ONNX_MODEL, self.namespace, name)
        return {c["type"]: c for c in (model.get("status") or {}).get("conditions", [])}

    def kubectl(self, *arguments: str, **options) -> str:
        return self.cluster.kubectl(*arguments, f"--namespace={self.namespace}", **options)


@pytest.fixture
async def desk(apiserver, crd, api_namespace, authority, tmp_path):
    """A namespace whose models lie on a server of the test's own."""
    kube, files = await Kube.connect(str(apiserver.kubeconfig)), FileServer(models.linear())
    async with Server(files, authority.server) as server, inspector(tmp_path) as socket:
        url = f"https://localhost:{server.port}"
        made = Desk(kube, apiserver, api_namespace, socket, url, authority.pem, files)
        made.requests = server.requests
        yield made
        await made.aclose()
    await kube.close()
