"""Observation: what the Deployment and its pods tell, and for what cause pods fail. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import MAX_KILLS, Phase, TerminationMessage
from onnx_operator.api.onnxmodel import PodFailure
from onnx_operator.api.reasons import REASONS, precedence
from onnx_operator.api.report import shorten
from onnx_operator.api.sources import SourcePin
from onnx_operator.controller.cluster.messages import steady
from onnx_operator.controller.observation.admission import Demands, advice, demands_of, of_amounts
from onnx_operator.controller.observation.pods import (
    ANNOTATION_NUMBER,
    MAX_CONDITIONS,
    mapping,
    mappings,
    number,
    slim_pod,
    text,
)
from onnx_operator.controller.observation.signs import (
    SEVERAL_RESTARTS,
    is_nodes,
    is_past,
    is_sure,
    lost_node,
    unanswering,
    was_short,
)

Object = dict[str, Any]

IMAGE_REASONS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
)
MAX_GUESSED = MAX_KILLS + 2
"""Restarts after which no made-up input can be to blame: the search is given up by then, and nothing is measured."""
OUR_CONTAINERS = frozenset({names.CONTAINER_FETCH, names.CONTAINER_REQUIREMENTS, names.CONTAINER_SERVER})
MAX_FAILURES = 4
MAX_FAILURE_PODS = 3
MAX_FAILURE_MESSAGE = 256
MAX_REFUSAL = 400
"""Bytes of the API server's words on pods that it refuses; what to do about it is told after them."""


@dataclass(frozen=True)
class Cause:
    """Why a pod is not ready."""

    reason: Reason
    message: str
    observed: SourcePin | None = None
    sure: bool = True
    """Whether it would come again; a model's fault counts as one only then."""
    container: str = field(default="", compare=False)
    """Whose end tells it; empty where it is no container's."""
    callers: bool = field(default=False, compare=False)
    """Whether the container served when it ended: callers may have brought it about."""

    @property
    def is_fault(self) -> bool:
        """Whether it is the model's fault, for sure."""
        return self.sure and REASONS[self.reason].models_fault


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
    lost: str = ""
    """Why its node counts as lost, where the pod has not ended."""


@dataclass(frozen=True)
class Observation:
    """What was seen of a model's Deployment and pods."""

    deployment: Object | None = None
    pods: tuple[PodState, ...] = ()
    creation: Cause | None = None
    demands: Demands = field(default_factory=Demands)
    """What the namespace was seen to demand of containers, by the refusal that ``creation`` tells of."""
    deadline_exceeded: bool = False
    rolled_out: bool = False
    """Whether all pods that the Deployment asks for, one at least, are of its revision and take traffic."""
    complete_once: bool = False
    """Whether the rollout of what the Deployment holds came to its end: what is missing since then is no rollout."""
    failures: tuple[PodFailure, ...] = field(default=())

    @property
    def revision(self) -> str:
        """The revision that the Deployment holds; empty where there is none."""
        return _revision_of(self.deployment)

    def live_pods(self) -> list[PodState]:
        """Pods that are not on their way out."""
        return [p for p in self.pods if not p.terminating]

    def ready_pods(self, revision: str) -> int:
        """Pods of a revision that take traffic."""
        return sum(p.ready and p.revision == revision for p in self.live_pods())

    def lost(self, revision: str) -> str:
        """Why a pod of a revision is lost with its node, the one that is being deleted too; empty where none is."""
        return min((p.lost for p in self.pods if p.lost and p.revision == revision), default="")


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
    return f"image {image!r} of container {container.get('name')} cannot be pulled: {steady(detail) or 'see the pod'}"


def _killed_while_serving(container: Object, terminated: Object, limit: str) -> Cause:
    """Callers may be to blame, and so not at once the model: only runs that are short, again and again, are a loop."""
    if container.get("restartCount", 0) >= SEVERAL_RESTARTS and was_short(terminated):
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
    return ours and guessing and container.get("restartCount", 0) <= MAX_GUESSED


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
    if is_nodes(container, terminated):
        return Cause(
            Reason.NODE_LOST, f"container {name} ended{phase} with its node, or with the node's container runtime"
        )
    code = terminated.get("exitCode")
    how = f"by signal {code - 128}" if isinstance(code, int) and code > 128 else f"with exit code {code}"
    told = message.message if message and message.message else ""
    if not message:
        told = (terminated.get("message") or "").strip()[-300:]
    crash = Reason.CRASH_LOOP if is_sure(container, terminated) else Reason.RESTARTING
    reason = Reason.DOWNLOAD_FAILED if name == names.CONTAINER_FETCH else crash
    return Cause(reason, f"container {name} ended {how}{phase}{f': {told}' if told else ''}; see its log")


