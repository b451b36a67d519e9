"""What is to be rolled out: by what spec, inspection, script and namespace say."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import InspectionResult, Refusal
from onnx_operator.controller.cluster.answers import API_FAILURES, failure
from onnx_operator.controller.cluster.keys import ModelKey, key_of
from onnx_operator.controller.cluster.kinds import Object
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.cluster.sight import Sight
from onnx_operator.controller.observation.admission import Demands
from onnx_operator.controller.observation.observe import Cause, Observation
from onnx_operator.controller.revision.kept_inputs import kept_for
from onnx_operator.controller.revision.render import TemplateError, uses_gpu
from onnx_operator.controller.revision.revisions import Revision, pod_spec, proves, wish
from onnx_operator.controller.revision.scoring import read_scoring
from onnx_operator.controller.revision.warm_up import Kept
from onnx_operator.controller.rollout import gate
from onnx_operator.controller.rollout.children import Children, ChildrenError
from onnx_operator.controller.rollout.history import History
from onnx_operator.controller.rollout.holding import held_back, held_cause
from onnx_operator.controller.rollout.revising import Revising
from onnx_operator.model.refusal import RefusedError

logger = logging.getLogger(__name__)

SCORING_RETRY_SECONDS = 15.0
NOTE_RETRY_SECONDS = 60.0


@dataclass(frozen=True)
class Decision:
    """What is to be rolled out, or why nothing new is."""

    current: Revision | None
    refusal: Refusal | None = None
    cause: Cause | None = None
    confirmed: bool = False
    """Whether ``current`` is known to be what spec and source ask for at this moment."""
    wanted: Revision | None = None
    """What spec and source ask for, where ``current`` runs instead of it."""
    withheld: Cause | None = None
    """Why that does."""
    alone: bool = False
    """Whether ``current`` failed by its own fault, and there is none to go back to."""


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
    own = [*known.own, *filter(None, [known.held])]
    return kept_for(result.report, spec.model.uri, own, serving, gpu=uses_gpu(spec))


class Deciding:
    """Finds the revision that a model asks for, and makes it where there is none."""

    def __init__(self, sight: Sight, revising: Revising, queue: KeyedQueue[ModelKey]) -> None:
        self._sight = sight
        self._revising = revising
        self._queue = queue
        self._refused: dict[str, tuple[str, Refusal]] = {}
        self._left: dict[str, str] = {}
        self._fitting: dict[str, tuple[str, Demands]] = {}

    def forget(self, uid: str) -> None:
        """The model is gone."""
        self._refused.pop(uid, None)
        self._left.pop(uid, None)
        self._fitting.pop(uid, None)

    async def decide(
        self,
        model: Object,
        spec: OnnxModelSpec,
        inspection: str,
        result: InspectionResult | None,
        known: History,
        children: Children,
        serving: str,
        observation: Observation,
        confirm: Callable[[], Awaitable[None]],
        *,
        hold: bool = False,
    ) -> Decision:
        """What is to be rolled out, by an inspection's result; None while there is none.

        Args:
            model: the OnnxModel.
            spec: its spec.
            inspection: the key of the inspection.
            result: what the inspection concluded.
            known: the model's revisions.
            children: what exists of it.
            serving: the name of the revision that takes traffic, as the status tells.
            observation: what its pods tell.
            confirm: sees that there is still a model to make a revision for.
            hold: whether other bytes than were agreed to wait for consent.

        Raises:
            ApiError, OSError: the API server failed in a way that trying again may cure.
        """
        current = known.current
        if result is None:
            return Decision(current)
        if result.refusal or result.report is None:
            return Decision(current, result.refusal)
        if result.files is None:
            raise ValueError("an accepted inspection holds the model's files")
        if known.newest and hold and held_back(known.newest, inspection, result):
            return Decision(current, withheld=held_cause(known.newest, result))
        try:
            scoring = await read_scoring(self._sight, model["metadata"]["namespace"], spec)
        except RefusedError as error:
            self._queue.add_after(key_of(model), SCORING_RETRY_SECONDS)
            return Decision(current, error.refusal)
        same = bool(
            current
            and current.serves(spec, result.report, scoring, result.test_data)
            and proves(current.data.files, result.files)
        )
        running = observation.revision
        if known.held is None and not (current and same and current.name == running):
            # Also of one that is stored already: it may have been let through, and is not any more.
            metadata = model["metadata"]
            relied_on = gate.base(known, running, metadata.get("creationTimestamp", ""))
            held = gate.held(metadata["name"], metadata["namespace"], spec, relied_on, result.report, result.interface)
            if held:
                applied = next((r for r in known.own if r.name == running), None)
                return Decision(applied or relied_on, withheld=held)
        if current and same and not known.held:
            current = await self._noted(model, current, inspection, result.report.signer)
            fitted = await self._fitted(
                model, spec, inspection, result, scoring, known, children, observation, current, confirm
            )
            return Decision(fitted or current, confirmed=True)
        uid = model["metadata"]["uid"]
        asked = inspection + wish(pod_spec(spec), result.report, scoring, result.test_data)
        refused = self._refused.get(uid)
        if refused and refused[0] == asked:
            return Decision(current, refused[1])
        if known.held and same and self._left.get(uid) == asked + known.held.name:
            return Decision(known.held)
        try:
            data = await self._revising.data(
                model,
                spec,
                result,
                scoring,
                children,
                _kept(spec, result, scoring, known, serving, same=same),
                current.data.demands if current else None,
            )
            if known.held and same:
                # Once: two installations that both look after a model would seal against each other for ever.
                self._left[uid] = asked + known.held.name
                if not known.held.holds(data):
                    return Decision(known.held)
                sealed = await self._revising.inspected(model, known.held, inspection, result.report.signer)
                return Decision(sealed, confirmed=True)
            revision = await self._revising.store(model, data, inspection, known, confirm)
        except RefusedError as error:
            self._refused[uid] = (asked, error.refusal)
            return Decision(current, error.refusal)
        except ChildrenError as error:
            return Decision(current, cause=error.cause)
        except TemplateError as error:
            message = f"the operator's settings are wrong (templatesDirectory): {error}"
            return Decision(current, cause=Cause(Reason.CREATION_FAILED, message))
        return Decision(revision, confirmed=True)

    async def _noted(self, model: Object, current: Revision, inspection: str, signer: str) -> Revision:
        """The current revision, with the inspection in its notes as soon as they can be written.

        A note spares reading the source again after a restart; what serves is right without it.
        """
        try:
            return await self._revising.inspected(model, current, inspection, signer)
        except API_FAILURES as error:
            key = key_of(model)
            logger.warning("an inspection is not noted yet: %s", failure(error), extra={"model": "/".join(key)})
            self._queue.add_after(key, NOTE_RETRY_SECONDS)
            return current

    async def _fitted(
        self,
        model: Object,
        spec: OnnxModelSpec,
        inspection: str,
        result: InspectionResult,
        scoring: dict[str, str],
        known: History,
        children: Children,
        observation: Observation,
        current: Revision,
        confirm: Callable[[], Awaitable[None]],
    ) -> Revision | None:
        """A revision like the current one, of pods that the namespace takes; None where there is nothing to change.

        What it demands is known from the refusal of a pod of the current revision, and kept in the revision: it is
        learned once, and what other revisions' pods were refused for changes nothing that this one heeds already.
        """
        heeded = current.data.demands or Demands()
        wanted = heeded.and_also(observation.demands)
        uid = model["metadata"]["uid"]
        if observation.revision != current.name or wanted == heeded or self._fitting.get(uid) == (current.name, wanted):
            return None
        about = {"model": "/".join(key_of(model)), "demands": wanted.text()}
        try:
            data = await self._revising.data(model, spec, result, scoring, children, current.data.kept, wanted)
            if data.manifests == current.data.manifests:
                # Asked once: it takes a dry run to know. What fails in another way may work the next time.
                self._fitting[uid] = (current.name, wanted)
                return None
            revision = await self._revising.store(model, data, inspection, known, confirm)
        except (RefusedError, ChildrenError, TemplateError) as error:
            # What runs goes on; its status tells what the namespace refuses. It is tried again, ever later.
            logger.warning("pods cannot be made to fit the namespace: %s", error, extra=about)
            return None
        logger.info("pods are made to fit the namespace", extra=about)
        return revision
