"""A model that goes on serving stays Ready whatever becomes of single pods, and tells it, with the real API server."""

import asyncio

import pytest

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, ONNX_MODEL, POD
from onnx_operator.controller.cluster.kube import Kube
from tests import models
from tests.integration.test_controller_process import Operator
from tests.unit.model.webkit import FileServer, Server

pytestmark = pytest.mark.usefixtures("crd")

NAME = "model"
STARTED, LATER = "2026-01-01T00:00:00Z", "2026-01-29T00:00:00Z"
CRASHED = {"terminated": {"exitCode": 139, "startedAt": STARTED, "finishedAt": STARTED}}


def container(**changes):
    state = {"state": {"running": {"startedAt": STARTED}}, "ready": True, "started": True}
    return {"name": "server", "image": "i", "imageID": "", "restartCount": 0, **state, **changes}


SERVES = ("True", "True", container())
ON_A_LOST_NODE = ("False", "True", container())
SILENT = ("False", "False", container(ready=False))
RESTARTED = ("False", "False", container(ready=False, started=False, restartCount=1, lastState=CRASHED))
BACKING_OFF = (
    "False",
    "False",
    container(
        ready=False,
        started=False,
        restartCount=1,
        lastState=CRASHED,
        state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
    ),
)


class Nodes:
    """Plays the Deployment controller and the kubelets, pod by pod."""

    def __init__(self, kube, namespace):
        self.kube, self.namespace = kube, namespace
        self.pods = {}

    async def _status(self, kind, name, status):
        path = kind.path(self.namespace, name, "status")
        await self.kube._object("PATCH", path, None, {"status": status}, "application/merge-patch+json")

    async def put(self, pod, state):
        """Make a pod, if need be, and let it be so; the Deployment counts."""
        ready, containers_ready, server = state
        deployment = await self.kube.get(DEPLOYMENT, self.namespace, NAME)
        name = f"{NAME}-5d4f9-{pod}"
        if pod not in self.pods:
            set_ = {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": f"{NAME}-5d4f9",
                "uid": "r",
                "controller": True,
            }
            labels = deployment["spec"]["template"]["metadata"]["labels"]
            metadata = {"name": name, "namespace": self.namespace, "labels": labels, "ownerReferences": [set_]}
            spec = {"containers": [{"name": "server", "image": "i"}], "nodeName": "node-7"}
            await self.kube.create(POD, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        self.pods[pod] = ready == "True"
        conditions = [
            {"type": "Ready", "status": ready, "lastTransitionTime": STARTED if ready == "True" else LATER},
            {"type": "ContainersReady", "status": containers_ready},
        ]
        await self._status(POD, name, {"phase": "Running", "containerStatuses": [server], "conditions": conditions})
        serving = sum(self.pods.values())
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(self.pods),
            "updatedReplicas": len(self.pods),
            "readyReplicas": serving,
            "availableReplicas": serving,
            "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
        }
        await self._status(DEPLOYMENT, NAME, status)


@pytest.fixture
async def served(authority):
    async with Server(FileServer(models.linear()), authority.server) as server:
        yield f"https://localhost:{server.port}/m.onnx"


@pytest.fixture
async def operator(apiserver, namespace, tmp_path, authority):
    settings = {"allowedNetworks": ["127.0.0.0/8"], "https": {"caBundle": authority.pem}}
    running = Operator(apiserver, namespace, tmp_path, sources=settings)
    yield running
    running.stop()


@pytest.fixture
async def kube(apiserver):
    connection = await Kube.connect(str(apiserver.kubeconfig))
    yield connection
    await connection.close()


async def test_what_becomes_of_single_pods_leaves_a_serving_model_ready(namespace, kube, operator, served):
    nodes = Nodes(kube, namespace)

    async def scaled(replicas):
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": NAME, "namespace": namespace},
            "spec": {"model": {"uri": served}, "replicas": replicas},
        }
        await kube.apply(ONNX_MODEL, manifest, manager="somebody")

    async def told(progressing, ready, kstatus=None):
        """Wait until the model tells so; since when Ready is what it is."""
        async with asyncio.timeout(60):
            while True:
                model = await kube.get(ONNX_MODEL, namespace, NAME)
                found = {c["type"]: c for c in (model.get("status") or {}).get("conditions", [])}
                kinds = (("Progressing", "status"), ("Progressing", "reason"), ("Ready", "status"))
                seen = tuple((found.get(kind) or {}).get(field) for kind, field in kinds)
                if seen == (*progressing, ready):
                    assert {"Stalled", "Reconciling"} & set(found) == ({kstatus} if kstatus else set())
                    return found["Ready"]["lastTransitionTime"]
                await asyncio.sleep(0.1)

    async def counted(wanted, ready):
        model = f'{{name="{NAME}",namespace="{namespace}"}}'
        lines = (f"onnx_operator_model_replicas{model} {wanted}", f"onnx_operator_model_ready_replicas{model} {ready}")
        async with asyncio.timeout(20):
            while not set(lines) <= set((await asyncio.to_thread(operator.get, "/metrics")).splitlines()):
                await asyncio.sleep(0.1)

    await scaled(3)
    async with asyncio.timeout(60):
        while not await kube.get(DEPLOYMENT, namespace, NAME):
            await asyncio.sleep(0.1)
    for pod in "abc":
        await nodes.put(pod, SERVES)
    since = await told(("False", "Complete"), "True")

    for trouble, reason in ((ON_A_LOST_NODE, "NodeLost"), (SILENT, "Unresponsive"), (RESTARTED, "Restarting")):
        await nodes.put("c", trouble)
        assert await told(("True", reason), "True") == since
        await counted("3.0", "2.0")
        await nodes.put("c", SERVES)
        assert await told(("False", "Complete"), "True") == since

    await scaled(4)
    assert await told(("True", "Scaling"), "True") == since
    await nodes.put("d", SERVES)
    assert await told(("False", "Complete"), "True") == since

    await nodes.put("d", BACKING_OFF)
    await told(("False", "CrashLoop"), "False", "Stalled")
