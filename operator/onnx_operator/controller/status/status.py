"""Status: from the situation of a model to its conditions, by the tables of the API. Pure.

``Ready`` is the summary. ``Reconciling`` and ``Stalled`` follow kstatus: present only when true, never both. A
condition's ``lastTransitionTime`` moves only when its ``status`` flips, and nothing else in the status is a time, so
that an unchanged situation gives an unchanged status.
"""

import json
from collections import Counter
from dataclasses import dataclass

from onnx_operator.api.conditions import ConditionStatus, ConditionType, Reason
from onnx_operator.api.onnxmodel import (
    Condition,
    Inspection,
    OnnxModelSpec,
    OnnxModelStatus,
    Serving,
    Started,
)
from onnx_operator.api.reasons import REASONS
from onnx_operator.api.report import InspectionResult, ModelReport, Refusal, shorten
from onnx_operator.controller.cluster.kinds import Object
from onnx_operator.controller.observation.observe import Cause, Observation, rollout_cause
from onnx_operator.controller.observation.pods import mapping, number
from onnx_operator.controller.revision.render import service_selector, uses_gpu, version_label
from onnx_operator.controller.revision.revisions import Revision
from onnx_operator.controller.rollout.rollback import NONE_TO_GO_BACK_TO
from onnx_operator.controller.status.resources import effective_resources

MAX_STATUS_BYTES = 16 * 1024
"""As JSON."""
MAX_MESSAGE = 608
"""Bytes in JSON; Ready and its kstatus repeat another condition's message, and all of the status fits 16 KiB."""
MIN_STARTED = 4
"""Operators and providers that are listed where there is no room for more."""
MIN_WARM_UP_BYTES = 64
MAX_VERSION = 128
"""Bytes of what names a revision's model: a revision may be somebody else's."""
PAUSED_MESSAGE = (
    "somebody has paused the Deployment: its pods are not replaced until kubectl rollout resume deployment/{name}"
)
TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


_LOSSES = frozenset({Reason.NODE_LOST, Reason.UNRESPONSIVE})
"""What takes pods that served, where nothing of the model's or of its spec's stands in the way of new ones."""
_TOLD_WHILE_SERVING = _LOSSES | {Reason.RESTARTING, Reason.KILLED_WHILE_SERVING}


@dataclass(frozen=True)
class Situation:
    """All that a model's status is made from."""

    name: str
    namespace: str
    generation: int
    spec: OnnxModelSpec
    inspection_key: str
    inspecting: bool
    source_changed: bool
    result: InspectionResult | None
    """The inspection's result for ``inspection_key``; None until there is one."""
    refusal: Refusal | None
    """Why the desired model is not rolled out: the inspection's, the pool's or the pod template's word."""
    current: Revision | None
    """The revision that the children hold."""
    revisions: tuple[Revision, ...]
    observation: Observation
    cause: Cause | None
    """What keeps the children from being applied."""
    outdated: Cause | None
    """Why what runs is left as it is, although it is not what this operator would make."""
    started: Started | None
    withheld: Cause | None = None
    """Why ``current`` runs, and not what spec and source ask for."""
    alone: bool = False
    """Whether ``current`` failed by its own fault, and there is none to go back to."""
    trouble: str = ""
    """Why looking at the source ended without any conclusion, the last time."""


@dataclass(frozen=True)
class _Verdict:
    status: ConditionStatus
    reason: Reason
    message: str
    goes_on: bool = False
    """Whether what is under way or amiss leaves the model Ready."""


def _shown(refusal: Refusal) -> str:
    # The inspector and the command line say the same of a model, but only the operator tries again by itself.
    return f"{refusal.message.rstrip('.')}. Will retry." if refusal.retriable else refusal.message


