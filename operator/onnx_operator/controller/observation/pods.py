"""Pods, cut to what is ever looked at: typed, and of a bounded size. Pure.

A pod takes up to 1.5 MiB, of which its state is a few hundred bytes; who may create pods, or patch their status, puts
anything of any length there. Here it becomes an object of the same shape in which every field that is left has its
type, so that those who read it need no doubt.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from onnx_operator.api import names
from onnx_operator.api.contract import MAX_INT64

Object = dict[str, Any]

MAX_CONTAINERS = 16
"""Containers of a kind that are looked at."""
MAX_CONDITIONS = 16
MAX_TEXT_LENGTH = 1024
"""Characters of a message; the kubelet's own are shorter."""
MAX_WORD_LENGTH = 253
"""Characters of a name, a reason, a quantity."""
MAX_TERMINATION_LENGTH = 4096
"""Bytes that the kubelet keeps of a container's termination message."""
TERMINATIONS = 12 * 1024
"""Bytes that the kubelet shares out among a pod's termination messages."""
ANNOTATION_NUMBER = "deployment.kubernetes.io/revision"
"""Which of a Deployment's ReplicaSets it is; the newest has the greatest number."""


def mapping(value: object) -> Object:
    """A mapping; empty where it is something else."""
    return value if isinstance(value, dict) else {}


def mappings(value: object, most: int) -> Iterable[Object]:
    """The mappings among the first ``most`` things of a list; none where it is something else."""
    return (item for item in islice(value, most) if isinstance(item, dict)) if isinstance(value, list) else ()


def text(value: object, longest: int = MAX_TEXT_LENGTH) -> str:
    """A text, cut, and of characters that can be written; empty where it is something else."""
    return value[:longest].encode(errors="replace").decode() if isinstance(value, str) else ""


def number(value: object) -> int:
    """A whole number as the API has it, in 64 bits; 0 where it is something else."""
    return value if type(value) is int and -MAX_INT64 <= value <= MAX_INT64 else 0


def _kept(**fields: Any) -> Object:
    return {name: value for name, value in fields.items() if value not in ("", None, {}, [])}


def _state(state: object, room: list[int]) -> Object:
    given, kept = mapping(state), {}
    if isinstance(waiting := given.get("waiting"), dict):
        kept["waiting"] = _kept(
            reason=text(waiting.get("reason"), MAX_WORD_LENGTH),
            message=text(waiting.get("message")),
        )
    if isinstance(given.get("running"), dict):
        # Whether it runs is all that counts, and an empty mapping would say that it does not.
        kept["running"] = {"startedAt": text(given["running"].get("startedAt"), MAX_WORD_LENGTH)}
    if isinstance(ended := given.get("terminated"), dict):
        message = text(ended.get("message"), min(MAX_TERMINATION_LENGTH, room[0]))
        room[0] -= len(message)
        kept["terminated"] = {
            "exitCode": number(ended.get("exitCode")),
            **_kept(
                reason=text(ended.get("reason"), MAX_WORD_LENGTH),
                message=message,
                startedAt=text(ended.get("startedAt"), MAX_WORD_LENGTH),
                finishedAt=text(ended.get("finishedAt"), MAX_WORD_LENGTH),
            ),
        }
    return kept


def _statuses(value: object, room: list[int]) -> list[Object]:
    return [
        _kept(
            name=text(status.get("name"), MAX_WORD_LENGTH),
            image=text(status.get("image")),
            restartCount=number(status.get("restartCount")),
            ready=status.get("ready") is True,
            started=status.get("started") is True,
            state=_state(status.get("state"), room),
            lastState=_state(status.get("lastState"), room),
        )
        for status in mappings(value, MAX_CONTAINERS)
    ]


def _limits(value: object) -> list[Object]:
    return [
        {
            "name": text(container.get("name"), MAX_WORD_LENGTH),
            "resources": {
                "limits": _kept(memory=_quantity(mapping(mapping(container.get("resources")).get("limits"))))
            },
        }
        for container in mappings(value, MAX_CONTAINERS)
    ]


def _quantity(limits: Object) -> str:
    memory = limits.get("memory")
    return text(str(memory) if type(memory) is int and abs(memory) < 2**63 else memory, 64)


def _conditions(value: object) -> list[Object]:
    return [
        {
            "type": text(condition.get("type"), MAX_WORD_LENGTH),
            "status": text(condition.get("status"), 64),
            "reason": text(condition.get("reason"), MAX_WORD_LENGTH),
            "message": text(condition.get("message")),
            **_since(condition),
        }
        for condition in mappings(value, MAX_CONDITIONS)
    ]


def _since(condition: Object) -> Object:
    """Since when a pod is ready or not: the only time that is looked at."""
    ready = condition.get("type") == "Ready"
    return _kept(lastTransitionTime=text(condition.get("lastTransitionTime"), 64)) if ready else {}


def slim_replica_set(item: object) -> Object:
    """The ReplicaSet, cut to what is looked at. Takes anything, raises nothing."""
    given = mapping(item)
    metadata, status = mapping(given.get("metadata")), mapping(given.get("status"))
    labels, annotations = mapping(metadata.get("labels")), mapping(metadata.get("annotations"))
    return {
        "metadata": {
            "labels": _kept(**{names.LABEL_REVISION: text(labels.get(names.LABEL_REVISION), 63)}),
            "annotations": _kept(**{ANNOTATION_NUMBER: text(annotations.get(ANNOTATION_NUMBER), 20)}),
        },
        "status": {"conditions": _conditions(status.get("conditions"))},
    }


def slim_pod(pod: object) -> Object:
    """The pod, cut to what is looked at. Idempotent; takes anything, raises nothing.

    At most some 200 KiB, and only where every text in it is as long as it may be; some 2 KiB of an honest pod.
    """
    given = mapping(pod)
    metadata, spec, status = (mapping(given.get(field)) for field in ("metadata", "spec", "status"))
    labels = mapping(metadata.get("labels"))
    room = [TERMINATIONS]
    return {
        "metadata": {
            "name": text(metadata.get("name"), MAX_WORD_LENGTH),
            "labels": _kept(**{key: text(labels.get(key), 63) for key in (names.LABEL_MODEL, names.LABEL_REVISION)}),
            **_kept(
                namespace=text(metadata.get("namespace"), 63),
                uid=text(metadata.get("uid"), 64),
                deletionTimestamp=text(metadata.get("deletionTimestamp"), 64),
            ),
        },
        "spec": {
            **_kept(nodeName=text(spec.get("nodeName"), MAX_WORD_LENGTH)),
            "initContainers": _limits(spec.get("initContainers")),
            "containers": _limits(spec.get("containers")),
        },
        "status": {
            **_kept(
                phase=text(status.get("phase"), 64),
                reason=text(status.get("reason"), MAX_WORD_LENGTH),
                message=text(status.get("message")),
            ),
            "initContainerStatuses": _statuses(status.get("initContainerStatuses"), room),
            "containerStatuses": _statuses(status.get("containerStatuses"), room),
            "conditions": _conditions(status.get("conditions")),
        },
    }
