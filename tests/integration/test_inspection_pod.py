"""Inspecting by pods on a real API server: made once, found again, told of, deleted. No node runs them: tests do."""

import asyncio
import json

import pytest

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import Capabilities, InspectionRequest, InspectionResult, Refusal
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.kinds import ONNX_MODEL
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.inspection import pod as inspection_pod
from onnx_operator.controller.inspection import pods as inspection_pods
from onnx_operator.controller.inspection.pod import pod_name, pod_request
from onnx_operator.controller.inspection.pods import InspectionPods
from onnx_operator.inspector.once import report_line
from tests.unit.controller.samples import files, report, settings

CAPABILITIES = Capabilities(onnx_runtime_version="1.32.0", ir_version=14, opsets={"ai.onnx": 28}, operators={})
ACCEPTED = InspectionResult(
    outcome="Accepted", source=report().source, report=report(), interface="0123456789ab", files=files()
)
NOT_FOUND = InspectionResult(
    outcome="Refused", refusal=Refusal(reason=Reason.SOURCE_NOT_FOUND, message="there is no file a.onnx")
)
URI = "pvc://models/a.onnx"
STRANGER = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "stranger", "labels": {names.LABEL_INSPECTION: "resnet50"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}
SETTINGS = settings(inspectorImage="registry.example/onnx-operator:1", inspection={"timeoutSeconds": 60})


pytestmark = pytest.mark.usefixtures("crd")


class Nodeless(Kube):
    """The API server, with the logs that no node is there to give."""

    logs: str | Exception = ""

    async def log(self, namespace: str, pod: str, container: str, limit_bytes: int) -> str:
        if isinstance(self.logs, Exception):
            raise self.logs
        return self.logs[:limit_bytes]


class Desk:
    """A model whose source only a pod can read; the test stands for the kubelet."""

    def __init__(self, kube, cluster, namespace):
        self.kube, self.cluster, self.namespace = kube, cluster, namespace
        self.pods = InspectionPods(kube, SETTINGS)
        self.model = {}

    async def write(self, **spec):
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": "resnet50", "namespace": self.namespace},
            "spec": {"model": {"uri": URI}} | spec,
        }
        self.model = await self.kube.apply(ONNX_MODEL, manifest, manager="user")

    def start(self, key="key", pods=None):
        spec = OnnxModelSpec.model_validate(self.model["spec"])
        request = pod_request(spec, InspectionRequest(uri=spec.model.uri, capabilities=CAPABILITIES))
        return asyncio.create_task((pods or self.pods).inspect(self.model, spec, key, request))

    def exist(self):
        return self.cluster.list("pods", self.namespace)

    async def pod(self, task, key="key"):
        """The pod, as soon as it is there."""
        for _ in range(200):
            found = [p for p in self.exist() if p["metadata"]["name"] == pod_name(self.model, key)]
            if found:
                return found[0]
            assert not task.done(), task.result()
            await asyncio.sleep(0.05)
        raise AssertionError("no pod was made")

    def tell(self, pod, **status):
        self.cluster.kubectl(
            "patch", "pod", pod["metadata"]["name"], "-n", self.namespace,
            "--subresource=status", "--type=merge", "--patch", json.dumps({"status": status}),
        )  # fmt: skip

    def end(self, pod, exit_code=0, log="", **how):
        self.kube.logs = log
        ended = {"exitCode": exit_code, "startedAt": None, "finishedAt": None, **how}
        container = {"name": "inspect", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        phase = "Failed" if exit_code else "Succeeded"
        self.tell(pod, phase=phase, containerStatuses=[{**container, "state": {"terminated": ended}}])

    def waits(self, pod, reason, message):
        container = {"name": "inspect", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        waiting = {"waiting": {"reason": reason, "message": message}}
        self.tell(pod, phase="Pending", containerStatuses=[{**container, "state": waiting}])

    def unschedulable(self, pod, message):
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        self.tell(pod, phase="Pending", conditions=[condition])


@pytest.fixture
async def desk(apiserver, namespace, monkeypatch):
    kube = await Nodeless.connect(str(apiserver.kubeconfig))
    monkeypatch.setattr(inspection_pod, "NO_CLAIM_SECONDS", 0.1)
    monkeypatch.setattr(inspection_pod, "PATIENCE", dict.fromkeys(inspection_pod.PATIENCE, 0.1))
    monkeypatch.setattr(inspection_pods, "MAX_PAUSE_SECONDS", 0.2)
    desk = Desk(kube, apiserver, namespace)
    await desk.write()
    yield desk
    await kube.close()


async def test_a_pod_is_made_heard_and_gone_before_its_report_counts(desk):
    task = desk.start()
    pod = await desk.pod(task)
    assert pod["metadata"]["ownerReferences"][0]["uid"] == desk.model["metadata"]["uid"]
    desk.end(pod, log='{"message": "reading"}\n' + report_line(ACCEPTED))
    assert await task == ACCEPTED
    assert desk.exist() == []


async def test_a_namespace_with_a_quota_and_a_limit_range_is_inspected_in(desk):
    await asyncio.to_thread(small_quota, desk, limits_cpu="2")
    ranged = {"kind": "LimitRange", "spec": {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]}}
    desk.cluster.apply({"apiVersion": "v1", "metadata": {"name": "small"}, **ranged}, desk.namespace)
    task = desk.start()
    pod = await desk.pod(task)
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
    again = desk.start(pods=InspectionPods(desk.kube, SETTINGS))
    await asyncio.sleep(0.5)
    assert [p["metadata"]["uid"] for p in desk.exist()] == [pod["metadata"]["uid"]]
    desk.end(pod, log=report_line(ACCEPTED))
    assert ACCEPTED in (await task, await again)


async def test_a_limit_range_without_room_for_the_pod_that_inspects_says_what_to_do(desk):
    desk.cluster.apply(
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}}
        | {"spec": {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]}},
        desk.namespace,
    )
    found = await desk.start()
    assert found.refusal.reason is Reason.QUOTA_EXCEEDED
    assert found.refusal.retriable
    assert "64Mi" in found.refusal.message
    assert "platform team" in found.refusal.message


