"""Going back to an earlier revision: the patch of the spec that asks for it again, and what it cannot bring back. Pure.

The spec is all that is changed: the operator inspects and rolls out as for any change, so that git can hold the same.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click
from pydantic import ValidationError

from onnx_operator.api import names
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.cli.history import Entry, paused, serving_name, wanted
from onnx_operator.cli.mergepatch import Document, applied, difference
from onnx_operator.common.text import visible
from onnx_operator.controller.cluster.kinds import Object
from onnx_operator.controller.observation.pods import mapping, text
from onnx_operator.controller.revision.revisions import (
    OTHER_FIELDS,
    POD_FIELDS,
    Revision,
    holds_unknown,
    pod_spec,
)
from onnx_operator.controller.revision.seal import fingerprint

MAX_LISTED = 20
_DIGEST = re.compile("[0-9a-f]{64}")


class RollbackError(click.ClickException):
    """There is no going back to it; the message says why."""

    exit_code = 1


@dataclass(frozen=True)
class Plan:
    """How a model goes back."""

    target: Entry
    patch: Document
    """A merge patch of the OnnxModel (RFC 7386); empty where the spec asks for that revision already."""
    notes: tuple[str, ...] = ()
    """What the patch does besides, and what it cannot do."""
    moved: bool = False
    """Whether the spec's words lead to something else than they did then."""


def choose(known: Sequence[Entry], to: str, spec: Object) -> Entry:
    """The revision to go back to: the one that is named by number or name, or else the newest that is known as good.

    Raises:
        RollbackError: there is no such revision, or none to go back to.
    """
    if to:
        return _named(known, to)
    newest = wanted(known)
    usable = [e for e in known if e.sealed and e.revision and not e.revision.inputs and not e.failure]
    if newest and newest in usable and newest.revision and not _asks_for(spec, newest.revision):
        # A change that was refused, or not looked at yet, has made no revision: this is what it was changed from.
        return newest
    candidates = [e for e in reversed(usable) if e is not newest]
    best = next((e for e in candidates if e.good), None) or next(iter(candidates), None)
    if best is None:
        raise RollbackError(f"there is no revision to go back to; the model has {_listed(known)}")
    return best


def _named(known: Sequence[Entry], to: str) -> Entry:
    found = [e for e in known if to == str(e.number)] or [e for e in known if to == e.name]
    if len(found) > 1:
        # Anybody can number an object of his own as he likes.
        found = [e for e in found if e.sealed] or found
    if not found:
        raise RollbackError(f"the model has no revision {to!r:.300}; it has {_listed(known)}")
    if len(found) > 1:
        raise RollbackError(f"several revisions have the number {to}: name one of {_listed(found)}")
    return found[0]


def plan(model: Object, known: Sequence[Entry], target: Entry) -> Plan:
    """How the model's spec comes to ask for a revision again.

    Raises:
        RollbackError: it cannot.
    """
    revision = _usable(target)
    spec = mapping(model.get("spec"))
    then = pod_spec(OnnxModelSpec.model_validate(revision.data.spec))
    pin, pin_note = _pin(spec, revision, wanted(known))
    patch = _patch(spec, then, pin)
    _prove(spec, patch, then)
    moved = tuple(_moved(known, target, revision))
    notes = [*pin_note, *moved, *_remarks(model, target, revision)]
    return Plan(target, {"spec": patch} if patch else {}, tuple(notes), bool(moved))


def _usable(target: Entry) -> Revision:
    if not target.sealed:
        raise RollbackError(
            f"{target.shown} carries no seal: the operator did not make it, or has not sealed it yet. Expected one "
            f"that carries the annotation {names.ANNOTATION_SEAL}"
        )
    if target.revision is None:
        raise RollbackError(
            f"{target.shown} cannot be read: another version of the operator made it. Use the kubectl-onnx of that "
            "version"
        )
    if target.revision.inputs:
        raise RollbackError(
            f"{target.shown} is of the first alpha, which kept no spec in its revisions; write the spec by hand"
        )
    return target.revision


def _fields(spec: Object) -> Iterable[tuple[str, str, bool, Any]]:
    """Each field that makes revisions: its group, its name, whether the spec has it, and its value."""
    for path in POD_FIELDS:
        group, _, name = path.rpartition(".")
        holder = mapping(spec.get(group)) if group else spec
        yield group, name, name in holder, holder.get(name)


def _patch(spec: Object, then: Object, pin: Document) -> Document:
    known = _as_read(spec)
    # Of a spec with a value that this version does not know, what is written is compared.
    asked = pod_spec(known) if known else spec
    read = known.model_dump(mode="json", by_alias=True, exclude_unset=True) if known else {}
    patch: Document = {}
    rows = zip(*(list(_fields(each)) for each in (spec, asked, read, then)), strict=True)
    for (group, name, there, value), (*_, asks, ask), (*_, seen), (*_, holds, held) in rows:
        # Another spelling of the same stays as its owner wrote it.
        same = asks == holds and fingerprint(ask) == fingerprint(held)
        if same and (known is None or not there or not holds_unknown(value, seen)):
            continue
        if there or holds:
            change = difference({name: value} if there else {}, {name: held} if holds else {})
            (patch.setdefault(group, {}) if group else patch).update(change)
    if pin:
        patch.setdefault("model", {}).update(pin)
    return {name: value for name, value in patch.items() if name != "model" or value}


def _as_read(spec: Object) -> OnnxModelSpec | None:
    """The spec; None where this version does not know a value of it."""
    try:
        return OnnxModelSpec.model_validate(spec)
    except ValidationError:
        return None