def _model_valid(s: Situation) -> _Verdict | None:
    if s.refusal:
        # What kept the model from being read says nothing of it.
        others = REASONS[s.refusal.reason].condition is not ConditionType.MODEL_VALID
        unknown = others or s.refusal.reason is Reason.SOURCE_UNREACHABLE
        return _Verdict(UNKNOWN if unknown else FALSE, s.refusal.reason, _shown(s.refusal))
    if s.inspecting or s.result is None or s.result.report is None:
        return None
    report = s.result.report
    # What callers should know is told here too, before the first of them asks.
    notes = "".join(f". {note.rstrip('.')}" for note in report.notes)
    if report.source.kind == "None":
        return _Verdict(
            TRUE,
            Reason.NOT_REPRODUCIBLE,
            "the model is valid, but its store offers neither a version nor a strong ETag: pods verify "
            f"{report.digest or report.source.value} and cannot start once the file changes{notes}",
        )
    opsets = ", ".join(f"{domain} {version}" for domain, version in sorted(report.opsets.items()))
    bytes_ = report.digest or f"pinned as {report.source.value}"
    return _Verdict(TRUE, Reason.INSPECTED, f"IR version {report.ir_version}, opset {opsets}, {bytes_}{notes}")


def _is_complete(s: Situation) -> bool:
    deployment = s.observation.deployment
    if deployment is None or s.current is None or s.observation.revision != s.current.name:
        return False
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    # Deployment and pods are read one after the other: only what both say is so.
    return any(p.ready for p in s.observation.live_pods()) and bool(
        status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
        and wanted == s.spec.replicas
        and status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
    )


def _is_held_up(deployment: Object | None) -> bool:
    """Whether somebody has paused a Deployment whose pods are to be replaced."""
    spec, status = mapping((deployment or {}).get("spec")), mapping((deployment or {}).get("status"))
    return spec.get("paused") is True and number(status.get("updatedReplicas")) < number(spec.get("replicas"))


def _progressing(s: Situation) -> _Verdict | None:
    if s.cause and s.cause.reason is Reason.API_UNAVAILABLE:
        return _Verdict(TRUE, s.cause.reason, s.cause.message)
    if s.inspecting and s.trouble:
        return _Verdict(TRUE, Reason.API_UNAVAILABLE, f"the model is not read yet, which is tried again: {s.trouble}")
    if s.inspecting:
        if s.source_changed:
            return _Verdict(TRUE, Reason.SOURCE_CHANGED, "the source holds other bytes than were inspected; inspecting")
        return _Verdict(TRUE, Reason.INSPECTING, f"reading {s.spec.model.uri.split('?', 1)[0]}")
    if s.withheld and s.current:
        more = f". {s.cause.reason}: {s.cause.message}" if s.cause else _beside(s, s.current.name)
        return _Verdict(FALSE, s.withheld.reason, s.withheld.message + more)
    if s.cause:
        progressing = FALSE if s.cause.reason is Reason.NAME_CONFLICT else TRUE
        return _Verdict(progressing, s.cause.reason, s.cause.message)
    if s.current is None:
        return None
    if s.spec.suspend or s.spec.replicas == 0:
        return _Verdict(FALSE, Reason.COMPLETE, f"revision {s.current.name}, no replicas wanted")
    if _is_complete(s):
        return _Verdict(FALSE, Reason.COMPLETE, f"revision {s.current.name} runs on all replicas")
    if _is_held_up(s.observation.deployment):
        return _Verdict(TRUE, Reason.ROLLOUT_PAUSED, PAUSED_MESSAGE.format(name=s.name))
    return _incomplete(s, s.current.name)


def _incomplete(s: Situation, revision: str) -> _Verdict:
    """What is told of a revision whose pods are not all as wanted."""
    cause = rollout_cause(s.observation, revision)
    lacks = s.observation.ready_pods(revision) < s.spec.replicas
    if cause and cause.is_fault and lacks:
        return _Verdict(FALSE, cause.reason, f"{cause.message}; {NONE_TO_GO_BACK_TO}" if s.alone else cause.message)
    if _goes_on_serving(s, revision):
        return _serving_on(s, revision, cause if lacks else None)
    cause = cause or Cause(Reason.ROLLING_OUT, f"revision {revision} rolls out")
    if s.observation.deadline_exceeded and s.observation.revision == revision:
        return _Verdict(
            FALSE,
            Reason.DEADLINE_EXCEEDED,
            f"no progress within the deadline, because of {cause.reason}: {cause.message}",
        )
    outage = cause.reason in _LOSSES and not any(p.ready for p in s.observation.live_pods())
    return _Verdict(FALSE if outage else TRUE, cause.reason, cause.message)


