"""The status of a model of which nothing is changed: its owner has paused it, or a newer version looks after it. Pure.

What was told of the model itself stands. Its pods go on being told, and ``Ready`` is True only where they run what the
spec asks for: where that was so before hands were taken off, and the spec has not changed since.
"""

from onnx_operator.api import names
from onnx_operator.api.conditions import ConditionStatus, ConditionType, Reason
from onnx_operator.api.onnxmodel import Condition, OnnxModelSpec, OnnxModelStatus
from onnx_operator.api.reasons import REASONS
from onnx_operator.api.report import shorten
from onnx_operator.controller.cluster.kinds import Object
from onnx_operator.controller.observation.observe import Cause, Observation, rollout_cause
from onnx_operator.controller.observation.pods import mapping, number
from onnx_operator.controller.status.status import MAX_MESSAGE

TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE
PAUSED = Cause(
    Reason.PAUSED,
    f"annotation {names.ANNOTATION_PAUSED}: nothing of this model is changed until it is taken away",
)
_AT_REST = frozenset({Reason.COMPLETE, Reason.SCALED_TO_ZERO, Reason.SUSPENDED, Reason.DEADLINE_EXCEEDED})
"""Told only of what the Deployment holds."""
_NOT_YET = frozenset({Reason.CREATION_FAILED, Reason.QUOTA_EXCEEDED, Reason.SOURCE_CHANGED})
"""Told of pods, and as well where a revision is not applied."""


def is_paused(model: Object) -> bool:
    """Whether a model's owner wants nothing of it changed."""
    value = (model["metadata"].get("annotations") or {}).get(names.ANNOTATION_PAUSED)
    return value is not None and value != "false"


def was_applied(previous: OnnxModelStatus, generation: int) -> bool:
    """Whether what the spec asks for was rolled out, by what was told of this generation."""
    told = {c.type: c for c in previous.conditions}
    valid, ready = told.get(ConditionType.MODEL_VALID), told.get(ConditionType.READY)
    if valid is None or ready is None or valid.status != TRUE or ready.reason not in set(Reason):
        return False
    reason = Reason(ready.reason)
    rolled_out = REASONS[reason].under_way or (REASONS[reason].precedence is not None and reason not in _NOT_YET)
    return (
        previous.observed_generation == generation
        and ready.observed_generation == generation
        and (reason in _AT_REST or rolled_out)
    )


def hands_off_status(
    cause: Cause,
    spec: OnnxModelSpec,
    generation: int,
    observation: Observation,
    previous: OnnxModelStatus,
    now: str,
) -> OnnxModelStatus:
    """The status of a model of which nothing is changed.

    Args:
        cause: why.
        spec: as far as it can be read.
        generation: of the model.
        observation: what its Deployment and pods tell.
        previous: the status as it stands.
        now: RFC 3339 time of conditions that flip.
    """
    available, reason, message = _available(spec, observation)
    ready: tuple[ConditionStatus, Reason, str] = (FALSE, cause.reason, cause.message)
    kstatus = ConditionType.STALLED if cause.reason is Reason.NEWER_VERSION else None
    if was_applied(previous, generation):
        if spec.suspend:
            ready, kstatus = (FALSE, Reason.SUSPENDED, message), None
        elif spec.replicas == 0:
            ready, kstatus = (TRUE, Reason.SCALED_TO_ZERO, message), None
        elif _runs(spec, observation):
            ready, kstatus = (TRUE, Reason.COMPLETE, f"{message}. {cause.message}"), None
        else:
            found = rollout_cause(observation, observation.revision) or Cause(Reason.LOADING, message)
            fault = found.is_fault
            ready = (FALSE, found.reason, found.message)
            kstatus = ConditionType.STALLED if fault else ConditionType.RECONCILING
    told = {c.type: c for c in previous.conditions}

    def condition(kind: ConditionType, verdict: tuple[ConditionStatus, Reason, str]) -> Condition:
        old = told.get(kind)
        return Condition(
            type=kind,
            status=verdict[0],
            reason=verdict[1],
            message=shorten(verdict[2], MAX_MESSAGE),
            last_transition_time=old.last_transition_time if old and old.status == verdict[0] else now,
            observed_generation=generation,
        )

    # Not Outdated: nothing is compared meanwhile.
    conditions = [
        condition(ConditionType.READY, ready),
        *(c for c in previous.conditions if c.type == ConditionType.MODEL_VALID),
        condition(ConditionType.PROGRESSING, (FALSE, cause.reason, cause.message)),
        condition(ConditionType.AVAILABLE, (available, reason, message)),
        *(c for c in previous.conditions if c.type in (ConditionType.ACCELERATED, ConditionType.WARMED_UP)),
    ]
    if kstatus:
        conditions.append(condition(kstatus, (TRUE, ready[1], ready[2])))
    status = mapping((observation.deployment or {}).get("status"))
    return previous.model_copy(
        update={
            "observed_generation": generation,
            "conditions": conditions,
            "runtime": previous.runtime or spec.effective_runtime,
            "replicas": number(status.get("replicas")),
            "ready_replicas": number(status.get("readyReplicas")),
            "failures": list(observation.failures) or None,
        }
    )


def _available(spec: OnnxModelSpec, observation: Observation) -> tuple[ConditionStatus, Reason, str]:
    ready = sum(pod.ready for pod in observation.live_pods())
    if ready:
        return TRUE, Reason.MINIMUM_REPLICAS_READY, f"{ready} ready, {spec.replicas} wanted"
    if spec.suspend:
        return FALSE, Reason.SUSPENDED, "spec.suspend is true: no pods run"
    if spec.replicas == 0:
        return FALSE, Reason.SCALED_TO_ZERO, "spec.replicas is 0"
    return FALSE, Reason.NO_REPLICAS_READY, f"0 ready, {spec.replicas} wanted"


def _runs(spec: OnnxModelSpec, observation: Observation) -> bool:
    """Whether all pods that the spec asks for are of one revision, and at least one serves."""
    deployment = observation.deployment or {}
    status = mapping(deployment.get("status"))
    settled = number(status.get("observedGeneration")) >= number(mapping(deployment.get("metadata")).get("generation"))
    replaced = number(status.get("updatedReplicas")) == number(status.get("replicas")) == spec.replicas
    return settled and replaced and any(pod.ready for pod in observation.live_pods())