def _asks_for(spec: Object, revision: Revision) -> bool:
    now = _as_read(spec)
    then = OnnxModelSpec.model_validate(revision.data.spec)
    return now is not None and fingerprint(pod_spec(now)) == fingerprint(pod_spec(then))


def _prove(spec: Object, patch: Document, then: Object) -> None:
    """See that the patched spec asks for what the revision was made of.

    Raises:
        RollbackError: no merge patch does it, or this version cannot read the rest of the spec.
    """
    after = applied(spec, patch)
    try:
        asked = pod_spec(OnnxModelSpec.model_validate(after))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise RollbackError(
            visible(f"spec.{'.'.join(map(str, first['loc']))} is not known to this version ({first['msg']})"[:500])
            + ": use the kubectl-onnx of the operator's version"
        ) from None
    if fingerprint(asked) != fingerprint(then):
        differing = ", ".join(
            f"spec.{path}"
            for path, (*_, left), (*_, right) in zip(POD_FIELDS, _fields(asked), _fields(then), strict=True)
            if fingerprint(left) != fingerprint(right)
        )
        raise RollbackError(
            f"{differing or 'the spec'}: no merge patch can write what the revision has there, which holds a null; "
            "write it by hand"
        )


def _pin(spec: Object, revision: Revision, newest: Entry | None) -> tuple[Document, list[str]]:
    """What becomes of ``spec.model.sha256``, and why: the digest of another file would have this one refused."""
    pinned = mapping(spec.get("model")).get("sha256")
    digest = revision.data.report.digest.removeprefix("sha256:")
    digest = digest if _DIGEST.fullmatch(digest) else ""
    if pinned is None or pinned == digest:
        return {}, []
    if digest:
        return {"sha256": digest}, [
            f"spec.model.sha256 becomes {digest[:12]}…, the digest of the revision's file: the present one is another "
            "file's."
        ]
    if newest and newest.revision and newest.revision.data.uri == revision.data.uri:
        report = newest.revision.data.report
        if report.source == revision.data.report.source and report.digest == f"sha256:{pinned}":
            return {}, []
    return {"sha256": None}, [
        "spec.model.sha256 is taken away: it is another file's digest, and that of the revision's file is not known."
    ]


def _moved(known: Sequence[Entry], target: Entry, revision: Revision) -> Iterable[str]:
    """What lies elsewhere than in the spec, and was something else when a later revision was made."""
    then = revision.data
    model, scoring = mapping(then.spec.get("model")), mapping(then.spec.get("scoring"))
    later = [e for e in known if e.sealed and e.revision and not e.revision.inputs and e.number > target.number]
    reads = [(e, e.revision.data) for e in reversed(later) if e.revision is not None]
    for entry, data in reads:
        if data.uri == then.uri and data.report.source != then.report.source:
            yield (
                f"spec.model.uri leads to other bytes than then: {entry.shown} was made of the same address, pinned "
                f"by {_short(data.report.source.value)} instead of {_short(then.report.source.value)}. No spec brings "
                "them back: put the earlier file there, or give it an address of its own."
            )
            break
    for entry, data in reads:
        same = model.get("testData") and mapping(data.spec.get("model")).get("testData") == model["testData"]
        if same and [f.pin for f in data.test_data] != [f.pin for f in then.test_data]:
            yield f"spec.model.testData leads to other files than then, by {entry.shown}."
            break
    for entry, data in reads:
        name = scoring.get("configMapName")
        if name and mapping(data.spec.get("scoring")).get("configMapName") == name and data.scoring != then.scoring:
            yield (
                f"spec.scoring.configMapName: the ConfigMap {name} held another script when {entry.shown} was made. No "
                "spec brings it back: put the earlier script there."
            )
            break


def _remarks(model: Object, target: Entry, revision: Revision) -> Iterable[str]:
    if target.failure:
        reason, message = target.failure.reason, target.failure.message
        yield f"{target.shown} could not serve when it was tried: {': '.join(filter(None, (reason, message)))}"
    serving = mapping(mapping(model.get("status")).get("serving"))
    interface = text(serving.get("interface"), 64)
    if interface and interface != revision.data.interface and serving_name(model) != target.name:
        yield (
            f"Its inputs and outputs are others than those that serve ({revision.data.interface[:64]} instead of "
            f"{interface}): callers may break."
        )
    if paused(model):
        yield f"The model is paused (annotation {names.ANNOTATION_PAUSED}): nothing happens until it is taken away."
    unknown = [name[:64] for name in mapping(model.get("spec")) if name not in _KNOWN]
    unknown += [f"model.{name[:64]}" for name in mapping(mapping(model.get("spec")).get("model")) if name not in _MODEL]
    if unknown:
        listed = ", ".join(f"spec.{name}" for name in unknown[:MAX_LISTED])
        yield f"Not known to this version, and left as they are: {listed}."


_KNOWN = frozenset({path.partition(".")[0] for path in (*POD_FIELDS, *OTHER_FIELDS)})
_MODEL = frozenset({path.removeprefix("model.") for path in (*POD_FIELDS, *OTHER_FIELDS) if path.startswith("model.")})


def _short(value: str) -> str:
    return value if len(value) <= 80 else f"{value[:79]}…"


def _listed(known: Sequence[Entry]) -> str:
    if not known:
        return "none"
    shown = [f"{e.number} ({e.name})" for e in known[-MAX_LISTED:]]
    more = f" and {len(known) - MAX_LISTED} older ones" if len(known) > MAX_LISTED else ""
    return ", ".join(shown) + more