def _beside(s: Situation, revision: str) -> str:
    """What else is amiss, with the revision that runs instead of the one that is wanted."""
    cause = rollout_cause(s.observation, revision)
    if cause is None or REASONS[cause.reason].under_way or s.observation.ready_pods(revision) >= s.spec.replicas:
        return ""
    return f". {cause.reason}: {cause.message}"


def _goes_on_serving(s: Situation, revision: str) -> bool:
    """Whether all that is amiss is the number of pods: the revision was rolled out, and at least one pod serves."""
    live = s.observation.live_pods()
    return (
        s.observation.complete_once
        and s.observation.revision == revision
        and s.observation.ready_pods(revision) > 0
        and all(p.revision == revision for p in live)
    )


def _serving_on(s: Situation, revision: str, cause: Cause | None) -> _Verdict:
    """What is told of a revision that goes on serving, while pods of it lack because of ``cause``, or are too many."""
    lost = s.observation.lost(revision) if cause else ""
    if cause and not lost and cause.reason in _TOLD_WHILE_SERVING:
        return _Verdict(TRUE, cause.reason, cause.message, goes_on=True)
    why = "" if cause is None or REASONS[cause.reason].under_way else f"; {cause.reason}: {cause.message}"
    if lost:
        return _Verdict(TRUE, Reason.NODE_LOST, lost + ("" if lost in why else why), goes_on=True)
    ready = s.observation.ready_pods(revision)
    return _Verdict(TRUE, Reason.SCALING, f"{ready} ready, {s.spec.replicas} wanted{why}", goes_on=True)


def _available(s: Situation) -> _Verdict:
    if s.spec.suspend:
        return _Verdict(FALSE, Reason.SUSPENDED, "spec.suspend is true: no pods run")
    if s.spec.replicas == 0:
        return _Verdict(FALSE, Reason.SCALED_TO_ZERO, "spec.replicas is 0")
    ready = sum(p.ready for p in s.observation.live_pods())
    if ready:
        return _Verdict(TRUE, Reason.MINIMUM_REPLICAS_READY, f"{ready} ready, {s.spec.replicas} wanted")
    return _Verdict(FALSE, Reason.NO_REPLICAS_READY, f"0 ready, {s.spec.replicas} wanted")


def _accelerated(s: Situation) -> _Verdict | None:
    if s.current is None or not s.current.data.gpu or not uses_gpu(s.spec):
        return None
    if s.started is None or s.started.revision != s.current.name:
        return _Verdict(UNKNOWN, Reason.NOT_REPORTED, "no pod has reported yet which execution providers run the model")
    on_gpu = [p for p in s.started.execution_providers if not p.startswith("CPU")]
    causes = "; ".join(s.started.fallback_causes)
    if not on_gpu and causes:
        return _Verdict(FALSE, Reason.FALLBACK_TO_CPU, f"the whole model runs on the CPU: {causes}")
    if not on_gpu:
        return _Verdict(
            FALSE,
            Reason.FALLBACK_TO_CPU,
            "the whole model runs on the CPU: ONNX Runtime found no usable GPU in the pod; check the node's driver, "
            "its device plugin and the pool's server image",
        )
    if s.started.fallback_operators:
        operators = ", ".join(s.started.fallback_operators[:20])
        return _Verdict(
            FALSE,
            Reason.FALLBACK_TO_CPU,
            f"on the CPU: {operators} ({causes or 'no GPU kernel in ' + ', '.join(on_gpu)})",
        )
    return _Verdict(TRUE, Reason.ON_GPU, f"all operators run in {', '.join(on_gpu)}")


def _warmed_up(s: Situation) -> _Verdict | None:
    started = s.started
    if s.current is None or started is None or started.revision != s.current.name or started.warmed is None:
        return None
    if started.warmed:
        return _Verdict(TRUE, Reason.WARMED, f"warmed up {started.warm_up}".rstrip())
    return _Verdict(FALSE, Reason.NO_INPUT_FOUND, started.warm_up or "no input was found that the model answers")


