"""A model's revisions, as its objects tell them. Pure.

All of it may be written by whoever may write such objects: only the operator has the key to see whose a revision is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import Field, ValidationError

from onnx_operator.api import names
from onnx_operator.api.sources import ApiModel
from onnx_operator.cli.lookup import Found
from onnx_operator.controller.cluster.kinds import Object
from onnx_operator.controller.cluster.naming import is_object_name
from onnx_operator.controller.observation.observe import observe
from onnx_operator.controller.observation.pods import mapping, mappings, number, text
from onnx_operator.controller.revision.revisions import MAX_REVISION, Revision, claimed
from onnx_operator.controller.status.hands_off import is_paused

GOOD, FAILED = f"{names.NOTE_PREFIX}good", f"{names.NOTE_PREFIX}failed"
MAX_NOTE = 1 << 16
MAX_CONDITIONS = 32
MAX_WORD, MAX_MESSAGE, MAX_URI = 128, 2048, 2048


class State(StrEnum):
    """What a revision is; it may be several of these."""

    WANTED = "wanted"
    SERVING = "serving"
    GOOD = "good"
    FAILED = "failed"
    UNREADABLE = "unreadable"
    UNSEALED = "unsealed"


class Failure(ApiModel):
    """Why pods of a revision could not serve."""

    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Entry:
    """A revision as its object tells it."""

    name: str
    number: int
    created: str = ""
    sealed: bool = True
    """Whether it carries a seal at all: without one the operator never applies it."""
    good: bool = False
    """Whether it was rolled out to its end once."""
    failure: Failure | None = None
    revision: Revision | None = None
    """What it holds; None where this version cannot read it."""

    @property
    def shown(self) -> str:
        """For people."""
        return f"revision {self.number} ({self.name})"


class Row(ApiModel):
    """A revision, for those who ask for the history."""

    number: int
    name: str
    uri: str = ""
    version: str = ""
    digest: str = ""
    interface: str = ""
    created: str = ""
    states: list[State] = Field(default_factory=list)
    failure: Failure | None = None
    ready_pods: int | None = None
    pods: int | None = None
    share: float | None = Field(default=None, description="of the model's ready pods, 0 to 1")


class History(ApiModel):
    """A model's revisions, and what else is to be known."""

    name: str
    namespace: str
    ready: str = Field(default="", description="the status of the condition Ready")
    reason: str = ""
    message: str = ""
    revisions: list[Row] = Field(description="the newest first")
    notes: list[str] = Field(default_factory=list)


def entries(items: Iterable[Object]) -> tuple[Entry, ...]:
    """Those of the objects that are numbered as revisions are, in ascending order."""
    found = [entry for item in items if (entry := _entry(item))]
    return tuple(sorted(found, key=lambda e: (e.number, e.name)))


def wanted(found: Sequence[Entry]) -> Entry | None:
    """The newest revision; what carries no seal is none of the operator's."""
    return next((e for e in reversed(found) if e.sealed), None)


def serving_name(model: Object) -> str:
    """The revision that takes traffic, by the model's status."""
    return text(mapping(mapping(model.get("status")).get("serving")).get("revision"), 253)


def told(found: Found) -> History:
    """The history of a model."""
    model, metadata = found.model, found.model["metadata"]
    known = entries(found.revisions)
    newest, serving = wanted(known), serving_name(model)
    states = None if found.pods is None else observe(None, list(found.pods)).live_pods()
    ready = None if states is None else sum(pod.ready for pod in states)
    rows = []
    for entry in reversed(known):
        row = _row(entry, entry is newest, entry.name == serving)
        if states is not None:
            mine = [pod for pod in states if pod.revision == entry.name]
            row.pods, row.ready_pods = len(mine), sum(pod.ready for pod in mine)
            row.share = row.ready_pods / ready if ready else 0.0
        rows.append(row)
    status = mapping(model.get("status"))
    summary: Object = next(
        (c for c in mappings(status.get("conditions"), MAX_CONDITIONS) if c.get("type") == "Ready"), {}
    )
    return History(
        name=metadata["name"],
        namespace=metadata["namespace"],
        ready=text(summary.get("status"), MAX_WORD),
        reason=text(summary.get("reason"), MAX_WORD),
        message=text(summary.get("message"), MAX_MESSAGE),
        revisions=rows,
        notes=[*found.notes, *_notes(model, known)],
    )


def _notes(model: Object, known: Sequence[Entry]) -> Iterable[str]:
    if not known:
        yield "The operator has made no revision of it yet."
    if number(mapping(model.get("status")).get("observedGeneration")) < number(model["metadata"].get("generation")):
        yield "The operator has not looked at the latest change of the spec yet."
    if paused(model):
        yield f"The model is paused (annotation {names.ANNOTATION_PAUSED}): nothing of it is changed."
    if any(e.sealed and e.revision is None for e in known):
        yield "What is unreadable was made by another version of the operator; use the kubectl-onnx of that version."
    if any(not e.sealed for e in known):
        yield "What is unsealed carries no seal of the operator's, which applies no such revision."


def paused(model: Object) -> bool:
    """Whether the model's owner wants nothing of it changed."""
    return is_paused({"metadata": {"annotations": mapping(model["metadata"].get("annotations"))}})


def _row(entry: Entry, is_wanted: bool, is_serving: bool) -> Row:
    claims = {
        State.WANTED: is_wanted,
        State.SERVING: is_serving,
        State.GOOD: entry.good,
        State.FAILED: entry.failure is not None,
        State.UNREADABLE: entry.revision is None,
        State.UNSEALED: not entry.sealed,
    }
    row = Row(
        number=entry.number,
        name=entry.name,
        created=entry.created,
        states=[state for state, holds in claims.items() if holds],
        failure=entry.failure,
    )
    if entry.revision is not None:
        report = entry.revision.data.report
        row.uri = text(entry.revision.data.uri, MAX_URI)
        row.version, row.digest = text(report.version, MAX_WORD), text(report.digest, MAX_WORD)
        row.interface = text(entry.revision.data.interface, MAX_WORD)
    return row


def _entry(item: Object) -> Entry | None:
    metadata, count = mapping(item.get("metadata")), item.get("revision", 0)
    name = metadata.get("name")
    if not is_object_name(name) or type(count) is not int or not 0 <= count < MAX_REVISION:
        return None
    written = mapping(metadata.get("annotations"))
    annotations = {k: v for k, v in written.items() if isinstance(k, str) and isinstance(v, str)}
    note = annotations.get(FAILED, "")
    return Entry(
        name=str(name),
        number=count,
        created=text(metadata.get("creationTimestamp"), 32),
        sealed=bool(annotations.get(names.ANNOTATION_SEAL)),
        good=annotations.get(GOOD, "") not in ("", "false"),
        failure=_failure(note) if note else None,
        revision=_read({**item, "metadata": {**metadata, "annotations": annotations}}),
    )


def _read(item: dict[str, Any]) -> Revision | None:
    try:
        found = claimed(item)
        # What is read late may fail late.
        return found if found and found.data else None
    except (ValueError, RecursionError):
        return None


def _failure(note: str) -> Failure:
    try:
        found = Failure.model_validate_json(note[:MAX_NOTE])
    except ValidationError:
        return Failure(message="its note is none that this version can read")
    return Failure(reason=text(found.reason, MAX_WORD), message=text(found.message, MAX_MESSAGE))
