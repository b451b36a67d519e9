"""Status: the tables of the API, row by row, and what holds in every situation."""

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import Condition, OnnxModelStatus, Started
from onnx_operator.api.reasons import REASONS
from onnx_operator.api.report import InspectionResult, ProviderCoverage, Refusal, TensorSpec, shorten
from onnx_operator.api.sources import SourcePin
from onnx_operator.controller.observation.observe import Cause, Observation, observe
from onnx_operator.controller.revision.revisions import Sizing, pod_spec
from onnx_operator.controller.status.facts import MAX_CAUSE_BYTES, MAX_WARM_UP_BYTES
from onnx_operator.controller.status.status import Situation, compute_status, interrupted, serving_revision
from tests.unit.controller.samples import (
    FETCHED,
    ROLLED_OUT,
    deployment,
    pod,
    report,
    running,
    silent,
    spec,
    terminated,
    waiting,
)
from tests.unit.controller.situations import (
    ACCEPTED,
    EXCEEDED,
    FAILING,
    MISMATCH,
    NEW,
    NO_ROOM,
    ONE,
    REFUSAL,
    REFUSED,
    REJECTED,
    T1,
    T2,
    TWO,
    UNREACHABLE,
    UNSCHEDULABLE,
    UPDATING,
    first,
    revision,
    situation,
    status,
    updating,
)

CAUSES = [reason for reason, facts in REASONS.items() if facts.precedence is not None]


def conditions(found: OnnxModelStatus) -> dict[str, tuple[str, str]]:
    return {c.type: (c.status, c.reason) for c in found.conditions}


def summary(found: OnnxModelStatus) -> tuple[str, str, str | None]:
    """Available, Ready, and the kstatus condition."""
    seen = {c.type: c.status for c in found.conditions}
    kstatus = [k for k in ("Reconciling", "Stalled") if k in seen]
    assert len(kstatus) <= 1
    assert all(seen[k] == "True" for k in kstatus)
    return seen["Available"], seen["Ready"], kstatus[0] if kstatus else None


# --- what is left running ---------------------------------------------------------------------------------------------


def test_what_is_left_running_is_told_and_goes_on_being_ready():
    found = conditions(status(outdated=Cause(Reason.NOT_SEALED, "words")))
    assert found["Outdated"] == ("True", "NotSealed")
    assert found["Ready"] == ("True", "Complete")
    assert "Outdated" not in conditions(status())


# --- the table --------------------------------------------------------------------------------------------------------

# Four weeks after containers were started.
SINCE = "2026-01-29T00:00:00Z"
CRASHED = {"exitCode": 139, "message": '{"phase":"Loading","message":""}'}
ONCE = {"fetch": FETCHED, "server": {**running(**CRASHED), "restartCount": 1}}
KILLED = {
    "fetch": FETCHED,
    "server": running(exitCode=137, reason="OOMKilled", message='{"phase":"Serving","message":""}'),
}
SILENT = {"fetch": FETCHED, "server": silent(), "since": SINCE}
LOST = {
    "fetch": FETCHED,
    "server": {**running(), "started": True, "ready": True},
    "conditions": [{"type": "ContainersReady", "status": "True"}],
    "since": SINCE,
}
TAKEN = LOST | {"deletionTimestamp": SINCE}


def serving(wanted, *others, ready, told=None, total=None, observed=3):
    """A revision that was rolled out once, of which so many pods are ready now, beside others as described."""
    pods = [*(pod(f"ready-{i}", ready=True) for i in range(ready)), *others]
    found = deployment(
        wanted=wanted if told is None else told, ready=ready, total=total, observed=observed, conditions=ROLLED_OUT
    )
    return {"spec": spec(replicas=wanted), "observation": observe(found, pods)}