def _complete(s: Situation) -> _Verdict | None:
    """What Ready says where it is True by the model's pods; None where it is not."""
    if s.withheld:
        return None
    if s.current and s.spec.replicas == 0:
        return _Verdict(TRUE, Reason.SCALED_TO_ZERO, "spec.replicas is 0")
    if s.current and _is_complete(s):
        return _Verdict(TRUE, Reason.COMPLETE, f"revision {s.current.name} runs on all replicas")
    verdict = _incomplete(s, s.current.name) if s.current else None
    return verdict if verdict and verdict.goes_on else None


def _summary(
    s: Situation,
    valid: _Verdict | None,
    progressing: _Verdict | None,
    available: _Verdict,
    *,
    stands: bool,
) -> tuple[_Verdict, ConditionType | None]:
    if s.spec.suspend:
        return _Verdict(FALSE, Reason.SUSPENDED, available.message), None
    if s.refusal and valid:
        serving = " The last good revision goes on serving." if available.status is TRUE else ""
        kstatus = ConditionType.RECONCILING if valid.status is UNKNOWN else ConditionType.STALLED
        return _Verdict(FALSE, valid.reason, valid.message + serving), kstatus
    if s.inspecting and stands and s.cause is None and (complete := _complete(s)):
        # Nobody asked for anything else: what serves is looked at again.
        return complete, None
    if s.inspecting or progressing is None:
        progressing = progressing or _Verdict(TRUE, Reason.INSPECTING, "waiting for the inspection")
        return _Verdict(FALSE, progressing.reason, progressing.message), ConditionType.RECONCILING
    if progressing.reason is Reason.COMPLETE:
        if s.spec.replicas == 0:
            return _Verdict(TRUE, Reason.SCALED_TO_ZERO, available.message), None
        return _Verdict(TRUE, Reason.COMPLETE, progressing.message), None
    if progressing.goes_on:
        return progressing, None
    kstatus = ConditionType.STALLED if progressing.status is FALSE else ConditionType.RECONCILING
    return _Verdict(FALSE, progressing.reason, progressing.message), kstatus


def _conditions(s: Situation, previous: OnnxModelStatus, now: str) -> list[Condition]:
    before = {c.type: c for c in previous.conditions}
    valid, progressing, available = _model_valid(s), _progressing(s), _available(s)
    told = before.get(ConditionType.READY)
    stands = told is not None and told.status == TRUE and told.observed_generation == s.generation
    ready, kstatus = _summary(s, valid, progressing, available, stands=stands)
    verdicts: dict[ConditionType, _Verdict | None] = {
        ConditionType.READY: ready,
        ConditionType.MODEL_VALID: valid,
        ConditionType.PROGRESSING: progressing,
        ConditionType.AVAILABLE: available,
        ConditionType.ACCELERATED: _accelerated(s),
        ConditionType.WARMED_UP: _warmed_up(s),
        ConditionType.OUTDATED: _Verdict(TRUE, s.outdated.reason, s.outdated.message) if s.outdated else None,
    }
    if kstatus:
        verdicts[kstatus] = _Verdict(TRUE, ready.reason, ready.message)

    conditions = []
    for kind, verdict in verdicts.items():
        old = before.get(kind)
        if verdict is None:
            # While the model is looked at anew, the last verdict stands, with the generation that it was given for.
            if kind is ConditionType.MODEL_VALID and old:
                conditions.append(old)
            continue
        conditions.append(_condition(kind, verdict, old, s.generation, now))
    return conditions


def _condition(kind: ConditionType, verdict: _Verdict, old: Condition | None, generation: int, now: str) -> Condition:
    return Condition(
        type=kind,
        status=verdict.status,
        reason=verdict.reason,
        message=shorten(verdict.message, MAX_MESSAGE),
        last_transition_time=old.last_transition_time if old and old.status == verdict.status else now,
        observed_generation=generation,
    )


