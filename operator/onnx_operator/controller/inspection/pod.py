"""The short pod that inspects what only a model's own pods can read: a volume, or by their cloud identity. Pure.

It runs in the model's namespace with the model's service account, and is placed as models on CPUs are.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec, Runtime
from onnx_operator.api.report import InspectionRequest
from onnx_operator.api.schemes import claim_of, scheme_of
from onnx_operator.common.egress import DIRECTORY as EGRESS_DIRECTORY
from onnx_operator.controller.cluster.kinds import Object
from onnx_operator.controller.cluster.owners import owner_reference
from onnx_operator.controller.observation.admission import Demands
from onnx_operator.controller.observation.observe import pod_cause
from onnx_operator.controller.revision.fetching import (
    escape_dollars,
    identity_marks,
    uses_service_account,
)
from onnx_operator.controller.revision.inspection_template import template_of
from onnx_operator.controller.revision.merge import strategic_merge
from onnx_operator.controller.revision.pools import avoid_pools
from onnx_operator.controller.revision.render import Manifest, egress_sources, render_one
from onnx_operator.controller.revision.resources import INSPECTION_MEMORY, MIN_INSPECTION_LIMIT, inspection_resources
from onnx_operator.controller.revision.seal import digest
from onnx_operator.controller.settings.quantities import mebibytes
from onnx_operator.controller.settings.settings import Pool, Settings
from onnx_operator.inspector.once import request_variables

CONTAINER = "inspect"
TEMPLATE = "inspection_pod.yaml.j2"
PATIENCE: dict[Reason, float] = {
    Reason.UNSCHEDULABLE: 60.0,
    Reason.IMAGE_PULL_FAILED: 20.0,
    Reason.CREATION_FAILED: 10.0,
}
"""Seconds that a pod is left with a cause that may pass by itself: a node is added, a registry answers again."""
FROM_SPEC = (
    "of spec.resources this pod takes requests.cpu and limits.cpu, and limits.memory from "
    f"{mebibytes(MIN_INSPECTION_LIMIT)} to {mebibytes(INSPECTION_MEMORY[1])}"
)
"""What can be done in the spec about a namespace that has no room for the pod."""
NO_CLAIM_SECONDS = 3.0
_NO_CLAIM = re.compile(r'persistentvolumeclaim "[^"]*" (not found|is being deleted)')


def pod_request(spec: OnnxModelSpec, request: InspectionRequest) -> InspectionRequest:
    """The request as a pod gets it: with its own identity, and the settings of its stores alone."""
    sources = request.sources.for_schemes(scheme_of(request.uri), scheme_of(request.test_data))
    return request.model_copy(update={"workload_identity": uses_service_account(spec), "sources": sources})


def pod_name(model: Object, key: str) -> str:
    """The name of the pod of one inspection: whoever comes later finds it instead of making another."""
    metadata = model["metadata"]
    return f"{metadata['name'][:43].rstrip('-')}-inspect-{digest([metadata['uid'], key])}"


def _pool(spec: OnnxModelSpec, namespace: str, settings: Settings) -> Pool:
    """The model's pool, where it names one: its nodes may be the only ones that reach the volume. Else one for CPU."""
    allowed = [p for p in settings.effective_pools() if p.allows(namespace)]
    named = [p for p in allowed if p.name == spec.node_pool]
    return next(iter([*named, *(p for p in allowed if p.runtime is Runtime.CPU)]), Pool(name="cpu"))


