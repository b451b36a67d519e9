"""What others have set on a model's children beside what is the operator's, and that matters. Pure.

Others may add to children what they like, and it stays: sidecars, labels, ``kubectl rollout restart``. Some fields,
though, change what the model's own containers do, or whether pods are replaced at all. These are named.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import shorten
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, SERVICE, Object
from onnx_operator.controller.observation.observe import Cause
from onnx_operator.controller.observation.pods import mapping, mappings
from onnx_operator.controller.revision.render import Manifest

POD = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "nodeName", "runtimeClassName")
"""Fields of a pod that no API server fills in."""
CONTAINER = ("command", "workingDir")
WITHIN_CONTAINER = ("securityContext", "lifecycle")
"""Maps of a container of which each field counts."""
MAX_CONTAINERS = 16
MAX_TOLD = 8
MAX_VALUE_BYTES = 64


def _beside(live: Object, ours: Object, fields: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    return ((name, live[name]) for name in fields if live.get(name) and name not in ours)


def _of_containers(live: Object, ours: Object) -> Iterator[tuple[str, Any]]:
    for group in ("initContainers", "containers"):
        own = {item.get("name"): item for item in mappings(ours.get(group), MAX_CONTAINERS)}
        # Others may have put theirs before ours.
        for found in mappings(live.get(group), 4 * MAX_CONTAINERS):
            container = own.get(found.get("name"))
            if container is None:
                continue
            where = f"container {found['name']}: "
            yield from ((where + name, value) for name, value in _beside(found, container, CONTAINER))
            for part in WITHIN_CONTAINER:
                inner, wanted = mapping(found.get(part)), mapping(container.get(part))
                keys = tuple(sorted(map(str, inner)))
                yield from ((f"{where}{part}.{name}", value) for name, value in _beside(inner, wanted, keys))
            added, allowed = (
                mapping(mapping(c.get("securityContext")).get("capabilities")) for c in (found, container)
            )
            if allowed:
                yield from ((f"{where}capabilities.{n}", value) for n, value in _beside(added, allowed, ("add",)))


def _of_deployment(live: Object, ours: Object) -> Iterator[tuple[str, Any]]:
    spec, wanted = mapping(live.get("spec")), mapping(ours.get("spec"))
    yield from _beside(spec, wanted, ("paused",))
    pod, own = (mapping(mapping(each.get("template")).get("spec")) for each in (spec, wanted))
    yield from _beside(pod, own, POD)
    yield from _of_containers(pod, own)


def _of_service(live: Object, ours: Object) -> Iterator[tuple[str, Any]]:
    yield from _beside(mapping(live.get("spec")), mapping(ours.get("spec")), ("publishNotReadyAddresses",))


_KINDS: dict[str, Callable[[Object, Object], Iterator[tuple[str, Any]]]] = {
    DEPLOYMENT.kind: _of_deployment,
    SERVICE.kind: _of_service,
}


def alterations(desired: list[Manifest], find: Callable[[str, str], Object | None]) -> list[str]:
    """Fields that somebody else has set, each with its kind and value, for people.

    Args:
        desired: the children as they are applied.
        find: the live object of a kind and name.
    """
    told = []
    for manifest in desired:
        live, look = find(manifest["kind"], manifest["metadata"]["name"]), _KINDS.get(manifest["kind"])
        if live and look:
            told += [f"{manifest['kind']}: {name} {_shown(value)}" for name, value in look(live, manifest)]
    return told


def altered(desired: list[Manifest], find: Callable[[str, str], Object | None]) -> Cause | None:
    """What to tell of fields that somebody else has set; None where there are none."""
    found = alterations(desired, find)
    if not found:
        return None
    more = f" and {len(found) - MAX_TOLD} more" if len(found) > MAX_TOLD else ""
    return Cause(
        Reason.ALTERED,
        f"somebody else has set what changes the model's pods, and it is left: {'; '.join(found[:MAX_TOLD])}{more}. "
        "Take it away, or put it into spec.podTemplate, where it goes through all checks",
    )


def _shown(value: Any) -> str:
    return shorten(json.dumps(value, sort_keys=True, default=str), MAX_VALUE_BYTES)