def small_quota(desk, **hard):
    """A quota on these amounts; returns once it is enforced."""
    hard = {key.replace("_", "."): value for key, value in hard.items()}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": hard}}
    desk.cluster.apply(quota, desk.namespace)
    # Without controllers nobody counts what is used.
    counted = json.dumps({"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}})
    patch = ["patch", "resourcequota", "small", "-n", desk.namespace, "--subresource=status", "--type=merge"]
    desk.cluster.kubectl(*patch, "--patch", counted)

    def enforced():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": STRANGER["spec"]}
        create = ["create", "-n", desk.namespace, "--dry-run=server", "-f", "-"]
        return "quota" in desk.cluster.run_kubectl(*create, input=json.dumps(pod), check=False).stderr

    desk.cluster.wait(enforced, 30, "the quota to be enforced")


@pytest.mark.parametrize(
    ("hard", "cure"),
    [
        ({"limits_memory": "1Gi"}, {"limits": {"memory": "600Mi"}}),
        ({"requests_cpu": "20m"}, {"requests": {"cpu": "10m"}}),
        ({"limits_cpu": "500m"}, {"limits": {"cpu": "400m"}}),
    ],
    ids=["memory", "requests of CPU", "limits of CPU"],
)
async def test_a_quota_without_room_for_the_pod_that_inspects_is_cured_as_the_message_says(desk, hard, cure):
    await asyncio.to_thread(small_quota, desk, **hard)
    found = await desk.start()
    assert found.refusal.reason is Reason.QUOTA_EXCEEDED
    assert "exceeded quota" in found.refusal.message
    ((kind, amounts),) = cure.items()
    (resource,) = amounts
    assert f"{kind}.{resource}" in found.refusal.message
    # With what is told after it, it fits a condition.
    assert len(found.refusal.message) < 560

    await desk.write(resources=cure)
    task = desk.start()
    desk.end(await desk.pod(task), log=report_line(ACCEPTED))
    assert await task == ACCEPTED


async def test_a_refusal_is_told_in_the_words_of_the_pod(desk):
    task = desk.start()
    desk.end(await desk.pod(task), log=report_line(NOT_FOUND))
    assert await task == NOT_FOUND
    assert desk.exist() == []


async def test_an_operator_that_starts_again_goes_on_with_the_pod_that_is_there(desk):
    first = desk.start()
    pod = await desk.pod(first)
    # Killed: not even the deletion of a cancelled call happens.
    second = desk.start(pods=InspectionPods(desk.kube, SETTINGS))
    await asyncio.sleep(0.5)
    assert [p["metadata"]["uid"] for p in desk.exist()] == [pod["metadata"]["uid"]]
    desk.end(pod, log=report_line(ACCEPTED))
    assert ACCEPTED in (await first, await second)
    assert desk.exist() == []


async def test_a_report_that_came_while_no_operator_was_there_is_read(desk):
    task = desk.start()
    pod = await desk.pod(task)
    api = desk.kube
    desk.pods._kube = None  # nothing reaches the API server from here any more
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [p["metadata"]["uid"] for p in desk.exist()] == [pod["metadata"]["uid"]]
    desk.end(pod, log=report_line(ACCEPTED))
    assert await desk.start(pods=InspectionPods(api, SETTINGS)) == ACCEPTED
    assert desk.exist() == []


async def test_an_inspection_that_is_not_wanted_any_more_takes_its_pod_with_it(desk):
    task = desk.start()
    await desk.pod(task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert desk.exist() == []


async def test_another_look_removes_what_a_killed_operator_left_and_nobody_elses_pods(desk):
    lost = desk.start("before")
    left = await desk.pod(lost, "before")
    desk.cluster.apply(STRANGER, desk.namespace)
    task = desk.start("refreshed")
    pod = await desk.pod(task, "refreshed")
    assert {p["metadata"]["name"] for p in desk.exist()} == {pod["metadata"]["name"], "stranger"}
    told = await lost
    assert told.refusal.retriable
    assert left["metadata"]["name"] != pod["metadata"]["name"]
    desk.end(pod, log=report_line(ACCEPTED))
    assert await task == ACCEPTED


async def test_a_claim_that_is_missing_is_told_soon_and_the_next_look_begins_anew(desk):
    task = desk.start()
    pod = await desk.pod(task)
    desk.unschedulable(pod, '0/1 nodes are available: persistentvolumeclaim "models" not found.')
    told = (await task).refusal
    assert (told.reason, told.retriable) == (Reason.SOURCE_NOT_FOUND, True)
    assert "PersistentVolumeClaim 'models'" in told.message
    assert desk.exist() == []
    again = desk.start()
    assert (await desk.pod(again))["metadata"]["uid"] != pod["metadata"]["uid"]
    again.cancel()


async def test_a_pod_that_no_node_takes_is_told_in_the_schedulers_words(desk):
    task = desk.start()
    desk.unschedulable(await desk.pod(task), "0/3 nodes are available: 3 Insufficient memory.")
    told = (await task).refusal
    assert (told.reason, told.retriable) == (Reason.SOURCE_UNREACHABLE, True)
    assert "3 Insufficient memory" in told.message


async def test_an_image_that_cannot_be_pulled_is_named(desk):
    task = desk.start()
    desk.waits(await desk.pod(task), "ImagePullBackOff", "no such host")
    told = (await task).refusal
    assert (told.reason, told.retriable) == (Reason.SOURCE_UNREACHABLE, True)
    assert "cannot be pulled: no such host" in told.message


async def test_a_pod_that_never_starts_without_saying_why_is_given_up(desk, monkeypatch):
    monkeypatch.setattr(inspection_pods, "STARTING_SECONDS", 0.3)
    task = desk.start()
    await desk.pod(task)
    told = (await task).refusal
    assert told.retriable
    assert "kubectl get events" in told.message
    assert desk.exist() == []


@pytest.mark.parametrize(
    ("how", "reason", "words"),
    [
        ({"exit_code": 1, "message": "it broke"}, Reason.SOURCE_UNREACHABLE, "it broke"),
        ({"exit_code": 137, "reason": "OOMKilled"}, Reason.TOO_LARGE, "memory"),
        ({"exit_code": 0, "log": "nothing"}, Reason.SOURCE_UNREACHABLE, "does not count"),
        ({"exit_code": 0, "log": ApiError(500, "", "the node is gone")}, Reason.SOURCE_UNREACHABLE, "node is gone"),
    ],
    ids=["exit", "memory", "no report", "no log"],
)
async def test_a_pod_that_ends_without_a_report_says_nothing_about_the_model(desk, monkeypatch, how, reason, words):
    monkeypatch.setattr(inspection_pods, "FIRST_PAUSE_SECONDS", 0.01)
    task = desk.start()
    desk.end(await desk.pod(task), **how)
    told = (await task).refusal
    assert (told.reason, told.retriable) == (reason, reason is Reason.SOURCE_UNREACHABLE)
    assert words in told.message
    assert desk.exist() == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"reason": "DeadlineExceeded"}, "inspection.timeoutSeconds"),
        ({"reason": "Evicted", "message": "the node was low on memory"}, "low on memory"),
    ],
)
async def test_a_pod_that_fails_as_a_whole_is_tried_again(desk, status, words):
    task = desk.start()
    desk.tell(await desk.pod(task), phase="Failed", **status)
    told = (await task).refusal
    assert told.retriable
    assert words in told.message


