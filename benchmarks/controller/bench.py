"""What all measurements share: a control plane, the operator on it, a raw client, and when what was seen first."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.controller.calls import CallLog
from benchmarks.controller.files import Files
from benchmarks.controller.plane import CLIENT, Plane, control_plane
from benchmarks.controller.raw import Object, RawClient
from benchmarks.controller.system import Operator
from onnx_operator.api import names
from tests.cluster.errors import ClusterError

Key = tuple[str, str]
"""Namespace and name."""
DEPLOYMENTS = "/apis/apps/v1/deployments"
MODELS = f"/apis/{names.API_VERSION}/{names.PLURAL}"
_LOOK_SECONDS = 0.02


@dataclass
class Arrivals:
    """When the raw client's watches told of it first, by ``perf_counter``."""

    deployments: dict[Key, float] = field(default_factory=dict)
    told: dict[Key, float] = field(default_factory=dict)
    """A status of the model with any condition."""
    judged: dict[Key, float] = field(default_factory=dict)
    """``ModelValid`` of the model is True."""
    ready: dict[Key, float] = field(default_factory=dict)

    def see_deployment(self, _: str, item: Object, now: float) -> None:
        """An event of a Deployment."""
        self.deployments.setdefault(_key(item), now)

    def see_model(self, _: str, item: Object, now: float) -> None:
        """An event of an OnnxModel."""
        key, conditions = _key(item), item.get("status", {}).get("conditions")
        if not conditions:
            return
        self.told.setdefault(key, now)
        for condition in conditions:
            if condition["status"] == "True" and condition["type"] in ("ModelValid", "Ready"):
                (self.ready if condition["type"] == "Ready" else self.judged).setdefault(key, now)


def _key(item: Object) -> Key:
    return item["metadata"]["namespace"], item["metadata"]["name"]


@dataclass
class Bench:
    """A control plane with the operator at work."""

    plane: Plane
    files: Files
    operator: Operator
    raw: RawClient
    calls: CallLog
    arrivals: Arrivals
    watches: tuple[asyncio.Task[None], ...]
    say: Callable[[str], None]
    quiet_seconds: float

    async def until(self, reached: Callable[[], Any], seconds: float, what: str) -> None:
        """Wait; raises :class:`ClusterError` where it takes longer."""
        deadline = time.perf_counter() + seconds
        while not reached():
            self.check()
            if time.perf_counter() > deadline:
                raise ClusterError(f"not in {seconds:g} s: {what}")
            await asyncio.sleep(_LOOK_SECONDS)

    def check(self) -> None:
        """Raise where a process or a watch has ended."""
        self.plane.check()
        self.operator.check()
        for watch in self.watches:
            if watch.done():
                watch.result()

    async def quiet(self, seconds: float = 300) -> None:
        """Wait until the operator has called nobody for a while, but for its Lease."""
        deadline, place = time.perf_counter() + seconds, self.calls.place()
        while True:
            await asyncio.sleep(self.quiet_seconds)
            self.check()
            calls, place = self.calls.since(place).calls, self.calls.place()
            if not calls:
                return
            if time.perf_counter() > deadline:
                last = ", ".join(sorted({call.title for call in calls}))
                raise ClusterError(f"the operator still calls after {seconds:g} s: {last}")

    async def namespace(self, name: str) -> str:
        """Make a namespace in which pods can be made; gives its name."""
        await self.raw.create("/api/v1/namespaces", {"metadata": {"name": name}})
        deadline = time.perf_counter() + 60
        while True:
            with contextlib.suppress(Exception):
                await self.raw.get(f"/api/v1/namespaces/{name}/serviceaccounts/default")
                return name
            if time.perf_counter() > deadline:
                raise ClusterError(f"namespace {name} got no service account")
            await asyncio.sleep(_LOOK_SECONDS)

    async def empty(self, namespace: str, seconds: float = 1800) -> None:
        """Delete a namespace and wait until it is gone with all that was in it."""
        await self.raw.delete(f"/api/v1/namespaces/{namespace}")
        deadline = time.perf_counter() + seconds
        while True:
            try:
                await self.raw.get(f"/api/v1/namespaces/{namespace}")
            except Exception:
                return
            if time.perf_counter() > deadline:
                raise ClusterError(f"namespace {namespace} is not gone after {seconds:g} s")
            await asyncio.sleep(0.5)


def model(namespace: str, name: str, uri: str) -> tuple[str, Object]:
    """The path and manifest by which a model is made: the smallest there is."""
    return f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}", {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"uri": uri}},
    }


def copy_of(deployment: Object, namespace: str, name: str) -> tuple[str, Object]:
    """The path and manifest by which a raw client makes the same Deployment under another name.

    Labels and annotations are as long as the operator's, of another domain: it must not take it for its own.
    """
    metadata = deployment["metadata"]
    old, renamed = metadata["name"], names.GROUP.replace("onnx", "copy")

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key.replace(names.GROUP, renamed): changed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [changed(each) for each in value]
        return name if value == old else value

    kept = {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
    kept.get("annotations", {}).pop("deployment.kubernetes.io/revision", None)
    return f"/apis/apps/v1/namespaces/{namespace}/deployments", {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**changed(kept), "name": name, "namespace": namespace},
        "spec": changed(deployment["spec"]),
    }


@asynccontextmanager
async def bench(files: Files, pods: int, say: Callable[[str], None], quiet_seconds: float) -> AsyncIterator[Bench]:
    """A fresh control plane with room for so many pods, and the operator leading on it."""
    say(f"starting a control plane for {pods:,} pods")
    with control_plane(pods) as plane:
        raw = RawClient(plane.kubeconfig("raw-client", CLIENT, "system:serviceaccounts"))
        arrivals = Arrivals()
        watches: tuple[asyncio.Task[None], ...] = ()
        operator = Operator(plane, files)
        try:
            watches = (
                await raw.follow(DEPLOYMENTS, arrivals.see_deployment),
                await raw.follow(MODELS, arrivals.see_model),
            )
            await asyncio.to_thread(operator.wait_until_leading)
            calls = CallLog(plane.audit_log)
            yield Bench(plane, files, operator, raw, calls, arrivals, watches, say, quiet_seconds)
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            await raw.close()
            operator.stop()
