"""Reads revisions, makes them and seals them. The only place that writes ControllerRevisions."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import WarmUpFacts
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import InspectionResult
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.kinds import CONTROLLER_REVISION, Object
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.naming import is_object_name
from onnx_operator.controller.cluster.owners import is_controlled_by, owner_reference
from onnx_operator.controller.cluster.store import Handle
from onnx_operator.controller.observation.admission import Demands
from onnx_operator.controller.revision.kept_inputs import note_of
from onnx_operator.controller.revision.pools import choose_pool
from onnx_operator.controller.revision.render import Manifest, RenderInput, pod_resources, render, version_label
from onnx_operator.controller.revision.revisions import (
    NOTE_FAILED,
    NOTE_GOOD,
    NOTE_INSPECTION,
    NOTE_SIGNER,
    NOTE_WARMED,
    NOTES,
    NOTES_OF_CONTENT,
    Revision,
    RevisionData,
    Sizing,
    Unread,
    annotations,
    controller_revision,
    decode,
    new_revision,
    noted,
    pod_spec,
    unread,
)
from onnx_operator.controller.revision.seal import Trust, fingerprint
from onnx_operator.controller.revision.sealkey import SealKeys
from onnx_operator.controller.revision.warm_up import Kept
from onnx_operator.controller.rollout.children import Children, canonical, check_names, name_conflict, refused
from onnx_operator.controller.rollout.decoded import Decoded
from onnx_operator.controller.rollout.forms import Forms
from onnx_operator.controller.rollout.history import History, history, predates_seals
from onnx_operator.controller.settings.settings import Settings
from onnx_operator.controller.telemetry import metrics
from onnx_operator.model.refusal import RefusedError

logger = logging.getLogger(__name__)

PLACE = "0000000000"
"""Stands for the hash in a revision's name while it is not known yet, in a dry run."""