def inspection_pod(
    model: Object,
    spec: OnnxModelSpec,
    key: str,
    request: InspectionRequest,
    settings: Settings,
    demands: Demands | None = None,
) -> Manifest:
    """The pod that carries out ``request``, with what its namespace was found to demand.

    Raises:
        RefusedError: ``PodTemplateRejected``, ``spec.podTemplate`` asks for what no inspection gets.
        TemplateError: the platform team's template is wrong.
    """
    metadata = model["metadata"]
    name, namespace = pod_name(model, key), metadata["namespace"]
    pool = _pool(spec, namespace, settings)
    identity_labels, _ = identity_marks(spec, settings)
    variables: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": {
            "app.kubernetes.io/name": "onnx-inspection",
            "app.kubernetes.io/managed-by": "onnx-operator",
            names.LABEL_INSPECTION: metadata["name"],
            **identity_labels,
        },
        "service_account_name": spec.service_account_name,
        "deadline_seconds": math.ceil(settings.inspection.timeout_seconds),
        "image": settings.inspector_image,
        "image_pull_policy": settings.image_pull_policy,
        "image_pull_secrets": [{"name": s} for s in settings.image_pull_secrets],
        "node_selector": pool.node_selector,
        "tolerations": [t.model_dump(by_alias=True, exclude_none=True) for t in pool.tolerations],
        "node_selector_terms": avoid_pools([p for p in settings.pools if p.runtime is Runtime.GPU])
        if pool.runtime is Runtime.CPU
        else [],
        "run_as_user": settings.run_as_user,
        "egress": egress_sources(settings),
        "egress_directory": EGRESS_DIRECTORY,
        "container": CONTAINER,
        "args": [
            "inspect-once",
            f"--max-model-bytes={settings.inspection.max_model_bytes}",
            f"--root={names.SOURCE_DIRECTORY}",
            *_changed_nodes(settings),
        ],
        "env": [{"name": n, "value": escape_dollars(v)} for n, v in request_variables(request).items()],
        "resources": inspection_resources(settings.resources, spec.resources, demands or Demands()),
        "claim_name": claim_of(spec.model.uri),
        "source_directory": names.SOURCE_DIRECTORY,
    }
    manifest = render_one(settings, TEMPLATE, "Pod", variables)
    manifest["spec"] = strategic_merge(manifest["spec"], template_of(spec))
    manifest["metadata"]["ownerReferences"] = [owner_reference(model)]
    return manifest


def _changed_nodes(settings: Settings) -> list[str]:
    """The option, where the setting was changed: an image of an older version does not know it."""
    changed = settings.inspection.max_nodes != type(settings.inspection)().max_nodes
    return [f"--max-nodes={settings.inspection.max_nodes}"] if changed else []


@dataclass(frozen=True)
class StartCause:
    """Why a pod has not started, and for how many seconds it may be left so."""

    kind: str
    """The same while the message varies from look to look."""
    message: str
    patience: float
    reason: Reason = Reason.SOURCE_UNREACHABLE


def start_cause(pod: Object, claim: str) -> StartCause | None:
    """Why a pod has not started; None where nothing is known to keep it."""
    cause = pod_cause(pod)
    if cause is None or cause.reason not in PATIENCE:
        return None
    if claim and cause.reason is Reason.UNSCHEDULABLE and _NO_CLAIM.search(cause.message):
        namespace = pod["metadata"]["namespace"]
        message = f"there is no PersistentVolumeClaim {claim!r} in namespace {namespace!r}; create it"
        return StartCause("NoClaim", message, NO_CLAIM_SECONDS, Reason.SOURCE_NOT_FOUND)
    what = "cannot be scheduled: " if cause.reason is Reason.UNSCHEDULABLE else "cannot start: "
    return StartCause(cause.reason, f"the pod that inspects {what}{cause.message}", PATIENCE[cause.reason])


def terminated(pod: Object) -> Object | None:
    """How the container that inspects ended; None while it has not."""
    for status in pod.get("status", {}).get("containerStatuses") or []:
        if status.get("name") == CONTAINER:
            found: Object | None = (status.get("state") or {}).get("terminated")
            return found
    return None


def started(pod: Object) -> bool:
    """Whether the container that inspects runs."""
    return any(
        status.get("name") == CONTAINER and (status.get("state") or {}).get("running")
        for status in pod.get("status", {}).get("containerStatuses") or []
    )


_NOT_OURS = frozenset({"nodeName"})
"""Fields of a pod's spec that the scheduler fills in."""


def altered(made: Object, found: Object) -> str:
    """What is no longer as it was made in a pod: a field of its spec, or a restart; empty where nothing is.

    Whoever may update pods can change the image of one that runs, or add a container that reads and writes beside it;
    a container that never restarts, and yet did, ran something else meanwhile.

    Args:
        made: the pod as the API server took it.
        found: as it is now.
    """
    before, now = made["spec"], found["spec"]
    for field in sorted((before.keys() | now.keys()) - _NOT_OURS):
        if before.get(field) != now.get(field):
            return f"spec.{field}"
    statuses = found.get("status", {}).get("containerStatuses") or []
    return "status.restartCount" if any(status.get("restartCount") for status in statuses) else ""