TABLE = {
    "serving the desired revision": ({}, ("True", "True", None), "Complete"),
    "refused update, the old one serves": (
        {"result": REFUSED, "refusal": REFUSAL},
        ("True", "False", "Stalled"),
        "Corrupt",
    ),
    "refused pod template, the old one serves": (
        {"refusal": REJECTED},
        ("True", "False", "Stalled"),
        "PodTemplateRejected",
    ),
    "refused first version": (
        NEW | {"result": REFUSED, "refusal": REFUSAL},
        ("False", "False", "Stalled"),
        "Corrupt",
    ),
    "first version that does not load": (first(**FAILING), ("False", "False", "Stalled"), "LoadFailed"),
    "first version with another digest than the spec says": (
        first(**MISMATCH),
        ("False", "False", "Stalled"),
        "DigestMismatch",
    ),
    "update with another digest than its signature says, the old one serves": (
        updating(**MISMATCH),
        ("True", "False", "Stalled"),
        "DigestMismatch",
    ),
    "update that does not load, the old one serves": (updating(**FAILING), ("True", "False", "Stalled"), "LoadFailed"),
    "rolling out for the first time": (first(), ("False", "False", "Reconciling"), "RollingOut"),
    "downloading for the first time": (first(fetch=running()), ("False", "False", "Reconciling"), "Downloading"),
    "loading for the first time": (
        first(fetch=FETCHED, server=running()),
        ("False", "False", "Reconciling"),
        "Loading",
    ),
    "rolling out an update": (updating(fetch=running()), ("True", "False", "Reconciling"), "Downloading"),
    "unschedulable for the first time": (first(**UNSCHEDULABLE), ("False", "False", "Reconciling"), "Unschedulable"),
    "unschedulable update": (updating(**UNSCHEDULABLE), ("True", "False", "Reconciling"), "Unschedulable"),
    "unschedulable beyond the deadline": (
        {"observation": observe(deployment(conditions=EXCEEDED), [pod(**UNSCHEDULABLE)])},
        ("False", "False", "Stalled"),
        "DeadlineExceeded",
    ),
    "load failure beyond the deadline": (
        {"observation": observe(deployment(conditions=EXCEEDED), [pod(**FAILING)])},
        ("False", "False", "Stalled"),
        "LoadFailed",
    ),
    "source unreachable for the first time": (
        NEW | {"result": InspectionResult(outcome="Refused", refusal=UNREACHABLE), "refusal": UNREACHABLE},
        ("False", "False", "Reconciling"),
        "SourceUnreachable",
    ),
    "source unreachable, the old one serves": (
        {"result": InspectionResult(outcome="Refused", refusal=UNREACHABLE), "refusal": UNREACHABLE},
        ("True", "False", "Reconciling"),
        "SourceUnreachable",
    ),
    "inspecting for the first time": (
        NEW | {"result": None, "inspecting": True},
        ("False", "False", "Reconciling"),
        "Inspecting",
    ),
    "inspecting an update, the old one serves": (
        {"result": None, "inspecting": True},
        ("True", "False", "Reconciling"),
        "Inspecting",
    ),
    "inspecting what a pod found instead": (
        {"result": None, "inspecting": True, "source_changed": True},
        ("True", "False", "Reconciling"),
        "SourceChanged",
    ),
    "scaled to zero": (
        {"spec": spec(replicas=0), "observation": observe(deployment(wanted=0), [])},
        ("False", "True", None),
        "ScaledToZero",
    ),
    "suspended": (
        {"spec": spec(suspend=True), "observation": observe(deployment(wanted=0), [])},
        ("False", "False", None),
        "Suspended",
    ),
    "suspended with a refused model": (
        {"spec": spec(suspend=True), "result": REFUSED, "refusal": REFUSAL},
        ("False", "False", None),
        "Suspended",
    ),
    "the name is taken": (
        {"cause": Cause(Reason.NAME_CONFLICT, "there is a Service already"), "observation": Observation()},
        ("False", "False", "Stalled"),
        "NameConflict",
    ),
    "a child is refused for now": (
        {"cause": Cause(Reason.CREATION_FAILED, "forbidden"), "observation": Observation()},
        ("False", "False", "Reconciling"),
        "CreationFailed",
    ),
    "the API server does not take an update, the old one serves": (
        {"cause": Cause(Reason.API_UNAVAILABLE, "429")},
        ("True", "False", "Reconciling"),
        "ApiUnavailable",
    ),
    "the API server fails while a new model is looked at": (
        NEW | {"result": None, "inspecting": True, "trouble": "500"},
        ("False", "False", "Reconciling"),
        "ApiUnavailable",
    ),
    "the namespace has no room for the pod that inspects": (
        NEW | {"result": InspectionResult(outcome="Refused", refusal=NO_ROOM), "refusal": NO_ROOM},
        ("False", "False", "Reconciling"),
        "QuotaExceeded",
    ),
    "the first rollout, of three replicas, with one ready": (
        {"spec": spec(replicas=3), "observation": observe(deployment(wanted=3, ready=1), [pod(ready=True)])},
        ("True", "False", "Reconciling"),
        "RollingOut",
    ),
    "scaling up, not told the Deployment yet": (serving(4, ready=3, told=3), ("True", "True", None), "Scaling"),
    "scaling up, and the Deployment's controller has not looked": (
        serving(4, ready=3, observed=2),
        ("True", "True", None),
        "Scaling",
    ),
    "scaling up": (serving(4, pod("d", fetch=running()), ready=3), ("True", "True", None), "Scaling"),
    "scaling up, beyond all nodes' room": (
        serving(4, pod("d", **UNSCHEDULABLE), ready=3),
        ("True", "True", None),
        "Scaling",
    ),
    "scaling up, and the new pod ended once": (
        serving(4, pod("d", **ONCE), ready=3),
        ("True", "True", None),
        "Restarting",
    ),
    "scaling up, and the new pod does not load": (
        serving(4, pod("d", **FAILING), ready=3),
        ("True", "False", "Stalled"),
        "LoadFailed",
    ),
    "scaling down": (serving(2, ready=3, told=3), ("True", "True", None), "Scaling"),
    "scaling down, and a pod that is too many ends again and again": (
        serving(2, pod("d", **FAILING), ready=2, total=3),
        ("True", "True", None),
        "Scaling",
    ),
    "one of three pods restarted once": (serving(3, pod("d", **ONCE), ready=2), ("True", "True", None), "Restarting"),
    "one of three pods is in a crash loop": (
        serving(3, pod("d", **FAILING), ready=2),
        ("True", "False", "Stalled"),
        "LoadFailed",
    ),
    "one of three pods was killed by requests": (
        serving(3, pod("d", **KILLED), ready=2),
        ("True", "True", None),
        "KilledWhileServing",
    ),
    "one of three pods does not answer": (
        serving(3, pod("d", **SILENT), ready=2),
        ("True", "True", None),
        "Unresponsive",
    ),
    "no pod answers": (serving(1, pod("d", **SILENT), ready=0), ("False", "False", "Stalled"), "Unresponsive"),
    "one of three nodes is lost": (serving(3, pod("d", **LOST), ready=2), ("True", "True", None), "NodeLost"),
    "one of three nodes is lost, and the pod in its place loads": (
        serving(3, pod("d", **TAKEN), pod("e", fetch=FETCHED, server=running()), ready=2),
        ("True", "True", None),
        "NodeLost",
    ),
    "the only node is lost": (serving(1, pod("d", **LOST), ready=0), ("False", "False", "Stalled"), "NodeLost"),
    "the only pod is deleted, and another loads": (
        serving(1, pod("d", fetch=FETCHED, server=running()), ready=0),
        ("False", "False", "Reconciling"),
        "Loading",
    ),
    "a node is lost under an update, the old one serves": (
        updating(**LOST),
        ("True", "False", "Reconciling"),
        "NodeLost",
    ),
    "an update whose pod ended once, the old one serves": (
        updating(**ONCE),
        ("True", "False", "Reconciling"),
        "Restarting",
    ),
    "the Deployment was changed and its controller has not looked": (
        {"observation": observe(deployment(ready=1, observed=2), [pod(ready=True)])},
        ("True", "False", "Reconciling"),
        "RollingOut",
    ),
    "the old pod still ends": (
        {"observation": observe(deployment(ready=1, total=2), [pod(ready=True)])},
        ("True", "False", "Reconciling"),
        "RollingOut",
    ),
}


