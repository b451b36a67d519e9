"""What pods and their Deployment tell, by cause."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import Phase, TerminationMessage
from onnx_operator.api.reasons import REASONS
from onnx_operator.api.sources import SourcePin
from onnx_operator.controller.observation.observe import (
    MAX_FAILURE_PODS,
    MAX_FAILURES,
    MAX_GUESSED,
    observe,
    pod_cause,
    rollout_cause,
)
from onnx_operator.controller.observation.signs import SEVERAL_RESTARTS
from tests.unit.controller.samples import FETCHED, deployment, pod, running, terminated, waiting

REVISION = "resnet50-1"
INITIALIZING = waiting("PodInitializing")


def message(phase: str, reason: Reason | None = None, text: str = "", observed: str = "") -> str:
    pin = SourcePin(kind="Conditional", value=observed) if observed else None
    return TerminationMessage(phase=Phase(phase), reason=reason, message=text, observed=pin).to_json()


def cause_of(*pods, **deployment_fields):
    return rollout_cause(observe(deployment(**deployment_fields), list(pods)), REVISION)


# --- each cause -------------------------------------------------------------------------------------------------------


def test_a_pod_that_no_node_takes_says_what_the_scheduler_said():
    text = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text}
    found = cause_of(pod(conditions=[condition]))
    assert (found.reason, found.message) == (Reason.UNSCHEDULABLE, text)


QUOTA = (
    'pods "resnet50-6d4cf56db6-{}" is forbidden: exceeded quota: small, requested: limits.memory=300Mi, '
    "used: limits.memory=0, limited: limits.memory=100Mi"
)


def replica_failure(text):
    return [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": text}]


@pytest.mark.parametrize(
    "text",
    [
        QUOTA.format("abcde"),
        'pods "m-1-x" is forbidden: failed quota: q: must specify limits.cpu for: server',
        'pods "m-1-x" is forbidden: maximum memory usage per Container is 200Mi, but limit is 300Mi',
    ],
)
def test_a_quota_in_the_way_is_named(text):
    found = cause_of(conditions=replica_failure(text))
    assert found.reason is Reason.QUOTA_EXCEEDED
    assert text.split("is forbidden: ")[1] in found.message


def test_the_message_of_a_quota_does_not_change_from_try_to_try():
    # The ReplicaSet makes up a name for each pod that it tries to create.
    first, second = (cause_of(conditions=replica_failure(QUOTA.format(n))) for n in ("abcde", "vwxyz"))
    assert first == second


WANTS_LIMITS = 'pods "resnet50-7d4f9-x2x9z" is forbidden: failed quota: q: must specify limits.cpu for: fetch,server'


def replica_set(number, revision=REVISION, **failure):
    conditions = replica_failure(failure["failure"]) if failure else []
    annotations = {"deployment.kubernetes.io/revision": str(number)}
    metadata = {"labels": {"onnx-operator.dev/revision": revision}, "annotations": annotations}
    return {"metadata": metadata, "status": {"conditions": conditions}}


def test_what_the_namespace_demands_is_learned_from_the_refusal_of_the_newest_pods():
    sets = [replica_set(1, failure=WANTS_LIMITS), replica_set(2, failure=WANTS_LIMITS.replace("cpu", "memory"))]
    found = observe(deployment(conditions=replica_failure(WANTS_LIMITS)), [], sets)
    assert found.demands.limits == ["memory"]
    assert "limits.memory" in found.creation.message


def test_the_refusal_of_an_earlier_revision_is_neither_told_nor_learned_from():
    sets = [replica_set(1, "resnet50-0", failure=WANTS_LIMITS), replica_set(2)]
    for known in (sets, sets[:1], []):
        found = observe(deployment(conditions=replica_failure(WANTS_LIMITS)), [], known)
        assert found.creation is None
        assert not found.demands


def test_where_replica_sets_may_not_be_read_the_deployment_is_believed():
    found = observe(deployment(conditions=replica_failure(WANTS_LIMITS)), [], None)
    assert found.demands.limits == ["cpu"]


def test_several_faults_are_told_in_the_same_order_from_try_to_try():
    words = 'pods "m-1-{}" is forbidden: [{}, {}]'
    faults = (
        "minimum cpu usage per Pod is 1, but request is 50m",
        "maximum memory usage per Pod is 1Mi, but limit is 2Gi",
    )
    first = cause_of(conditions=replica_failure(words.format("abcde", *faults)))
    assert first == cause_of(conditions=replica_failure(words.format("vwxyz", *reversed(faults))))
    assert all(fault in first.message for fault in faults)


def test_nothing_is_learned_from_what_a_deployment_said_before_it_was_changed():
    found = observe(deployment(conditions=replica_failure(WANTS_LIMITS), generation=4, observed=3), [])
    assert not found.demands


def test_the_message_of_a_limit_below_the_request_does_not_change_from_try_to_try_either():
    words = 'Pod "m-1-{}" is invalid: spec.containers[0].resources.requests: Invalid value: "1": must be less than or '
    first, second = (
        cause_of(conditions=replica_failure(words.format(n) + "equal to cpu limit of 500m")) for n in ("abcde", "vwxyz")
    )
    assert first == second
    assert first.reason is Reason.QUOTA_EXCEEDED
    assert "spec.resources" in first.message


def test_another_refusal_of_pods_is_a_failed_creation():
    found = cause_of(conditions=replica_failure('pods "m-x" is forbidden: violates PodSecurity "restricted:latest"'))
    assert found.reason is Reason.CREATION_FAILED
    assert "PodSecurity" in found.message


PULL_ERROR = (
    'rpc error: code = NotFound desc = failed to pull and unpack image "registry.example/i:1": failed to resolve '
    "reference: not found"
)


def test_an_image_that_cannot_be_pulled_is_told_the_same_whichever_half_of_the_back_off_is_seen():
    backing_off = f'Back-off pulling image "registry.example/i:1": ErrImagePull: {PULL_ERROR}'
    pods = [
        pod(fetch=waiting("ErrImagePull", PULL_ERROR)),
        pod(fetch=waiting("ImagePullBackOff", backing_off)),
    ]
    first, second = (cause_of(p) for p in pods)
    assert first == second
    assert first.reason is Reason.IMAGE_PULL_FAILED
    assert "registry.example/i:1" in first.message
    assert "not found" in first.message


@pytest.mark.parametrize("reason", ["InvalidImageName", "ErrImageNeverPull", "ImageInspectError"])
def test_other_troubles_with_an_image_are_image_troubles(reason):
    assert cause_of(pod(fetch=waiting(reason, "words"))).reason is Reason.IMAGE_PULL_FAILED


def test_a_container_that_cannot_be_created_says_why():
    found = cause_of(pod(fetch=waiting("CreateContainerConfigError", 'secret "models-read" not found')))
    assert found.reason is Reason.CREATION_FAILED
    assert 'secret "models-read" not found' in found.message


OOM = {"exitCode": 137, "reason": "OOMKilled", "message": message("WarmingUp")}


@pytest.mark.parametrize(
    "server",
    [{"state": {"terminated": OOM}}, waiting("CrashLoopBackOff", "back-off 10s", **OOM), running(**OOM)],
    ids=["just now", "backing off", "running again"],
)
def test_a_kill_for_memory_tells_phase_limit_and_what_to_raise(server):
    found = cause_of(pod(fetch=FETCHED, server=server))
    assert found.reason is Reason.OUT_OF_MEMORY
    assert "WarmingUp" in found.message
    assert "300Mi" in found.message
    assert "spec.resources.limits.memory" in found.message


def test_a_kill_of_fetch_for_memory_does_not_send_the_user_to_the_servers_limit():
    found = cause_of(pod(fetch={"state": {"terminated": OOM}}, server=INITIALIZING))
    assert found.reason is Reason.OUT_OF_MEMORY
    assert "256Mi" in found.message
    assert "spec.resources" not in found.message
    assert "spec.podTemplate" in found.message


LOAD_FAILED = {
    "exitCode": 1,
    "reason": "Error",
    "message": message("Loading", Reason.LOAD_FAILED, "Gemm: node 'fc': wrong shape"),
}


GUESSING = TerminationMessage(phase=Phase.WARMING_UP, guessing=True).to_json()


@pytest.mark.parametrize(
    "ended",
    [{"exitCode": 137, "reason": "OOMKilled"}, {"exitCode": 136, "reason": "Error"}, {"exitCode": 139}],
    ids=["memory", "a division by zero", "a segmentation fault"],
)
def test_a_kill_by_an_input_that_we_made_up_is_never_the_models_fault(ended):
    found = cause_of(pod(fetch=FETCHED, server=waiting("CrashLoopBackOff", "back-off 10s", **ended, message=GUESSING)))
    assert found.reason is Reason.LOADING
    assert not REASONS[found.reason].models_fault
    assert "made-up input" in found.message


def test_a_pod_is_not_believed_for_ever_that_a_made_up_input_killed_it():
    """After so many kills the server makes up no inputs, and measures nothing: the cause is another."""
    for ended in ({"exitCode": 137, "reason": "OOMKilled"}, {"exitCode": 139}):
        for restarts, guessed in ((MAX_GUESSED, True), (MAX_GUESSED + 1, False)):
            server = waiting("CrashLoopBackOff", "back-off", **ended, message=GUESSING) | {"restartCount": restarts}
            found = cause_of(pod(fetch=FETCHED, server=server))
            assert (found.reason is Reason.LOADING) == guessed
    assert found.reason is Reason.CRASH_LOOP
    assert "WarmingUp" in found.message


SERVED = {"exitCode": 137, "reason": "OOMKilled", "message": message("Serving")}


@pytest.mark.parametrize("restarts", [0, 1, SEVERAL_RESTARTS - 1])
def test_a_kill_for_memory_while_serving_is_told_and_is_not_the_models_fault(restarts):
    found = cause_of(pod(fetch=FETCHED, server=running(**SERVED) | {"restartCount": restarts}))
    assert found.reason is Reason.KILLED_WHILE_SERVING
    assert not REASONS[found.reason].models_fault
    assert "300Mi" in found.message


def test_a_kill_after_a_long_run_is_no_crash_loop_however_many_there_were_before():
    ended = SERVED | {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T09:00:00Z"}
    found = cause_of(pod(fetch=FETCHED, server=running(**ended) | {"restartCount": 50}))
    assert found.reason is Reason.KILLED_WHILE_SERVING


def test_kills_for_memory_while_serving_that_do_not_end_are_a_crash_loop():
    found = cause_of(pod(fetch=FETCHED, server=running(**SERVED) | {"restartCount": SEVERAL_RESTARTS}))
    assert found.reason is Reason.CRASH_LOOP
    assert "spec.resources.limits.memory" in found.message


@pytest.mark.parametrize(
    "server",
    [{"state": {"terminated": LOAD_FAILED}}, waiting("CrashLoopBackOff", **LOAD_FAILED), running(**LOAD_FAILED)],
    ids=["just now", "backing off", "running again"],
)
def test_a_model_that_does_not_load_says_why(server):
    found = cause_of(pod(fetch=FETCHED, server=server))
    assert (found.reason, found.message) == (Reason.LOAD_FAILED, "Gemm: node 'fc': wrong shape")


def test_a_source_that_changed_says_what_is_there_now():
    ended = terminated(1, "Error", message("Downloading", Reason.SOURCE_CHANGED, "another ETag", '"etag-2"'))
    found = cause_of(pod(fetch=ended, server=INITIALIZING))
    assert found.reason is Reason.SOURCE_CHANGED
    assert found.observed == SourcePin(kind="Conditional", value='"etag-2"')


def test_bytes_that_are_not_what_was_claimed_are_the_models_fault():
    ended = terminated(1, "Error", message("Downloading", Reason.DIGEST_MISMATCH, "sha256 ab, not cd"))
    found = cause_of(pod(fetch=ended, server=INITIALIZING))
    assert (found.reason, found.message) == (Reason.DIGEST_MISMATCH, "sha256 ab, not cd")
    assert REASONS[found.reason].models_fault


def test_a_download_that_fails_says_why():
    ended = terminated(1, "Error", message("Downloading", Reason.DOWNLOAD_FAILED, "503 from the store"))
    found = cause_of(pod(fetch=ended, server=INITIALIZING))
    assert (found.reason, found.message) == (Reason.DOWNLOAD_FAILED, "503 from the store")


def test_fetch_that_dies_without_a_word_is_a_failed_download():
    found = cause_of(pod(fetch=terminated(139), server=INITIALIZING))
    assert found.reason is Reason.DOWNLOAD_FAILED
    assert "signal 11" in found.message


def test_a_server_that_dies_without_a_word_is_a_crash_loop_and_says_how_far_it_came():
    found = cause_of(pod(fetch=FETCHED, server=waiting("CrashLoopBackOff", exitCode=139, message=message("Loading"))))
    assert found.reason is Reason.CRASH_LOOP
    assert "signal 11" in found.message
    assert "Loading" in found.message


def test_a_server_that_ends_again_and_again_without_an_error_is_a_crash_loop_too():
    found = cause_of(pod(fetch=FETCHED, server=waiting("CrashLoopBackOff", "back-off", exitCode=0)))
    assert found is not None
    assert found.reason is Reason.CRASH_LOOP
    assert "exit code 0" in found.message


def test_the_last_words_of_a_foreign_program_are_told():
    ended = waiting("CrashLoopBackOff", exitCode=2, message="ImportError: no module\n")
    found = cause_of(pod(fetch=FETCHED, server=ended))
    assert "ImportError: no module" in found.message
    assert "exit code 2" in found.message


def test_while_fetch_runs_the_pods_download():
    assert cause_of(pod(fetch=running(), server=INITIALIZING)).reason is Reason.DOWNLOADING


def test_while_the_server_starts_the_pods_load():
    assert cause_of(pod(fetch=FETCHED, server=running())).reason is Reason.LOADING


def test_a_download_that_is_tried_again_still_tells_the_failure():
    failed = {"exitCode": 1, "message": message("Downloading", Reason.DOWNLOAD_FAILED, "503")}
    assert cause_of(pod(fetch=running(**failed), server=INITIALIZING)).reason is Reason.DOWNLOAD_FAILED


def test_a_download_that_worked_in_the_end_is_forgotten():
    done = FETCHED | {"lastState": {"terminated": {"exitCode": 1}}}
    assert cause_of(pod(fetch=done, server=running())).reason is Reason.LOADING


def test_a_pod_that_says_nothing_yet_has_no_cause():
    assert pod_cause(pod()) is None
    assert pod_cause({"metadata": {"name": "x"}}) is None


# --- which pods count -------------------------------------------------------------------------------------------------

CRASHED = {"fetch": FETCHED, "server": waiting("CrashLoopBackOff", exitCode=1)}


@pytest.mark.parametrize(
    "gone", [{"deletionTimestamp": "2026-01-01T00:00:00Z"}, {"phase": "Failed"}, {"phase": "Succeeded"}], ids=str
)
def test_pods_on_their_way_out_do_not_count(gone):
    seen = observe(deployment(), [pod(**CRASHED, **gone)])
    assert seen.live_pods() == []
    assert seen.failures == ()
    cause = rollout_cause(seen, REVISION)
    assert cause is None or cause.reason is Reason.CREATION_FAILED


def test_ready_pods_have_no_cause_though_they_crashed_once():
    seen = observe(deployment(), [pod(ready=True, fetch=FETCHED, server=running(exitCode=1))])
    assert seen.pods[0].ready
    assert seen.failures == ()


def test_another_revisions_trouble_does_not_speak_for_this_one():
    assert cause_of(pod(revision="resnet50-0", **CRASHED)) is None
    assert rollout_cause(observe(deployment(revision="other", conditions=replica_failure("x")), []), REVISION) is None


def test_of_several_causes_the_gravest_speaks():
    unschedulable = {"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes"}
    pods = [pod("a", conditions=[unschedulable]), pod("b", fetch=running()), pod("c", **CRASHED)]
    assert cause_of(*pods).reason is Reason.CRASH_LOOP
    assert cause_of(*reversed(pods)) == cause_of(*pods)


def test_pods_are_counted_by_cause():
    pods = [pod(f"p{i}", **CRASHED) for i in range(7)] + [pod("q", fetch=waiting("ErrImagePull", "no")), pod("r")]
    failures = observe(deployment(), pods).failures
    assert [(f.reason, f.count) for f in failures] == [("CrashLoop", 7), ("ImagePullFailed", 1)]
    assert failures[0].pods == [f"p{i}" for i in range(MAX_FAILURE_PODS)]


def test_pods_that_are_merely_on_their_way_are_no_failures():
    assert observe(deployment(), [pod(fetch=running()), pod(fetch=FETCHED, server=running())]).failures == ()


def test_the_list_of_failures_is_bounded():
    pods = [pod(f"p{i}", fetch=FETCHED, server=waiting("CrashLoopBackOff", exitCode=i)) for i in range(1, 100)]
    failures = observe(deployment(), pods).failures
    assert len(failures) == MAX_FAILURES


def test_the_deadline_counts_once_the_deployment_was_seen_by_its_controller():
    condition = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    assert observe(deployment(conditions=condition), []).deadline_exceeded
    assert not observe(deployment(conditions=condition, observed=2), []).deadline_exceeded
    assert not observe(deployment(), []).deadline_exceeded


def test_nothing_yet_is_nothing():
    seen = observe(None, [])
    assert (seen.revision, seen.pods, seen.failures, seen.deadline_exceeded) == ("", (), (), False)


@pytest.mark.parametrize("reason", list(Reason))
def test_whatever_a_pod_claims_is_told_by_a_reason_that_pods_may_have(reason):
    # A container that the user put beside ours may write anything into its termination log.
    claimed = TerminationMessage(phase=Phase.LOADING, reason=reason, message="m").to_json()
    seen = observe(deployment(), [pod(fetch=FETCHED, server=terminated(1, "Error", claimed))])
    assert REASONS[rollout_cause(seen, REVISION).reason].precedence is not None
    assert len(seen.failures) == 1


TEXTS = st.sampled_from(["", "x", message("Loading"), '{"phase":1}', "[]", '{"phase":"Loading","reason":"Ready"}'])
STATES = st.one_of(
    st.builds(waiting, st.sampled_from(["CrashLoopBackOff", "ErrImagePull", "PodInitializing", "X"]), TEXTS),
    st.builds(
        waiting,
        st.just("CrashLoopBackOff"),
        TEXTS,
        exitCode=st.integers(0, 255),
        message=TEXTS,
        reason=st.sampled_from(["OOMKilled", "Error"]),
    ),
    st.builds(terminated, st.integers(0, 255), st.sampled_from(["OOMKilled", "Error", "Completed"]), TEXTS),
    st.builds(running),
    st.builds(running, exitCode=st.integers(0, 255), message=TEXTS),
    st.just({}),
    st.just({"state": None, "lastState": None}),
)


@settings(deadline=None)
@given(
    pods=st.lists(
        st.builds(pod, st.uuids().map(str), ready=st.booleans(), fetch=st.none() | STATES, server=st.none() | STATES),
        max_size=8,
    )
)
def test_any_pods_give_an_observation_that_does_not_depend_on_their_order(pods):
    seen = observe(deployment(), pods)
    turned = observe(deployment(), pods[::-1])
    assert seen.failures == turned.failures
    assert rollout_cause(seen, REVISION) == rollout_cause(turned, REVISION)
    assert len(seen.failures) <= MAX_FAILURES
    json.dumps([f.model_dump(mode="json") for f in seen.failures])


def test_pods_that_fail_as_a_whole_speak_when_nothing_else_does():
    evicted = pod()
    evicted["status"] = {"phase": "Failed", "reason": "Evicted", "message": "volume model exceeds its limit"}
    found = cause_of(evicted)
    assert found.reason is Reason.CREATION_FAILED
    assert "Evicted: volume model exceeds its limit" in found.message
    # Its replacement tells more.
    assert cause_of(evicted, pod(fetch=running())).reason is Reason.DOWNLOADING