def interrupted(previous: OnnxModelStatus, generation: int, why: str, now: str) -> OnnxModelStatus:
    """The status of a model of which not even its children could be read, because the API server failed.

    What was known stands, with the generation that it was told for: nobody may believe that a newer one is in place.
    """
    before = {c.type: c for c in previous.conditions}
    message = f"the model cannot be looked at, which is tried again: {why}"
    told = {ConditionType.PROGRESSING: TRUE}
    ready = before.get(ConditionType.READY)
    if ready is None or ready.observed_generation != generation:
        told = {ConditionType.READY: FALSE, **told, ConditionType.RECONCILING: TRUE}
        before.pop(ConditionType.STALLED, None)
    for kind, status in told.items():
        verdict = _Verdict(status, Reason.API_UNAVAILABLE, message)
        before[kind] = _condition(kind, verdict, before.get(kind), generation, now)
    return previous.model_copy(update={"observed_generation": generation, "conditions": list(before.values())})


def serving_revision(s: Situation) -> Revision | None:
    """The revision that takes traffic: the one with most ready pods, the newest of several."""
    ready = Counter(p.revision for p in s.observation.live_pods() if p.ready)
    return max((r for r in s.revisions if ready[r.name]), key=lambda r: (ready[r.name], r.number), default=None)


def _serving(s: Situation) -> Serving | None:
    revision = serving_revision(s)
    if revision is None:
        return None
    data = revision.data
    return Serving(
        revision=revision.name,
        digest=shorten(data.report.digest, MAX_VERSION),
        version=shorten(data.report.version, MAX_VERSION),
        interface=shorten(data.interface, MAX_VERSION),
    )


def _shown_version(serving: Serving | None, model: ModelReport | None, current: Revision | None) -> str | None:
    """What tells people which model it is: the one that serves; until one does, the one that is wanted."""
    wanted = model.version if model else ""
    held = current.data.report.version if current else ""
    return shorten((serving.version if serving else "") or wanted or held, MAX_VERSION) or None


def compute_status(s: Situation, previous: OnnxModelStatus, now: str) -> OnnxModelStatus:
    """The status of a model in this situation.

    Args:
        s: what is known.
        previous: the status as it stands, for the times of transition and what is being looked at anew.
        now: RFC 3339 time of conditions that flip.
    """
    deployment_status = (s.observation.deployment or {}).get("status", {})
    looked_at = s.result is not None and not s.inspecting
    if looked_at and s.result:
        inspection: Inspection | None = Inspection(
            key=s.inspection_key, outcome=s.result.outcome, source=s.result.source
        )
        model, interface = s.result.report, s.result.interface or None
    else:
        inspection, model, interface = previous.inspection, previous.model, previous.interface
    if model:
        model = model.model_copy(update={"version": version_label(s.spec, model)})
    started = s.started if s.started and s.current and s.started.revision == s.current.name else None
    serving = _serving(s)
    found = OnnxModelStatus(
        observed_generation=s.generation,
        version=_shown_version(serving, model, s.current),
        conditions=_conditions(s, previous, now),
        url=f"http://{s.name}.{s.namespace}.svc" if s.current else None,
        runtime=s.spec.effective_runtime,
        replicas=deployment_status.get("replicas", 0),
        ready_replicas=deployment_status.get("readyReplicas", 0),
        selector=",".join(f"{k}={v}" for k, v in service_selector(s.name).items()),
        interface=interface,
        inspection=inspection,
        model=model,
        serving=serving,
        resources=effective_resources(s.current.data, started) if s.current else None,
        started=started,
        failures=list(s.observation.failures) or None,
    )
    if started and _json_bytes(found) > MAX_STATUS_BYTES:
        found.started = _cut(started)
    return found


def _json_bytes(status: OnnxModelStatus) -> int:
    return len(json.dumps(status.model_dump(mode="json", by_alias=True), ensure_ascii=False).encode(errors="replace"))


def _cut(started: Started) -> Started:
    """What a pod told, without most of what conditions say as well: whatever runs in a pod may tell at length."""
    return started.model_copy(
        update={
            "execution_providers": started.execution_providers[:MIN_STARTED],
            "fallback_operators": started.fallback_operators[:MIN_STARTED],
            "fallback_causes": [],
            "warm_up": shorten(started.warm_up, MIN_WARM_UP_BYTES),
        }
    )