@pytest.mark.parametrize(("changes", "expected", "reason"), TABLE.values(), ids=TABLE)
def test_every_state_is_told_as_promised(changes, expected, reason):
    found = status(**changes)
    assert summary(found) == expected
    assert conditions(found)["Ready"][1] == reason
    assert {c.observed_generation for c in found.conditions} == {5}


ALL_SITUATIONS = {name: situation(**changes) for name, (changes, _, _) in TABLE.items()}


@pytest.mark.parametrize("name", TABLE)
def test_an_unchanged_situation_gives_an_unchanged_status(name):
    once = compute_status(ALL_SITUATIONS[name], OnnxModelStatus(), T1)
    assert compute_status(ALL_SITUATIONS[name], once, T2) == once


@pytest.mark.parametrize("name", TABLE)
def test_a_status_is_the_same_after_a_journey_through_the_api_server(name):
    once = compute_status(ALL_SITUATIONS[name], OnnxModelStatus(), T1)
    text = json.dumps(once.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert OnnxModelStatus.model_validate(json.loads(text)) == once


# --- scaling and losses -----------------------------------------------------------------------------------------------


def message_of(kind, **changes):
    return next(c.message for c in status(**changes).conditions if c.type == kind)


def test_what_keeps_a_replica_that_lacks_is_said_and_listed_while_the_others_serve():
    changes = serving(4, pod("d", **UNSCHEDULABLE), ready=3)
    found = status(**changes)
    assert conditions(found)["Progressing"] == ("True", "Scaling")
    assert "Unschedulable: 0/1 nodes" in message_of("Progressing", **changes)
    assert [(f.reason, f.count) for f in found.failures] == [("Unschedulable", 1)]


def test_a_lost_node_and_what_keeps_the_pod_in_its_place_are_told_together():
    changes = serving(3, pod("d", **TAKEN), pod("e", **UNSCHEDULABLE), ready=2)
    assert conditions(status(**changes))["Progressing"] == ("True", "NodeLost")
    assert "Unschedulable: 0/1 nodes" in message_of("Progressing", **changes)


def test_ready_says_why_fewer_pods_serve_than_are_wanted():
    assert "2 ready, 3 wanted" in message_of("Ready", **serving(3, ready=2))


def test_a_model_that_goes_on_serving_was_ready_all_the_time():
    before = status(**serving(3, ready=3))
    scaled = status(previous=before, now=T2, **serving(4, ready=3, told=3))
    lost = status(previous=scaled, now=T2, **serving(4, pod("d", **LOST), ready=3))
    for found in (scaled, lost):
        assert next(c for c in found.conditions if c.type == "Ready").last_transition_time == T1


def test_a_model_that_lost_a_pod_stays_ready_while_its_source_is_looked_at_again():
    lost = serving(3, pod("d", **LOST), ready=2)
    before = status(**lost)
    found = status(previous=before, now=T2, **lost, result=None, inspecting=True)
    assert conditions(found)["Ready"] == ("True", "NodeLost")


@settings(deadline=None)
@given(
    wanted=st.integers(1, 6),
    ready=st.integers(0, 6),
    others=st.lists(st.sampled_from([{}, ONCE, KILLED, SILENT, LOST, TAKEN, UNSCHEDULABLE, FAILING]), max_size=4),
)
def test_a_revision_that_was_rolled_out_is_ready_while_one_pod_serves_and_none_ends_again_and_again(
    wanted, ready, others
):
    pods = [pod(f"other-{i}", **each) for i, each in enumerate(others)]
    found = status(**serving(wanted, *pods, ready=ready))
    available, is_ready, kstatus = summary(found)
    assert (available == "True") == (ready > 0)
    if ready and FAILING not in others:
        assert (is_ready, kstatus) == ("True", None)
    if ready == 0:
        assert is_ready == "False"


# --- single promises --------------------------------------------------------------------------------------------------


def test_a_refusal_says_that_the_old_revision_goes_on():
    ready = next(c for c in status(result=REFUSED, refusal=REFUSAL).conditions if c.type == "Ready")
    assert REFUSAL.message in ready.message
    assert "goes on serving" in ready.message
    alone = next(c for c in status(**NEW, result=REFUSED, refusal=REFUSAL).conditions if c.type == "Ready")
    assert "goes on serving" not in alone.message


def test_a_refused_model_is_invalid_and_an_unreachable_one_unknown():
    assert conditions(status(result=REFUSED, refusal=REFUSAL))["ModelValid"] == ("False", "Corrupt")
    unreachable = InspectionResult(outcome="Refused", refusal=UNREACHABLE)
    assert conditions(status(result=unreachable, refusal=UNREACHABLE))["ModelValid"] == ("Unknown", "SourceUnreachable")


def test_a_refusal_tells_that_it_will_be_tried_again_where_it_will():
    unreachable = InspectionResult(outcome="Refused", refusal=UNREACHABLE)

    def valid(**changes):
        return next(c for c in status(**changes).conditions if c.type == "ModelValid").message

    assert valid(result=unreachable, refusal=UNREACHABLE) == "connection refused. Will retry."
    assert "retry" not in valid(result=REFUSED, refusal=REFUSAL)


def test_an_accepted_model_is_valid_and_says_what_it_is():
    valid = next(c for c in status().conditions if c.type == "ModelValid")
    assert (valid.status, valid.reason) == ("True", "Inspected")
    assert "ai.onnx 17" in valid.message


def test_what_callers_should_know_of_a_valid_model_is_in_its_condition():
    note = 'The output "y" is a tensor(int4), which nothing returns: callers must name the outputs that they want.'
    told = InspectionResult(outcome="Accepted", source=report().source, report=report(notes=[note]))
    valid = next(c for c in status(result=told).conditions if c.type == "ModelValid")
    assert (valid.status, valid.reason) == ("True", "Inspected")
    assert valid.message.endswith(f". {note.rstrip('.')}")


def test_a_model_that_its_store_cannot_pin_is_served_with_a_warning():
    loose = report(source=SourcePin(kind="None", value="sha256:ab"))
    result = InspectionResult(outcome="Accepted", source=loose.source, report=loose, interface="face")
    found = status(result=result)
    assert conditions(found)["ModelValid"] == ("True", "NotReproducible")
    assert conditions(found)["Ready"] == ("True", "Complete")


def test_while_it_is_looked_at_anew_the_last_verdict_stands():
    before = status(result=REFUSED, refusal=REFUSAL)
    during = status(previous=before, result=None, inspecting=True, generation=6)
    assert conditions(during)["ModelValid"] == ("False", "Corrupt")
    assert during.inspection == before.inspection
    verdict = next(c for c in during.conditions if c.type == "ModelValid")
    assert verdict.observed_generation == 5, "it was given for the earlier generation"


def test_ready_stays_while_what_serves_is_looked_at_again():
    """A refresh, other signers, a restart: the spec asks for nothing else, and pods serve what it asks for."""
    before = status()
    looking = {"result": None, "inspecting": True}
    during = status(previous=before, now=T2, **looking)
    assert summary(during) == ("True", "True", None)
    assert conditions(during)["Progressing"] == ("True", "Inspecting")
    assert ready_of(during) == ready_of(before)
    failing = status(previous=during, now=T2, **looking, trouble="500")
    assert conditions(failing)["Progressing"] == ("True", "ApiUnavailable")
    assert ready_of(failing) == ready_of(before)
    assert conditions(failing)["ModelValid"] == conditions(before)["ModelValid"]


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": 6},
        {"observation": observe(deployment(), [pod()])},
        {"cause": Cause(Reason.API_UNAVAILABLE, "429")},
        {"cause": Cause(Reason.NAME_CONFLICT, "taken")},
    ],
    ids=["another spec", "no pod is ready", "the API server fails", "a name is taken"],
)
def test_ready_does_not_stay_where_anything_else_is_new(changes):
    during = status(previous=status(), result=None, inspecting=True, **changes)
    assert conditions(during)["Ready"][0] == "False"


