"""When a status is written: at once, unless all that is new is how far something has come, of which more follows."""

from collections.abc import Callable

from onnx_operator.api.conditions import ConditionType, Reason
from onnx_operator.api.onnxmodel import Condition, OnnxModelStatus
from onnx_operator.api.reasons import REASONS

PAUSE_SECONDS = 5.0
"""At least so long stands what tells only how far something has come."""
FIRST_SECONDS = 1.0
"""Most inspections are over by then: a new model's first status need not say that it is being read."""
_COUNTS = frozenset({Reason.MINIMUM_REPLICAS_READY, Reason.NO_REPLICAS_READY})
_REPEAT = frozenset({ConditionType.PROGRESSING, ConditionType.READY, ConditionType.RECONCILING})


class Pace:
    """What was written when, by the UIDs of models; a restart writes at once what differs."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._written: dict[str, float] = {}

    def wait(self, uid: str, before: OnnxModelStatus, after: OnnxModelStatus) -> float:
        """Seconds until ``after`` is due to be written over ``before``; 0 or less where it is due."""
        now = self._clock()
        if not before.conditions:
            reading = any(c.reason == Reason.INSPECTING for c in after.conditions)
            return self._seen.setdefault(uid, now) + FIRST_SECONDS - now if reading else 0.0
        if _essence(before) != _essence(after):
            return 0.0
        return self._written.get(uid, now - PAUSE_SECONDS) + PAUSE_SECONDS - now

    def wrote(self, uid: str) -> None:
        """A status is written now."""
        self._written[uid] = self._clock()
        self._seen.pop(uid, None)

    def forget(self, uid: str) -> None:
        """The model is gone."""
        self._written.pop(uid, None)
        self._seen.pop(uid, None)


def _essence(status: OnnxModelStatus) -> OnnxModelStatus:
    """The status without what only tells how far something has come."""
    conditions = [_without_step(c) for c in status.conditions]
    return status.model_copy(update={"conditions": conditions, "replicas": 0, "ready_replicas": 0})


def _without_step(condition: Condition) -> Condition:
    if condition.type in _REPEAT and condition.reason in set(Reason) and REASONS[Reason(condition.reason)].under_way:
        return condition.model_copy(update={"reason": Reason.ROLLING_OUT, "message": ""})
    if condition.reason in _COUNTS:
        return condition.model_copy(update={"message": ""})
    return condition
