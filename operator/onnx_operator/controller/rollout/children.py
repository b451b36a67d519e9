"""Children of a model: listed, compared, applied, pruned. The only place that writes them."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.rollout import Steps
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.kinds import (
    CHILD_KINDS,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    KINDS,
    POD,
    REPLICA_SET,
    Kind,
    Object,
)
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.owners import (
    controllers,
    is_controlled_by,
    is_pod_of,
    is_replica_set_of,
    owner_reference,
)
from onnx_operator.controller.cluster.sight import Sight
from onnx_operator.controller.cluster.store import Handle
from onnx_operator.controller.observation.observe import Cause
from onnx_operator.controller.observation.pods import slim_pod, slim_replica_set
from onnx_operator.controller.revision.merge import contains, project
from onnx_operator.controller.revision.render import Manifest
from onnx_operator.controller.revision.revisions import Revision, Unread, surplus, with_revision_label
from onnx_operator.controller.revision.seal import digest
from onnx_operator.controller.revision.strategy import with_rollout
from onnx_operator.controller.rollout.clashes import without_clashes
from onnx_operator.controller.rollout.forms import Forms
from onnx_operator.controller.telemetry import metrics

logger = logging.getLogger(__name__)

FREE_SECONDS = 1.0
"""How long a name that was free counts as free: for the rest of a look, unless it takes long."""
MAX_OTHERS = 100
"""Objects of a kind, besides the one of the model's name, that one look deletes."""


class ChildrenError(Exception):
    """The children cannot be as they should; ``cause`` goes to the status."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


def refused(error: ApiError, what: str) -> ChildrenError:
    """What to tell of a child that the API server refuses."""
    quota = "exceeded quota" in error.message
    reason = Reason.QUOTA_EXCEEDED if quota else Reason.CREATION_FAILED
    whom = "admission (a policy or webhook of the cluster)" if error.by_admission and not quota else "the API server"
    return ChildrenError(Cause(reason, f"{what} was refused by {whom}, and is tried again: {error.message}"))


def name_conflict(kind: str, name: str) -> ChildrenError:
    """What to tell of a name that somebody else's object has."""
    return ChildrenError(
        Cause(
            Reason.NAME_CONFLICT,
            f"there is a {kind} {name!r} already that does not belong to this model; "
            "delete it, or give the model another name",
        )
    )


@dataclass(frozen=True)
class Children:
    """What exists of a model: objects that it owns, by kind, and its pods."""

    owned: tuple[Object, ...]
    """Those of the model's name whole; of others, which are to be pruned, kind, name and UID."""
    revisions: tuple[Revision, ...]
    """Those of the operator's own."""
    pods: tuple[Object, ...]
    unread: tuple[Unread, ...] = ()
    """Revisions of the operator's own that a newer version made, and that this one cannot read."""
    orphans: tuple[Revision | Unread, ...] = ()
    """Revisions of the operator's own that nothing controls: an earlier model of the name was deleted alone."""
    free: dict[tuple[str, str], float] = field(default_factory=dict, compare=False)
    """By kind and name, until when (by the loop's clock) a name is known not to be somebody else's."""

    def find(self, kind: str, name: str) -> Object | None:
        """The owned object of this kind and name."""
        return next((o for o in self.owned if o["kind"] == kind and o["metadata"]["name"] == name), None)


def _foreign(item: Object, model: Object) -> bool:
    """Whether an object of a child's name is somebody else's.

    One that carries the model's label and has no controller was orphaned by an earlier model of the name: it is taken
    over, so that ``kubectl delete --cascade=orphan`` and applying again keeps the pods.
    """
    references = item["metadata"].get("ownerReferences") or []
    if any(r.get("uid") == model["metadata"]["uid"] for r in references):
        return False
    labels = item["metadata"].get("labels") or {}
    return any(r.get("controller") for r in references) or labels.get(names.LABEL_MODEL) != model["metadata"]["name"]


