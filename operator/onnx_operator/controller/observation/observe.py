"""Observation: what the Deployment and its pods tell, and for what cause pods fail. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import MOST_KILLS, Phase, TerminationMessage
from onnx_operator.api.onnxmodel import PodFailure
from onnx_operator.api.reasons import REASONS, precedence
from onnx_operator.api.report import shorten
from onnx_operator.api.sources import SourcePin
from onnx_operator.controller.cluster.times import seconds_between
from onnx_operator.controller.observation.pods import MOST_CONDITIONS, mapping, mappings, number, slim_pod, text

Object = dict[str, Any]

IMAGE_REASONS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
)
SEVERAL_RESTARTS = 5
"""Restarts after which kills while serving are a loop, where the last run was no long one."""
LONG_RUN_SECONDS = 600
MOST_GUESSED = MOST_KILLS + 2
"""Restarts after which no made-up input can be to blame: the search is given up by then, and nothing is measured."""
MAX_FAILURES = 4
MAX_FAILURE_PODS = 3
MAX_FAILURE_MESSAGE = 256


@dataclass(frozen=True)
class Cause:
    """Why a pod is not ready."""

    reason: Reason
    message: str
    observed: SourcePin | None = None


@dataclass(frozen=True)
class PodState:
    """A pod of the model, as far as status needs it."""

    name: str
    revision: str
    ready: bool
    terminating: bool
    cause: Cause | None
    failed: str = ""
    """Why the pod as a whole failed (evicted, refused by the node); it is replaced, and may linger."""


@dataclass(frozen=True)
class Observation:
    """What was seen of a model's Deployment and pods."""

    deployment: Object | None = None
    pods: tuple[PodState, ...] = ()
    creation: Cause | None = None
    deadline_exceeded: bool = False
    failures: tuple[PodFailure, ...] = field(default=())

    @property
    def revision(self) -> str:
        """The revision that the Deployment holds; empty where there is none."""
        template = mapping(mapping((self.deployment or {}).get("spec")).get("template"))
        return text(mapping(mapping(template.get("metadata")).get("labels")).get(names.LABEL_REVISION))

    def live_pods(self) -> list[PodState]:
        """Pods that are not on their way out."""
        return [p for p in self.pods if not p.terminating]


def _parse_termination(told: str) -> TerminationMessage | None:
    try:
        return TerminationMessage.model_validate_json(told)
    except ValueError:
        return None


def _image_message(container: Object, waiting: Object) -> str:
    image = container.get("image", "")
    detail = waiting.get("message", "") or waiting.get("reason", "")
    # The kubelet alternates between the error and "Back-off pulling image …: error"; only the error is kept.
    detail = re.sub(r'^Back-off pulling image "[^"]*"(: )?', "", detail)
    detail = re.sub(r"^(ErrImagePull|ImagePullBackOff): ", "", detail)
    return f"image {image!r} of container {container.get('name')} cannot be pulled: {detail or 'see the pod'}"


def _killed_while_serving(container: Object, terminated: Object, limit: str) -> Cause:
    """Callers may be to blame, and so not at once the model: only runs that are short, again and again, are a loop."""
    lasted = seconds_between(terminated.get("startedAt"), terminated.get("finishedAt"))
    if container.get("restartCount", 0) >= SEVERAL_RESTARTS and (lasted is None or lasted < LONG_RUN_SECONDS):
        return Cause(
            Reason.CRASH_LOOP,
            "container server was killed again and again while it served: requests take more memory than its "
            f"limit{limit} leaves; raise spec.resources.limits.memory",
        )
    return Cause(
        Reason.KILLED_WHILE_SERVING,
        f"container server was killed while it served: requests took more memory than its limit{limit} leaves; the "
        "model itself had loaded. If it happens again, raise spec.resources.limits.memory",
    )


def _was_guess(container: Object, message: TerminationMessage | None) -> bool:
    """Whether a made-up input ran when the server ended; it says so itself, and so is not believed for ever."""
    ours = container.get("name") == names.CONTAINER_SERVER
    guessing = message is not None and bool(message.guessing) and message.reason is None
    return ours and guessing and container.get("restartCount", 0) <= MOST_GUESSED


