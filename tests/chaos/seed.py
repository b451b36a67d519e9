"""One seed: its operators, its models, all that happens to them, and whether they end as if nothing had."""

import asyncio
import contextlib
import itertools
import signal
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, ONNX_MODEL, POD, POD_DISRUPTION_BUDGET, SERVICE
from tests.chaos import outcome as outcomes
from tests.chaos.api import KINDS, Api, Object, RefusedError
from tests.chaos.expected import Expected, manifest
from tests.chaos.kubelet import Kubelet, is_ready
from tests.chaos.mirror import Mirror
from tests.chaos.nursery import Nursery
from tests.chaos.plan import Plan, Spec, Step
from tests.chaos.plane import Files, Plane
from tests.chaos.proxy import Fault
from tests.chaos.replica import Replica, replica

PATIENCE_SECONDS = 0.7
"""How long a step waits for a call of an operator that makes none."""
CALM_SECONDS = 180.0
"""How long after the last fault an operator has to come to its end."""
GONE_SECONDS = 90.0
QUIET_SECONDS = 1.5
"""How long nothing is written where an end is one."""


@dataclass
class World:
    """What all seeds of a run share."""

    folder: Path
    plane: Plane
    files: Files
    mirror: Mirror
    kubelet: Kubelet
    nursery: Nursery
    inspector: Path
    expected: Expected
    asked: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    """By namespace and name, the files that models have asked for."""
    strangers: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By namespace, pods that took traffic for another model than theirs."""

    @property
    def api(self) -> Api:
        return self.plane.api

    def see(self, event: str, plural: str, item: Object) -> None:
        """Look at each pod that takes traffic."""
        namespace = item["metadata"]["namespace"]
        name = outcomes.labelled(item, names.LABEL_MODEL)
        if plural != "pods" or event == "DELETED" or (namespace, name) not in self.asked or not is_ready(item):
            return
        if fault := outcomes.served_by_another(item, self.asked[namespace, name]):
            self.strangers[namespace].append(fault)


@dataclass
class Result:
    """How a seed went."""

    seed: int
    failures: list[str] = field(default_factory=list)
    actions: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    writes: int = 0
    calm_seconds: float = 0.0
    """From the last fault until the end."""


class Seed:
    """A plan that is carried out."""

    def __init__(self, world: World, plan: Plan, namespace: str) -> None:
        self._world, self._plan, self._namespace = world, plan, namespace
        self._api, self._mirror = world.api, world.mirror
        self.result = Result(plan.seed)
        self._replicas: list[Replica] = []
        self._aside: list[asyncio.Task[None]] = []
        self._numbers = itertools.count(1)

    async def run(self) -> Result:
        """Carry it out."""
        folder = self._world.folder / self._namespace
        await self._api.call("POST", "/api/v1/namespaces", {"metadata": {"name": self._namespace}})
        async with AsyncExitStack() as stack:
            for number in range(self._plan.replicas):
                made = replica(
                    self._api,
                    self._world.nursery,
                    self._namespace,
                    folder / f"operator-{number}",
                    self._world.inspector,
                    self._world.files.settings,
                    hurried=self._plan.hurried,
                    seed=f"{self._plan.seed} {number}",
                    alone=self._plan.replicas == 1,
                )
                self._replicas.append(await stack.enter_async_context(made))
            try:
                await self._disturb()
                await self._come_to_the_end()
                await self._leave()
            except Exception as error:
                self._fail(f"the harness failed: {type(error).__name__}: {error}")
                raise
            finally:
                for task in self._aside:
                    task.cancel()
                await asyncio.gather(*self._aside, return_exceptions=True)
                self._count()
        self._mirror.forget(self._namespace)
        return self.result

    def _fail(self, why: str) -> None:
        self.result.failures.append(why)

    def _count(self) -> None:
        for each in self._replicas:
            self.result.calls += each.proxy.calls
            self.result.writes += each.proxy.writes
            self.result.met += each.met + each.proxy.met
            self.result.failures += each.faults
        self.result.failures += self._world.strangers.pop(self._namespace, [])

    # --- what happens -------------------------------------------------------------------------------------------------

    @property
    def _leader(self) -> Replica:
        return max(self._replicas, key=lambda r: r.proxy.last)

    async def _disturb(self) -> None:
        for spec in self._plan.finals.values():
            # By the time that it is asked for, it is known.
            self._world.expected.begin(spec)
        for step in self._plan.steps:
            await self._leader.proxy.more(step.after, PATIENCE_SECONDS)
            self.result.actions[step.action] += 1
            await self._do(step)
        # What was set up last has a moment to be met.
        await self._leader.proxy.more(6, PATIENCE_SECONDS)
        await asyncio.gather(*self._aside)
        self._aside.clear()
        for each in self._replicas:
            each.calm()
            if each.life:
                each.life.signal(signal.SIGCONT)

    async def _do(self, step: Step) -> None:
        method = getattr(self, "_" + step.action.replace(" ", "_"))
        with contextlib.suppress(RefusedError):
            await method(**step.arguments)

    def _beside(self, work: Any) -> None:
        self._aside.append(asyncio.create_task(work))

    # --- users --------------------------------------------------------------------------------------------------------

    async def _create(self, name: str, spec: Spec) -> None:
        self._world.asked[self._namespace, name].add(spec["model"]["file"])
        made = manifest(name, spec, self._world.files)
        while not await self._api.create(ONNX_MODEL, self._namespace, made):
            found = await self._api.get(ONNX_MODEL, self._namespace, name)
            if (
                found
                and found["spec"]["model"] == made["spec"]["model"]
                and "deletionTimestamp" not in found["metadata"]
            ):
                return
            # The one before is on its way out.
            await asyncio.sleep(0.1)

    async def _edit(self, name: str, spec: Spec) -> None:
        self._world.asked[self._namespace, name].add(spec["model"]["file"])
        wanted = manifest(name, spec, self._world.files)["spec"]
        await self._api.change(ONNX_MODEL, self._namespace, name, lambda model: model.update(spec=wanted))

    async def _delete(self, name: str, orphan: bool) -> None:
        await self._api.delete(ONNX_MODEL, self._namespace, name, "Orphan" if orphan else "Background")

    async def _annotate(self, name: str, annotation: str, value: str | None) -> None:
        body = {"metadata": {"annotations": {annotation: value}}}
        await self._api.patch(ONNX_MODEL, self._namespace, name, body)

    async def _pause(self, name: str, on: bool) -> None:
        await self._annotate(name, names.ANNOTATION_PAUSED, "true" if on else None)

    async def _refresh(self, name: str) -> None:
        await self._annotate(name, names.ANNOTATION_REFRESH, str(next(self._numbers)))

    # --- others -------------------------------------------------------------------------------------------------------

    def _labelled(self, plural: str, name: str) -> list[Object]:
        found = [i for i in self._mirror.of(plural, self._namespace) if outcomes.labelled(i, names.LABEL_MODEL) == name]
        return sorted(found, key=lambda item: str(item["metadata"]["name"]))

    async def _remove_child(self, name: str, kind: str) -> None:
        for item in self._labelled(kind, name)[:1]:
            await self._api.delete(KINDS[kind], self._namespace, item["metadata"]["name"])

    async def _remove_pod(self, name: str) -> None:
        for pod in self._labelled("pods", name)[:1]:
            await self._api.delete(POD, self._namespace, pod["metadata"]["name"])

    async def _unready(self, name: str) -> None:
        await self._world.kubelet.unready(self._namespace, name)

    async def _change_child(self, name: str, change: str) -> None:
        def edit(item: Object) -> None:
            spec = item["spec"]
            match change:
                case "image":
                    spec["template"]["spec"]["containers"][0]["image"] = "localhost/stranger:1"
                case "args":
                    spec["template"]["spec"]["containers"][0]["args"].append("--stranger")
                case "port":
                    spec["ports"][0]["port"] = 8888
                case "label":
                    item["metadata"]["labels"].pop(names.LABEL_MODEL, None)
                case "annotation":
                    item["metadata"]["annotations"].pop(names.ANNOTATION_VERSION, None)
                case "budget":
                    spec["maxUnavailable"] = 0
                case "replicas":
                    spec["replicas"] += 1

        kind = {"port": SERVICE, "label": SERVICE, "budget": POD_DISRUPTION_BUDGET}.get(change, DEPLOYMENT)
        await self._api.change(kind, self._namespace, name, edit)

    # --- the operator -------------------------------------------------------------------------------------------------

    async def _kill(self, at: int, moment: str, frees: bool, down: float) -> None:
        self._leader.kill_at(at, moment, frees=frees, down=down)

    async def _kill_each(self, writes: int, moment: str) -> None:
        self._leader.kill_each(writes, moment)

    async def _term(self) -> None:
        if life := self._leader.life:
            self.result.met["SIGTERM"] += 1
            life.signal(signal.SIGTERM)

    async def _stop(self, seconds: float) -> None:
        life = self._leader.life
        if life is None:
            return

        async def stopped() -> None:
            life.signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            life.signal(signal.SIGCONT)

        self.result.met["SIGSTOP"] += 1
        self._beside(stopped())

    async def _cut_watches(self) -> None:
        self._leader.proxy.cut()

    async def _cut_within_watches(self) -> None:
        self._leader.proxy.cut_within()

    async def _gone_watches(self) -> None:
        self._leader.proxy.expire()

    async def _stall_watches(self, seconds: float) -> None:
        self._beside(self._leader.proxy.stall(seconds))

    async def _refuse(self, **fault: Any) -> None:
        self._leader.proxy.faults.append(Fault(**fault))

    async def _drop(self, **fault: Any) -> None:
        self._leader.proxy.faults.append(Fault(**fault))

    async def _lose(self, **fault: Any) -> None:
        self._leader.proxy.faults.append(Fault(**fault, passes=True))

    async def _delay(self, **fault: Any) -> None:
        self._leader.proxy.faults.append(Fault("any", **fault))

    async def _clock(self, hours: float) -> None:
        self.result.met["clock set"] += 1
        self._leader.clocks.jump(hours * 3600)

    async def _sleep(self, seconds: float) -> None:
        self.result.met["machine slept"] += 1
        self._leader.clocks.sleep(seconds)

    async def _restart(self, program: str) -> None:
        self.result.met[f"{program} restarted"] += 1
        self._beside(self._world.plane.restart(program))

    # --- the end ------------------------------------------------------------------------------------------------------

    def _amiss(self, wanted: dict[str, Object]) -> list[str]:
        items = self._mirror.everything(self._namespace)
        found = [
            f"{m['metadata']['name']} is there" for m in items["onnxmodels"] if m["metadata"]["name"] not in wanted
        ]
        for name, expected in wanted.items():
            got = outcomes.outcome(items, name)
            if got is None:
                found.append(f"{name} is gone")
                continue
            found += [f"{name}: {line}" for line in outcomes.differences(got, expected)]
            found += [f"{name}: {line}" for line in outcomes.contradictions(items, name)]
        return found + outcomes.orphans(items)

    async def _come_to_the_end(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        wanted = {name: await self._world.expected.of(spec) for name, spec in self._plan.finals.items()}
        since, writes = began, -1
        while True:
            amiss, now = self._amiss(wanted), sum(each.proxy.writes for each in self._replicas)
            if amiss or now != writes:
                since, writes = loop.time(), now
            elif loop.time() - since >= QUIET_SECONDS:
                break
            if loop.time() - began > CALM_SECONDS:
                self._fail("\n    ".join(["it never comes to the end:", *(amiss or ["it writes on and on"])[:12]]))
                break
            await self._mirror.changed(self._namespace, 0.5)
        self.result.calm_seconds = since - began

    async def _leave(self) -> None:
        """Delete the models, which must leave nothing behind, and end the operators."""
        for name in self._plan.finals:
            await self._delete(name, orphan=False)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GONE_SECONDS
        while any(left := {k: v for k, v in self._mirror.everything(self._namespace).items() if v}):
            if loop.time() > deadline:
                shown = [f"{plural}/{item['metadata']['name']}" for plural, found in left.items() for item in found]
                self._fail(f"deleted models leave behind: {', '.join(shown[:12])}")
                break
            await self._mirror.changed(self._namespace, 0.5)
        await asyncio.gather(*(each.end() for each in self._replicas))
