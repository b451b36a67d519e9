"""A model of which nothing is changed goes on telling the truth about its pods."""

from dataclasses import replace

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelStatus
from onnx_operator.controller.observation.observe import Cause, observe
from onnx_operator.controller.status.hands_off import PAUSED, hands_off_status, is_paused, was_applied
from onnx_operator.controller.status.status import compute_status
from tests.unit.controller.samples import deployment, pod, spec
from tests.unit.controller.situations import SERVING_ONE, T1, T2, situation

NEWER = Cause(Reason.NEWER_VERSION, "made for a newer version")
LACKING = observe(deployment(ready=0), [pod(ready=False)])


def told(**changes):
    """The status as it stands before, at generation 5."""
    return compute_status(situation(**changes), compute_status(situation(), OnnxModelStatus(), T1), T1)


def shown(status):
    return {c.type: (str(c.status), c.reason) for c in status.conditions}


@pytest.mark.parametrize("cause", [PAUSED, NEWER])
def test_a_model_that_serves_what_it_should_stays_ready_and_says_why_nothing_changes(cause):
    before = told()
    after = hands_off_status(cause, spec(), 5, SERVING_ONE, before, T2)
    found = shown(after)
    assert found["Ready"] == ("True", "Complete")
    assert found["Progressing"] == ("False", cause.reason)
    assert not found.keys() & {"Reconciling", "Stalled"}
    assert (after.url, after.serving, after.model) == (before.url, before.serving, before.model)
    # And it stays so, without another write.
    assert hands_off_status(cause, spec(), 5, SERVING_ONE, after, T2) == after


@pytest.mark.parametrize("cause", [PAUSED, NEWER])
def test_a_spec_that_is_not_applied_is_never_ready(cause):
    before = told()
    for _ in range(3):
        before = hands_off_status(cause, spec(), 6, SERVING_ONE, before, T2)
        assert shown(before)["Ready"] == ("False", cause.reason)
        assert before.observed_generation == 6
        assert ("Stalled" in shown(before)) == (cause is NEWER)
    assert shown(before)["Available"][0] == "True"


@pytest.mark.parametrize(
    "changes",
    [
        {"inspecting": True, "result": None},
        {"cause": Cause(Reason.NAME_CONFLICT, "taken")},
        {"cause": Cause(Reason.QUOTA_EXCEEDED, "full")},
    ],
)
def test_what_was_not_rolled_out_when_hands_were_taken_off_is_not_ready(changes):
    before = compute_status(situation(**changes), OnnxModelStatus(), T1)
    assert not was_applied(before, 5)
    assert shown(hands_off_status(PAUSED, spec(), 5, SERVING_ONE, before, T2))["Ready"] == ("False", "Paused")


def test_pods_that_come_late_make_a_model_ready_though_hands_were_taken_off():
    late = replace(LACKING, deadline_exceeded=True)
    before = compute_status(situation(observation=late), OnnxModelStatus(), T1)
    assert shown(before)["Ready"] == ("False", "DeadlineExceeded")
    assert shown(hands_off_status(PAUSED, spec(), 5, SERVING_ONE, before, T2))["Ready"] == ("True", "Complete")


def test_pods_that_are_lost_and_come_back_are_told():
    before = told()
    lost = hands_off_status(PAUSED, spec(), 5, LACKING, before, T2)
    assert shown(lost)["Ready"][0] == "False"
    assert shown(lost)["Ready"][1] != "Paused"
    assert shown(lost)["Available"] == ("False", "NoReplicasReady")
    again = hands_off_status(PAUSED, spec(), 5, SERVING_ONE, lost, T2)
    assert shown(again)["Ready"] == ("True", "Complete")


def test_a_model_that_was_paused_before_it_was_looked_at():
    found = hands_off_status(PAUSED, spec(), 1, replace(SERVING_ONE, deployment=None, pods=()), OnnxModelStatus(), T1)
    assert shown(found)["Ready"] == ("False", "Paused")
    assert found.observed_generation == 1


@pytest.mark.parametrize(
    ("annotations", "paused"),
    [
        (None, False),
        ({}, False),
        ({"onnx-operator.dev/paused": "true"}, True),
        ({"onnx-operator.dev/paused": ""}, True),
        ({"onnx-operator.dev/paused": "until Monday"}, True),
        ({"onnx-operator.dev/paused": "false"}, False),
    ],
)
def test_any_value_but_false_pauses(annotations, paused):
    assert is_paused({"metadata": {"annotations": annotations}}) is paused