def ready_of(found: OnnxModelStatus) -> Condition:
    return next(c for c in found.conditions if c.type == "Ready")


def test_a_model_that_cannot_be_looked_at_is_not_ready_for_a_spec_that_nobody_has_seen():
    before = status()
    same = interrupted(before, 5, "the API server answers 500", T2)
    assert ready_of(same) == ready_of(before), "nothing is known to be wrong"
    assert conditions(same)["Progressing"] == ("True", "ApiUnavailable")

    newer = interrupted(before, 6, "the API server answers 500", T2)
    assert (ready_of(newer).status, ready_of(newer).reason) == ("False", "ApiUnavailable")
    assert summary(newer) == ("True", "False", "Reconciling")
    assert "500" in ready_of(newer).message
    assert newer.observed_generation == 6
    assert {c.type: c.observed_generation for c in newer.conditions}["Available"] == 5, (
        "it was told for the earlier one"
    )
    assert interrupted(newer, 6, "the API server answers 500", T1) == newer
    assert newer.serving == before.serving


def test_a_stalled_model_is_no_longer_stalled_when_a_new_spec_cannot_be_looked_at():
    before = status(result=REFUSED, refusal=REFUSAL)
    assert summary(interrupted(before, 6, "why", T2)) == ("True", "False", "Reconciling")