def _left_over(item: Object, model: Object) -> bool:
    """Whether an object of a child's name belongs to a model of the same name that was deleted just now."""
    references = item["metadata"].get("ownerReferences") or []
    return any(
        r.get("controller")
        and (r.get("kind"), r.get("name")) == (names.KIND, model["metadata"]["name"])
        and r.get("uid") != model["metadata"]["uid"]
        for r in references
    )


async def list_children(
    sight: Sight | Kube,
    model: Object,
    read: Callable[[Object], Revision | Unread | None],
    recall: Callable[[Handle], Revision | Unread | None] = lambda handle: None,
) -> Children:
    """Everything that belongs to the model.

    Objects count that this very model controls, which whoever may create some can claim. So nothing is kept whole but
    those of the model's own name, and revisions as far as ``read`` takes them for the operator's. Its pods are
    controlled by ReplicaSets, so they are hints: cut to what is looked at, of a bounded number, and never a reason to
    do anything beyond this model. ``recall`` may know a revision that was read before, and that the model controls.
    """
    sight = Sight(sight) if isinstance(sight, Kube) else sight
    metadata = model["metadata"]
    namespace, labels = metadata["namespace"], {names.LABEL_MODEL: metadata["name"]}
    deployments = frozenset({metadata["name"]})

    def own_of(kind: Kind) -> Callable[[Object], Object | None]:
        others = itertools.count()

        def own(item: Object) -> Object | None:
            if not is_controlled_by(item, model):
                return None
            if item["metadata"]["name"] == metadata["name"]:
                return _without_history(item)
            return _identity(item) if next(others) < MAX_OTHERS else None

        return own

    def own_revision(item: Object) -> tuple[Revision | Unread, bool] | None:
        controlled = is_controlled_by(item, model)
        found = read(item) if controlled or not controllers(item["metadata"]) else None
        return (found, controlled) if found else None

    def own_recalled(handle: Handle) -> tuple[Revision | Unread, bool] | None:
        found = recall(handle)
        return (found, True) if found else None

    def own_pod(pod: Object) -> Object | None:
        return slim_pod(pod) if is_pod_of(pod, deployments) else None

    pods, revisions, others = await asyncio.gather(
        sight.list(POD, namespace, labels, own_pod, in_part=True),
        sight.list(CONTROLLER_REVISION, namespace, labels, own_revision, recall=own_recalled),
        asyncio.gather(*(sight.list(kind, namespace, labels, own_of(kind)) for kind in CHILD_KINDS)),
    )
    return Children(
        owned=tuple(item for group in others for item in group),
        revisions=tuple(found for found, controlled in revisions if controlled and isinstance(found, Revision)),
        unread=tuple(found for found, controlled in revisions if controlled and isinstance(found, Unread)),
        pods=tuple(pods),
        orphans=tuple(found for found, controlled in revisions if not controlled),
    )


async def list_replica_sets(kube: Kube, deployment: Object) -> list[Object] | None:
    """The Deployment's ReplicaSets, which know why no pod of theirs is taken; None where they may not be read.

    They are asked for only where the Deployment tells of such a pod.
    """
    metadata = deployment["metadata"]

    def own(item: Object) -> Object | None:
        return slim_replica_set(item) if is_replica_set_of(item, deployment) else None

    try:
        return await kube.list(
            REPLICA_SET, metadata["namespace"], {names.LABEL_MODEL: metadata["name"]}, own, in_part=True
        )
    except ApiError as error:
        if error.status != 403:
            raise
        logger.info("ReplicaSets may not be read; the chart of this version allows it: %s", error.message)
        return None


def _without_history(item: Object) -> Object:
    """The object without its managed fields, which may be most of it, and which nobody looks at."""
    return {**item, "metadata": {k: v for k, v in item["metadata"].items() if k != "managedFields"}}


