"""What models have come to, in a form that two runs can be compared by; and what must never be. Pure.

What follows from the way and not from the end is left out: times, UIDs, numbers of revisions, hashes over any of these,
and whether an update must prove that it answers, which depends on what served before.
"""

import json
import re
from typing import Any

from onnx_operator.api import names
from onnx_operator.controller.revision.revisions import HISTORY
from tests.chaos.api import Object
from tests.chaos.kubelet import is_ready

Items = dict[str, list[Object]]
"""Objects by the plurals of their kinds, of one namespace."""
CHILDREN = ("deployments", "services", "poddisruptionbudgets", "controllerrevisions")
_OWN_WAY = {
    names.ANNOTATION_APPLIED,
    names.ANNOTATION_SEAL,
    "deployment.kubernetes.io/revision",
}
_FROM_BEFORE = "--require-warm-up"


def controller_of(item: Object) -> str:
    """The UID of what controls an object; empty where nothing does."""
    references = item["metadata"].get("ownerReferences") or []
    return next((str(r["uid"]) for r in references if r.get("controller")), "")


def labelled(item: Object, label: str) -> str:
    return str((item["metadata"].get("labels") or {}).get(label, ""))


def model_of(items: Items, name: str) -> Object | None:
    return next((m for m in items["onnxmodels"] if m["metadata"]["name"] == name), None)


def _of(items: Items, plural: str, model: Object) -> list[Object]:
    return [item for item in items[plural] if controller_of(item) == model["metadata"]["uid"]]


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _cut(v) for k, v in value.items() if k not in _OWN_WAY and not k.startswith(names.NOTE_PREFIX)}
    if isinstance(value, list):
        return [_cut(v) for v in value if v != _FROM_BEFORE]
    return value


def _status(model: Object) -> Object:
    status, generation = json.loads(json.dumps(model.get("status") or {})), model["metadata"]["generation"]
    for told in (status, *status.get("conditions", [])):
        told.pop("lastTransitionTime", None)
        if told.get("observedGeneration") == generation:
            told["observedGeneration"] = "the newest"
    (status.get("inspection") or {}).pop("key", None)
    spec = model["spec"]
    if spec.get("suspend") or not spec.get("replicas"):
        # Whether pods have ever told how they started.
        status.pop("started", None)
        for known in ("threads", "threadsFrom"):
            (status.get("resources") or {}).pop(known, None)
    status["conditions"] = sorted(status.get("conditions", []), key=lambda c: str(c["type"]))
    return status


def _child(item: Object) -> Object:
    metadata = item["metadata"]
    kept = {key: metadata.get(key) or {} for key in ("labels", "annotations")}
    spec = {k: v for k, v in item["spec"].items() if k not in ("clusterIP", "clusterIPs")}
    return {"name": metadata["name"], **kept, "spec": spec}


def outcome(items: Items, name: str) -> Object | None:
    """All that a model has come to; None where there is none of this name."""
    model = model_of(items, name)
    if model is None:
        return None
    deployment = next(iter(_of(items, "deployments", model)), None)
    revision = labelled(deployment["spec"]["template"], names.LABEL_REVISION) if deployment else ""
    records = [r["data"] for r in _of(items, "controllerrevisions", model) if r["metadata"]["name"] == revision]
    found = {
        "spec": model["spec"],
        "status": _status(model),
        **{plural: [_child(item) for item in _of(items, plural, model)] for plural in CHILDREN[:3]},
        "revision": [{k: v for k, v in data.items() if k != "kept"} for data in records],
        "pods": sorted(
            [labelled(p, names.LABEL_REVISION), is_ready(p)]
            for p in items["pods"]
            if labelled(p, names.LABEL_MODEL) == name and "deletionTimestamp" not in p["metadata"]
        ),
    }
    text = json.dumps(_cut(found), sort_keys=True)
    for word, stands in ((revision, "REVISION"), (model["metadata"]["namespace"], "NAMESPACE"), (name, "MODEL")):
        text = text.replace(word, stands) if word else text
    same: Object = json.loads(text)
    return same