def test_a_model_that_was_never_told_of_is_told_of():
    found = interrupted(OnnxModelStatus(), 1, "why", T1)
    assert [c.type for c in found.conditions] == ["Ready", "Progressing", "Reconciling"]


def test_people_see_the_version_that_serves_whatever_is_wanted():
    one = revision(1, report=report(version="1"))
    serving = {"current": one, "revisions": (one,)}
    wanted = spec(model={"version": "2"})
    assert status(**serving).version == "1"
    assert status(**serving, spec=wanted, result=REFUSED, refusal=REFUSAL).version == "1", "a refused update"
    two = revision(2, report=report(version="2"))
    rolling = updating(fetch=running()) | {"current": two, "revisions": (one, two)}
    assert status(**rolling, spec=wanted).version == "1", "an update that does not serve yet"
    assert status(**NEW, spec=wanted).version == "2", "nothing serves yet"
    assert status(**NEW, result=REFUSED, refusal=REFUSAL).version is None
    stopped = serving | {"spec": spec(replicas=0), "observation": observe(deployment(wanted=0), [])}
    assert status(**stopped | {"result": REFUSED, "refusal": REFUSAL}).version == "1", "nothing runs"


def test_a_time_moves_only_when_its_condition_flips():
    before = status(now=T1)
    after = status(previous=before, now=T2, **updating(**FAILING))
    times = {c.type: c.last_transition_time for c in after.conditions}
    assert times == {"Ready": T2, "ModelValid": T1, "Progressing": T1, "Available": T1, "Stalled": T2}
    assert conditions(after)["Progressing"] == ("False", "LoadFailed"), "it was False before, for another reason"


def test_the_url_selector_and_counts_are_there_for_scripts():
    found = status()
    assert found.url == "http://resnet50.default.svc"
    assert found.selector == "onnx-operator.dev/model=resnet50"
    assert (found.replicas, found.ready_replicas) == (1, 1)
    assert found.observed_generation == 5
    assert found.interface == "face"