def _identity(item: Object) -> Object:
    kept = ("name", "namespace", "uid", "deletionTimestamp")
    metadata = {key: item["metadata"][key] for key in kept if key in item["metadata"]}
    return {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": metadata}


async def check_names(kube: Kube, model: Object, manifests: list[Manifest], children: Children) -> None:
    """See that no child's name is taken by an object of somebody else's.

    Raises:
        ChildrenError: with ``NameConflict``.
    """
    now = asyncio.get_running_loop().time()
    wanted = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    asked = [
        (KINDS[kind], name)
        for kind, name in wanted
        if not children.find(kind, name) and children.free.get((kind, name), 0.0) <= now
    ]
    namespace = model["metadata"]["namespace"]
    answers = await asyncio.gather(*(kube.get(kind, namespace, name) for kind, name in asked))
    for (kind, name), found in zip(asked, answers, strict=True):
        if found and _left_over(found, model):
            message = f"waiting until the {kind.kind} {name!r} of the deleted model of this name is gone"
            raise ChildrenError(Cause(Reason.ROLLING_OUT, message))
        if found and _foreign(found, model):
            raise name_conflict(kind.kind, name)
        children.free[kind.kind, name] = now + FREE_SECONDS


async def canonical(kube: Kube, manifests: list[Manifest], revision: str, forms: Forms | None = None) -> list[Manifest]:
    """The manifests in the API server's own form, found by a dry run that also checks every field.

    Args:
        kube: the API server.
        manifests: of a model's children.
        revision: the name that its pods are labelled with.
        forms: what was found before; all but Deployments are the same but for names, and are asked for once.

    Raises:
        ApiError: the API server refuses one.
    """
    result = []
    for manifest, labelled in zip(manifests, with_revision_label(manifests, revision), strict=True):
        known = forms.get(manifest) if forms and manifest["kind"] != DEPLOYMENT.kind else None
        if known:
            result.append(known)
            continue
        answer = await kube.apply(KINDS[manifest["kind"]], labelled, dry_run=True, strict=True)
        form = {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"]} | project(
            answer, {k: v for k, v in manifest.items() if k not in ("apiVersion", "kind")}
        )
        if forms and manifest["kind"] != DEPLOYMENT.kind:
            forms.keep(manifest, form)
        result.append(form)
    return result


def desired_children(
    model: Object, spec: OnnxModelSpec, revision: Revision, pool: Steps | None = None
) -> list[Manifest]:
    """The revision's manifests, with what belongs to the moment: owner, replicas, tags, how an update moves.

    Whatever a revision says, its children are of the kinds that a model has, each once, with the model's name, in its
    namespace. ``pool`` tells how updates move there, where the spec does not.
    """
    annotations = {
        f"{names.ANNOTATION_TAG_PREFIX}{key}": value for key, value in sorted((spec.model.tags or {}).items())
    }
    if spec.model.description:
        annotations[names.ANNOTATION_DESCRIPTION] = spec.model.description
    annotations[names.ANNOTATION_VERSION] = revision.data.report.version
    desired = []
    found = {m["kind"]: m for m in with_revision_label(revision.data.manifests, revision.name)}
    for kind in CHILD_KINDS:
        manifest = found.get(kind.kind)
        if manifest is None:
            continue
        metadata = {
            **manifest["metadata"],
            "name": model["metadata"]["name"],
            "namespace": model["metadata"]["namespace"],
            "ownerReferences": [owner_reference(model)],
            "annotations": {**manifest["metadata"].get("annotations", {}), **annotations},
        }
        child = {**manifest, "apiVersion": kind.api_version, "metadata": metadata}
        if child["kind"] == "Deployment":
            replicas = wanted_replicas(spec)
            child["spec"] = {**with_rollout(child["spec"], spec, pool, replicas), "replicas": replicas}
        metadata["annotations"][names.ANNOTATION_APPLIED] = digest(child)
        desired.append(child)
    return desired


def wanted_replicas(spec: OnnxModelSpec) -> int:
    """Pods that the spec asks for."""
    return 0 if spec.suspend else spec.replicas


async def scale(kube: Kube, deployment: Object, spec: OnnxModelSpec) -> None:
    """Give a Deployment that is otherwise left as it is the replicas that the spec asks for."""
    metadata, replicas = deployment["metadata"], wanted_replicas(spec)
    if deployment["spec"].get("replicas") != replicas:
        metrics.API_WRITES.labels(kind=DEPLOYMENT.kind, verb="patch").inc()
        patch = {"metadata": {"uid": metadata["uid"]}, "spec": {"replicas": replicas}}
        await kube.merge(DEPLOYMENT, metadata["namespace"], metadata["name"], patch)


async def apply_children(
    kube: Kube, desired: list[Manifest], children: Children, confirm: Callable[[], Awaitable[None]]
) -> None:
    """Apply what differs from the live objects, and nothing else.

    Args:
        kube: the API server.
        desired: what there should be.
        children: what there is.
        confirm: sees, before the first child is made, that there is a model to make it for.

    Raises:
        ChildrenError: the API server refuses a child.
    """
    for manifest in desired:
        kind = KINDS[manifest["kind"]]
        live = children.find(kind.kind, manifest["metadata"]["name"])
        if live and contains(live, manifest):
            continue
        if live is None:
            await confirm()
        try:
            await _apply(kube, kind, manifest, live)
        except ApiError as error:
            if error.refused:
                raise refused(error, f"{kind.kind} {manifest['metadata']['name']!r}") from error
            raise


async def _apply(kube: Kube, kind: Kind, manifest: Manifest, live: Object | None) -> None:
    """Apply a child, in spite of what others have put there in its way."""
    metadata = manifest["metadata"]
    metrics.API_WRITES.labels(kind=kind.kind, verb="apply").inc()
    try:
        await kube.apply(kind, manifest)
    except ApiError as error:
        found = await kube.get(kind, metadata["namespace"], metadata["name"]) if live and error.invalid else None
        patch = without_clashes(found, manifest) if found else None
        if patch is None:
            raise
        logger.info("taking away what is in the way", extra={"kind": kind.kind, "child": metadata["name"]})
        metrics.API_WRITES.labels(kind=kind.kind, verb="patch").inc()
        await kube.merge(kind, metadata["namespace"], metadata["name"], patch)
        metrics.API_WRITES.labels(kind=kind.kind, verb="apply").inc()
        await kube.apply(kind, manifest)


async def prune(kube: Kube, desired: list[Manifest], children: Children) -> None:
    """Delete owned children that are not wanted any more."""
    wanted = {(m["kind"], m["metadata"]["name"]) for m in desired}
    for item in children.owned:
        metadata = item["metadata"]
        if (item["kind"], metadata["name"]) not in wanted and "deletionTimestamp" not in metadata:
            logger.info("pruning", extra={"kind": item["kind"], "child": metadata["name"]})
            metrics.API_WRITES.labels(kind=item["kind"], verb="delete").inc()
            await kube.delete(KINDS[item["kind"]], metadata["namespace"], metadata["name"], metadata["uid"])


async def prune_revisions(
    kube: Kube,
    namespace: str,
    revisions: Iterable[Revision],
    current: Revision,
    children: Children,
    wanted: Revision | None = None,
) -> None:
    """Delete revisions beyond the history, and neither the current one nor the one that is wanted instead."""
    in_use = {each.name for each in (current, wanted) if each} | {
        (p["metadata"].get("labels") or {}).get(names.LABEL_REVISION, "") for p in children.pods
    }
    for revision in surplus(list(revisions), in_use):
        metrics.API_WRITES.labels(kind=CONTROLLER_REVISION.kind, verb="delete").inc()
        await kube.delete(CONTROLLER_REVISION, namespace, revision.name, revision.uid)
