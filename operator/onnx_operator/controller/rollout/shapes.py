"""What is kept of each kind: the fields that anything looks at. Pure.

Strangers can make objects of any size that carry a model's label. Nothing large is kept of what cannot be the model's.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    ONNX_MODEL,
    POD,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    Kind,
    Object,
)
from onnx_operator.controller.cluster.naming import Labels
from onnx_operator.controller.cluster.owners import controllers, is_pod_of, models_named
from onnx_operator.controller.cluster.store import Shape
from onnx_operator.controller.observation.pods import slim_pod
from onnx_operator.controller.revision.scoring import MAX_SCRIPT_BYTES

_OWNED = {names.LABEL_MODEL: None}
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def shapes(
    read_revision: Callable[[Object, Object], Any], *, scripts: bool = True, models: Labels | None = None
) -> dict[Kind, Shape]:
    """The shapes of all kinds that are followed.

    Args:
        read_revision: decodes a ControllerRevision of the model that is its second argument; None for one that is not
            the operator's own.
        scripts: whether ConfigMaps with scoring scripts are followed, for which the operator needs a right.
        models: what the OnnxModels carry that are looked after; None for all.
    """

    def prune_revision(item: Object) -> Object | None:
        metadata = item["metadata"]
        # By the name that it carries: its owner's UID is compared whenever it is looked at.
        model = {"metadata": {"namespace": metadata["namespace"], "name": _model_of(item)}}
        # One without a controller was left by a model of the name that was deleted alone: its successor takes it over.
        claimed = _claims_its_model(item) or not controllers(metadata)
        if not claimed or read_revision(item, model) is None:
            return None
        ours = (names.ANNOTATION_SEAL, names.NOTE_PREFIX)
        kept = {k: v for k, v in (metadata.get("annotations") or {}).items() if k.startswith(ours)}
        own = {"annotations": kept, "creationTimestamp": metadata.get("creationTimestamp", "")}
        return {**_identity(item, **own), **{field: item[field] for field in ("data", "revision") if field in item}}

    found = {
        # First: what belongs to models that are not known wakes nobody.
        ONNX_MODEL: Shape(models or {}, prune=_prune_model, groups=_script_of, news=_news_of_model),
        CONTROLLER_REVISION: Shape(_OWNED, prune_revision, _model_label, bounded=False),
        DEPLOYMENT: Shape(_OWNED, _prune_child, _model_label),
        SERVICE: Shape(_OWNED, _prune_still, _model_label),
        POD_DISRUPTION_BUDGET: Shape(_OWNED, _prune_still, _model_label),
        POD: Shape(_OWNED, _prune_pod, _model_label),
    }
    if scripts:
        found[CONFIG_MAP] = Shape({names.LABEL_SCORING: "true"}, _prune_script)
    return found


def _model_of(item: Object) -> str:
    return str((item["metadata"].get("labels") or {}).get(names.LABEL_MODEL, ""))


def _model_label(item: Object) -> tuple[str, ...]:
    return (_model_of(item),)


def _claims_its_model(item: Object) -> bool:
    """Whether a model of the name that it carries controls it, as it says."""
    return _model_of(item) in models_named(item["metadata"])


def _identity(item: Object, **more: Any) -> Object:
    """What tells whose an object is, and what is needed to delete it."""
    metadata = item["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "uid", "deletionTimestamp") if key in metadata}
    kept["labels"] = {names.LABEL_MODEL: _model_of(item)}
    kept["ownerReferences"] = controllers(metadata)
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": {**kept, **more}}


def _prune_child(item: Object) -> Object | None:
    metadata = item["metadata"]
    if not _claims_its_model(item):
        return None
    if metadata["name"] != _model_of(item):
        return _identity(item)
    return {**item, "metadata": {k: v for k, v in metadata.items() if k != "managedFields"}}


def _prune_still(item: Object) -> Object | None:
    """A child whose status nobody looks at."""
    pruned = _prune_child(item)
    return {k: v for k, v in pruned.items() if k != "status"} if pruned else None


def _prune_pod(item: Object) -> Object | None:
    if not is_pod_of(item, frozenset({_model_of(item)})):
        return None
    pod = slim_pod(item)
    kept = ("apiVersion", "kind", "name", "controller")
    owners = [{key: reference.get(key) for key in kept} for reference in controllers(item["metadata"])]
    return {**pod, "metadata": {**pod["metadata"], "ownerReferences": owners}}


def _prune_model(item: Object) -> Object:
    metadata = item["metadata"]
    kept = ("name", "namespace", "uid", "generation", "creationTimestamp", "deletionTimestamp")
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k.startswith(f"{names.GROUP}/")}
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": {**{k: metadata[k] for k in kept if k in metadata}, "annotations": annotations},
        **{field: item[field] for field in ("spec", "status") if field in item},
    }


def _news_of_model(item: Object) -> Any:
    """All but the status, which nobody but the operator writes."""
    metadata = item["metadata"]
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != _LAST_APPLIED}
    fields = ("uid", "generation", "deletionTimestamp", "labels")
    return [*(metadata.get(field) for field in fields), annotations]


def _script_of(item: Object) -> tuple[str, ...]:
    """The ConfigMap that a model names."""
    spec = item.get("spec")
    scoring = spec.get("scoring") if isinstance(spec, dict) else None
    name = scoring.get("configMapName") if isinstance(scoring, dict) else None
    return (name,) if isinstance(name, str) else ()


def _prune_script(item: Object) -> Object | None:
    metadata, data, binary = item["metadata"], item.get("data") or {}, item.get("binaryData") or {}
    if sum(map(len, data.values())) > MAX_SCRIPT_BYTES or len(data) > MAX_SCRIPT_BYTES:
        # Refused by whoever reads it, and told so in the words that go with the object.
        return None
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": {key: metadata[key] for key in ("name", "namespace", "uid")},
        "data": data,
        "binaryData": dict.fromkeys(islice(binary, 100), ""),
    }