class Revising:
    """The revisions of models: read, made, sealed."""

    def __init__(self, kube: Kube, settings: Settings, keys: SealKeys) -> None:
        self._kube = kube
        self._settings = settings
        self._keys = keys
        self._known = Decoded()
        self._forms = Forms()

    def reader(self, model: Object) -> Callable[[Object], Revision | Unread | None]:
        """Decodes a ControllerRevision of the model's; None for one that is not the operator's own.

        Anybody may write as many as he likes, of any size: they are dropped while they are read.
        """

        def read(item: Object) -> Revision | Unread | None:
            if not (item["metadata"].get("annotations") or {}).get(names.ANNOTATION_SEAL):
                return None
            found = self._known.get(item, model, lambda: self._either(model)(item))
            return found if found and found.trust.holds else None

        return read

    def recall(self, model: Object) -> Callable[[Handle], Revision | Unread | None]:
        """Knows the model's revisions that were read before, without unpacking them."""

        def known(handle: Handle) -> Revision | Unread | None:
            def load() -> Object:
                found = handle.load()
                return found if isinstance(found, dict) else {"metadata": {}}

            return self._known.recall(model, handle.uid, handle.version, load, self._either(model))

        return known

    def _either(self, model: Object) -> Callable[[Object], Revision | Unread | None]:
        return lambda item: self._decoded(item, model) or self._unread(item, model)

    def own(self, item: Object, model: Object) -> Revision | Unread | None:
        """The same, of a model of which no more than namespace and name are known."""
        return self.reader(model)(item)

    def _decoded(self, item: Object, model: Object) -> Revision | None:
        return decode(item, model["metadata"]["name"], model["metadata"]["namespace"], self._keys.sealer)

    def _unread(self, item: Object, model: Object) -> Unread | None:
        return unread(item, model["metadata"]["name"], model["metadata"]["namespace"], self._keys.sealer)

    async def _stranger(self, model: Object, name: str) -> Revision | None:
        """The revision that runs, where it is not among the operator's own."""
        if not is_object_name(name):
            return None
        item = await self._kube.get(CONTROLLER_REVISION, model["metadata"]["namespace"], name)
        return self._decoded(item, model) if item and is_controlled_by(item, model) else None

    async def adopt(self, model: Object, children: Children, confirm: Callable[[], Awaitable[None]]) -> Children:
        """The children, with the revisions that an earlier model of the name left behind, which are this one's now.

        ``confirm`` sees first that there is a model: what belongs to one that is gone is deleted.
        """
        if not children.orphans:
            return children
        adopted = []
        for orphan in children.orphans:
            await confirm()
            metadata = model["metadata"]
            about = {"model": f"{metadata['namespace']}/{metadata['name']}", "revision": orphan.name}
            metrics.API_WRITES.labels(kind=CONTROLLER_REVISION.kind, verb="patch").inc()
            # Exactly the object whose seal was read.
            patch = {"metadata": {"uid": orphan.uid, "ownerReferences": [owner_reference(model)]}}
            try:
                await self._kube.merge(CONTROLLER_REVISION, metadata["namespace"], orphan.name, patch)
            except ApiError as error:
                if not (error.invalid or error.by_admission) and error.status not in (404, 409):
                    raise
                logger.warning("a revision cannot be taken over: %s", error.message[:300], extra=about)
                continue
            logger.info("took a revision over", extra=about)
            adopted.append(orphan)
        read = [each for each in adopted if isinstance(each, Revision)]
        others = [each for each in adopted if isinstance(each, Unread)]
        return replace(children, revisions=(*children.revisions, *read), unread=(*children.unread, *others), orphans=())

    async def read(self, model: Object, children: Children, running: str) -> History:
        """The model's revisions. Seals anew what the previous key sealed, and once what is older than all seals."""
        metadata = model["metadata"]
        found = list(children.revisions)
        ours = {revision.name for revision in found} | {revision.name for revision in children.unread}
        if running not in ours and (stranger := await self._stranger(model, running)):
            found.append(stranger)
        known = history(found, running, children.unread)
        for revision in known.own:
            if revision.trust is Trust.AGED:
                await self.seal(model, revision)
        live = {o["kind"]: o for o in children.owned if o["metadata"]["name"] == metadata["name"]}
        if known.held and predates_seals(known.held, self._keys.since, live):
            sealed = await self.seal(model, known.held)
            if not sealed.trust.holds:
                return known
            own = (*(r for r in known.own if r.number < sealed.number), sealed)
            return History(own, unread=known.unread)
        return known

    async def seal(self, model: Object, revision: Revision) -> Revision:
        """Seal a stored revision as it is, or with other notes; its data and its pods stay.

        What the API server will not have changed stays as it is: that of objects whose JSON it would spell otherwise,
        and what a policy forbids.
        """
        metadata = model["metadata"]
        metrics.API_WRITES.labels(kind=CONTROLLER_REVISION.kind, verb="patch").inc()
        # Those that nobody has read yet go as well: the seal is over all that are there.
        notes: dict[str, str | None] = {names.NOTE_PREFIX + note: None for note in (*revision.written, *NOTES)}
        notes |= annotations(revision, metadata["name"], metadata["namespace"], self._keys.sealer)
        # Exactly the object whose data was read.
        patch = {"metadata": {"uid": revision.uid, "annotations": notes}}
        about = {"model": f"{metadata['namespace']}/{metadata['name']}", "revision": revision.name}
        try:
            await self._kube.merge(CONTROLLER_REVISION, metadata["namespace"], revision.name, patch)
        except ApiError as error:
            if not (error.invalid or error.by_admission):
                raise
            logger.warning("a revision cannot be sealed: %s", error.message[:300], extra=about)
            return revision
        logger.info("sealed a revision", extra=about)
        return replace(revision, trust=Trust.SEALED, written=frozenset(revision.notes))

    async def inspected(self, model: Object, revision: Revision, inspection: str, signer: str = "") -> Revision:
        """The revision, sealed, with the inspection that accepted its model last, and its signer, in its notes."""
        if revision.trust.holds and revision.inspection_key == inspection:
            return revision
        signer = "" if signer == revision.data.report.signer else signer
        return await self.seal(model, noted(revision, {NOTE_INSPECTION: inspection, NOTE_SIGNER: signer}))

    async def started(self, model: Object, revision: Revision, facts: WarmUpFacts) -> Revision:
        """The revision, sealed, with what its first pod told of the warm-up in its notes."""
        if not revision.trust.holds or not revision.uid or NOTE_WARMED in revision.notes:
            return revision
        return await self.seal(model, noted(revision, {NOTE_WARMED: note_of(facts)}))

    async def rolled_out(self, model: Object, revision: Revision) -> Revision:
        """The revision, sealed, with the note that it was rolled out to its end; what it failed of before is past."""
        if not revision.trust.holds or not revision.uid:
            return revision
        return await self.seal(model, noted(revision, {NOTE_GOOD: "true", NOTE_FAILED: ""}))

    async def failed(self, model: Object, revision: Revision, failure: str) -> Revision:
        """The revision, sealed, with the note of what it failed of."""
        return await self.seal(model, noted(revision, {NOTE_FAILED: failure}))

    async def data(
        self,
        model: Object,
        spec: OnnxModelSpec,
        result: InspectionResult,
        scoring: dict[str, str],
        children: Children,
        kept: Kept | None = None,
        demands: Demands | None = None,
    ) -> RevisionData:
        """What a revision of this model would hold, with what it takes over and what its namespace demands.

        Raises:
            RefusedError, TemplateError: there can be none.
            ChildrenError: the name is taken, or the API server refuses a child.
        """
        name, namespace = model["metadata"]["name"], model["metadata"]["namespace"]
        report, files = result.report, result.files
        if report is None or files is None:
            raise ValueError("an accepted inspection holds a report and the model's files")
        report = report.model_copy(update={"version": version_label(spec, report)})
        pool = choose_pool(spec, namespace, report, self._settings.effective_pools())
        inputs = RenderInput(
            name, namespace, spec, report, files, pool, self._settings, scoring, result.test_data, kept, demands
        )
        rendered, resources = render(inputs), pod_resources(inputs)
        await check_names(self._kube, model, rendered, children)
        return RevisionData(
            spec=pod_spec(spec),
            scoring=scoring,
            report=report,
            interface=result.interface,
            files=files,
            test_data=result.test_data,
            kept=kept,
            demands=demands or None,
            sizing=Sizing(cpu=resources.cpu_from, limits=resources.limits_from),
            pool=pool.name,
            manifests=await self._canonical(spec, rendered, f"{name}-{PLACE}"),
        )

    async def store(
        self,
        model: Object,
        data: RevisionData,
        inspection: str,
        known: History,
        confirm: Callable[[], Awaitable[None]],
    ) -> Revision:
        """Store a new revision, sealed; ``confirm`` sees first that there is a model to make it for.

        Raises:
            ChildrenError: the API server refuses it, or somebody else's object has its name.
        """
        metadata = model["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        revision = new_revision(name, known.next_number, data, inspection)
        # Of an earlier one of this content, that a model goes back to, it is known already how it fared.
        earlier = next((each for each in known.own if each.name == revision.name), None)
        if earlier:
            revision = noted(revision, {note: earlier.notes.get(note, "") for note in NOTES_OF_CONTENT})
        manifest = controller_revision(revision, name, namespace, self._keys.sealer)
        manifest["metadata"]["ownerReferences"] = [owner_reference(model)]
        await confirm()
        metrics.API_WRITES.labels(kind=CONTROLLER_REVISION.kind, verb="apply").inc()
        try:
            stored = await self._kube.apply(CONTROLLER_REVISION, manifest)
        except ApiError as error:
            if error.invalid and await self._is_other(namespace, revision):
                raise name_conflict(CONTROLLER_REVISION.kind, revision.name) from error
            if error.refused:
                raise refused(error, f"ControllerRevision {revision.name!r}") from error
            raise
        if fingerprint(stored.get("data")) != revision.content:
            raise name_conflict(CONTROLLER_REVISION.kind, revision.name)
        found = self._decoded(stored, model)
        if found and not found.trust.holds:
            # It was there before, with notes that somebody else wrote and an apply leaves.
            await self.seal(model, replace(revision, uid=found.uid, written=found.written))
        logger.info("new revision", extra={"model": f"{namespace}/{name}", "revision": revision.name})
        return revision

    async def _is_other(self, namespace: str, revision: Revision) -> bool:
        found = await self._kube.get(CONTROLLER_REVISION, namespace, revision.name)
        return found is not None and fingerprint(found.get("data")) != revision.content

    async def _canonical(self, spec: OnnxModelSpec, rendered: list[Manifest], revision: str) -> list[Manifest]:
        try:
            return await canonical(self._kube, rendered, revision, self._forms)
        except ApiError as error:
            if error.invalid and (spec.pod_template or spec.resources):
                raise RefusedError(
                    Reason.POD_TEMPLATE_REJECTED,
                    f"spec.podTemplate or spec.resources gives pods that the API server refuses: {error.message}",
                ) from error
            if error.refused:
                raise refused(error, "a child") from error
            raise
