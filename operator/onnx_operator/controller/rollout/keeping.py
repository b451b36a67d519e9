"""Keeps what runs where this version cannot read what a newer one made: repaired and scaled, and not changed."""

from collections.abc import Awaitable, Callable

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.readable import readable_spec
from onnx_operator.api.report import shorten
from onnx_operator.controller.cluster.kinds import CHILD_KINDS, DEPLOYMENT, Object
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.owners import owner_reference
from onnx_operator.controller.observation.observe import Cause, Observation
from onnx_operator.controller.revision.render import Manifest
from onnx_operator.controller.revision.revisions import Revision, Unread, with_revision_label
from onnx_operator.controller.rollout.children import (
    Children,
    apply_children,
    check_names,
    scale,
    wanted_replicas,
)
from onnx_operator.controller.rollout.history import History, forbidden_by_settings
from onnx_operator.controller.settings.settings import Settings

_OURS = (f"{names.GROUP}/", names.ANNOTATION_TAG_PREFIX)
MAX_FAULT_BYTES = 256


def newer_version(fault: str, known: History) -> Cause | None:
    """Why this version of the operator changes nothing of a model; None where it may.

    Args:
        fault: what of the spec it cannot read; empty where it reads all.
        known: the model's revisions.
    """
    if not fault and known.newer is None:
        return None
    what = f"revision {known.newer.name}" if known.newer else "the spec"
    why = f" ({shorten(fault, MAX_FAULT_BYTES)})" if fault else ""
    return Cause(
        Reason.NEWER_VERSION,
        f"{what} was made for a newer version of the operator, and this one cannot read it{why}: what runs is kept, "
        "repaired and scaled, and no other change of the spec counts; upgrade the operator",
    )


def kept(known: History, running: str) -> Revision | Unread | None:
    """The revision of the operator's own that is kept: the one that runs, or the newest where none does."""
    found: list[Revision | Unread] = [*known.own, *known.unread]
    if running:
        return next((each for each in found if each.name == running), None)
    return max(found, key=lambda each: each.number, default=None)


def kept_children(
    model: Object, spec: OnnxModelSpec, revision: Revision | Unread, children: Children
) -> list[Manifest]:
    """The children of a revision, as they are to be.

    What else the version that made them has written there, in annotations, is taken as it is: once that version is
    back, it finds what it left.
    """
    metadata = model["metadata"]
    manifests = revision.data.manifests if isinstance(revision, Revision) else revision.manifests
    found = {m["kind"]: m for m in with_revision_label(list(manifests), revision.name)}
    desired = []
    for kind in CHILD_KINDS:
        manifest = found.get(kind.kind)
        if manifest is None:
            continue
        live = children.find(kind.kind, metadata["name"])
        replicas = {"replicas": wanted_replicas(spec)} if kind == DEPLOYMENT else {}
        written = ((live["metadata"].get("annotations") or {}) if live else {}).items()
        child = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {
                **manifest["metadata"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "ownerReferences": [owner_reference(model)],
                "annotations": {
                    **manifest["metadata"].get("annotations", {}),
                    **{key: value for key, value in written if key.startswith(_OURS)},
                },
            },
            "spec": {**manifest["spec"], **replicas},
        }
        desired.append(child)
    return desired


async def keep(
    kube: Kube,
    model: Object,
    spec: OnnxModelSpec,
    known: History,
    observation: Observation,
    children: Children,
    settings: Settings,
    confirm: Callable[[], Awaitable[None]],
) -> None:
    """Repair and scale what runs; nothing of it is rolled out anew.

    Raises:
        ChildrenError: the API server refuses a child, or somebody else's object has its name.
        ApiError, OSError: the API server failed in a way that trying again may cure.
    """
    revision = kept(known, observation.revision)
    if revision is None or _forbidden(revision, model["metadata"]["namespace"], settings):
        if observation.deployment:
            await scale(kube, observation.deployment, spec)
        return
    desired = kept_children(model, spec, revision, children)
    await check_names(kube, model, desired, children)
    await apply_children(kube, desired, children, confirm)


def _forbidden(revision: Revision | Unread, namespace: str, settings: Settings) -> bool:
    if isinstance(revision, Unread):
        spec, pool = revision.spec, revision.pool
    elif revision.inputs:
        return True
    else:
        spec, pool = revision.data.spec, revision.data.pool
    return forbidden_by_settings(readable_spec(spec)[0], pool, namespace, settings) is not None
