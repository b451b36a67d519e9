"""Events: what ``kubectl describe`` tells of each change."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.api.conditions import ConditionStatus, ConditionType, Reason
from onnx_operator.api.onnxmodel import Condition, OnnxModelStatus
from onnx_operator.controller.status.events import NOTE_LIMIT, changed_conditions, event_for

NOW = "2026-01-01T00:00:00.000000Z"
MODEL = {"metadata": {"name": "resnet50", "namespace": "default", "uid": "u-1", "resourceVersion": "7"}}


def condition(kind="Progressing", status="True", reason="RollingOut", message="m"):
    return Condition(
        type=kind, status=status, reason=reason, message=message, last_transition_time=NOW, observed_generation=1
    )


def status(*conditions):
    return OnnxModelStatus(conditions=list(conditions))


def event(found=None, model=MODEL, now=NOW):
    return event_for(model, found or condition(), "operator-0", now)


def told(before, after):
    return [c.reason for c in changed_conditions(status(*before), status(*after))]


WAITING = condition("Available", "False", "NoReplicasReady")
SERVING = condition("Available", "True", "MinimumReplicasReady")
DONE = condition("Progressing", "False", "Complete")
INSPECTED = condition("ModelValid", "True", "Inspected")


def steps(*reasons):
    return [condition("Progressing", "True", reason) for reason in reasons]


def test_from_apply_to_ready_a_model_tells_that_it_is_valid_rolls_out_and_is_there():
    reading, rolling, downloading, loading = steps("Inspecting", "RollingOut", "Downloading", "Loading")
    warm = condition("WarmedUp", "True", "Warmed")
    lives = [
        [],
        [reading, WAITING],
        [INSPECTED, rolling, WAITING],
        [INSPECTED, downloading, WAITING],
        [INSPECTED, rolling, WAITING],
        [INSPECTED, loading, WAITING],
        [INSPECTED, loading, SERVING],
        [INSPECTED, DONE, SERVING, warm],
    ]
    reasons = [told(before, after) for before, after in pairwise(lives)]
    assert [r for each in reasons for r in each] == ["Inspected", "RollingOut", "Complete"]


def test_every_trouble_is_an_event_whatever_it_follows():
    (loading,) = steps("Loading")
    trouble = condition("Progressing", "True", "Unschedulable")
    assert told([loading], [trouble]) == ["Unschedulable"]
    assert told([], [condition("WarmedUp", "False", "NoInputFound")]) == ["NoInputFound"]
    assert told([trouble], [loading]) == []


def test_a_trouble_that_is_sure_by_now_is_told_once():
    maybe, sure = condition("Progressing", "True", "LoadFailed"), condition("Progressing", "False", "LoadFailed")
    assert told([maybe], [sure]) == []
    assert told([], [sure]) == ["LoadFailed"]


def test_scaling_is_a_step_and_a_pod_that_is_lost_with_its_node_is_none():
    scaling, lost = condition("Progressing", "True", "Scaling"), condition("Progressing", "True", "NodeLost")
    assert told([DONE, SERVING], [scaling, SERVING]) == []
    assert told([DONE, SERVING], [lost, SERVING]) == ["NodeLost"]


def test_pods_that_are_lost_and_come_back_are_events():
    assert told([DONE, SERVING], [DONE, WAITING]) == ["NoReplicasReady"]
    refused = condition("ModelValid", "False", "SourceNotFound")
    assert told([refused, WAITING], [refused, SERVING]) == ["MinimumReplicasReady"]


def test_another_message_or_time_alone_is_no_event():
    later = condition(message="other").model_copy(update={"last_transition_time": "2027-01-01T00:00:00Z"})
    assert changed_conditions(status(condition()), status(later)) == []


def test_ready_reconciling_and_stalled_repeat_others_and_are_no_events():
    assert changed_conditions(status(), status(*(condition(k) for k in ("Ready", "Reconciling", "Stalled")))) == []


def test_an_event_says_what_changed_about_which_model():
    found = event(condition("Progressing", "True", "Unschedulable", "0/3 nodes"))
    assert (found["type"], found["reason"], found["action"], found["note"]) == (
        "Warning",
        "Unschedulable",
        "Progressing",
        "0/3 nodes",
    )
    assert found["regarding"]["kind"] == "OnnxModel"
    assert found["regarding"]["uid"] == "u-1"
    assert found["metadata"]["namespace"] == "default"


def test_a_repeated_attempt_posts_the_same_event():
    assert event(now=NOW)["metadata"] == event(now="2027-01-01T00:00:00Z")["metadata"]


@pytest.mark.parametrize(
    "other",
    [
        event(condition(reason="Loading")),
        event(condition(status="False")),
        event(condition("Available")),
        event(model={"metadata": MODEL["metadata"] | {"resourceVersion": "8"}}),
        event(model={"metadata": MODEL["metadata"] | {"uid": "u-2"}}),
    ],
)
def test_another_change_is_another_event(other):
    assert event()["metadata"]["name"] != other["metadata"]["name"]


@settings(deadline=None)
@given(text=st.text(max_size=2048), repeat=st.integers(1, 20))
def test_any_message_makes_a_note_that_the_api_accepts(text, repeat):
    note = event(condition(message=(text * repeat)[:2048]))["note"]
    assert 0 < len(note.encode()) <= NOTE_LIMIT


WARNINGS = {
    Reason.NOT_REPRODUCIBLE: True,
    Reason.INSPECTED: False,
    Reason.ROLLING_OUT: False,
    Reason.DOWNLOADING: False,
    Reason.LOADING: False,
    Reason.INSPECTING: False,
    Reason.SOURCE_CHANGED: True,
    Reason.UNSCHEDULABLE: True,
    Reason.QUOTA_EXCEEDED: True,
    Reason.IMAGE_PULL_FAILED: True,
    Reason.DOWNLOAD_FAILED: True,
    Reason.MINIMUM_REPLICAS_READY: False,
    Reason.ON_GPU: False,
}


@pytest.mark.parametrize(("reason", "warns"), WARNINGS.items())
def test_what_is_true_warns_when_somebody_must_act(reason, warns):
    assert event(condition(reason=reason))["type"] == ("Warning" if warns else "Normal")


@pytest.mark.parametrize(
    ("kind", "reason", "warns"),
    [
        (ConditionType.MODEL_VALID, Reason.CORRUPT, True),
        (ConditionType.PROGRESSING, Reason.LOAD_FAILED, True),
        (ConditionType.PROGRESSING, Reason.DEADLINE_EXCEEDED, True),
        (ConditionType.PROGRESSING, Reason.NAME_CONFLICT, True),
        (ConditionType.ACCELERATED, Reason.FALLBACK_TO_CPU, True),
        (ConditionType.PROGRESSING, Reason.COMPLETE, False),
        (ConditionType.AVAILABLE, Reason.SUSPENDED, False),
        (ConditionType.AVAILABLE, Reason.SCALED_TO_ZERO, False),
        (ConditionType.AVAILABLE, Reason.NO_REPLICAS_READY, False),
    ],
)
def test_what_is_false_warns_unless_it_was_asked_for(kind, reason, warns):
    assert event(condition(kind, "False", reason))["type"] == ("Warning" if warns else "Normal")


def test_what_is_unknown_warns_when_it_hinders():
    unknown = ConditionStatus.UNKNOWN
    assert event(condition("ModelValid", unknown, Reason.SOURCE_UNREACHABLE))["type"] == "Warning"
    assert event(condition("Accelerated", unknown, Reason.NOT_REPORTED))["type"] == "Normal"
