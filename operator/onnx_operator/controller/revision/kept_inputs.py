"""What a revision takes over from those before it, so that an update is no less sure to answer than they were. Pure."""

from collections.abc import Sequence

from pydantic import ValidationError

from onnx_operator.api.contract import WarmUpFacts
from onnx_operator.api.report import ModelReport
from onnx_operator.controller.revision.revisions import NOTE_WARMED, Revision, RevisionData
from onnx_operator.controller.revision.warm_up import MAX_REQUEST_SECONDS, Kept, Warmed
from onnx_operator.model.comparison import compare

MAX_NOTE_LENGTH = 5 * 1024


def note_of(facts: WarmUpFacts) -> str:
    """The text of the note that keeps what a pod told; anybody's container may tell anything."""
    seconds = facts.request_cpu_seconds
    known = Warmed(warmed=facts.warmed, request_cpu_seconds=seconds if _believed(seconds) else None)
    text = known.model_copy(update={"inputs": facts.inputs}).model_dump_json(by_alias=True, exclude_none=True)
    return text if len(text) <= MAX_NOTE_LENGTH else known.model_dump_json(by_alias=True, exclude_none=True)


def _believed(seconds: float | None) -> bool:
    return seconds is not None and 0 <= seconds <= MAX_REQUEST_SECONDS


def warmed(revision: Revision) -> Warmed | None:
    """How a revision started; None where none of its pods has told."""
    try:
        return Warmed.model_validate_json(revision.notes.get(NOTE_WARMED, ""))
    except ValidationError:
        return None


def wants_warmth(revision: Revision) -> bool:
    """Whether it is not known yet how a revision started; one that an older version made may run for long."""
    return revision.trust.holds and NOTE_WARMED not in revision.notes and not revision.data.spec.get("scoring")


def kept_for(
    report: ModelReport, uri: str, own: Sequence[Revision], serving: str = "", *, gpu: bool = False
) -> Kept | None:
    """What a new revision of a model takes over; None for a first version.

    The inputs are those of the newest revision that was warmed up and whose callers could call the new one as well.
    A revision of the bytes that serve already is no update of the model.

    Args:
        report: of the model that the new revision is to serve.
        uri: where that model lies.
        own: the operator's own revisions, in ascending order, and the one that runs without a seal.
        serving: the name of the one that takes traffic, which so is no less than a first version, even where no pod of
            it has told yet how it was warmed up, or where they were of a version that did not tell.
        gpu: whether the new revision is to run on a GPU: what one takes of the CPU says nothing of the other.
    """
    unknown = {serving: Warmed(warmed=False)}
    started = [(revision, found) for revision in own if (found := warmed(revision) or unknown.get(revision.name))]
    if not started:
        return None
    newest = next(((r, f) for r, f in reversed(started) if f.inputs), None)
    inputs = newest[1].inputs if newest and not _breaks(newest[0].data.report, report) else None
    others = any(not _same_model(revision.data, report, uri) for revision, _ in started)
    measured = (f.request_cpu_seconds for r, f in reversed(started) if _same_work(r.data, report, gpu=gpu))
    kept = Kept(
        inputs=inputs,
        required=others or any(found.warmed for _, found in started),
        request_cpu_seconds=next((seconds for seconds in measured if seconds is not None), None),
    )
    return kept if kept != Kept() else None


def _same_model(data: RevisionData, report: ModelReport, uri: str) -> bool:
    """Whether a revision has these bytes; a store's ETag says so only of one address, and where no digest is known."""
    if data.report.digest and report.digest:
        return data.report.digest == report.digest
    return data.uri == uri and data.report.source == report.source


def _same_work(data: RevisionData, new: ModelReport, *, gpu: bool) -> bool:
    """Whether a run of one takes what a run of the other does: a network trained anew has the same operations."""
    old = data.report
    same = (old.flops, old.operators, old.parameters) == (new.flops, new.operators, new.parameters)
    return same and data.gpu == gpu


def _breaks(old: ModelReport, new: ModelReport) -> bool:
    return any(change.breaking for change in compare(old, new))
