"""A status is written at once when it says something new, and seldom when it only says how far things are."""

import pytest

from onnx_operator.api.onnxmodel import OnnxModelStatus
from onnx_operator.controller.status.pace import FIRST_SECONDS, PAUSE_SECONDS, Pace
from tests.unit.controller.status.test_events import condition


def status(reason, available="False", **more):
    progress = [condition(kind, "True", reason, f"revision 1: {reason}") for kind in ("Progressing", "Reconciling")]
    pods = condition("Available", available, "NoReplicasReady" if available == "False" else "MinimumReplicasReady")
    return OnnxModelStatus(conditions=[condition("Ready", "False", reason), *progress, pods], **more)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_new_model_that_is_read_at_once_never_says_that_it_is_read(clock):
    pace = Pace(clock)
    assert pace.wait("u", OnnxModelStatus(), status("Inspecting")) == FIRST_SECONDS
    clock.now += FIRST_SECONDS / 2
    assert pace.wait("u", OnnxModelStatus(), status("Inspecting")) == FIRST_SECONDS / 2
    assert pace.wait("u", OnnxModelStatus(), status("RollingOut")) <= 0
    clock.now += FIRST_SECONDS
    assert pace.wait("u", OnnxModelStatus(), status("Inspecting")) <= 0, "one that takes long does"


def test_steps_of_a_rollout_are_written_now_and_then(clock):
    pace = Pace(clock)
    pace.wrote("u")
    later = status("Loading", replicas=3, ready_replicas=0)
    assert pace.wait("u", status("RollingOut"), later) == PAUSE_SECONDS
    clock.now += PAUSE_SECONDS
    assert pace.wait("u", status("RollingOut"), later) <= 0
    assert pace.wait("v", status("RollingOut"), later) <= 0, "after a restart at once"


@pytest.mark.parametrize(
    "after",
    [
        status("Unschedulable"),
        status("Complete"),
        status("Loading", "True"),
        status("Loading", observed_generation=2),
        status("Inspecting"),
        status("Loading", url="http://m.ns.svc"),
    ],
    ids=["trouble", "the end", "the first pod", "another spec", "read again", "anything else"],
)
def test_what_is_new_is_written_at_once(clock, after):
    pace = Pace(clock)
    pace.wrote("u")
    assert pace.wait("u", status("RollingOut"), after) <= 0


def test_nothing_is_left_of_a_model_that_is_gone(clock):
    pace = Pace(clock)
    pace.wait("u", OnnxModelStatus(), status("Inspecting"))
    pace.wrote("u")
    pace.wait("u", OnnxModelStatus(), status("Inspecting"))
    pace.forget("u")
    assert not pace._seen
    assert not pace._written
