"""What an undisturbed operator makes of a spec: found out once for each spec of a run."""

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from onnx_operator.controller.cluster.kinds import ONNX_MODEL
from tests.chaos.api import Api, Object
from tests.chaos.mirror import Mirror
from tests.chaos.nursery import Nursery
from tests.chaos.outcome import contradictions, model_of, outcome
from tests.chaos.plan import Spec
from tests.chaos.plane import Files
from tests.chaos.replica import replica

NAMESPACE = "calmness"
STILL_SECONDS = 2.5
"""How long nothing has changed where an end is taken for one."""
LONGEST_SECONDS = 300.0


def manifest(name: str, spec: Spec, files: Files) -> Object:
    """A model as a user applies it."""
    model = {key: value for key, value in spec["model"].items() if key != "file"}
    source = {"uri": files.uri(spec["model"]["file"]), **model}
    return {"metadata": {"name": name}, "spec": {**spec, "model": source}}


def is_settled(items: dict[str, list[Object]], name: str) -> bool:
    """Whether a model's status tells of an end: of a rollout, or of a refusal."""
    model = model_of(items, name)
    if model is None or contradictions(items, name):
        return False
    conditions = {c["type"]: c for c in (model.get("status") or {}).get("conditions", [])}
    ready, valid = conditions.get("Ready", {}), conditions.get("ModelValid", {})
    if valid.get("status") != "True":
        return bool(valid) and ready.get("reason") == valid.get("reason")
    if model["spec"].get("suspend"):
        return bool(conditions["Progressing"]["reason"] == "Complete")
    told = not model["spec"]["replicas"] or "started" in model["status"]
    return ready.get("status") == "True" and conditions["Progressing"]["reason"] == "Complete" and told


class Expected:
    """An operator that nobody disturbs, in a namespace of its own."""

    def __init__(self, api: Api, mirror: Mirror, files: Files) -> None:
        self._api, self._mirror, self._files = api, mirror, files
        self._known: dict[str, asyncio.Task[Object]] = {}
        self._open = AsyncExitStack()

    async def start(self, nursery: Nursery, folder: Path, inspector: Path) -> None:
        await self._api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        place, settings = folder / NAMESPACE, self._files.settings
        started = replica(self._api, nursery, NAMESPACE, place, inspector, settings, hurried=False)
        await self._open.enter_async_context(started)

    async def stop(self) -> None:
        for task in self._known.values():
            task.cancel()
        await asyncio.gather(*self._known.values(), return_exceptions=True)
        await self._open.aclose()

    def begin(self, spec: Spec) -> asyncio.Task[Object]:
        """Have it found out what a model of this spec comes to."""
        text = json.dumps(spec, sort_keys=True)
        if text not in self._known:
            name = f"serene-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
            self._known[text] = asyncio.create_task(self._find_out(name, spec), name=name)
        return self._known[text]

    async def of(self, spec: Spec) -> Object:
        """What a model of this spec comes to."""
        return await asyncio.shield(self.begin(spec))

    @property
    def specs(self) -> int:
        """Specs that were asked for."""
        return len(self._known)

    async def _find_out(self, name: str, spec: dict[str, Any]) -> Object:
        await self._api.create(ONNX_MODEL, NAMESPACE, manifest(name, spec, self._files))
        loop = asyncio.get_running_loop()
        deadline, since, last = loop.time() + LONGEST_SECONDS, loop.time(), None
        while True:
            items = self._mirror.everything(NAMESPACE)
            found = outcome(items, name)
            if found != last or not is_settled(items, name):
                last, since = found, loop.time()
            elif found and loop.time() - since >= STILL_SECONDS:
                await self._api.delete(ONNX_MODEL, NAMESPACE, name)
                return found
            if loop.time() > deadline:
                raise AssertionError(f"an undisturbed model never settles: {spec}: {json.dumps(found)[:3000]}")
            await asyncio.sleep(0.25)
