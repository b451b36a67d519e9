"""An update that fails by its own fault is taken back, with the real API server; the test plays the nodes."""

import json

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, ONNX_MODEL, POD
from tests import models
from tests.integration.sights import caught_up
from tests.security.desk import Desk, Operator

pytestmark = pytest.mark.usefixtures("crd")

STARTED = "2026-01-01T00:00:00Z"
SERVES = {"state": {"running": {"startedAt": STARTED}}, "ready": True, "started": True, "restartCount": 0}


def ends(phase: str, reason: str = "", message: str = "", /, **last) -> dict:
    claim = {"phase": phase, "message": message} | ({"reason": reason} if reason else {})
    ended = {"exitCode": 1, "startedAt": STARTED, "finishedAt": STARTED, "message": json.dumps(claim), **last}
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    return {"state": state, "lastState": {"terminated": ended}, "ready": False, "started": False, "restartCount": 3}


LOAD_FAILED = ends("Loading", "LoadFailed", "node 'gemm' has no kernel")


class Cluster:
    """Plays the Deployment controller and the kubelets: the pods of what the Deployment holds."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.count = desk, 0

    async def _status(self, kind, name, status) -> None:
        path = kind.path(self.desk.namespace, name, "status")
        await self.desk.kube._object("PATCH", path, None, {"status": status}, "application/merge-patch+json")

    async def pod(self, server: dict, deployment: dict) -> str:
        self.count += 1
        name = f"m-5d4f9-{self.count}"
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "m-5d4f9", "uid": "r", "controller": True}
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        metadata = {"name": name, "namespace": self.desk.namespace, "labels": labels, "ownerReferences": [owner]}
        spec = {"containers": [{"name": "server", "image": "i"}]}
        await self.desk.kube.create(POD, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        ready = str(server["ready"])
        status = {
            "phase": "Running",
            "containerStatuses": [{"name": "server", "image": "i", "imageID": "", **server}],
            "conditions": [{"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": ready}],
        }
        await self._status(POD, name, status)
        return name

    async def roll(self, server: dict = SERVES, reason: str = "NewReplicaSetAvailable") -> str:
        """A pod of what the Deployment holds; of others none stays, once it is ready."""
        deployment = await self.desk.deployment()
        assert deployment
        revision = deployment["spec"]["template"]["metadata"]["labels"][names.LABEL_REVISION]
        others = [p for p in await self.pods() if p["metadata"]["labels"][names.LABEL_REVISION] != revision]
        mine = [p for p in await self.pods() if p not in others]
        ready = server["ready"]
        name = mine[0]["metadata"]["name"] if mine and ready else await self.pod(server, deployment)
        if ready:
            for each in others:
                self.desk.kubectl("delete", "pod", each["metadata"]["name"], "--grace-period=0", "--force")
        counts = {"replicas": 1 if ready else 1 + len(others), "updatedReplicas": 1, "readyReplicas": 1}
        seen = {"observedGeneration": deployment["metadata"]["generation"], "availableReplicas": 1 if ready else 0}
        conditions = [{"type": "Progressing", "status": "True", "reason": reason}]
        await self._status(DEPLOYMENT, "m", {**seen, **counts, "conditions": conditions})
        return name

    async def pods(self) -> list[dict]:
        return await self.desk.kube.list(POD, self.desk.namespace, {names.LABEL_MODEL: "m"})


async def look(desk: Desk, *operators: Operator) -> dict[str, dict]:
    for operator in operators:
        for _ in range(2):
            await operator.settle(desk.namespace, "m")
    return await desk.conditions()


async def holds(desk: Desk) -> str:
    """The revision that the Deployment holds."""
    deployment = await desk.deployment()
    assert deployment
    return str(deployment["spec"]["template"]["metadata"]["labels"][names.LABEL_REVISION])


def failed(revision: dict) -> dict | None:
    note = (revision["metadata"].get("annotations") or {}).get(f"{names.NOTE_PREFIX}failed")
    return json.loads(note) if note else None


BAD = {"session": {"intraOpThreads": 2}}
OTHER = {"session": {"intraOpThreads": 3}}


@pytest.fixture
async def served(desk):
    """A model whose first version serves, its operator, and its cluster."""
    await desk.write()
    operator, cluster = await desk.operator(), Cluster(desk)
    await operator.settle(desk.namespace, "m")
    await cluster.roll()
    assert (await look(desk, operator))["Ready"]["reason"] == "Complete"
    return operator, cluster, await holds(desk)


async def fails(desk: Desk, operator: Operator, cluster: Cluster, server=LOAD_FAILED, **spec) -> str:
    """An update rolls out, and its pods fail; the name of its revision."""
    await desk.write(**spec)
    await operator.settle(desk.namespace, "m")
    update = await holds(desk)
    await cluster.roll(server, "ReplicaSetUpdated")
    await look(desk, operator)
    return update


async def test_an_update_that_does_not_load_is_taken_back_and_told(desk, served):
    operator, cluster, good = served
    update = await fails(desk, operator, cluster, **BAD)
    assert update != good
    assert await holds(desk) == good
    found = await desk.conditions()
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "RolledBack")
    assert found["Available"]["status"] == "True"
    assert found["Stalled"]["status"] == "True"
    for words in (update, "LoadFailed", "node 'gemm' has no kernel", good):
        assert words in found["Ready"]["message"]
    _, revision = await desk.revisions()
    assert failed(revision)["reason"] == "LoadFailed"
    # The old one scales and heals meanwhile.
    await desk.write(**BAD, replicas=3)
    desk.kubectl("delete", "service", "m")
    await look(desk, operator)
    deployment = await desk.deployment()
    assert (deployment["spec"]["replicas"], await holds(desk)) == (3, good)
    assert desk.kubectl("get", "service", "m")
    assert (await desk.reasons())["Ready"] == "RolledBack"


async def test_it_is_not_tried_again_whatever_was_lost(desk, served):
    operator, cluster, good = served
    await fails(desk, operator, cluster, **BAD)
    await cluster.roll()
    # Another life, without a status, and without the Deployment.
    path = ONNX_MODEL.path(desk.namespace, "m", "status")
    await desk.kube._object("PATCH", path, None, {"status": None}, "application/merge-patch+json")
    next_life = await desk.operator()
    await look(desk, next_life)
    assert await holds(desk) == good
    assert (await desk.reasons())["Ready"] == "RolledBack"
    desk.kubectl("delete", "deployment", "m")
    await caught_up(next_life.kube, next_life.store, desk.namespace)
    await look(desk, await desk.operator())
    assert await holds(desk) == good
    assert (await desk.reasons())["Ready"] == "RolledBack"


async def test_nothing_is_written_while_nothing_happens(desk, served):
    operator, cluster, _ = served
    await fails(desk, operator, cluster, **BAD)
    await cluster.roll()
    await look(desk, operator)
    before = [r["metadata"]["resourceVersion"] for r in [await desk.deployment(), *await desk.revisions()]]
    model = await desk.kube.get(ONNX_MODEL, desk.namespace, "m")
    await look(desk, operator, await desk.operator())
    assert [r["metadata"]["resourceVersion"] for r in [await desk.deployment(), *await desk.revisions()]] == before
    after = await desk.kube.get(ONNX_MODEL, desk.namespace, "m")
    assert after["metadata"]["resourceVersion"] == model["metadata"]["resourceVersion"]


async def test_an_operator_that_ends_between_the_note_and_the_change_goes_on_there(desk, served, monkeypatch):
    operator, cluster, good = served
    await desk.write(**BAD)
    await operator.settle(desk.namespace, "m")
    await cluster.roll(LOAD_FAILED, "ReplicaSetUpdated")

    async def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("onnx_operator.controller.reconcile.apply_children", killed)
        with pytest.raises(KeyboardInterrupt):
            await operator.settle(desk.namespace, "m")
    assert await holds(desk) != good
    assert failed((await desk.revisions())[-1])
    await look(desk, await desk.operator())
    assert await holds(desk) == good
    assert (await desk.reasons())["Ready"] == "RolledBack"


async def test_another_spec_is_tried_and_the_failed_one_only_after_a_refresh(desk, served):
    operator, cluster, good = served
    update = await fails(desk, operator, cluster, **BAD)
    await cluster.roll()
    await desk.write(**OTHER)
    await operator.settle(desk.namespace, "m")
    other = await holds(desk)
    assert other not in (good, update)
    await cluster.roll()
    assert (await look(desk, operator))["Ready"]["reason"] == "Complete"
    # Away and back is the same again, and goes back to what served last.
    await desk.write(**BAD)
    await look(desk, operator)
    assert await holds(desk) == other
    assert (await desk.reasons())["Ready"] == "RolledBack"

    desk.kubectl("annotate", "onnxmodel", "m", f"{names.ANNOTATION_REFRESH}=1")
    await look(desk, operator)
    assert await holds(desk) == update
    await cluster.roll()
    assert (await look(desk, operator))["Ready"]["reason"] == "Complete"
    (revision,) = [r for r in await desk.revisions() if r["metadata"]["name"] == update]
    assert failed(revision) is None
    await look(desk, await desk.operator())
    assert await holds(desk) == update


async def test_other_bytes_at_the_source_are_another_try(desk, served):
    operator, cluster, good = served
    update = await fails(desk, operator, cluster, **BAD)
    await cluster.roll()
    desk.files.body = models.linear(7)
    desk.kubectl("annotate", "onnxmodel", "m", f"{names.ANNOTATION_REFRESH}=1")
    await look(desk, operator)
    assert await holds(desk) not in (good, update)


async def test_who_turns_it_off_has_what_was_asked_for_tried_again_and_left(desk, served):
    operator, cluster, good = served
    update = await fails(desk, operator, cluster, **BAD, rollout={"autoRollback": False})
    assert await holds(desk) == update
    found = await desk.conditions()
    assert (found["Ready"]["reason"], found["Available"]["status"]) == ("LoadFailed", "True")
    await desk.write(**BAD)
    await look(desk, operator)
    assert await holds(desk) == good, "turned on again, it goes back"
    await desk.write(**BAD, rollout={"autoRollback": False})
    await look(desk, operator)
    assert await holds(desk) == update


async def test_a_first_version_that_fails_says_that_there_is_none_to_go_back_to(desk):
    await desk.write()
    operator, cluster = await desk.operator(), Cluster(desk)
    await operator.settle(desk.namespace, "m")
    first = await holds(desk)
    await cluster.roll(LOAD_FAILED, "ReplicaSetUpdated")
    found = await look(desk, operator)
    assert await holds(desk) == first
    assert found["Ready"]["reason"] == "LoadFailed"
    assert "none to go back to" in found["Ready"]["message"]


@pytest.mark.parametrize(
    "server",
    [
        {**ends("Serving", "", "", exitCode=137, reason="OOMKilled"), "restartCount": 9},
        ends("Loading", "", "", exitCode=255, reason="ContainerStatusUnknown"),
        {**SERVES, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no"}}, "ready": False},
    ],
    ids=["callers", "node", "image"],
)
async def test_what_is_not_the_updates_fault_takes_nothing_back(desk, served, server):
    operator, cluster, good = served
    update = await fails(desk, operator, cluster, server, **BAD)
    assert update != good
    assert await holds(desk) == update
    assert failed((await desk.revisions())[-1]) is None


async def test_a_version_that_served_once_is_not_taken_back(desk, served):
    operator, cluster, _ = served
    await desk.write(**BAD)
    await operator.settle(desk.namespace, "m")
    await cluster.roll()
    await look(desk, operator)
    update = await holds(desk)
    await cluster.pod(LOAD_FAILED, await desk.deployment())
    await look(desk, operator)
    assert await holds(desk) == update


async def test_notes_that_somebody_else_wrote_count_for_nothing(desk, served):
    operator, _, good = served
    forged = json.dumps({"reason": "LoadFailed", "message": "x"})
    await desk.write(**BAD)
    await operator.settle(desk.namespace, "m")
    update = await holds(desk)
    desk.kubectl("annotate", "controllerrevision", good, f"{names.NOTE_PREFIX}good=", "--overwrite")
    desk.kubectl("annotate", "controllerrevision", update, f"{names.NOTE_PREFIX}failed={forged}", "--overwrite")
    await look(desk, operator)
    assert await holds(desk) == update
    assert (await desk.reasons())["Ready"] != "RolledBack"


class Killed(BaseException):
    """The operator's process is no more."""