async def test_a_pod_that_somebody_deletes_is_tried_again(desk):
    task = desk.start()
    pod = await desk.pod(task)
    desk.cluster.kubectl("delete", "pod", pod["metadata"]["name"], "-n", desk.namespace, "--force", "--grace-period=0")
    told = (await task).refusal
    assert told.retriable
    assert "deleted" in told.message


async def test_a_quota_that_forbids_the_pod_is_told(desk):
    await asyncio.to_thread(small_quota, desk, pods="0")
    told = (await desk.start()).refusal
    assert (told.reason, told.retriable) == (Reason.QUOTA_EXCEEDED, True)
    assert "exceeded quota" in told.message
    assert desk.exist() == []


async def test_a_namespace_that_enforces_the_restricted_standard_takes_the_pod(desk):
    desk.cluster.kubectl("label", "namespace", desk.namespace, "pod-security.kubernetes.io/enforce=restricted")
    task = desk.start()
    await desk.pod(task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_a_pod_template_that_no_inspection_gets_is_told_and_no_pod_made(desk):
    await desk.write(podTemplate={"spec": {"securityContext": {"runAsNonRoot": False, "runAsUser": 0}}})
    told = (await desk.start()).refusal
    assert told.reason is Reason.POD_TEMPLATE_REJECTED
    assert "securityContext.runAsUser" in told.message
    assert desk.exist() == []


async def test_a_pod_that_somebody_made_first_in_our_name_is_replaced_and_not_heard(desk):
    owner = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "resnet50", "controller": True}
    metadata = {
        "name": pod_name(desk.model, "key"),
        "labels": {names.LABEL_INSPECTION: "resnet50"},
        "ownerReferences": [owner | {"uid": desk.model["metadata"]["uid"]}],
    }
    desk.cluster.apply(STRANGER | {"metadata": metadata}, desk.namespace)
    (forged,) = desk.exist()
    desk.end(forged, log=report_line(ACCEPTED))
    task = desk.start()
    for _ in range(200):
        pod = await desk.pod(task)
        if pod["metadata"]["uid"] != forged["metadata"]["uid"]:
            break
        await asyncio.sleep(0.05)
    assert pod["spec"]["containers"][0]["image"] == SETTINGS.inspector_image
    desk.end(pod, log=report_line(NOT_FOUND))
    assert await task == NOT_FOUND
    assert desk.exist() == []


