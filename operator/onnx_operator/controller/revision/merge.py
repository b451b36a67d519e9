"""Strategic merge of ``spec.podTemplate`` over the rendered pod template.

The Python client has no strategic merge, so the lists that merge by a key are named here, as the API documents them
(https://kubernetes.io/docs/reference/generated/kubernetes-api/, "patch strategy" and "map type"). Other lists are
replaced whole.
"""

import json
from typing import Any

MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "ports": ("containerPort", "protocol"),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "resourceClaims": ("name",),
    "sysctls": ("name",),
    "ownerReferences": ("uid",),
}
SERVICE_PORT_KEYS = ("port", "protocol")
KEY_DEFAULTS = {"protocol": "TCP"}
APPENDED = ("tolerations",)
"""Lists without a key whose elements add up: dropping the pool's tolerations would strand the pod."""

MOST_COMPARED = 10_000
"""Comparisons of elements without a key, where one list has not simply the other's elements: whoever writes a spec
may write tens of thousands, and each with each would keep the controller from everybody else for minutes."""

Identity = tuple[Any, ...]


def _identity(item: Any, field: str) -> Identity | None:
    if not isinstance(item, dict):
        return None
    keys = SERVICE_PORT_KEYS if field == "ports" and "port" in item else MERGE_KEYS[field]
    values = tuple(item.get(key, KEY_DEFAULTS.get(key)) for key in keys)
    return values if keys[0] in item and all(isinstance(v, str | int | None) for v in values) else None


def _by_identity(items: list[Any], field: str) -> dict[Identity, Any] | None:
    """The items by their merge key; None where the list has none, or items without one, or two of the same."""
    if field not in MERGE_KEYS:
        return None
    result: dict[Identity, Any] = {}
    for item in items:
        identity = _identity(item, field)
        if identity is None or identity in result:
            return None
        result[identity] = item
    return result


def _live_by_identity(items: list[Any], field: str) -> dict[Identity | None, Any]:
    return {_identity(item, field): item for item in items if isinstance(item, dict)}


def _frozen(item: Any) -> str:
    return json.dumps(item, sort_keys=True)


def _held(live: list[Any], desired: list[Any]) -> list[bool]:
    """Of each desired element, whether a live one holds it; work in proportion to the lists' lengths."""
    exact = {_frozen(item) for item in live}
    found = [_frozen(item) in exact or (at < len(live) and contains(live[at], item)) for at, item in enumerate(desired)]
    others = found.count(False)
    if others * len(live) > MOST_COMPARED:
        return found
    return [
        known or any(contains(candidate, item) for candidate in live)
        for known, item in zip(found, desired, strict=True)
    ]


def strategic_merge(base: Any, patch: Any, field: str = "") -> Any:
    """``base`` with ``patch`` laid over it; neither is changed.

    Maps merge by key (null removes), listed lists by their merge key, everything else is replaced.
    """
    if isinstance(patch, dict):
        merged = dict(base) if isinstance(base, dict) else {}
        for key, value in patch.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = strategic_merge(merged.get(key), value, key)
        return merged
    if isinstance(patch, list):
        additions = [strategic_merge(None, item) for item in patch]
        if not isinstance(base, list):
            return additions
        if field in APPENDED:
            there = {_frozen(item) for item in base}
            return base + [item for item in additions if _frozen(item) not in there]
        ours, theirs = _by_identity(base, field), _by_identity(patch, field)
        if ours is not None and theirs is not None:
            return [strategic_merge(item, theirs.get(identity, {})) for identity, item in ours.items()] + [
                strategic_merge(None, item) for identity, item in theirs.items() if identity not in ours
            ]
        return additions
    return patch


def contains(live: Any, desired: Any, field: str = "") -> bool:
    """Whether ``live`` holds everything in ``desired``; what others added does not count."""
    if isinstance(desired, dict):
        return isinstance(live, dict) and all(k in live and contains(live[k], v, k) for k, v in desired.items())
    if isinstance(desired, list):
        if not isinstance(live, list):
            return False
        wanted = _by_identity(desired, field)
        if wanted is not None:
            present = _live_by_identity(live, field)
            return all(key in present and contains(present[key], item) for key, item in wanted.items())
        if field in APPENDED:
            return all(_held(live, desired))
        return len(live) == len(desired) and all(contains(a, b) for a, b in zip(live, desired, strict=True))
    return bool(live == desired) and isinstance(live, bool) is isinstance(desired, bool)


def project(live: Any, desired: Any, field: str = "") -> Any:
    """The part of ``live`` that ``desired`` speaks of, in the API server's own form.

    What the server dropped (an empty map, say) is dropped; quantities come back as it writes them. Afterwards
    ``contains(live, project(live, desired))`` holds.
    """
    if isinstance(desired, dict) and isinstance(live, dict):
        return {k: project(live[k], v, k) for k, v in desired.items() if k in live}
    if isinstance(desired, list) and isinstance(live, list):
        wanted = _by_identity(desired, field)
        if wanted is not None:
            present = _live_by_identity(live, field)
            return [project(present[key], item) for key, item in wanted.items() if key in present]
        if len(live) == len(desired):
            return [project(a, b) for a, b in zip(live, desired, strict=True)]
        if field in APPENDED:
            return [item for item, held in zip(desired, _held(live, desired), strict=True) if held]
    return live