def _guessed() -> Cause:
    """A made-up input killed the server: the guess is ours, and later starts go on without it."""
    return Cause(
        Reason.LOADING,
        "container server was killed while it tried a made-up input; it starts again, and leaves it out if that "
        "happens twice",
    )


def _terminated_cause(container: Object, terminated: Object) -> Cause | None:
    name = container.get("name", "")
    message = _parse_termination(terminated.get("message", "") or "")
    phase = f" in phase {message.phase}" if message else ""
    if terminated.get("reason") == "OOMKilled":
        limit = container.get("limit")
        ours = name == names.CONTAINER_SERVER
        if _was_guess(container, message):
            return _guessed()
        if ours and message and message.phase is Phase.SERVING:
            return _killed_while_serving(container, terminated, f" of {limit}" if limit else "")
        return Cause(
            Reason.OUT_OF_MEMORY,
            f"container {name} was killed{phase}: it needed more memory than its limit"
            f"{f' of {limit}' if limit else ''}; "
            f"raise {'spec.resources.limits.memory' if ours else 'the limit of this container in spec.podTemplate'}",
        )
    if terminated.get("exitCode", 0) == 0:
        return None
    if _was_guess(container, message):
        return _guessed()
    if message and message.reason and REASONS[message.reason].claimable:
        return Cause(message.reason, message.message, message.observed)
    code = terminated.get("exitCode")
    how = f"by signal {code - 128}" if isinstance(code, int) and code > 128 else f"with exit code {code}"
    told = message.message if message and message.message else ""
    if not message:
        told = (terminated.get("message") or "").strip()[-300:]
    reason = Reason.DOWNLOAD_FAILED if name == names.CONTAINER_FETCH else Reason.CRASH_LOOP
    return Cause(reason, f"container {name} ended {how}{phase}{f': {told}' if told else ''}; see its log")


def _container_cause(container: Object) -> Cause | None:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in IMAGE_REASONS:
        return Cause(Reason.IMAGE_PULL_FAILED, _image_message(container, waiting))
    if waiting.get("reason") in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        detail = waiting.get("message", "") or waiting["reason"]
        return Cause(Reason.CREATION_FAILED, f"container {container.get('name')} cannot be created: {detail}")
    # A container that is running again after a crash has proved nothing yet: the crash stands until it is ready.
    for terminated in (state.get("terminated"), (container.get("lastState") or {}).get("terminated")):
        if terminated:
            cause = _terminated_cause(container, terminated)
            if cause:
                return cause
    if waiting.get("reason") == "CrashLoopBackOff":
        return Cause(
            Reason.CRASH_LOOP,
            f"container {container.get('name')} ends again and again with exit code 0, as if its work were done; "
            "see its log",
        )
    return None


def _containers(pod: Object, field_name: str, specs: str) -> Iterable[Object]:
    limits = {
        c.get("name"): ((c.get("resources") or {}).get("limits") or {}).get("memory")
        for c in pod.get("spec", {}).get(specs) or []
    }
    for status in pod.get("status", {}).get(field_name) or []:
        yield {**status, "limit": limits.get(status.get("name"))}


def pod_cause(pod: Object) -> Cause | None:
    """Why a pod that is not ready is not; None when it says nothing yet. Takes what anybody wrote there."""
    pod = slim_pod(pod)
    status = pod.get("status", {})
    inits = list(_containers(pod, "initContainerStatuses", "initContainers"))
    containers = list(_containers(pod, "containerStatuses", "containers"))
    for container in inits:
        if (container.get("state") or {}).get("terminated", {}).get("exitCode") == 0:
            continue
        cause = _container_cause(container)
        if cause:
            return cause
    for container in containers:
        cause = _container_cause(container)
        if cause:
            return cause
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Cause(Reason.UNSCHEDULABLE, condition.get("message", ""))
    if any((c.get("state") or {}).get("running") and c.get("name") == names.CONTAINER_FETCH for c in inits):
        return Cause(Reason.DOWNLOADING, "the pods download the model")
    fetched = any((c.get("state") or {}).get("terminated", {}).get("exitCode") == 0 for c in inits)
    if fetched or any(
        (c.get("state") or {}).get("running") and c.get("name") == names.CONTAINER_SERVER for c in containers
    ):
        return Cause(Reason.LOADING, "the pods load the model and warm up")
    return None


