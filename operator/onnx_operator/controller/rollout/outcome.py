"""What becomes of rollouts: noted on the revision, and heeded in what is applied."""

import logging
from collections.abc import Callable
from dataclasses import replace

from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.controller.cluster.answers import API_FAILURES
from onnx_operator.controller.cluster.answers import failure as failed_call
from onnx_operator.controller.cluster.keys import ModelKey, key_of
from onnx_operator.controller.cluster.kinds import Object
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.observation.observe import Observation
from onnx_operator.controller.revision.revisions import NOTE_FAILED, NOTE_GOOD, Revision, noted
from onnx_operator.controller.rollout.deciding import NOTE_RETRY_SECONDS, Decision
from onnx_operator.controller.rollout.history import History, settings_cause, with_note
from onnx_operator.controller.rollout.revising import Revising
from onnx_operator.controller.rollout.rollback import (
    counts,
    failure,
    failure_of,
    note_of,
    to_go_back_to,
    told,
)
from onnx_operator.controller.settings.settings import Settings

logger = logging.getLogger(__name__)


def eligible(
    model: Object, spec: OnnxModelSpec, settings: Settings, observation: Observation
) -> Callable[[Revision], bool]:
    """Tells which good revisions may run again: such as the settings allow, and as were this very model's.

    One that an earlier model of the name left behind may have been of anything, unless it serves this one.
    """
    metadata = model["metadata"]

    def allowed(revision: Revision) -> bool:
        own = not revision.created or revision.created >= metadata.get("creationTimestamp", "")
        serves = observation.ready_pods(revision.name) > 0
        return (own or serves) and settings_cause(revision, spec, metadata["namespace"], settings) is None

    return allowed


async def with_good(
    revising: Revising, queue: KeyedQueue[ModelKey], model: Object, known: History, observation: Observation
) -> History:
    """The revisions, with the note of the one that has come to the end of its rollout.

    A note that cannot be written yet counts all the same, for this look.
    """
    running = observation.revision if observation.rolled_out else ""
    revision = next((r for r in known.own if r.name == running), None)
    if revision is None or (revision.good and NOTE_FAILED not in revision.notes):
        return known
    try:
        return with_note(known, await revising.rolled_out(model, revision))
    except API_FAILURES as error:
        key = key_of(model)
        logger.warning("a good revision is not noted yet: %s", failed_call(error), extra={"model": "/".join(key)})
        queue.add_after(key, NOTE_RETRY_SECONDS)
        return with_note(known, noted(revision, {NOTE_GOOD: "true", NOTE_FAILED: ""}))


async def heed(
    revising: Revising,
    model: Object,
    spec: OnnxModelSpec,
    inspection: str,
    decision: Decision,
    known: History,
    observation: Observation,
    settings: Settings,
) -> Decision:
    """The decision, with regard to how its revision fared; what is new of that is noted first.

    A crash between the two leaves the note, by which the next look decides the same.

    Raises:
        ApiError, OSError: the API server failed in a way that trying again may cure.
    """
    wanted = decision.current
    if wanted is None or known.held or not wanted.trust.holds:
        return decision
    if wanted.uid:
        wanted = await _noted(revising, model, inspection, decision, wanted, observation)
        decision = replace(decision, current=wanted)
    found = failure_of(wanted)
    off = spec.rollout is not None and spec.rollout.auto_rollback is False
    if found is None or off or not counts(found, inspection, confirmed=decision.confirmed):
        return decision
    instead = to_go_back_to(known, wanted, eligible(model, spec, settings, observation))
    if instead is None:
        return replace(decision, alone=True)
    withheld = decision.withheld or told(found, wanted, instead)
    return replace(decision, current=instead, wanted=wanted, withheld=withheld)


async def _noted(
    revising: Revising, model: Object, inspection: str, decision: Decision, wanted: Revision, observation: Observation
) -> Revision:
    if not decision.confirmed or decision.cause:
        return wanted
    found = failure(observation, wanted, inspection)
    before = failure_of(wanted)
    if found is None or (before and before.inspection == inspection):
        return wanted
    about = {"model": "/".join(key_of(model)), "revision": wanted.name, "reason": found.reason}
    logger.warning("a revision has failed: %s", found.message, extra=about)
    return await revising.failed(model, wanted, note_of(found))