def _container_cause(container: Object, *, is_init: bool = False) -> Cause | None:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in IMAGE_REASONS:
        return Cause(Reason.IMAGE_PULL_FAILED, _image_message(container, waiting))
    if waiting.get("reason") in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        detail = waiting.get("message", "") or waiting["reason"]
        return Cause(Reason.CREATION_FAILED, f"container {container.get('name')} cannot be created: {detail}")
    # A container that is running again after a crash has proved nothing yet: the crash stands until it has started.
    last = {} if is_past(container, is_init=is_init) else container.get("lastState") or {}
    for terminated in (state.get("terminated"), last.get("terminated")):
        if terminated:
            cause = _terminated_cause(container, terminated)
            # A node that starts its containers again is there.
            back = cause and cause.reason is Reason.NODE_LOST and terminated is not state.get("terminated")
            if cause and not (back and waiting.get("reason") != "CrashLoopBackOff"):
                return replace(
                    cause,
                    sure=is_sure(container, terminated),
                    container=str(container.get("name", "")),
                    callers=_served(container, terminated),
                )
    if waiting.get("reason") == "CrashLoopBackOff":
        return Cause(
            Reason.CRASH_LOOP,
            f"container {container.get('name')} ends again and again with exit code 0, as if its work were done; "
            "see its log",
            container=str(container.get("name", "")),
        )
    return None


def _served(container: Object, terminated: Object) -> bool:
    """Whether the server was ready to take requests when it ended, as it says itself."""
    message = _parse_termination(terminated.get("message", "") or "")
    return container.get("name") == names.CONTAINER_SERVER and message is not None and message.phase is Phase.SERVING


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
    if lost := lost_node(pod):
        # What is told of its containers is the last that was heard.
        return Cause(Reason.NODE_LOST, lost)
    status = pod.get("status", {})
    inits = list(_containers(pod, "initContainerStatuses", "initContainers"))
    containers = list(_containers(pod, "containerStatuses", "containers"))
    for container in inits:
        if (container.get("state") or {}).get("terminated", {}).get("exitCode") == 0:
            continue
        cause = _container_cause(container, is_init=True)
        if cause:
            return cause
    for container in containers:
        cause = _container_cause(container)
        if cause:
            return cause
    if silent := unanswering(pod):
        return Cause(
            Reason.UNRESPONSIVE,
            f"container {silent} runs and does not answer its readiness probe any more: it may have more to do than it "
            "can, or hang; a server that stays so is restarted by its liveness probe",
        )
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Cause(Reason.UNSCHEDULABLE, condition.get("message", ""))
    if any((c.get("state") or {}).get("running") and c.get("name") == names.CONTAINER_FETCH for c in inits):
        return Cause(Reason.DOWNLOADING, "the pods download the model")
    fetched = any((c.get("state") or {}).get("terminated", {}).get("exitCode") == 0 for c in inits)
    if fetched or any(
        (c.get("state") or {}).get("running") and c.get("name") == names.CONTAINER_SERVER for c in containers
    ):
        return Cause(Reason.LOADING, "the pods load the model and warm up", container=names.CONTAINER_SERVER)
    return None


def _failure(status: Object) -> str:
    return ": ".join(filter(None, (status.get("reason"), status.get("message")))) or "the pod does not say why"


def _pod_state(pod: Object) -> PodState:
    metadata, status = pod.get("metadata", {}), pod.get("status", {})
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or [])
    ended = status.get("phase") in ("Failed", "Succeeded")
    return PodState(
        name=metadata.get("name", ""),
        revision=metadata.get("labels", {}).get(names.LABEL_REVISION, ""),
        ready=ready,
        terminating=ended or "deletionTimestamp" in metadata,
        cause=None if ready else pod_cause(pod),
        failed=_failure(status) if status.get("phase") == "Failed" else "",
        # What has ended may stay for weeks.
        lost="" if ready or ended else lost_node(pod),
    )


def replica_failure(item: Object | None) -> str | None:
    """Why the API server takes no pod of a Deployment or a ReplicaSet; None where it does."""
    for condition in mappings(mapping((item or {}).get("status")).get("conditions"), MAX_CONDITIONS):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return _steady(text(condition.get("message"))) or "no reason is given"
    return None


def _steady(message: str) -> str:
    """The message without what differs from try to try: addresses, the pod's made-up name, the order of faults."""
    message = steady(re.sub(r'\b([Pp]ods?) "[^"]*" is (forbidden|invalid)', r"pods are \2", message))
    several = re.search(r"\[([^\[\]]*)\]$", message)
    if several is None:
        return message
    faults = sorted(re.split(r", (?!but )", several[1]))
    return f"{message[: several.start()]}[{', '.join(faults)}]"


