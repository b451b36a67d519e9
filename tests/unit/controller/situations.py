"""Situations of models, and the statuses that the product makes of them."""

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelStatus
from onnx_operator.api.report import InspectionResult, Refusal
from onnx_operator.controller.observation.observe import Observation, observe
from onnx_operator.controller.revision.revisions import Revision, RevisionData, pod_spec
from onnx_operator.controller.status.status import Situation, compute_status
from tests.unit.controller.samples import FETCHED, deployment, pod, report, spec, waiting

T1, T2 = "2026-01-01T00:00:00.000000Z", "2026-02-02T00:00:00.000000Z"
ACCEPTED = InspectionResult(outcome="Accepted", source=report().source, report=report(), interface="face")
REFUSAL = Refusal(reason=Reason.CORRUPT, message="the file ends in the middle of initializer 'w'")
REFUSED = InspectionResult(outcome="Refused", source=report().source, refusal=REFUSAL)


def revision(number=1, **changes) -> Revision:
    values = {
        "spec": pod_spec(spec()),
        "report": report(),
        "interface": "face",
        "pool": "cpu",
        "manifests": [],
    }
    return Revision(f"resnet50-{number}", number, RevisionData(**(values | changes)))


ONE, TWO = revision(1), revision(2)
SERVING_ONE = observe(deployment(ready=1), [pod(ready=True)])


def situation(**changes) -> Situation:
    """A model that serves what it should, unless changed."""
    values = {
        "name": "resnet50",
        "namespace": "default",
        "generation": 5,
        "spec": spec(),
        "inspection_key": "key",
        "inspecting": False,
        "source_changed": False,
        "result": ACCEPTED,
        "refusal": None,
        "current": ONE,
        "revisions": (ONE,),
        "observation": SERVING_ONE,
        "cause": None,
        "outdated": None,
        "started": None,
    }
    return Situation(**(values | changes))


def status(previous=None, now=T1, **changes) -> OnnxModelStatus:
    return compute_status(situation(**changes), previous or OnnxModelStatus(), now)


NEW = {"current": None, "revisions": (), "observation": Observation()}
FAILING = {
    "fetch": FETCHED,
    "server": waiting(
        "CrashLoopBackOff", exitCode=1, message='{"phase":"Loading","reason":"LoadFailed","message":"bad"}'
    ),
}
MISMATCH = {
    "fetch": waiting(
        "CrashLoopBackOff", exitCode=1, message='{"phase":"Downloading","reason":"DigestMismatch","message":"other"}'
    ),
}
UNSCHEDULABLE = {"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/1 nodes"}]}
UPDATING = {"current": TWO, "revisions": (ONE, TWO)}


def updating(**new_pod):
    """The old revision serves, the new one's pod is as described."""
    pods = [pod("old", ready=True), pod("new", revision="resnet50-2", **new_pod)]
    return UPDATING | {"observation": observe(deployment(revision="resnet50-2", ready=1, total=2), pods)}


def first(**new_pod):
    return {"observation": observe(deployment(), [pod(**new_pod)])}


UNREACHABLE = Refusal(reason=Reason.SOURCE_UNREACHABLE, message="connection refused", retriable=True)
NO_ROOM = Refusal(reason=Reason.QUOTA_EXCEEDED, message="exceeded quota: small", retriable=True)
REJECTED = Refusal(reason=Reason.POD_TEMPLATE_REJECTED, message="unknown field nodeSelectr")
EXCEEDED = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