def _failure(status: Object) -> str:
    return ": ".join(filter(None, (status.get("reason"), status.get("message")))) or "the pod does not say why"


def _pod_state(pod: Object) -> PodState:
    metadata, status = pod.get("metadata", {}), pod.get("status", {})
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or [])
    return PodState(
        name=metadata.get("name", ""),
        revision=metadata.get("labels", {}).get(names.LABEL_REVISION, ""),
        ready=ready,
        terminating="deletionTimestamp" in metadata or status.get("phase") in ("Failed", "Succeeded"),
        cause=None if ready else pod_cause(pod),
        failed=_failure(status) if status.get("phase") == "Failed" else "",
    )


def _creation_cause(deployment: Object) -> Cause | None:
    for condition in mappings(mapping(deployment.get("status")).get("conditions"), MOST_CONDITIONS):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            # The ReplicaSet numbers its pods: without their names the message stays the same from try to try.
            message = re.sub(r'pods "[^"]*" is forbidden', "pods are forbidden", text(condition.get("message")))
            quota = re.search(r"exceeded quota|maximum .* usage per|must specify .* for", message)
            return Cause(Reason.QUOTA_EXCEEDED if quota else Reason.CREATION_FAILED, message)
    return None


def _failures(pods: Iterable[PodState]) -> tuple[PodFailure, ...]:
    groups: dict[tuple[Reason, str], list[str]] = {}
    for pod in pods:
        if pod.cause and not pod.terminating and not REASONS[pod.cause.reason].under_way:
            groups.setdefault((pod.cause.reason, shorten(pod.cause.message, MAX_FAILURE_MESSAGE)), []).append(pod.name)
    ordered = sorted(groups.items(), key=lambda item: (precedence(item[0][0]), item[0][1]))
    return tuple(
        PodFailure(reason=reason, message=message, count=len(found), pods=sorted(found)[:MAX_FAILURE_PODS])
        for (reason, message), found in ordered[:MAX_FAILURES]
    )


def observe(deployment: Object | None, pods: list[Object]) -> Observation:
    """What a Deployment and the pods of all its revisions tell. Takes whatever anybody wrote into their status."""
    states = tuple(_pod_state(slim_pod(p)) for p in pods)
    deadline = False
    if deployment:
        status = mapping(deployment.get("status"))
        generation = mapping(deployment.get("metadata")).get("generation")
        deadline = number(status.get("observedGeneration")) >= number(generation) and any(
            c.get("type") == "Progressing" and c.get("reason") == "ProgressDeadlineExceeded"
            for c in mappings(status.get("conditions"), MOST_CONDITIONS)
        )
    return Observation(
        deployment=deployment,
        pods=states,
        creation=_creation_cause(deployment) if deployment else None,
        deadline_exceeded=deadline,
        failures=_failures(states),
    )


def rollout_cause(observation: Observation, revision: str) -> Cause | None:
    """The cause that speaks for the rollout of a revision: the gravest among its pods."""
    causes = [p.cause for p in observation.live_pods() if p.revision == revision and p.cause]
    if observation.creation and observation.revision == revision:
        causes.append(observation.creation)
    known = [c for c in causes if REASONS[c.reason].precedence is not None]
    if not known:
        # Pods that fail as a whole are replaced at once; only when nothing else speaks do the failed ones.
        failed = sorted(p.failed for p in observation.pods if p.revision == revision and p.failed)
        known = [Cause(Reason.CREATION_FAILED, f"a pod failed: {message}") for message in failed[-1:]]
    return min(known, key=lambda c: (precedence(c.reason), c.message), default=None)