def _refusal(deployment: Object, replica_sets: Iterable[Object] | None) -> str | None:
    """Why the API server takes no pod of what the Deployment holds.

    A Deployment tells of any of its ReplicaSets, and never anew while it tells of one: so theirs count, where they are
    known.
    """
    if replica_sets is None:
        return replica_failure(deployment)
    revision = _revision_of(deployment)
    own = [item for item in replica_sets if _labels(item).get(names.LABEL_REVISION) == revision]
    return replica_failure(max(own, key=_number, default=None))


def _labels(item: Object) -> Object:
    return mapping(mapping(item.get("metadata")).get("labels"))


def _number(replica_set: Object) -> int:
    told = text(mapping(mapping(replica_set.get("metadata")).get("annotations")).get(ANNOTATION_NUMBER), 20)
    return int(told) if told.isascii() and told.isdecimal() else 0


def _revision_of(deployment: Object | None) -> str:
    template = mapping(mapping((deployment or {}).get("spec")).get("template"))
    return text(mapping(mapping(template.get("metadata")).get("labels")).get(names.LABEL_REVISION))


def _creation_cause(refusal: str) -> Cause:
    quota = of_amounts(refusal)
    told = advice(refusal, OUR_CONTAINERS)
    refusal = shorten(refusal, MAX_REFUSAL) if told else refusal
    return Cause(Reason.QUOTA_EXCEEDED if quota else Reason.CREATION_FAILED, f"{refusal}; {told}" if told else refusal)


_HELD = ("DeploymentPaused", "DeploymentResumed")
"""What a Deployment tells instead of how far it came, from when somebody pauses it until it has moved on again."""


def _is_all_new(status: Object) -> bool:
    replicas = number(status.get("replicas"))
    return number(status.get("updatedReplicas")) == replicas and number(status.get("availableReplicas")) > 0


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


def observe(deployment: Object | None, pods: list[Object], replica_sets: Iterable[Object] | None = None) -> Observation:
    """What a Deployment and the pods of all its revisions tell. Takes whatever anybody wrote into their status.

    ``replica_sets`` are those that the Deployment controls; None where they are not known.
    """
    states = tuple(_pod_state(slim_pod(p)) for p in pods)
    deadline = settled = complete = rolled_out = False
    refusal = _refusal(deployment, replica_sets) if deployment else None
    if deployment:
        status = mapping(deployment.get("status"))
        generation = mapping(deployment.get("metadata")).get("generation")
        settled = number(status.get("observedGeneration")) >= number(generation)
        conditions = mappings(status.get("conditions"), MAX_CONDITIONS)
        progress = next((c.get("reason") for c in conditions if c.get("type") == "Progressing"), None)
        deadline = settled and progress == "ProgressDeadlineExceeded"
        # It stays so until the pods are to be others, however many come and go.
        complete = progress == "NewReplicaSetAvailable" or (progress in _HELD and _is_all_new(status))
        rolled_out = settled and _is_rolled_out(deployment, states)
    return Observation(
        deployment=deployment,
        pods=states,
        creation=_creation_cause(refusal) if refusal else None,
        demands=demands_of(refusal, OUR_CONTAINERS) if refusal and settled else Demands(),
        deadline_exceeded=deadline,
        rolled_out=rolled_out,
        complete_once=complete,
        failures=_failures(states),
    )


def _is_rolled_out(deployment: Object, states: Iterable[PodState]) -> bool:
    """Deployment and pods are read one after the other: only what both say is so."""
    status, revision = mapping(deployment.get("status")), _revision_of(deployment)
    wanted = number(mapping(deployment.get("spec")).get("replicas", 1))
    counts = (number(status.get(f"{each}eplicas")) for each in ("r", "updatedR", "availableR"))
    serves = any(p.ready and not p.terminating and p.revision == revision for p in states)
    return serves and wanted > 0 and all(count == wanted for count in counts)


def rollout_cause(observation: Observation, revision: str) -> Cause | None:
    """The cause that speaks for the rollout of a revision: the gravest among its pods."""
    causes = [p.cause for p in observation.live_pods() if p.revision == revision and p.cause]
    if observation.creation and observation.revision == revision:
        causes.append(observation.creation)
    known = [c for c in causes if REASONS[c.reason].precedence is not None]
    if not known and (lost := observation.lost(revision)):
        return Cause(Reason.NODE_LOST, lost)
    if not known:
        # Pods that fail as a whole are replaced at once; only when nothing else speaks do the failed ones.
        failed = sorted(p.failed for p in observation.pods if p.revision == revision and p.failed)
        known = [Cause(Reason.CREATION_FAILED, f"a pod failed: {message}") for message in failed[-1:]]
    return min(known, key=lambda c: (not c.is_fault, precedence(c.reason), c.message), default=None)