def test_before_the_first_revision_there_is_no_url_but_scale_can_be_read():
    found = status(**NEW, result=None, inspecting=True)
    assert found.url is None
    assert (found.replicas, found.ready_replicas) == (0, 0)
    assert found.selector


def test_the_model_is_called_by_its_version_or_its_digest():
    assert status().model.version == report().digest.removeprefix("sha256:")[:12]
    assert status(spec=spec(model={"version": "7"})).model.version == "7"


def test_a_model_without_a_digest_is_called_by_its_pin():
    unread = report(digest="")
    result = InspectionResult(outcome="Accepted", source=unread.source, report=unread, interface="face")
    found = status(result=result)
    assert found.model.version == hashlib.sha256(b'"etag-1"').hexdigest()[:12]
    valid = next(c for c in found.conditions if c.type == "ModelValid")
    assert '"etag-1"' in valid.message


def test_the_serving_revision_is_the_one_with_traffic():
    found = status(**updating(fetch=running()))
    assert found.serving.revision == "resnet50-1"
    assert status(**NEW).serving is None


def test_of_two_revisions_with_traffic_the_one_with_more_serves_and_of_equals_the_newer():
    def serving(old, new):
        pods = [pod(f"a{i}", ready=True) for i in range(old)]
        pods += [pod(f"b{i}", revision="resnet50-2", ready=True) for i in range(new)]
        return serving_revision(situation(**UPDATING, observation=observe(deployment(), pods))).number

    assert [serving(2, 1), serving(1, 1), serving(1, 2)] == [1, 2, 2]


GPU = revision(1, spec=pod_spec(spec(runtime="GPU")))
ON_GPU = spec(runtime="GPU")


def accelerated(started=None, gpu=GPU, wanted=ON_GPU):
    return conditions(status(spec=wanted, current=gpu, revisions=(gpu,), started=started)).get("Accelerated")


def started(*providers, fallback=(), of="resnet50-1"):
    return Started(
        revision=of, execution_providers=list(providers), fallback_operators=list(fallback), resident_memory_bytes=1
    )


def test_acceleration_is_told_for_gpu_models_only():
    assert accelerated() == ("Unknown", "NotReported")
    assert accelerated(started("CUDAExecutionProvider")) == ("True", "OnGPU")
    assert accelerated(started("CPUExecutionProvider")) == ("False", "FallbackToCPU")
    assert accelerated(started("CUDAExecutionProvider", fallback=["NonZero"])) == ("False", "FallbackToCPU")
    assert accelerated(started("CUDAExecutionProvider", of="resnet50-0")) == ("Unknown", "NotReported")
    assert accelerated(wanted=spec()) is None
    assert accelerated(gpu=ONE) is None
    assert "Accelerated" not in conditions(status())


def warm(warmed, text="", of="resnet50-1"):
    facts = Started(revision=of, execution_providers=[], resident_memory_bytes=1, warmed=warmed, warm_up=text)
    return status(started=facts)


def test_a_model_for_which_no_input_was_found_is_ready_and_says_so():
    found = warm(False, "ONNX Runtime answered none: Gather node, idx=107; give spec.model.testData")
    assert conditions(found)["WarmedUp"] == ("False", "NoInputFound")
    assert conditions(found)["Ready"] == conditions(status())["Ready"]
    told = next(c for c in found.conditions if c.type == "WarmedUp").message
    assert "idx=107" in told
    assert "testData" in told


def test_the_warm_up_is_told_once_a_pod_has_told_it():
    assert conditions(warm(True, "by made-up inputs"))["WarmedUp"] == ("True", "Warmed")
    assert "WarmedUp" not in conditions(status())
    assert "WarmedUp" not in conditions(warm(None)), "a scoring script loads the model itself"
    assert "WarmedUp" not in conditions(warm(False, of="resnet50-0"))


def asking(**resources):
    container = {"name": "server", "resources": resources}
    template = {"metadata": {"labels": {}}, "spec": {"containers": [{"name": "proxy"}, container]}}
    return [{"kind": "Deployment", "metadata": {"name": "resnet50"}, "spec": {"template": template}}]


