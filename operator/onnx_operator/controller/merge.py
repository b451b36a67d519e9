"""Strategic merge of ``spec.podTemplate`` over the rendered pod template.

The Python client has no strategic merge, so the lists that merge by a key are named here, as the API documents them
(https://kubernetes.io/docs/reference/generated/kubernetes-api/, "patch strategy"). Other lists are replaced whole.
"""

from typing import Any

MERGE_KEYS: dict[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "sysctls": "name",
}
APPENDED = ("tolerations",)
"""Lists without a key whose elements add up: dropping the pool's tolerations would strand the pod."""


def strategic_merge(base: Any, patch: Any, field: str = "") -> Any:
    """``base`` with ``patch`` laid over it; neither is changed.

    Maps merge by key (null removes), listed lists by their merge key, everything else is replaced.
    """
    if isinstance(base, dict) and isinstance(patch, dict):
        merged = dict(base)
        for key, value in patch.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = strategic_merge(merged.get(key), value, key)
        return merged
    if isinstance(base, list) and isinstance(patch, list):
        if field in APPENDED:
            return base + [item for item in patch if item not in base]
        key = MERGE_KEYS.get(field)
        if key and all(isinstance(item, dict) and key in item for item in base + patch):
            additions = {item[key]: item for item in patch}
            merged_items = [strategic_merge(item, additions.pop(item[key], {})) for item in base]
            return merged_items + [strategic_merge({}, item) for item in additions.values()]
        return patch
    if isinstance(patch, dict):
        return strategic_merge({}, patch)
    return patch


def _identity(items: list[Any], field: str) -> str | None:
    # A Service's ports merge by "port", a container's by "containerPort".
    for key in filter(None, (MERGE_KEYS.get(field), "port" if field == "ports" else None)):
        if items and all(isinstance(item, dict) and key in item for item in items):
            return key
    return None


def contains(live: Any, desired: Any, field: str = "") -> bool:
    """Whether ``live`` holds everything in ``desired``; what others added does not count."""
    if isinstance(desired, dict):
        return isinstance(live, dict) and all(k in live and contains(live[k], v, k) for k, v in desired.items())
    if isinstance(desired, list):
        if not isinstance(live, list):
            return False
        key = _identity(desired, field)
        if key:
            by_key = {item.get(key): item for item in live if isinstance(item, dict)}
            return all(item[key] in by_key and contains(by_key[item[key]], item) for item in desired)
        if field in APPENDED:
            return all(any(contains(candidate, item) for candidate in live) for item in desired)
        return len(live) == len(desired) and all(contains(a, b) for a, b in zip(live, desired, strict=True))
    return bool(live == desired)


def project(live: Any, desired: Any, field: str = "") -> Any:
    """The part of ``live`` that ``desired`` speaks of, in the API server's own form.

    What the server dropped (an empty map, say) is dropped; quantities come back as it writes them. Afterwards
    ``contains(live, project(live, desired))`` holds.
    """
    if isinstance(desired, dict) and isinstance(live, dict):
        return {k: project(live[k], v, k) for k, v in desired.items() if k in live}
    if isinstance(desired, list) and isinstance(live, list):
        key = _identity(desired, field)
        if key:
            by_key = {item.get(key): item for item in live if isinstance(item, dict)}
            return [project(by_key[item[key]], item) for item in desired if item[key] in by_key]
        if len(live) == len(desired):
            return [project(a, b) for a, b in zip(live, desired, strict=True)]
        if field in APPENDED:
            return [item for item in desired if any(contains(candidate, item) for candidate in live)]
    return live
