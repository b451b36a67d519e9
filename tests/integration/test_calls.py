"""How many calls a model costs the API server, from its apply until it is Ready, and how many nobody's doing costs."""

import asyncio
import time
from collections import Counter

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, ONNX_MODEL, POD
from onnx_operator.controller.cluster.kube import Kube
from tests import models
from tests.integration.test_controller_process import Operator
from tests.unit.model.webkit import FileServer, Server

pytestmark = pytest.mark.usefixtures("crd")


class Kubelets:
    """Does what the Deployment controller, the scheduler and a kubelet do to a Deployment, step by step."""

    def __init__(self, kube, namespace):
        self.kube, self.namespace = kube, namespace

    async def status(self, kind, name, status):
        path = kind.path(self.namespace, name, "status")
        await self.kube._object("PATCH", path, None, {"status": status}, "application/merge-patch+json")

    async def run(self, name):
        """One pod of the Deployment, until it is ready."""
        deployment = await self.kube.get(DEPLOYMENT, self.namespace, name)
        template = deployment["spec"]["template"]
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-5d4f9", "uid": "r", "controller": True}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-5d4f9-abcde",
                "namespace": self.namespace,
                "labels": template["metadata"]["labels"],
                "ownerReferences": [owner],
            },
            "spec": {"containers": [{"name": "server", "image": "i"}], "nodeName": "n"},
        }
        await self.kube.create(POD, pod)
        seen = {"observedGeneration": deployment["metadata"]["generation"], "replicas": 1, "updatedReplicas": 1}
        await self.status(DEPLOYMENT, name, {**seen, "unavailableReplicas": 1})
        running = {"name": "server", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        state = {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        for ready in (False, True):
            await self.status(
                POD,
                pod["metadata"]["name"],
                {
                    "phase": "Running",
                    "containerStatuses": [{**running, **state, "ready": ready, "started": True}],
                    "conditions": [{"type": "Ready", "status": str(ready)}],
                },
            )
            await asyncio.sleep(0.5)
        await self.status(DEPLOYMENT, name, {**seen, "readyReplicas": 1, "availableReplicas": 1})


@pytest.fixture
async def served(authority):
    files = FileServer(models.linear())
    async with Server(files, authority.server) as server:
        yield f"https://localhost:{server.port}/m.onnx"


@pytest.fixture
async def operator(apiserver, namespace, tmp_path, authority):
    settings = {"allowedNetworks": ["127.0.0.0/8"], "https": {"caBundle": authority.pem}}
    running = Operator(apiserver, namespace, tmp_path, sources=settings)
    yield running
    running.stop()


async def until(condition):
    async with asyncio.timeout(120):
        while not await condition():
            await asyncio.sleep(0.2)


def calls(apiserver, since, namespace):
    """The operator's calls by verb and resource, but for its lease and its watches."""
    events = [
        e
        for e in apiserver.audit_events(since, user_agent="onnx-operator/", namespace=namespace)
        if e.resource != "leases" and e.verb != "watch"
    ]
    shown = Counter(f"{e.verb} {e.resource}{'/' + e.subresource if e.subresource else ''}" for e in events)
    return shown, sum(e.is_write for e in events)


@pytest.fixture
async def kube(apiserver):
    connection = await Kube.connect(str(apiserver.kubeconfig))
    connection._api.user_agent = "somebody-else"
    yield connection
    await connection.close()


async def serve(kube, namespace, name, uri):
    """Apply a model, and play the cluster's part until it is Ready."""
    manifest = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"uri": uri}},
    }
    await kube.create(ONNX_MODEL, manifest)

    async def applied():
        return await kube.get(DEPLOYMENT, namespace, name)

    async def ready():
        model = await kube.get(ONNX_MODEL, namespace, name)
        found = {c["type"]: c["reason"] for c in (model.get("status") or {}).get("conditions", [])}
        return found.get("Ready") == "Complete"

    await until(applied)
    await Kubelets(kube, namespace).run(name)
    await until(ready)


async def test_a_model_costs_few_calls_and_none_once_it_is_ready(apiserver, namespace, kube, operator, served):
    await asyncio.to_thread(apiserver.wait, lambda: '"leading": true' in operator.get("/readyz"), 60, "a leader")
    await serve(kube, namespace, "first", served)
    since = time.time()
    await serve(kube, namespace, "second", served)
    found, writes = calls(apiserver, since, namespace)
    assert found["patch onnxmodels/status"] <= 3
    assert found["create events"] <= 3
    assert found["get onnxmodels"] == 1, "before the first thing is made for it"
    assert not [shown for shown in found if shown.startswith("list")]
    # A dry run of the Deployment counts as a write.
    assert writes <= 12, found
    assert found.total() <= 18, found

    # The log of a pod that does not run is asked for three times.
    await asyncio.sleep(16)
    since = time.time()
    await asyncio.sleep(5)
    assert calls(apiserver, since, namespace)[0].total() == 0

    operator.controller.kill()
    await asyncio.to_thread(operator.controller.wait)
    since = time.time()
    operator.controller = operator.start_controller()
    counted = 'onnx_operator_models{ready="True",reason="Complete"} 2.0'
    await asyncio.to_thread(apiserver.wait, lambda: counted in operator.get("/metrics"), 60, "both to be looked at")
    await asyncio.sleep(1)
    found, writes = calls(apiserver, since, namespace)
    assert writes == 0, found
    assert sum(found[each] for each in found if each.startswith("list")) <= 9, "one of each kind, and of the CRD"
    asked = [e for e in found if not e.startswith("list")]
    assert set(asked) <= {"get secrets", "get pods/log"}, found