def test_requests_limits_and_threads_are_told_with_what_they_follow_from():
    asks = asking(requests={"memory": "190Mi", "cpu": "340m"}, limits={"memory": "310Mi"})
    why = "34 ms of CPU time a request, measured, 10 requests/s a pod"
    current = revision(1, manifests=asks, sizing=Sizing(cpu=why))
    before = status(current=current, revisions=(current,)).resources
    assert before is not None
    assert (before.requests, before.limits) == ({"cpu": "340m", "memory": "190Mi"}, {"memory": "310Mi"})
    assert (before.cpu_from, before.threads, before.threads_from) == (why, None, "")

    told = started("CPUExecutionProvider").model_copy(update={"intra_op_threads": 1, "processes": 1})
    after = status(current=current, revisions=(current,), started=told).resources
    assert after is not None
    assert (after.threads, after.threads_from) == (1, "the CPU request, rounded up")
    more = status(current=current, revisions=(current,), started=told.model_copy(update={"intra_op_threads": 2}))
    assert more.resources is not None
    assert more.resources.threads_from == "what the namespace or the node gives the container"

    limited = revision(
        1, manifests=asking(limits={"cpu": "2"}), sizing=Sizing(limits="setting resources.limits: Always")
    )
    two = told.model_copy(update={"intra_op_threads": 2})
    found = status(current=limited, revisions=(limited,), started=two).resources
    assert found is not None
    assert found.threads_from == "the CPU limit, rounded up"
    assert found.limits_from == "setting resources.limits: Always"

    given_ = revision(1, manifests=asks, spec=pod_spec(spec(session={"intraOpThreads": 3})))
    asked = status(current=given_, revisions=(given_,)).resources
    assert asked is not None
    assert asked.threads_from == "spec.session.intraOpThreads"


@pytest.mark.parametrize(
    "template", [{}, {"spec": 3}, {"spec": {"containers": [3, {"name": "server", "resources": 3}]}}]
)
def test_a_revision_that_somebody_else_wrote_breaks_no_status(template):
    manifests = [{"kind": "Deployment", "metadata": {}, "spec": {"template": template}}]
    found = revision(1, manifests=manifests)
    resources = status(current=found, revisions=(found,)).resources
    assert resources is None or resources.requests == {}


def test_facts_of_an_earlier_revision_are_dropped():
    assert status(started=started("CPUExecutionProvider", of="resnet50-0")).started is None
    assert status(started=started("CPUExecutionProvider")).started is not None


def test_the_progress_of_an_update_names_the_source_without_its_secrets():
    signed = spec(model={"uri": "https://h.example/m.onnx?X-Amz-Signature=secret"})
    found = status(spec=signed, result=None, inspecting=True)
    assert "secret" not in found.model_dump_json()


# --- in every situation -----------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=60) | st.sampled_from(["x" * 5000, "🚀" * 2000, "\x01" * 3000, '"' * 3000])
REFUSALS = st.none() | st.builds(
    Refusal,
    reason=st.sampled_from([Reason.CORRUPT, Reason.SOURCE_UNREACHABLE, Reason.NO_MATCHING_POOL, Reason.QUOTA_EXCEEDED]),
    message=TEXTS,
)
PODS = st.lists(
    st.builds(
        lambda name, revision, ready, claim, server: pod(
            "p" * 40 + name, revision=revision, ready=ready, fetch=FETCHED, server=server(claim)
        ),
        st.uuids().map(str),
        st.sampled_from(["resnet50-1", "resnet50-2", "resnet50-9"]),
        st.booleans(),
        TEXTS,
        st.sampled_from(
            [
                lambda text: terminated(1, "Error", text),
                lambda text: waiting("ErrImagePull", text),
                lambda text: waiting("CreateContainerError", text),
                lambda text: running(),
                lambda text: running(exitCode=1, message=text),
            ]
        ),
    ),
    max_size=8,
)
OBSERVATIONS = st.builds(
    observe,
    st.none()
    | st.builds(
        deployment,
        revision=st.sampled_from(["resnet50-1", "resnet50-2"]),
        wanted=st.integers(0, 3),
        ready=st.integers(0, 3),
        total=st.integers(0, 4),
        observed=st.integers(2, 3),
        conditions=st.sampled_from([[], EXCEEDED, ROLLED_OUT]),
    ),
    PODS,
)
SITUATIONS = st.builds(
    lambda base, refusal, inspecting, result: replace(
        base,
        inspecting=inspecting,
        result=None if inspecting else result,
        refusal=None if inspecting else (refusal or result.refusal),
    ),
    st.builds(
        situation,
        spec=st.builds(
            spec, replicas=st.integers(0, 3), suspend=st.booleans(), runtime=st.sampled_from(["CPU", "GPU"])
        ),
        current=st.sampled_from([None, ONE, TWO, GPU]),
        revisions=st.sampled_from([(), (ONE,), (ONE, TWO)]),
        observation=OBSERVATIONS,
        source_changed=st.booleans(),
        trouble=st.just("") | TEXTS,
        cause=st.none()
        | st.builds(Cause, st.sampled_from([*CAUSES, Reason.NAME_CONFLICT, Reason.API_UNAVAILABLE]), TEXTS),
        started=st.sampled_from([None, started("CUDAExecutionProvider"), started("CPUExecutionProvider")]),
    ),
    REFUSALS,
    st.booleans(),
    st.sampled_from([ACCEPTED, REFUSED]),
)


