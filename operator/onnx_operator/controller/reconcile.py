"""Reconciling one model: read what is, decide, make it so, tell. May run twice, late, or after a crash at any line."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnx_operator.api import names
from onnx_operator.api.capabilities import Capabilities
from onnx_operator.api.conditions import ConditionType, Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec, OnnxModelStatus, Runtime
from onnx_operator.api.report import InspectionRequest, InspectionResult, Refusal
from onnx_operator.api.signatures import SignatureSettings
from onnx_operator.api.sources import SourcePin
from onnx_operator.controller.cluster import times
from onnx_operator.controller.cluster.keys import ModelKey
from onnx_operator.controller.cluster.kube import DEPLOYMENT, ONNX_MODEL, ApiError, Kube, Object
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.inspection.inspections import Inspections, Look
from onnx_operator.controller.inspection.pod import pod_request
from onnx_operator.controller.inspection.pods import InspectionPods
from onnx_operator.controller.observation.observe import Cause, Observation, observe
from onnx_operator.controller.revision.credentials import CredentialsNotFoundError, read_credentials
from onnx_operator.controller.revision.fetching import (
    TooManyFilesError,
    needs_pod,
    uses_operator_identity,
    uses_service_account,
)
from onnx_operator.controller.revision.kept_inputs import kept_for, wants_warmth
from onnx_operator.controller.revision.permissions import forbidden
from onnx_operator.controller.revision.pools import NoMatchingPoolError
from onnx_operator.controller.revision.render import PodTemplateRejectedError, TemplateError, uses_gpu
from onnx_operator.controller.revision.revisions import Revision, pod_spec, proves, wish
from onnx_operator.controller.revision.scoring import ScoringRejectedError, read_scoring
from onnx_operator.controller.revision.seal import digest
from onnx_operator.controller.revision.sealkey import SealKeys
from onnx_operator.controller.revision.warm_up import Kept
from onnx_operator.controller.rollout.children import (
    Children,
    ChildrenError,
    apply_children,
    check_names,
    desired_children,
    list_children,
    prune,
    prune_revisions,
    scale,
)
from onnx_operator.controller.rollout.history import History, objection
from onnx_operator.controller.rollout.revising import Revising
from onnx_operator.controller.settings.settings import Settings
from onnx_operator.controller.status.events import changed_conditions, post_events
from onnx_operator.controller.status.facts import FactReader
from onnx_operator.controller.status.status import Situation, compute_status
from onnx_operator.controller.telemetry import metrics
from onnx_operator.inspector import InspectorClient, InspectorUnavailableError

logger = logging.getLogger(__name__)

SCORING_RETRY_SECONDS = 15.0
NOT_SEALED_MESSAGE = (
    "revision {name} carries no seal of this operator's (it was written by another installation or by somebody else, "
    "or the Secret with the key was lost), and this operator would make other pods of the same spec: what runs is left "
    "as it is, apart from replicas; the next change of the spec rolls out a revision of this operator's"
)


@dataclass(frozen=True)
class _Decision:
    """What is to be rolled out, or why nothing new is."""

    current: Revision | None
    refusal: Refusal | None = None
    trouble: Cause | None = None
    confirmed: bool = False
    """Whether ``current`` is known to be what spec and source ask for at this moment."""


def inspection_key(spec: OnnxModelSpec, model: Object, signatures: SignatureSettings | None = None) -> str:
    """Names an inspection: it changes exactly when looking at the source again is due.

    Scaling changes nothing, nor does another version of the operator: what serves goes on serving.
    """
    source = spec.model
    decisive = [
        source.uri,
        source.sha256,
        source.credentials.secret_name if source.credentials else None,
        *([source.test_data] if source.test_data else []),
        (model["metadata"].get("annotations") or {}).get(names.ANNOTATION_REFRESH),
    ]
    if uses_service_account(spec):
        decisive.append(spec.service_account_name)
    if uses_gpu(spec):
        # Its verdict is another: kernels of the CPU do not decide.
        decisive.append(Runtime.GPU)
    if signatures and signatures.required:
        # Whom the platform trusts has changed: what serves goes on serving, and is told to be unsigned.
        decisive.append(signatures.model_dump_json())
    return digest(decisive)


def persisted_result(
    key: str, spec: OnnxModelSpec, status: OnnxModelStatus, revisions: Sequence[Revision]
) -> InspectionResult | None:
    """What an earlier life of the operator concluded for this key: by the status and the operator's own revisions.

    What an accepted model holds is in its revision alone, which is sealed: the status only says which of several it
    was. Without one the model is looked at again. The key is short, and who writes the spec may look for another one of
    the same key: so the source itself is compared as well.
    """
    inspection = status.inspection
    source = _source(pod_spec(spec))
    same = [
        r.data
        for r in reversed(revisions)
        if r.inspection_key == key and r.data.files and _source(r.data.spec) == source
    ]
    if inspection and inspection.key == key:
        verdict = next((c for c in status.conditions if c.type == ConditionType.MODEL_VALID), None)
        # A reason that this version does not know, left by a newer one, is no conclusion.
        if inspection.outcome == "Refused" and verdict and verdict.reason in set(Reason):
            return InspectionResult(
                outcome="Refused",
                source=inspection.source,
                report=status.model,
                interface=status.interface or "",
                refusal=Refusal(reason=Reason(verdict.reason), message=verdict.message),
            )
        if inspection.outcome == "Accepted":
            same = [data for data in same if data.report.source == inspection.source]
    if not same:
        return None
    newest = same[0]
    return InspectionResult(
        outcome="Accepted",
        source=newest.report.source,
        report=newest.report,
        interface=newest.interface,
        files=newest.files,
        test_data=newest.test_data,
    )


def _source(spec: dict[str, Any]) -> dict[str, Any]:
    """What is read, and with which keys: of :func:`pod_spec`."""
    return {name: spec["model"].get(name) for name in ("uri", "credentials", "testData")}


def _kept(
    spec: OnnxModelSpec, result: InspectionResult, scoring: dict[str, str], known: History, serving: str, *, same: bool
) -> Kept | None:
    """What a new revision takes over from those before; what one of the same content has taken over stays.

    Of the same bytes, that is: what those of an earlier revision took over says nothing of others with the same ETag.
    """
    if result.report is None or result.files is None or spec.scoring:
        return None
    if known.held and same:
        return known.held.data.kept
    for revision in reversed(known.own):
        same_wish = revision.serves(spec, result.report, scoring, result.test_data)
        if same_wish and proves(revision.data.files, result.files):
            return revision.data.kept
    return kept_for(result.report, spec.model.uri, [*known.own, *filter(None, [known.held])], serving)


def changed_source(observation: Observation, current: Revision | None) -> SourcePin | None:
    """What pods of the current revision found at the source instead of what was inspected.

    A pod that gave up on a file of another size cannot name what it found: any value but the inspected one will do.
    """
    if current is None:
        return None
    for pod in observation.live_pods():
        cause = pod.cause
        if pod.revision == current.name and cause and cause.reason is Reason.SOURCE_CHANGED:
            return cause.observed or SourcePin(kind="None", value="unknown")
    return None


class Reconciler:
    """Brings models to what they ask for, one call a model."""

    def __init__(
        self,
        kube: Kube,
        settings: Settings,
        capabilities: Capabilities,
        inspector: InspectorClient,
        queue: KeyedQueue[ModelKey],
        identity: str,
        keys: SealKeys,
    ) -> None:
        self._kube = kube
        self._settings = settings
        self._revising = Revising(kube, settings, keys)
        self._capabilities = capabilities
        # Made once: their JSON is kept by the object.
        self._without_kernels = capabilities.without_kernels()
        self._inspector = inspector
        self._queue = queue
        self._identity = identity
        self._inspections = Inspections(queue)
        self._pods = InspectionPods(kube, settings)
        self._facts = FactReader(kube, queue)
        self._tally = metrics.ModelTally()
        self._uids: dict[ModelKey, str] = {}
        self._rejected: dict[str, tuple[str, Refusal]] = {}
        self._left: dict[str, str] = {}

    def known_models(self) -> list[ModelKey]:
        """The models that were looked at and are not known to be gone."""
        return list(self._uids)

    def _forget(self, key: ModelKey) -> None:
        uid = self._uids.pop(key, None)
        if uid:
            self._inspections.forget(uid)
            self._facts.forget(uid)
            self._rejected.pop(uid, None)
            self._left.pop(uid, None)
        self._tally.forget(key)
        self._queue.forget(key)

    async def reconcile(self, key: ModelKey) -> None:
        """Look at one model and do what is due.

        Raises:
            ApiError: the API server failed in a way that trying again may cure.
        """
        model = await self._kube.get(ONNX_MODEL, *key)
        if model is None or "deletionTimestamp" in model["metadata"]:
            # Children go by their owner references.
            self._forget(key)
            return
        uid = model["metadata"]["uid"]
        if self._uids.get(key) not in (None, uid):
            self._forget(key)
        self._uids[key] = uid

        spec = OnnxModelSpec.model_validate(model["spec"])
        status = OnnxModelStatus.model_validate(model.get("status") or {})
        children = await list_children(self._kube, model, self._revising.reader(model))
        observation = observe(children.find(DEPLOYMENT.kind, key[1]), list(children.pods))
        known = await self._revising.read(model, children, observation.revision)
        current = known.current

        inspection = inspection_key(spec, model, self._settings.signatures)
        refusal = forbidden(spec, key[0], self._settings)
        if refusal:
            # Nothing is read, and no pod made, for what may not run; what is under way ends.
            self._inspections.forget(uid)
            look, decision = Look(None, inspecting=False), _Decision(current, refusal)
        else:
            look = self._inspections.look(
                uid,
                key,
                inspection,
                run=lambda: self._inspect(model, spec, inspection),
                persisted=persisted_result(inspection, spec, status, known.own),
                changed=changed_source(observation, current)
                if current and current.data.uri == spec.model.uri
                else None,
            )
            serving = status.serving.revision if status.serving else ""
            decision = await self._decide(model, spec, inspection, look.result, known, children, serving)
        trouble, outdated = decision.trouble, None
        if decision.current and trouble is None:
            try:
                outdated = await self._apply(model, spec, decision, observation, known, children)
            except ChildrenError as error:
                trouble = error.cause
        if trouble:
            self._queue.retry(key)
        else:
            self._queue.succeeded(key)

        others = [r for r in known.own if not decision.current or r.name != decision.current.name]
        situation = Situation(
            name=key[1],
            namespace=key[0],
            generation=model["metadata"]["generation"],
            spec=spec,
            inspection_key=inspection,
            inspecting=look.inspecting,
            source_changed=look.source_changed,
            result=look.result,
            refusal=decision.refusal,
            current=decision.current,
            revisions=tuple([*others, decision.current] if decision.current else others),
            observation=observation,
            trouble=trouble,
            outdated=outdated,
            started=status.started,
        )
        await self._tell(model, situation, status)

    async def _inspect(self, model: Object, spec: OnnxModelSpec, key: str) -> InspectionResult:
        namespace = model["metadata"]["namespace"]
        try:
            credentials = await read_credentials(self._kube, namespace, spec.model)
        except CredentialsNotFoundError as error:
            return InspectionResult(outcome="Refused", refusal=error.refusal)
        except ApiError as error:
            reason = Reason.CREDENTIALS_NOT_FOUND if error.status == 403 else Reason.SOURCE_UNREACHABLE
            message = f"the credentials Secret cannot be read, which is retried: {error.message}"
            return InspectionResult(outcome="Refused", refusal=Refusal(reason=reason, message=message, retriable=True))
        request = InspectionRequest(
            tenant=namespace,
            uri=spec.model.uri,
            sha256=spec.model.sha256 or "",
            credentials=credentials,
            workload_identity=uses_operator_identity(spec, self._settings),
            sources=self._settings.sources,
            signatures=self._settings.signatures,
            test_data=spec.model.test_data or "",
            capabilities=self._without_kernels if uses_gpu(spec) else self._capabilities,
        )
        if needs_pod(spec, self._settings):
            return await self._pods.inspect(model, spec, key, pod_request(spec, request))
        try:
            return await self._inspector.inspect(request)
        except InspectorUnavailableError as error:
            message = f"the operator's inspector cannot be asked, which is retried: {error}"
            return InspectionResult(
                outcome="Refused",
                refusal=Refusal(reason=Reason.SOURCE_UNREACHABLE, message=message, retriable=True),
            )

    async def _decide(
        self,
        model: Object,
        spec: OnnxModelSpec,
        inspection: str,
        result: InspectionResult | None,
        known: History,
        children: Children,
        serving: str,
    ) -> _Decision:
        current = known.current
        if result is None:
            return _Decision(current)
        if result.refusal or result.report is None:
            return _Decision(current, result.refusal)
        if result.files is None:
            raise ValueError("an accepted inspection holds the model's files")
        try:
            scoring = await read_scoring(self._kube, model["metadata"]["namespace"], spec)
        except ScoringRejectedError as error:
            if error.refusal.retriable:
                self._queue.add_after(
                    (model["metadata"]["namespace"], model["metadata"]["name"]), SCORING_RETRY_SECONDS
                )
            return _Decision(current, error.refusal)
        same = bool(
            current
            and current.serves(spec, result.report, scoring, result.test_data)
            and proves(current.data.files, result.files)
        )
        if current and same and not known.held:
            current = await self._revising.inspected(model, current, inspection)
            return _Decision(current, confirmed=True)
        uid = model["metadata"]["uid"]
        asked = inspection + wish(pod_spec(spec), result.report, scoring, result.test_data)
        rejected = self._rejected.get(uid)
        if rejected and rejected[0] == asked:
            return _Decision(current, rejected[1])
        if known.held and same and self._left.get(uid) == asked + known.held.name:
            return _Decision(known.held)
        try:
            data = await self._revising.data(
                model, spec, result, scoring, children, _kept(spec, result, scoring, known, serving, same=same)
            )
            if known.held and same:
                # Once: two installations that both look after a model would seal against each other for ever.
                self._left[uid] = asked + known.held.name
                if not known.held.holds(data):
                    return _Decision(known.held)
                sealed = await self._revising.inspected(model, known.held, inspection)
                return _Decision(sealed, confirmed=True)
            revision = await self._revising.store(model, data, inspection, known)
        except (NoMatchingPoolError, PodTemplateRejectedError, TooManyFilesError) as error:
            self._rejected[uid] = (asked, error.refusal)
            return _Decision(current, error.refusal)
        except ChildrenError as error:
            return _Decision(current, trouble=error.cause)
        except TemplateError as error:
            message = f"the operator's settings are wrong (templatesDirectory): {error}"
            return _Decision(current, trouble=Cause(Reason.CREATION_FAILED, message))
        return _Decision(revision, confirmed=True)

    async def _apply(
        self,
        model: Object,
        spec: OnnxModelSpec,
        decision: _Decision,
        observation: Observation,
        known: History,
        children: Children,
    ) -> Cause | None:
        """Make the children what they should be, or leave them running; the cause why they are left, if told.

        Raises:
            ChildrenError: there is nothing to be left running, or the API server refuses a child.
        """
        current, live = decision.current, observation.deployment
        if current is None:
            return None
        forbids = objection(current, spec, model["metadata"]["namespace"], self._settings)
        # Until spec and source have confirmed it, a revision is not rolled out that does not run already.
        unsure = not decision.confirmed and observation.revision not in ("", current.name)
        if forbids or unsure or not current.trust.holds:
            if live:
                await scale(self._kube, live, spec)
            elif forbids:
                raise ChildrenError(Cause(Reason.CREATION_FAILED, f"revision {current.name} is not run: {forbids}"))
            if forbids:
                return Cause(Reason.SETTINGS_CHANGED, f"revision {current.name} is left as it is: {forbids}")
            if not current.trust.holds:
                return Cause(Reason.NOT_SEALED, NOT_SEALED_MESSAGE.format(name=current.name))
            return None
        desired = desired_children(model, spec, current)
        await check_names(self._kube, model, desired, children)
        await apply_children(self._kube, desired, children)
        await prune(self._kube, desired, children)
        await prune_revisions(self._kube, model["metadata"]["namespace"], known.own, current, children)
        return None

    async def _tell(self, model: Object, situation: Situation, before: OnnxModelStatus) -> None:
        metadata = model["metadata"]
        key = (metadata["namespace"], metadata["name"])
        if situation.current:
            ready = [
                p.name for p in situation.observation.live_pods() if p.ready and p.revision == situation.current.name
            ]
            told = before.started and before.started.revision == situation.current.name
            if not told or wants_warmth(situation.current):
                started = self._facts.look(metadata["uid"], key, situation.current.name, min(ready) if ready else None)
                if warm := self._facts.warm_up(metadata["uid"], situation.current.name):
                    # Before the status, which tells that all facts are kept.
                    await self._revising.started(model, situation.current, warm)
                    self._facts.noted(metadata["uid"])
                # Servers that do not tell of it are asked at each start of the operator: that is no news.
                if (started and started.warmed is not None) or not told:
                    situation = Situation(**{**situation.__dict__, "started": started})
        after = compute_status(situation, before, times.time())
        ready_condition = after.conditions[0]
        self._tally.see(key, ready_condition.status, ready_condition.reason)
        if after == before:
            return
        await post_events(self._kube, model, changed_conditions(before, after), self._identity)
        metrics.API_WRITES.labels(kind=ONNX_MODEL.kind, verb="status").inc()
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "status": after.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        try:
            await self._kube.apply(ONNX_MODEL, manifest, manager=names.FIELD_MANAGER_STATUS, subresource="status")
        except ApiError as error:
            # Deleted, or deleted and made anew, in the meantime: there is nobody to tell.
            if error.status not in (404, 409):
                raise
