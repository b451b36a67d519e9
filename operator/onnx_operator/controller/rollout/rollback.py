"""Going back by itself: what a rollout failed of, and which revision runs instead. Pure.

Only what the model did counts, and only where it would do so again: what the cluster, the store or callers did says
nothing of a version. The failure is a note on the revision, sealed as all notes are, and written before anything else
is applied: whatever becomes of the status, of the Deployment or of the operator, the same version is not tried again.
"""

from collections.abc import Callable

from pydantic import Field

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.reasons import REASONS, precedence
from onnx_operator.api.report import shorten
from onnx_operator.api.sources import ApiModel
from onnx_operator.controller.observation.observe import Cause, Observation
from onnx_operator.controller.revision.revisions import NOTE_FAILED, Revision
from onnx_operator.controller.rollout.history import History

FAULTS = frozenset(
    {
        Reason.LOAD_FAILED,
        Reason.TEST_FAILED,
        Reason.INTERFACE_CHANGED,
        Reason.NO_INPUT_FOUND,
        Reason.OUT_OF_MEMORY,
        Reason.CRASH_LOOP,
    }
)
"""What takes a version back. A GPU that a pod did not find may be its node's fault; a digest that differs, the store's.
"""
NEVER_READY = FAULTS | {Reason.LOADING, Reason.RESTARTING}
"""What counts as the model's own once the rollout's deadline has passed."""
MAX_MESSAGE = 512
"""Bytes of what pods said that are kept."""
MAX_TOLD = 300
"""Bytes of it that the status repeats."""
MAX_PODS = 3
MAX_NOTE = 4096


class Failure(ApiModel):
    """Why a version was given up, as its revision keeps it."""

    reason: str = Field(max_length=64)
    message: str = Field(default="", description="what its pods said last", max_length=MAX_MESSAGE)
    pods: list[str] = Field(default_factory=list, max_length=MAX_PODS)
    inspection: str = Field(default="", description="key of the inspection that had accepted it", max_length=128)


def _own_fault(cause: Cause | None, reasons: frozenset[Reason]) -> bool:
    if cause is None or cause.callers:
        return False
    return cause.reason in reasons and cause.container == names.CONTAINER_SERVER


def failure(observation: Observation, revision: Revision, inspection: str) -> Failure | None:
    """What the rollout of a revision failed of, by its own fault; None while it has not.

    Args:
        observation: of the model's Deployment and pods.
        revision: the one that is wanted.
        inspection: the key of the inspection that accepted it.
    """
    if revision.good or observation.revision != revision.name or observation.rolled_out:
        return None
    pods = [p for p in observation.live_pods() if p.revision == revision.name and not p.ready]
    found = [(p.name, p.cause) for p in pods if p.cause and p.cause.sure and _own_fault(p.cause, FAULTS)]
    if found:
        _, gravest = min(found, key=lambda each: (precedence(each[1].reason), each[1].message))
        names_ = sorted(name for name, cause in found if cause.reason is gravest.reason)
        return _failure(gravest.reason, gravest.message, names_, inspection)
    causes = [(p.name, p.cause) for p in pods if p.cause]
    if not observation.deadline_exceeded or observation.creation or not causes:
        return None
    # Where a single pod waits for the cluster, time says nothing of the model.
    if not all(_own_fault(cause, NEVER_READY) for _, cause in causes):
        return None
    _, gravest = min(causes, key=lambda each: (precedence(each[1].reason), each[1].message))
    message = f"it was not ready within the deadline, because of {gravest.reason}: {gravest.message}"
    return _failure(Reason.DEADLINE_EXCEEDED, message, sorted(name for name, _ in causes), inspection)


def _failure(reason: Reason, message: str, pods: list[str], inspection: str) -> Failure:
    return Failure(reason=reason, message=shorten(message, MAX_MESSAGE), pods=pods[:MAX_PODS], inspection=inspection)


def note_of(found: Failure) -> str:
    """The failure as a revision's note."""
    return found.model_dump_json(by_alias=True)


def failure_of(revision: Revision) -> Failure | None:
    """What a revision is known to have failed of; None where it is not known to have."""
    note = revision.notes.get(NOTE_FAILED)
    if not note or revision.good:
        return None
    try:
        return Failure.model_validate_json(note[:MAX_NOTE])
    except ValueError:
        # A newer version's words: that it failed is known all the same.
        return Failure(reason=Reason.DEADLINE_EXCEEDED, message="another version of the operator noted why")


def counts(found: Failure, inspection: str, *, confirmed: bool) -> bool:
    """Whether a failure of earlier still keeps a version from being tried.

    Looking at the source anew, which the annotation ``refresh`` asks for, gives the same version another try. While
    nobody has confirmed that it is wanted at all, it is not tried.
    """
    return not confirmed or found.inspection == inspection


def to_go_back_to(known: History, wanted: Revision, allowed: Callable[[Revision], bool]) -> Revision | None:
    """The newest of the good revisions but the wanted one; ``allowed`` says which may run. None where there is none."""
    return next((r for r in reversed(known.good) if r.name != wanted.name and allowed(r)), None)


def told(found: Failure, wanted: Revision, instead: Revision) -> Cause:
    """What the status says of a version that was taken back."""
    return Cause(
        Reason.ROLLED_BACK,
        f"revision {wanted.name} was taken back, {_words(found)}; revision {instead.name}, the last good one, runs "
        "instead. It is not tried again until the spec or the source changes, or the annotation "
        f"{names.ANNOTATION_REFRESH}",
    )


def _words(found: Failure) -> str:
    reason = found.reason if found.reason in set(REASONS) else "for another reason"
    return f"{reason}: {shorten(found.message, MAX_TOLD)}"


NONE_TO_GO_BACK_TO = "there is no earlier revision that served, and so none to go back to"