def differences(found: Any, wanted: Any, path: str = "") -> list[str]:
    """Where two outcomes differ, for people."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            line
            for key in sorted({*found, *wanted})
            for line in differences(found.get(key), wanted.get(key), f"{path}.{key}".lstrip("."))
        ]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = enumerate(zip(found, wanted, strict=True))
        return [line for number, (f, w) in pairs for line in differences(f, w, f"{path}[{number}]")]
    if found == wanted:
        return []
    return [f"{path}: {json.dumps(found)[:300]} instead of {json.dumps(wanted)[:300]}"]


def orphans(items: Items) -> list[str]:
    """What nobody owns, and revisions beyond the history."""
    models = {m["metadata"]["uid"]: m["metadata"]["name"] for m in items["onnxmodels"]}
    deployments = {d["metadata"]["uid"] for d in items["deployments"]}
    sets = {r["metadata"]["uid"] for r in items["replicasets"]}
    owners = {**{plural: set(models) for plural in CHILDREN}, "replicasets": deployments, "pods": sets}
    found = [
        f"{plural}/{item['metadata']['name']} belongs to nobody"
        for plural, known in owners.items()
        for item in items[plural]
        if controller_of(item) not in known
    ]
    for uid, name in models.items():
        kept = sum(controller_of(r) == uid for r in items["controllerrevisions"])
        if kept > HISTORY + 3:
            found.append(f"{kept} revisions of {name} are kept")
    return found


def contradictions(items: Items, name: str) -> list[str]:
    """Where a model's status says something else than its generation, Deployment and pods; empty where it does not."""
    model = model_of(items, name)
    if model is None:
        return []
    status, generation = model.get("status") or {}, model["metadata"]["generation"]
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    found = []
    if status.get("observedGeneration") != generation:
        found.append(f"observedGeneration is {status.get('observedGeneration')} at generation {generation}")
    old = [kind for kind, c in conditions.items() if c["observedGeneration"] != generation]
    found += [f"{kind} speaks of another generation" for kind in old]
    pods = [p for p in items["pods"] if labelled(p, names.LABEL_MODEL) == name]
    ready = [p for p in pods if is_ready(p) and "deletionTimestamp" not in p["metadata"]]
    if (status.get("readyReplicas") or 0) != len(ready):
        found.append(f"readyReplicas is {status.get('readyReplicas')}, and {len(ready)} pods are ready")
    if (conditions.get("Available") or {}).get("status", "False") != str(bool(ready)):
        found.append(f"Available is {(conditions.get('Available') or {}).get('status')}, {len(ready)} pods are ready")
    serving = (status.get("serving") or {}).get("revision", "")
    revisions = {labelled(p, names.LABEL_REVISION) for p in ready}
    if (serving or ready) and serving not in revisions:
        found.append(f"serving is {serving!r}, pods are of {sorted(revisions)}")
    wanted = 0 if model["spec"].get("suspend") else model["spec"].get("replicas", 1)
    if (conditions.get("Ready") or {}).get("status") == "True" and (len(ready) != wanted or len(revisions) > 1):
        found.append(f"Ready is True with {len(ready)} of {wanted} pods of {sorted(revisions)}")
    return found


def served_by_another(pod: Object, files: set[str]) -> str:
    """Why a pod does not serve the model whose label it carries; empty where it does.

    Args:
        pod: which takes traffic.
        files: names of all that the models of this name have ever asked for.
    """
    name = labelled(pod, names.LABEL_MODEL)
    spec = pod["spec"]
    arguments = [a for c in spec["containers"] for a in c.get("args", []) if a.startswith("--name=")]
    fetches = [e.get("value", "") for c in spec.get("initContainers", []) for e in c.get("env", [])]
    fetched = set(re.findall(r"/(\w+)\.onnx", " ".join(fetches)))
    owner = next((r["name"] for r in pod["metadata"].get("ownerReferences") or [] if r.get("controller")), "")
    if arguments != [f"--name={name}"]:
        return f"pod {pod['metadata']['name']} takes traffic of {name!r} with {arguments}"
    if not fetched or not fetched <= files:
        return f"pod {pod['metadata']['name']} of {name!r} fetches {sorted(fetched)}, asked for were {sorted(files)}"
    if owner.rpartition("-")[0] != name:
        return f"pod {pod['metadata']['name']} takes traffic of {name!r} and is of {owner!r}"
    return ""
