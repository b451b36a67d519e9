"""What an inspection pod takes from ``spec.podTemplate``: where it can run, and as whom it can read a volume. Pure.

Everything else of the template is about the pods that serve, and is left to them. What is taken is held to the
*restricted* Pod Security Standard, whatever the namespace allows (https://kubernetes.io/docs/concepts/security/
pod-security-standards/): it is the operator that makes this pod, with its own rights.
"""

import re
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.controller.settings.settings import Toleration
from onnx_operator.model.refusal import RefusedError

_WHERE = "spec.podTemplate.spec"
_MAX_ID = 2**31 - 1
_MOST = 64
"""Of each list and map."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
Reader = Callable[[Any, str], Any]
"""Takes a value and the name of its field; returns what the pod gets, or raises RefusedError."""


def template_of(spec: OnnxModelSpec) -> dict[str, Any]:
    """The patch over an inspection pod's spec that the model's template asks for.

    Raises:
        RefusedError: ``PodTemplateRejected``, a field that counts for inspections has a value that no inspection gets.
    """
    if spec.pod_template is None:
        return {}
    given = spec.pod_template.model_dump(by_alias=True, exclude_none=True).get("spec") or {}
    return _fields(given, _WHERE, _POD)


def _fields(given: Any, where: str, readers: dict[str, Reader]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise _refused(where, given, "an object")
    return {name: read(given[name], f"{where}.{name}") for name, read in readers.items() if given.get(name) is not None}


def _refused(where: str, value: Any, expected: str) -> RefusedError:
    return RefusedError(
        Reason.POD_TEMPLATE_REJECTED,
        f"{where}: {value!r:.80} cannot be used by the pod that inspects the model, which is always restricted; "
        f"expected {expected}",
    )


def _id(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MAX_ID:
        raise _refused(where, value, "the number of a user or group that is not root (0)")
    return value


def _ids(value: Any, where: str) -> list[int]:
    return [_id(each, f"{where}[{n}]") for n, each in enumerate(_list(value, where))]


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MOST:
        raise _refused(where, value, f"a list of at most {_MOST}")
    return value


def _one_of(*words: str) -> Reader:
    def read(value: Any, where: str) -> Any:
        if value not in words:
            raise _refused(where, value, " or ".join(words))
        return value

    return read


def _labels(value: Any, where: str) -> dict[str, str]:
    texts = isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)
    if not texts or len(value) > _MOST:
        raise _refused(where, value, f"at most {_MOST} labels of nodes")
    return dict(value)


def _tolerations(value: Any, where: str) -> list[dict[str, Any]]:
    found = []
    for number, each in enumerate(_list(value, where)):
        try:
            toleration = Toleration.model_validate(each)
        except ValidationError:
            raise _refused(f"{where}[{number}]", each, "a toleration") from None
        found.append(toleration.model_dump(by_alias=True, exclude_none=True))
    return found


def _secrets(value: Any, where: str) -> list[dict[str, str]]:
    found = []
    for number, each in enumerate(_list(value, where)):
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _refused(f"{where}[{number}]", each, "the name of a Secret")
        found.append({"name": name})
    return found


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _refused(where, value, "an object")
    return value


def _affinity(value: Any, where: str) -> dict[str, Any]:
    # Not to other pods: those may be anybody's.
    return _fields(value, where, {"nodeAffinity": _object})


_IDENTITY: dict[str, Reader] = {
    "runAsUser": _id,
    "runAsGroup": _id,
    "fsGroup": _id,
    "supplementalGroups": _ids,
    "fsGroupChangePolicy": _one_of("Always", "OnRootMismatch"),
    "supplementalGroupsPolicy": _one_of("Merge", "Strict"),
}


def _security(value: Any, where: str) -> dict[str, Any]:
    # Whatever else it says: this holds, also where the platform team's own template forgot it.
    return _fields(value, where, _IDENTITY) | {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


_POD: dict[str, Reader] = {
    "securityContext": _security,
    "nodeSelector": _labels,
    "tolerations": _tolerations,
    "affinity": _affinity,
    "imagePullSecrets": _secrets,
}
