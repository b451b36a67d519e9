"""Status: the tables of the API, row by row, and what holds in every situation."""

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelStatus, Started
from onnx_operator.api.reasons import REASONS
from onnx_operator.api.report import InspectionResult, ProviderCoverage, Refusal, TensorSpec
from onnx_operator.api.sources import SourcePin
from onnx_operator.controller.observation.observe import Cause, Observation, observe
from onnx_operator.controller.revision.revisions import Revision, RevisionData, pod_spec
from onnx_operator.controller.status.status import Situation, compute_status, serving_revision
from tests.unit.controller.samples import FETCHED, deployment, pod, report, running, spec, terminated, waiting

T1, T2 = "2026-01-01T00:00:00.000000Z", "2026-02-02T00:00:00.000000Z"
ACCEPTED = InspectionResult(outcome="Accepted", source=report().source, report=report(), interface="face")
REFUSAL = Refusal(reason=Reason.CORRUPT, message="the file ends in the middle of initializer 'w'")
REFUSED = InspectionResult(outcome="Refused", source=report().source, refusal=REFUSAL)
CAUSES = [reason for reason, facts in REASONS.items() if facts.precedence is not None]


def revision(number=1, **changes) -> Revision:
    values = {
        "spec": pod_spec(spec()),
        "report": report(),
        "interface": "face",
        "pool": "cpu",
        "manifests": [],
    }
    return Revision(f"resnet50-{number}", number, RevisionData(**(values | changes)))


ONE, TWO = revision(1), revision(2)
SERVING_ONE = observe(deployment(ready=1), [pod(ready=True)])


def situation(**changes) -> Situation:
    """A model that serves what it should, unless changed."""
    values = {
        "name": "resnet50",
        "namespace": "default",
        "generation": 5,
        "spec": spec(),
        "inspection_key": "key",
        "inspecting": False,
        "source_changed": False,
        "result": ACCEPTED,
        "refusal": None,
        "current": ONE,
        "revisions": (ONE,),
        "observation": SERVING_ONE,
        "trouble": None,
        "outdated": None,
        "started": None,
    }
    return Situation(**(values | changes))


def status(previous=None, now=T1, **changes) -> OnnxModelStatus:
    return compute_status(situation(**changes), previous or OnnxModelStatus(), now)


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

NEW = {"current": None, "revisions": (), "observation": Observation()}
FAILING = {
    "fetch": FETCHED,
    "server": waiting(
        "CrashLoopBackOff", exitCode=1, message='{"phase":"Loading","reason":"LoadFailed","message":"bad"}'
    ),
}
MISMATCH = {
    "fetch": waiting(
        "CrashLoopBackOff", exitCode=1, message='{"phase":"Downloading","reason":"DigestMismatch","message":"other"}'
    ),
}
UNSCHEDULABLE = {"conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/1 nodes"}]}
UPDATING = {"current": TWO, "revisions": (ONE, TWO)}


def updating(**new_pod):
    """The old revision serves, the new one's pod is as described."""
    pods = [pod("old", ready=True), pod("new", revision="resnet50-2", **new_pod)]
    return UPDATING | {"observation": observe(deployment(revision="resnet50-2", ready=1, total=2), pods)}


def first(**new_pod):
    return {"observation": observe(deployment(), [pod(**new_pod)])}


UNREACHABLE = Refusal(reason=Reason.SOURCE_UNREACHABLE, message="connection refused", retriable=True)
REJECTED = Refusal(reason=Reason.POD_TEMPLATE_REJECTED, message="unknown field nodeSelectr")
EXCEEDED = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]

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
        {"trouble": Cause(Reason.NAME_CONFLICT, "there is a Service already"), "observation": Observation()},
        ("False", "False", "Stalled"),
        "NameConflict",
    ),
    "a child is refused for now": (
        {"trouble": Cause(Reason.CREATION_FAILED, "forbidden"), "observation": Observation()},
        ("False", "False", "Reconciling"),
        "CreationFailed",
    ),
    "scaling up": (
        {"spec": spec(replicas=3), "observation": observe(deployment(wanted=3, ready=1), [pod(ready=True)])},
        ("True", "False", "Reconciling"),
        "RollingOut",
    ),
    "scaling up, not told the Deployment yet": (
        {"spec": spec(replicas=3)},
        ("True", "False", "Reconciling"),
        "RollingOut",
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


def test_an_accepted_model_is_valid_and_says_what_it_is():
    valid = next(c for c in status().conditions if c.type == "ModelValid")
    assert (valid.status, valid.reason) == ("True", "Inspected")
    assert "ai.onnx 17" in valid.message


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
    Refusal, reason=st.sampled_from([Reason.CORRUPT, Reason.SOURCE_UNREACHABLE, Reason.NO_MATCHING_POOL]), message=TEXTS
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
        conditions=st.sampled_from([[], EXCEEDED]),
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
        trouble=st.none() | st.builds(Cause, st.sampled_from([*CAUSES, Reason.NAME_CONFLICT]), TEXTS),
        started=st.sampled_from([None, started("CUDAExecutionProvider"), started("CPUExecutionProvider")]),
    ),
    REFUSALS,
    st.booleans(),
    st.sampled_from([ACCEPTED, REFUSED]),
)


def check(found: OnnxModelStatus, s: Situation) -> None:
    seen = conditions(found)
    assert len(seen) == len(found.conditions)
    available, ready, kstatus = summary(found)
    assert {"Ready", "Available"} <= set(seen)
    assert (ready == "True") == (kstatus is None and not s.spec.suspend)
    if ready == "True":
        assert s.refusal is None
        assert not s.inspecting
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

    check(found, s)
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
    current = replace(
        revision(1, spec=pod_spec(spec(runtime="GPU")), report=full.model_copy(update={"version": label})),
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
            resident_memory_bytes=2**60,
        ),
    )
    found = compute_status(s, OnnxModelStatus(), T1)
    assert found.failures
    assert found.serving
    check(found, s)
