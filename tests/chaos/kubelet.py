"""Has pods run, as a scheduler and kubelets do: each that is made becomes ready, or is not for a while."""

import asyncio
import contextlib
import random
from datetime import UTC, datetime

from onnx_operator.controller.cluster.kinds import POD
from tests.chaos.api import Api, Object, RefusedError
from tests.chaos.mirror import Mirror


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _status(pod: Object, *, ready: bool) -> Object:
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    fetched = {"name": "fetch", "image": "i", "imageID": "i", "ready": True, "restartCount": 0, "started": False}
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}
    running = {"name": "server", "image": "i", "imageID": "i", "ready": ready, "restartCount": 0, "started": ready}
    return {
        "phase": "Running",
        "initContainerStatuses": [{**fetched, "state": ended}],
        "containerStatuses": [{**running, "state": {"running": {"startedAt": now}}}],
        "conditions": [
            {"type": kind, "status": str(ready or kind == "PodScheduled"), "lastTransitionTime": now}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
    }


class Kubelet:
    """Runs all pods of all namespaces, without a node."""

    def __init__(self, api: Api, mirror: Mirror) -> None:
        self._api, self._mirror = api, mirror
        self._starting: dict[str, asyncio.Task[None]] = {}
        mirror.seen.append(self._see)

    def _see(self, event: str, plural: str, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if plural != "pods":
            return
        if event == "DELETED":
            if task := self._starting.pop(uid, None):
                task.cancel()
        elif not is_ready(pod) and uid not in self._starting and "deletionTimestamp" not in pod["metadata"]:
            self._starting[uid] = asyncio.create_task(self._start(pod))

    async def _start(self, pod: Object) -> None:
        # Neither all at once nor in the order in which they were made.
        began = bool((pod.get("status") or {}).get("containerStatuses"))
        await asyncio.sleep(random.uniform(0.8, 1.6) if began else random.uniform(0.05, 0.4))
        with contextlib.suppress(RefusedError):
            await self._set(pod, ready=True)
        self._starting.pop(pod["metadata"]["uid"], None)

    async def _set(self, pod: Object, *, ready: bool) -> None:
        metadata = pod["metadata"]
        body = {"metadata": {"uid": metadata["uid"]}, "status": _status(pod, ready=ready)}
        await self._api.patch(POD, metadata["namespace"], metadata["name"], body, "status")

    async def unready(self, namespace: str, model: str) -> None:
        """One pod of a model does not answer for a moment."""
        pods = [p for p in self._mirror.of("pods", namespace) if is_ready(p) and _model_of(p) == model]
        for pod in sorted(pods, key=lambda p: str(p["metadata"]["name"]))[:1]:
            with contextlib.suppress(RefusedError):
                await self._set(pod, ready=False)

    async def stop(self) -> None:
        for task in self._starting.values():
            task.cancel()
        await asyncio.gather(*self._starting.values(), return_exceptions=True)


def _model_of(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get("onnx-operator.dev/model", ""))
