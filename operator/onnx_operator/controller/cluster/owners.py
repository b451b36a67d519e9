"""Whose an object is, by the owner that controls it. Pure.

A label is anybody's word. So is a reference, but one that must match the UID in the model's own object cannot be left
over from an earlier model of the name, or meant for another one.
"""

from itertools import islice
from typing import Any

from onnx_operator.api import names

MAX_REFERENCES = 32
"""Owner references that are looked at: the API server has no bound, and honest objects have one or two."""
_REPLICA_SETS = "apps"


def controllers(metadata: object) -> list[dict[str, Any]]:
    """The references among the first ``MAX_REFERENCES`` that claim to control; the API server allows one."""
    references = metadata.get("ownerReferences") if isinstance(metadata, dict) else None
    if not isinstance(references, list):
        return []
    return [r for r in islice(references, MAX_REFERENCES) if isinstance(r, dict) and r.get("controller") is True]


def _is(reference: dict[str, Any], group: str, kind: str) -> bool:
    version = reference.get("apiVersion")
    return reference.get("kind") == kind and isinstance(version, str) and version.rpartition("/")[0] == group


def models_named(metadata: object) -> list[object]:
    """What references call the OnnxModels that control an object. Only a hint, and not yet known to be names."""
    return [r.get("name") for r in controllers(metadata) if _is(r, names.GROUP, names.KIND)]


def owner_uid(metadata: object, name: str) -> str:
    """The UID by which an object's controller is the OnnxModel of this name; empty where it is none."""
    found = (r for r in controllers(metadata) if _is(r, names.GROUP, names.KIND) and r.get("name") == name)
    return str(next(found, {}).get("uid") or "")


def is_controlled_by(item: dict[str, Any], model: dict[str, Any]) -> bool:
    """Whether this very model, by its UID, controls an object of its namespace."""
    own, wanted = item.get("metadata"), model["metadata"]
    if not isinstance(own, dict) or own.get("namespace") != wanted["namespace"]:
        return False
    return any(
        _is(r, names.GROUP, names.KIND) and (r.get("name"), r.get("uid")) == (wanted["name"], wanted["uid"])
        for r in controllers(own)
    )


def is_replica_set_of(item: dict[str, Any], deployment: dict[str, Any]) -> bool:
    """Whether this very Deployment, by its UID, controls an object of its namespace."""
    own, wanted = item.get("metadata"), deployment["metadata"]
    if not isinstance(own, dict) or own.get("namespace") != wanted["namespace"]:
        return False
    return any(
        _is(r, _REPLICA_SETS, "Deployment") and (r.get("name"), r.get("uid")) == (wanted["name"], wanted["uid"])
        for r in controllers(own)
    )


def is_pod_of(pod: dict[str, Any], deployments: frozenset[str]) -> bool:
    """Whether a ReplicaSet of one of these Deployments seems to control a pod: by its name, which is never proof.

    A stronger test would buy nothing: whoever may create pods can copy a ReplicaSet's UID from a real one, and the
    ReplicaSet and the Service, which go by labels, would take such a pod for theirs as well.
    """
    for reference in controllers(pod.get("metadata")):
        name = reference.get("name")
        if _is(reference, _REPLICA_SETS, "ReplicaSet") and isinstance(name, str) and len(name) <= 253:
            # Deployments name their ReplicaSets NAME-HASH; a hash has no hyphen.
            return name.rpartition("-")[0] in deployments
    return False


def owner_reference(model: dict[str, Any]) -> dict[str, Any]:
    """The reference that makes the garbage collector delete a child with its model."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": model["metadata"]["name"],
        "uid": model["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
