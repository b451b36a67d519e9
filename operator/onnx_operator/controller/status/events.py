"""Events: what is new of a condition, but for mere steps; for ``kubectl describe``."""

import hashlib
import logging

from onnx_operator.api import names
from onnx_operator.api.conditions import ConditionStatus, ConditionType, Reason
from onnx_operator.api.onnxmodel import Condition, OnnxModelStatus
from onnx_operator.api.reasons import REASONS
from onnx_operator.controller.cluster.answers import ApiError, failure
from onnx_operator.controller.cluster.kinds import EVENT, Object
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.times import micro_time
from onnx_operator.controller.telemetry import metrics

logger = logging.getLogger(__name__)

# Ready, Reconciling and Stalled repeat one of these.
REPORTED = (
    ConditionType.MODEL_VALID,
    ConditionType.PROGRESSING,
    ConditionType.AVAILABLE,
    ConditionType.ACCELERATED,
    ConditionType.OUTDATED,
    ConditionType.WARMED_UP,
)
NOTE_LIMIT = 1024
"""Bytes that the API allows a note (https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/)."""


def changed_conditions(before: OnnxModelStatus, after: OnnxModelStatus) -> list[Condition]:
    """The reported conditions whose reason or status is new, without steps on the way to what is told later."""
    old = {c.type: (c.status, c.reason) for c in before.conditions}
    changed = [c for c in after.conditions if c.type in REPORTED and _news(c, old.get(c.type))]
    progress = next((c.reason for c in after.conditions if c.type == ConditionType.PROGRESSING), "")
    return [c for c in changed if REASONS[Reason(c.reason)].warning or not _is_step(c, old.get(c.type), progress)]


def _news(condition: Condition, old: tuple[str, str] | None) -> bool:
    # That a trouble is sure by now, or leaves nothing that serves, is the same trouble.
    same = old is not None and condition.type == ConditionType.PROGRESSING and condition.reason == old[1]
    return not same and old != (condition.status, condition.reason)


def _is_step(condition: Condition, old: tuple[str, str] | None, progress: str) -> bool:
    if condition.type == ConditionType.PROGRESSING:
        goes_on = condition.reason != Reason.ROLLING_OUT or (old is not None and _rolls_out(old[1]))
        return condition.reason == Reason.INSPECTING or (_rolls_out(condition.reason) and goes_on)
    if condition.type == ConditionType.AVAILABLE:
        # Before the first pod there was none to miss; and that pods are there is told by the rollout's end.
        ending = progress in (Reason.COMPLETE, Reason.INSPECTING) or _rolls_out(progress)
        return old is None or (condition.status == ConditionStatus.TRUE and ending)
    # Where a model is warmed up as it should be, that it serves says so.
    return condition.reason == Reason.WARMED


def _rolls_out(reason: str) -> bool:
    return reason in set(Reason) and REASONS[Reason(reason)].under_way


def event_for(model: Object, condition: Condition, reporter: str, now: str) -> Object:
    """The Event of one change.

    Its name follows from the model's resourceVersion and the change, so that a repeated attempt posts nothing new.
    """
    metadata = model["metadata"]
    identity = "/".join(
        (metadata["uid"], metadata["resourceVersion"], condition.type, condition.status, condition.reason)
    )
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "eventTime": now,
        "type": "Warning" if REASONS[Reason(condition.reason)].warning else "Normal",
        "reason": condition.reason,
        "action": condition.type,
        "note": condition.message.encode()[:NOTE_LIMIT].decode(errors="ignore") or condition.reason,
        "regarding": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "reportingController": f"{names.GROUP}/onnx-operator",
        "reportingInstance": reporter,
    }


async def post_events(kube: Kube, model: Object, conditions: list[Condition], reporter: str) -> None:
    """Post an Event for each change. An Event that cannot be posted is logged and never stops reconciling."""
    for condition in conditions:
        event = event_for(model, condition, reporter, micro_time())
        try:
            await kube.create(EVENT, event)
            metrics.EVENTS.labels(type=event["type"], reason=event["reason"]).inc()
        except ApiError as error:
            if error.reason == "AlreadyExists":
                continue
            # A namespace that is being deleted takes no new objects: nothing to tell anybody there.
            level = logging.INFO if "being terminated" in error.message else logging.WARNING
            logger.log(level, "event not posted: %s", error.message)
        except OSError as error:
            logger.warning("event not posted: %s", failure(error))