async def test_a_pod_whose_image_somebody_changed_is_not_heard(desk):
    task = desk.start()
    pod = await desk.pod(task)
    change = [{"op": "replace", "path": "/spec/containers/0/image", "value": "registry.example/evil:1"}]
    desk.cluster.kubectl(
        "patch", "pod", pod["metadata"]["name"], "-n", desk.namespace, "--type=json", "--patch", json.dumps(change)
    )
    desk.end(pod, log=report_line(ACCEPTED))
    told = (await task).refusal
    assert told is not None
    assert (told.reason, told.retriable) == (Reason.SOURCE_UNREACHABLE, True)
    assert "spec.containers" in told.message
    assert desk.exist() == []


async def test_a_name_that_somebody_else_took_is_told_and_left_alone(desk):
    taken = STRANGER | {"metadata": {"name": pod_name(desk.model, "key")}}
    desk.cluster.apply(taken, desk.namespace)
    told = (await desk.start()).refusal
    assert told.retriable
    assert "somebody else's" in told.message
    assert len(desk.exist()) == 1


async def test_without_an_image_in_the_settings_the_setting_is_named(desk):
    told = (await desk.start(pods=InspectionPods(desk.kube, settings()))).refusal
    assert (told.reason, told.retriable) == (Reason.SOURCE_REFUSED, False)
    assert "inspectorImage" in told.message
    assert desk.exist() == []


async def test_no_more_pods_of_one_namespace_than_allowed(desk, monkeypatch):
    monkeypatch.setattr(inspection_pods, "PODS_PER_NAMESPACE", 1)
    desk.pods = InspectionPods(desk.kube, SETTINGS)
    one = desk.start("one")
    await desk.pod(one, "one")
    other = dict(desk.model, metadata=desk.model["metadata"] | {"name": "other"})
    first, desk.model = desk.model, other
    two = desk.start("two")
    await asyncio.sleep(0.5)
    assert len(desk.exist()) == 1
    desk.model = first
    desk.end(await desk.pod(one, "one"), log=report_line(ACCEPTED))
    assert await one == ACCEPTED
    desk.model = other
    await desk.pod(two, "two")
    two.cancel()
    await asyncio.gather(two, return_exceptions=True)