def check(found: OnnxModelStatus, s: Situation, previous: OnnxModelStatus) -> None:
    seen = conditions(found)
    assert len(seen) == len(found.conditions)
    available, ready, kstatus = summary(found)
    assert {"Ready", "Available"} <= set(seen)
    assert (ready == "True") == (kstatus is None and not s.spec.suspend)
    if ready == "True":
        assert s.refusal is None
        # What is looked at again stays Ready; nothing becomes so meanwhile.
        assert not s.inspecting or (summary(previous)[1] == "True" and s.cause is None)
        assert available == "True" or s.spec.replicas == 0
    if s.spec.suspend or s.spec.replicas == 0:
        assert available == "False"
    for condition in found.conditions:
        assert condition.reason in set(Reason)
        assert len(condition.message) <= 2048
    assert len(json.dumps(found.model_dump(mode="json", by_alias=True), ensure_ascii=False).encode()) <= 16 * 1024


@settings(deadline=None, max_examples=150)
@given(s=SITUATIONS, before=SITUATIONS)
def test_in_every_situation_the_status_is_consistent_small_and_settled(s, before):
    previous = compute_status(before, OnnxModelStatus(), T1)
    found = compute_status(s, previous, T2)

    check(found, s, previous)
    assert compute_status(s, found, "2027-01-01T00:00:00Z") == found
    old = {c.type: c for c in previous.conditions}
    for condition in found.conditions:
        if condition.type in old:
            flipped = old[condition.type].status != condition.status
            assert condition.last_transition_time == (T2 if flipped else T1)


@pytest.mark.parametrize("letter", ["x", "🚀", "\x01", '"'])
def test_the_largest_status_that_there_can_be_fits_16_kib(letter):
    text = letter * 3000
    tensors = [TensorSpec(name=f"{i}{text}", datatype="FP32", shape=[text] * 20) for i in range(200)]
    full = report(
        source=SourcePin(kind="Conditional", value='"' + "e" * 254 + '"'),
        inputs=tensors,
        outputs=tensors,
        metadata={f"{i}{text}": text for i in range(200)},
        opsets={f"{i}{text}": 2**62 for i in range(200)},
        producer=text,
        signer=text,
        operators={f"{i}{text}": 2**40 for i in range(200)},
        notes=[text] * 20,
        coverage=[
            ProviderCoverage(
                provider=provider,
                covered_nodes=2**40,
                total_nodes=2**40,
                fallback_operators=[f"{i}{text}" for i in range(200)],
                fallback_flops_share=1 / 3,
            )
            for provider in ("CPU", "CUDA", "TensorRT", "OpenVINO", "MIGraphX", "ROCm")
        ],
    ).bounded()
    assert full.inputs
    label = letter * 64 if letter != "\x01" else "v" * 64
    name = "m" * 52
    amounts = {f"{i}{text}": text for i in range(50)} | {"cpu": text, "memory": text, "ephemeral-storage": text}
    current = replace(
        revision(
            1,
            spec=pod_spec(spec(runtime="GPU")),
            report=full.model_copy(update={"version": label}),
            manifests=asking(requests=amounts, limits=amounts),
            sizing=Sizing(cpu=text, limits=text),
        ),
        name=name + "-0123456789",
    )
    pods = [
        pod(f"{name}-0123456789-{i:05}", revision=current.name, fetch=waiting("CreateContainerError", f"{i}{text}"))
        for i in range(50)
    ] + [pod("ready", revision=current.name, ready=True)]
    s = situation(
        name=name,
        namespace="n" * 63,
        generation=2**40,
        spec=spec(runtime="GPU", model={"version": label}, replicas=1000),
        result=InspectionResult(outcome="Accepted", source=full.source, report=full, interface="face" * 3),
        refusal=Refusal(reason=Reason.POD_TEMPLATE_REJECTED, message=text),
        current=current,
        revisions=(current,),
        observation=observe(deployment(revision=current.name, wanted=1000, conditions=EXCEEDED), pods),
        started=Started(
            revision=current.name,
            execution_providers=["ExecutionProvider" * 3] * 8,
            fallback_operators=["Operator" * 8] * 16,
            fallback_causes=[shorten(text, MAX_CAUSE_BYTES)] * 8,
            resident_memory_bytes=2**60,
            intra_op_threads=10_000,
            processes=1,
            request_cpu_microseconds=2**40,
            warmed=False,
            warm_up=shorten(text, MAX_WARM_UP_BYTES),
        ),
    )
    found = compute_status(s, OnnxModelStatus(), T1)
    assert found.failures
    assert found.serving
    check(found, s, OnnxModelStatus())