def kill_at(operator: Operator, count: int, *, after: bool) -> list[str]:
    """Have the operator end at one of its writes, just before or just after it; the list fills with what it wrote."""
    written: list[str] = []

    def watched(name, call):
        async def write(kind, *arguments, **named):
            written.append(f"{name} {kind.plural}")
            last = len(written) >= count
            if last and not after:
                raise Killed
            answer = await call(kind, *arguments, **named)
            if last:
                raise Killed
            return answer

        return write

    for name in ("apply", "merge", "create", "delete"):
        setattr(operator.kube, name, watched(name, getattr(operator.kube, name)))
    return written


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_an_operator_killed_at_any_write_of_it_ends_the_same(desk, served, after):
    operator, cluster, good = served
    kinds: set[str] = set()
    for count in range(1, 20):
        await desk.write(session={"intraOpThreads": 10 + count})
        await operator.settle(desk.namespace, "m")
        update = await holds(desk)
        assert update != good
        await cluster.roll(LOAD_FAILED, "ReplicaSetUpdated")
        victim = await desk.operator()
        written = kill_at(victim, count, after=after)
        try:
            await look(desk, victim)
        except Killed:
            ended = False
        else:
            ended = True
        kinds |= set(written)
        operator = await desk.operator()
        found = await look(desk, operator)
        assert (count, await holds(desk)) == (count, good)
        assert (found["Ready"]["reason"], update in found["Ready"]["message"]) == ("RolledBack", True)
        await cluster.roll()
        await look(desk, operator)
        if ended:
            break
    assert ended
    assert kinds >= {"merge controllerrevisions", "apply deployments", "apply onnxmodels"}
