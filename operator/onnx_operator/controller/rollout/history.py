"""A model's revisions: which are the operator's own, which one is left running as it is. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, Object
from onnx_operator.controller.observation.observe import Cause
from onnx_operator.controller.revision.merge import contains
from onnx_operator.controller.revision.permissions import forbidden
from onnx_operator.controller.revision.revisions import Revision, Unread, with_revision_label
from onnx_operator.controller.revision.seal import Trust
from onnx_operator.controller.settings.settings import Settings

_MAX_HONEST_NUMBER = 2**31


@dataclass(frozen=True)
class History:
    """The revisions of a model, in ascending order."""

    own: tuple[Revision, ...] = ()
    """Those whose seal holds."""
    held: Revision | None = None
    """The revision that the Deployment holds, where its seal does not hold: never applied, and left running."""
    unread: tuple[Unread, ...] = ()
    """Those of the operator's own that this version cannot read, in ascending order."""

    @property
    def newest(self) -> Revision | None:
        """The newest of the operator's own."""
        return self.own[-1] if self.own else None

    @property
    def good(self) -> tuple[Revision, ...]:
        """Those that were rolled out to their end once, in ascending order."""
        return tuple(r for r in self.own if r.good)

    @property
    def newer(self) -> Unread | None:
        """The newest revision, where it is a newer version's that this one cannot read: nothing older is applied."""
        last = self.unread[-1] if self.unread else None
        return last if last and last.number > (self.own[-1].number if self.own else -1) else None

    @property
    def next_number(self) -> int:
        """The number of the next revision."""
        return (self.own[-1].number if self.own else 0) + 1

    @property
    def current(self) -> Revision | None:
        """What the status speaks of: the revision that is left running, else the newest."""
        return self.held or self.newest


def history(revisions: list[Revision], running: str, unread: Iterable[Unread] = ()) -> History:
    """Sort out a model's revisions; ``running`` is the one that the Deployment's pods are labelled with.

    What carries no seal of ours and does not run is nobody's concern: anybody may write such objects.
    """
    own = tuple(sorted((r for r in revisions if r.trust.holds), key=lambda r: (r.number, r.name)))
    held = next((r for r in revisions if not r.trust.holds and r.name == running), None)
    return History(own, held, tuple(sorted(unread, key=lambda r: (r.number, r.name))))


def with_note(known: History, revision: Revision) -> History:
    """The history, with other notes of one of its revisions."""
    return replace(known, own=tuple(revision if r.name == revision.name else r for r in known.own))


def settings_cause(revision: Revision, spec: OnnxModelSpec, namespace: str, settings: Settings) -> Cause | None:
    """Why the settings of today will not have a revision of earlier applied; None where they will.

    A revision of the first alpha does not hold its spec: the model's own ``spec`` stands for it.
    """
    asked = spec if revision.inputs else OnnxModelSpec.model_validate(revision.data.spec)
    return forbidden_by_settings(asked, revision.data.pool, namespace, settings)


def forbidden_by_settings(asked: OnnxModelSpec, pool_name: str, namespace: str, settings: Settings) -> Cause | None:
    """Why the settings will not have pods of this spec and pool applied; None where they will."""
    refusal = forbidden(asked, namespace, settings)
    if refusal:
        return Cause(Reason.SETTINGS_CHANGED, refusal.message)
    pool = next((p for p in settings.effective_pools() if p.name == pool_name), None)
    if pool is None:
        return Cause(Reason.SETTINGS_CHANGED, f"pool {pool_name!r} is not in the operator's settings any more")
    if not pool.allows(namespace):
        return Cause(Reason.SETTINGS_CHANGED, f"pool {pool.name!r} is not open to namespace {namespace!r} any more")
    return None


def predates_seals(revision: Revision, since: str, live: Mapping[str, Object]) -> bool:
    """Whether a revision without a seal was made before there were seals, and is what runs.

    The API server sets both times, never changes the data of a ControllerRevision, and writes times so that they
    compare as text.

    Args:
        revision: of somebody, maybe of an operator that did not seal yet.
        since: when the key was made.
        live: the model's children, by kind.
    """
    if revision.trust is not Trust.UNSEALED or not revision.created or not revision.created < since:
        return False
    if revision.number > _MAX_HONEST_NUMBER:
        # Numbers count updates; there must be room for the next ones.
        return False
    wanted = {m["kind"]: m["spec"] for m in with_revision_label(revision.data.manifests, revision.name)}
    runs = {kind: item.get("spec") or {} for kind, item in live.items()}
    if DEPLOYMENT.kind not in wanted or len(wanted) != len(revision.data.manifests) or wanted.keys() != runs.keys():
        return False
    wanted[DEPLOYMENT.kind] = {"template": wanted[DEPLOYMENT.kind]["template"]}
    return all(contains(runs[kind], spec) for kind, spec in wanted.items())
