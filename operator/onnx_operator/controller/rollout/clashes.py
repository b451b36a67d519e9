"""Ports of others that keep ours from being applied. Pure.

Server-side apply knows a port by its number, and the API server wants its name to be unique: where somebody has changed
the number, ours would be added beside theirs under the same name, and is refused for ever
(https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy).
"""

from typing import Any

from onnx_operator.controller.cluster.kinds import Object
from onnx_operator.controller.observation.pods import mapping, mappings
from onnx_operator.controller.revision.render import Manifest

_NUMBERS = ("port", "containerPort")
_MAX_ITEMS = 1000


def without_clashes(live: Object, manifest: Manifest) -> dict[str, Any] | None:
    """A merge patch (RFC 7386) that takes away what keeps a manifest from being applied; None where nothing does.

    Args:
        live: the whole object as the API server holds it now; the patch is for this very version of it.
        manifest: as it is to be applied.
    """
    patch = _of_map(mapping(live.get("spec")), mapping(manifest.get("spec")))
    if not patch:
        return None
    metadata = mapping(live.get("metadata"))
    return {"metadata": {key: metadata.get(key) for key in ("uid", "resourceVersion")}, "spec": patch}


def _of_map(live: Object, ours: Object) -> dict[str, Any]:
    """The fields of a map that must be others."""
    found: dict[str, Any] = {}
    for key, wanted in ours.items():
        theirs = live.get(key)
        if isinstance(theirs, dict) and isinstance(wanted, dict):
            if inner := _of_map(theirs, wanted):
                found[key] = inner
        elif isinstance(theirs, list) and isinstance(wanted, list):
            cleaned = _of_list(theirs, wanted)
            if cleaned != theirs:
                found[key] = cleaned
    return found


def _of_list(live: list[Any], ours: list[Any]) -> list[Any]:
    """A list without the items that clash; ours stand for them where none would be left."""
    named = {item.get("name"): item for item in mappings(ours, _MAX_ITEMS) if item.get("name")}
    kept = []
    for item in live:
        wanted = named.get(item.get("name")) if isinstance(item, dict) else None
        if wanted is None:
            kept.append(item)
        elif all(item.get(number) == wanted.get(number) for number in _NUMBERS):
            inner = _of_map(item, wanted)
            kept.append({**item, **inner} if inner else item)
    return kept or ours
