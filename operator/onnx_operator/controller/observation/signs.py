"""What a pod's status is a sign of, where it does not say so itself: a lost node, an answer that stays away. Pure.

Of pods as :func:`~onnx_operator.controller.observation.pods.slim_pod` gives them. Who writes which of these signs is
Kubernetes' own code, 1.24 to 1.35: pkg/kubelet/status and pkg/kubelet/prober (conditions, ``started``),
pkg/controller/util/node (``Ready`` of pods whose node does not answer), pkg/controller/tainteviction and
pkg/controller/podgc (``DisruptionTarget``).
"""

from typing import Any

from onnx_operator.controller.cluster.times import seconds_between

Object = dict[str, Any]

LOST_EXIT_CODE = 255
"""What runtimes report of a container whose end nobody saw, as after a node's restart."""
UNSEEN_END = "ContainerStatusUnknown"
"""The kubelet's reason where it found no trace of a container that had run."""
LOST_POD = "NodeLost"
"""The node controller's reason for a pod that it deletes because its node does not answer."""
LOST_BY = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})
"""Reasons of ``DisruptionTarget`` where a node sends its pods away, or exists no more."""
SURE_RESTARTS = 2
"""Restarts after which a container that ends is known to end again."""
SEVERAL_RESTARTS = 5
"""Restarts after which kills while serving, and ends that nobody saw, are a loop, unless the last run was long."""
LONG_RUN_SECONDS = 600
"""A run that lasted longer is no part of a loop; the kubelet's own back-off begins anew after it too."""
LONGEST_PAUSE_SECONDS = 600
"""An end longer before a start than this did not lead to it: the kubelet waits 5 minutes at most."""


def _condition(pod: Object, kind: str) -> Object:
    found = (c for c in pod.get("status", {}).get("conditions") or [] if c.get("type") == kind)
    return next(found, {})


def lost_node(pod: Object) -> str:
    """Why a pod's node counts as lost, for people; empty where nothing tells that it is."""
    status = pod.get("status", {})
    node = pod.get("spec", {}).get("nodeName")
    named = f"node {node!r}" if node else "the node of a pod"
    if status.get("reason") == LOST_POD:
        return f"{named} is lost: {status.get('message') or LOST_POD}"
    target = _condition(pod, "DisruptionTarget")
    if target.get("status") == "True" and target.get("reason") in LOST_BY:
        return f"{named} is lost, or sends its pods away: {target.get('message') or target['reason']}"
    ready, containers = _condition(pod, "Ready"), _condition(pod, "ContainersReady")
    # The kubelet changes both together. Where only one is left, it was the node controller that took the other away.
    gated = ready.get("reason") == "ReadinessGatesNotReady"
    if ready and ready.get("status") != "True" and containers.get("status") == "True" and not gated:
        return f"{named} does not answer: its pods are replaced after some minutes, unless it comes back"
    return ""


def unanswering(pod: Object) -> str:
    """The container that was ready in its present run and is not any more; empty where there is none."""
    ready = _condition(pod, "Ready")
    if not ready or ready.get("status") == "True":
        return ""
    for container in pod.get("status", {}).get("containerStatuses") or []:
        running = (container.get("state") or {}).get("running")
        if not running or container.get("ready") or not container.get("started"):
            continue
        # Until a container is ready for the first time, the condition is older than its run.
        since = seconds_between(running.get("startedAt"), ready.get("lastTransitionTime"))
        if since is not None and since > 0:
            return str(container.get("name", ""))
    return ""


def is_past(container: Object, *, is_init: bool = False) -> bool:
    """Whether a container's last end is history: it runs, and has started well since, or ended long before.

    A container that runs without a startup probe counts as started at once; so do all init containers.
    """
    running = (container.get("state") or {}).get("running")
    if not running:
        return False
    if container.get("started") and not is_init:
        return True
    last = (container.get("lastState") or {}).get("terminated") or {}
    pause = seconds_between(last.get("finishedAt"), running.get("startedAt"))
    return pause is not None and pause > LONGEST_PAUSE_SECONDS


def was_short(terminated: Object) -> bool:
    """Whether a run that ended was a short one, or may have been."""
    lasted = seconds_between(terminated.get("startedAt"), terminated.get("finishedAt"))
    return lasted is None or lasted < LONG_RUN_SECONDS


def is_sure(container: Object, terminated: Object) -> bool:
    """Whether a container that ended so is known to end again: once may be chance."""
    waiting = (container.get("state") or {}).get("waiting") or {}
    if waiting.get("reason") == "CrashLoopBackOff":
        return True
    return container.get("restartCount", 0) >= SURE_RESTARTS and was_short(terminated)


def is_nodes(container: Object, terminated: Object) -> bool:
    """Whether it was the node that ended a container, not what runs in it; not for ever, if it goes on so."""
    if terminated.get("exitCode") != LOST_EXIT_CODE and terminated.get("reason") != UNSEEN_END:
        return False
    return container.get("restartCount", 0) < SEVERAL_RESTARTS or not was_short(terminated)
