"""Whose fault it is that a pod is not ready, by what its status is a sign of: the model's, its node's, nobody's."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import Phase, TerminationMessage
from onnx_operator.controller.observation.observe import Cause, observe, pod_cause, rollout_cause
from onnx_operator.controller.observation.pods import slim_pod
from onnx_operator.controller.observation.signs import SEVERAL_RESTARTS, SURE_RESTARTS
from tests.unit.controller.samples import (
    FETCHED,
    ROLLED_OUT,
    STARTED_AT,
    deployment,
    pod,
    running,
    silent,
    waiting,
)

REVISION = "resnet50-1"
EARLIER, LATER = "2025-12-31T23:59:50Z", "2026-01-29T00:00:00Z"
"""Ten seconds before containers were started, and four weeks after."""
SERVER_CRASHED = {"exitCode": 139, "message": TerminationMessage(phase=Phase.LOADING).to_json()}
MODELS_FAULTS = [
    {"exitCode": 137, "reason": "OOMKilled", "message": TerminationMessage(phase=Phase.LOADING).to_json()},
    {
        "exitCode": 1,
        "message": TerminationMessage(phase=Phase.LOADING, reason=Reason.LOAD_FAILED, message="bad").to_json(),
    },
    SERVER_CRASHED,
]


def cause(server, **changes) -> Cause:
    found = pod_cause(pod(fetch=FETCHED, server=server, **changes))
    assert found is not None
    return found


def restarted(count, state):
    return {**state, "restartCount": count}


# --- the model's fault, for sure --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ended", MODELS_FAULTS, ids=["memory", "load", "crash"])
def test_one_restart_is_told_and_is_nobodys_fault_yet(ended):
    for state in ({"state": {"terminated": ended}}, restarted(1, running(**ended))):
        found = cause(state)
        assert not found.is_fault
        assert found.message


@pytest.mark.parametrize("ended", MODELS_FAULTS, ids=["memory", "load", "crash"])
def test_in_the_kubelets_back_off_or_after_two_restarts_it_is_the_models_fault(ended):
    assert cause(waiting("CrashLoopBackOff", "back-off 10s", **ended)).is_fault
    assert cause(restarted(SURE_RESTARTS, running(**ended))).is_fault
    assert cause(restarted(SURE_RESTARTS, {"state": {"terminated": ended}})).is_fault


def test_a_server_that_ended_once_restarts_and_one_that_ends_again_and_again_is_a_crash_loop():
    once = cause(restarted(1, running(**SERVER_CRASHED)))
    assert once.reason is Reason.RESTARTING
    assert "signal 11 in phase Loading" in once.message
    assert cause(waiting("CrashLoopBackOff", **SERVER_CRASHED)).reason is Reason.CRASH_LOOP


def test_restarts_of_long_ago_make_no_loop_of_an_end_after_a_long_run():
    ended = SERVER_CRASHED | {"startedAt": "2025-12-01T00:00:00Z", "finishedAt": EARLIER}
    assert cause(restarted(7, running(**ended))).reason is Reason.RESTARTING


def test_a_fault_that_is_sure_speaks_before_one_that_may_be_chance():
    chance = pod("a", fetch=FETCHED, server=restarted(1, running(**MODELS_FAULTS[1])))
    sure = pod("b", fetch=FETCHED, server=waiting("CrashLoopBackOff", **SERVER_CRASHED))
    found = rollout_cause(observe(deployment(), [chance, sure]), REVISION)
    assert found is not None
    assert (found.reason, found.is_fault) == (Reason.CRASH_LOOP, True)


# --- its node's -------------------------------------------------------------------------------------------------------

UNSEEN = [{"exitCode": 255, "reason": "Unknown"}, {"exitCode": 137, "reason": "ContainerStatusUnknown"}]


@pytest.mark.parametrize("ended", UNSEEN, ids=["255", "no trace"])
def test_an_end_that_nobody_saw_is_the_nodes(ended):
    for state in ({"state": {"terminated": ended}}, waiting("CrashLoopBackOff", **ended)):
        found = cause(state)
        assert found.reason is Reason.NODE_LOST
        assert not found.is_fault
    found = pod_cause(pod(fetch={"state": {"terminated": ended}}, server=waiting("PodInitializing")))
    assert found is not None
    assert found.reason is Reason.NODE_LOST


@pytest.mark.parametrize("ended", UNSEEN, ids=["255", "no trace"])
def test_a_pod_whose_node_is_back_does_what_every_pod_does(ended):
    assert cause(running(**ended)).reason is Reason.LOADING
    again = pod(fetch=running(**ended), server=waiting("PodInitializing", **ended))
    found = pod_cause(again)
    assert found is not None
    assert found.reason is Reason.DOWNLOADING


def test_who_ends_with_255_for_ever_blames_no_node_for_ever():
    ended = {"exitCode": 255, "reason": "Error"}
    assert cause(restarted(SEVERAL_RESTARTS, waiting("CrashLoopBackOff", **ended))).reason is Reason.CRASH_LOOP
    long = ended | {"startedAt": "2025-12-01T00:00:00Z", "finishedAt": EARLIER}
    assert cause(restarted(SEVERAL_RESTARTS, {"state": {"terminated": long}})).reason is Reason.NODE_LOST


ALL_READY = {"type": "ContainersReady", "status": "True"}
SERVING = {**running(), "ready": True, "started": True}
TAINTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "DeletionByTaintManager",
    "message": "Taint manager: deleting due to NoExecute taint",
}


def on_node(found, name="node-7"):
    found["spec"]["nodeName"] = name
    return found


def test_a_pod_that_the_node_controller_took_out_of_service_is_lost_with_its_node():
    """The kubelet is not there to say anything: all else is as it was when the pod served."""
    found = pod_cause(on_node(pod(fetch=FETCHED, server=SERVING, conditions=[ALL_READY], since=LATER)))
    assert found is not None
    assert found.reason is Reason.NODE_LOST
    assert "node-7" in found.message


def test_a_pod_that_is_being_deleted_because_of_its_node_is_told_of_until_another_serves():
    old = on_node(pod("old", fetch=FETCHED, server=SERVING, conditions=[TAINTED], deletionTimestamp=LATER))
    seen = observe(deployment(conditions=ROLLED_OUT), [old])
    assert seen.live_pods() == []
    assert "node-7" in seen.lost(REVISION)
    found = rollout_cause(seen, REVISION)
    assert found is not None
    assert found.reason is Reason.NODE_LOST
    assert observe(deployment(), [old]).lost("resnet50-2") == ""


def test_what_ended_with_its_node_weeks_ago_and_was_never_removed_is_no_news():
    ended = pod("old", phase="Failed", conditions=[TAINTED])
    assert observe(deployment(), [ended]).lost(REVISION) == ""


def test_a_readiness_gate_that_is_shut_is_no_lost_node():
    gated = pod(fetch=FETCHED, server=SERVING, conditions=[ALL_READY], since=LATER)
    gated["status"]["conditions"][-1]["reason"] = "ReadinessGatesNotReady"
    found = pod_cause(gated)
    assert found is not None
    assert found.reason is not Reason.NODE_LOST


# --- nobody answers ---------------------------------------------------------------------------------------------------


def test_a_pod_that_lost_its_readiness_is_unresponsive_whatever_it_went_through_before():
    month_ago = SERVER_CRASHED | {"finishedAt": EARLIER}
    for server in (silent(), restarted(3, silent(**month_ago)), restarted(1, silent(**UNSEEN[0]))):
        found = cause(server, since=LATER)
        assert found.reason is Reason.UNRESPONSIVE
        assert "server" in found.message
        assert not found.is_fault


def test_a_pod_that_has_just_started_is_not_unresponsive_before_it_was_ever_ready():
    assert cause(silent(), since=EARLIER).reason is Reason.LOADING
    assert cause(silent(), since=STARTED_AT).reason is Reason.LOADING
    assert cause(silent()).reason is Reason.LOADING
    assert cause(running(), since=LATER).reason is Reason.LOADING, "it has not started"


def test_a_proxy_beside_the_server_that_does_not_answer_is_named():
    two = pod(fetch=FETCHED, server=SERVING, since=LATER)
    two["status"]["containerStatuses"].append({"name": "proxy", **silent()})
    found = pod_cause(two)
    assert found is not None
    assert found.reason is Reason.UNRESPONSIVE
    assert "proxy" in found.message


def test_a_crash_is_history_once_the_server_has_started_again():
    for server in (silent(**SERVER_CRASHED), restarted(4, silent(**SERVER_CRASHED))):
        assert cause(server, since=EARLIER).reason is Reason.LOADING
    long_ago = SERVER_CRASHED | {"finishedAt": "2025-12-01T00:00:00Z"}
    assert cause(running(**long_ago)).reason is Reason.LOADING, "the kubelet does not wait for weeks"
    just_now = SERVER_CRASHED | {"finishedAt": EARLIER}
    assert cause(running(**just_now)).reason is Reason.RESTARTING


def test_an_init_container_that_runs_again_has_proved_nothing():
    failed = {"exitCode": 1, "message": TerminationMessage(phase=Phase.DOWNLOADING, message="503").to_json()}
    found = pod_cause(pod(fetch={**running(**failed), "started": True}, server=waiting("PodInitializing")))
    assert found is not None
    assert found.reason is Reason.DOWNLOAD_FAILED


# --- in every state ---------------------------------------------------------------------------------------------------

TIMES = st.sampled_from(["", "x", EARLIER, STARTED_AT, LATER, "2025-12-01T00:00:00Z"])
ENDS = st.fixed_dictionaries(
    {
        "exitCode": st.sampled_from([0, 1, 137, 139, 255]),
        "reason": st.sampled_from(["Error", "OOMKilled", "Unknown", "ContainerStatusUnknown"]),
        "message": st.sampled_from(["", *(each.get("message", "") for each in MODELS_FAULTS)]),
        "startedAt": TIMES,
        "finishedAt": TIMES,
    }
)
SERVERS = st.builds(
    lambda state, restarts, started, ready: {**state, "restartCount": restarts, "started": started, "ready": ready},
    st.one_of(
        st.builds(lambda ended: running(**ended), ENDS),
        st.builds(lambda ended: waiting("CrashLoopBackOff", **ended), ENDS),
        st.builds(lambda ended: {"state": {"terminated": ended}}, ENDS),
        st.just(running()),
    ),
    st.integers(0, 9),
    st.booleans(),
    st.booleans(),
)


@settings(deadline=None)
@given(server=SERVERS, since=TIMES, all_ready=st.booleans())
def test_nothing_is_the_models_fault_before_the_back_off_and_two_restarts(server, since, all_ready):
    conditions = [{"type": "ContainersReady", "status": str(all_ready)}]
    found = pod(fetch=FETCHED, server=server, since=since, conditions=conditions)
    reason = pod_cause(found)
    backs_off = server["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
    if reason and reason.is_fault:
        assert backs_off or server["restartCount"] >= SURE_RESTARTS
        assert not (server["started"] and "running" in server["state"])
    # What is kept of a pod tells the same, and fits what is sent.
    assert pod_cause(slim_pod(found)) == reason
    assert json.loads(json.dumps(slim_pod(found))) == slim_pod(found)


def test_a_rollout_that_came_to_its_end_is_known_by_its_deployment():
    assert observe(deployment(conditions=ROLLED_OUT), []).complete_once
    exceeded = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    for other in ([], exceeded, [{"type": "Available", "status": "True", "reason": "NewReplicaSetAvailable"}]):
        assert not observe(deployment(conditions=other), []).complete_once


@pytest.mark.parametrize("held", ["DeploymentPaused", "DeploymentResumed"])
def test_a_deployment_that_somebody_pauses_came_to_its_end_where_all_its_pods_are_new(held):
    conditions = [{"type": "Progressing", "status": "Unknown", "reason": held}]
    assert observe(deployment(wanted=3, ready=2, conditions=conditions), []).complete_once
    assert not observe(deployment(wanted=3, ready=3, updated=1, total=4, conditions=conditions), []).complete_once
    assert not observe(deployment(wanted=3, ready=0, conditions=conditions), []).complete_once
