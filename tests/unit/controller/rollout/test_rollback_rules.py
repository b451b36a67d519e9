"""Going back by itself: which failures of an update are its own, what is kept of them, and where it goes back to."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.api.conditions import Reason
from onnx_operator.controller.observation.observe import observe
from onnx_operator.controller.revision.revisions import HISTORY, NOTE_FAILED, NOTE_GOOD, Revision, noted, surplus
from onnx_operator.controller.rollout.history import history
from onnx_operator.controller.rollout.rollback import (
    MAX_NOTE,
    MAX_PODS,
    counts,
    failure,
    failure_of,
    note_of,
    to_go_back_to,
    told,
)
from tests.unit.controller.samples import FETCHED, ROLLED_OUT, deployment, pod, running, silent, terminated, waiting
from tests.unit.controller.situations import EXCEEDED, ONE, TWO, status

UPDATE = "resnet50-2"


def ended(phase: str, reason: str = "", message: str = "", /, backing_off: bool = True, **last):
    """The server ended, and the kubelet waits before it starts it again; or it ended for the first time."""
    claim = f'"reason":"{reason}",' if reason else ""
    told_ = f'{{"phase":"{phase}",{claim}"message":"{message}"}}'
    if backing_off:
        return waiting("CrashLoopBackOff", **{"exitCode": 1, "message": told_, **last})
    return terminated(1, message=told_)


def update(*pods, revision: Revision = TWO, conditions=None, key: str = "key"):
    """What the update is found to have failed of, beside an old pod that serves."""
    old = pod("old", ready=True)
    seen = observe(deployment(revision=UPDATE, ready=1, total=2, conditions=conditions), [old, *pods])
    return failure(seen, revision, key)


def new(name: str = "new", **fields):
    return pod(name, revision=UPDATE, **{"fetch": FETCHED, **fields})


# --- what counts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (ended("Loading", "LoadFailed", "bad node"), Reason.LOAD_FAILED),
        (ended("Testing", "TestFailed", "y differs"), Reason.TEST_FAILED),
        (ended("WarmingUp", "InterfaceChanged", "no answer"), Reason.INTERFACE_CHANGED),
        (ended("Loading", "", "", exitCode=139), Reason.CRASH_LOOP),
        (ended("Loading", "", "", exitCode=137, reason="OOMKilled"), Reason.OUT_OF_MEMORY),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_update_that_fails_by_its_own_fault_has_failed(server, reason):
    found = update(new(server=server))
    assert (found.reason, found.pods, found.inspection) == (reason, ["new"], "key")


def test_once_may_be_chance():
    assert update(new(server=ended("Loading", "LoadFailed", "bad node", backing_off=False))) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"fetch": None, "conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/1 nodes"}]},
        {"server": waiting("ImagePullBackOff", "no such image")},
        {"fetch": waiting("CrashLoopBackOff", exitCode=1, message='{"phase":"Downloading","message":"404"}')},
        {"fetch": waiting("CrashLoopBackOff", exitCode=137, reason="OOMKilled")},
        {"server": waiting("CrashLoopBackOff", exitCode=255, reason="ContainerStatusUnknown")},
        {"server": ended("Serving", "", "", exitCode=137, reason="OOMKilled")},
        {"server": {**ended("Serving", "", "", exitCode=137, reason="OOMKilled"), "restartCount": 9}},
        {"server": {**ended("Serving", "", "", exitCode=139), "restartCount": 9}},
        {"server": ended("Loading", "FallbackToCPU", "no GPU in the pod")},
        {"server": ended("Loading", "SourceChanged", "other bytes")},
        {"server": running()},
    ],
    ids=[
        "unschedulable",
        "image",
        "download",
        "memory of the download",
        "node",
        "killed while it served",
        "killed again and again while it served",
        "crashes again and again while it serves",
        "no GPU",
        "source",
        "loads still",
    ],
)
def test_what_the_cluster_the_store_or_callers_did_says_nothing_of_an_update(fields):
    assert update(new(**fields)) is None


def test_what_others_have_put_into_pods_says_nothing_of_an_update():
    seen = new(server=running())
    seen["status"]["containerStatuses"].append({"name": "mesh", "image": "i", **ended("Loading", "LoadFailed", "x")})
    assert update(seen) is None


def test_a_version_that_has_served_once_does_not_fail_any_more():
    bad = new(server=ended("Loading", "LoadFailed", "bad node"))
    assert update(bad, revision=noted(TWO, {NOTE_GOOD: "true"})) is None


def test_only_pods_of_the_update_tell_of_it():
    other = pod("other", revision="resnet50-1", fetch=FETCHED, server=ended("Loading", "LoadFailed", "bad node"))
    assert update(other) is None
    seen = observe(deployment(revision="resnet50-1"), [new(server=ended("Loading", "LoadFailed", "bad node"))])
    assert failure(seen, TWO, "key") is None, "it is not what the Deployment holds"


# --- never ready ------------------------------------------------------------------------------------------------------

LOADS = {"server": running()}
WAITS = {"fetch": None, "conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/1 nodes"}]}


def test_an_update_that_loads_for_longer_than_its_deadline_has_failed():
    found = update(new(**LOADS), conditions=EXCEEDED)
    assert found.reason == Reason.DEADLINE_EXCEEDED
    assert "Loading" in found.message
    assert update(new(**LOADS)) is None, "there is time left"


@pytest.mark.parametrize(
    "pods",
    [
        [new(**WAITS)],
        [new(**LOADS), new("second", **WAITS)],
        [new(server=silent(), since="2026-01-01T00:09:00Z")],
        [new(fetch=running())],
        [],
    ],
    ids=["no room", "no room for the second", "answers no more", "downloads", "no pods"],
)
def test_the_deadline_says_nothing_where_the_cluster_keeps_an_update(pods):
    assert update(*pods, conditions=EXCEEDED) is None


# --- what is kept -----------------------------------------------------------------------------------------------------


@given(st.text(max_size=4000), st.integers(1, 9))
def test_whatever_pods_say_the_note_is_small_and_is_read_back(words, count):
    from json import dumps

    message = dumps({"phase": "Loading", "reason": "LoadFailed", "message": words[:600]})[:4000]
    server = waiting("CrashLoopBackOff", exitCode=1, message=message)
    found = update(*(new(f"new-{n}", server=server) for n in range(count)))
    assert found is not None
    assert len(found.pods) <= MAX_PODS
    note = note_of(found)
    assert len(note.encode()) <= MAX_NOTE
    assert failure_of(noted(TWO, {NOTE_FAILED: note})) == found


@pytest.mark.parametrize("note", ["{", "null", '{"reason": 7}', '{"message": "x"}'])
def test_a_note_that_this_version_cannot_read_still_says_that_it_failed(note):
    assert failure_of(noted(TWO, {NOTE_FAILED: note}))


def test_a_failure_is_past_once_the_version_has_served():
    found = update(new(server=ended("Loading", "LoadFailed", "bad node")))
    assert failure_of(noted(TWO, {NOTE_FAILED: note_of(found), NOTE_GOOD: "true"})) is None
    assert failure_of(TWO) is None


def test_looking_at_the_source_anew_gives_the_version_another_try():
    found = update(new(server=ended("Loading", "LoadFailed", "bad node")), key="before")
    assert counts(found, "before", confirmed=True)
    assert not counts(found, "after a refresh", confirmed=True)
    assert counts(found, "after a refresh", confirmed=False), "nobody knows yet that it is wanted still"


# --- where it goes back to --------------------------------------------------------------------------------------------


def numbered(number: int, good: bool) -> Revision:
    return replace(ONE, name=f"resnet50-{number}", number=number, notes={NOTE_GOOD: "true"} if good else {})


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.sets(st.integers(1, 12)))
def test_it_goes_back_to_the_newest_good_one_that_may_run(goods, refused):
    own = [numbered(number, good) for number, good in enumerate(goods, 1)]
    found = to_go_back_to(history(own, own[-1].name), own[-1], lambda r: r.number not in refused)
    expected = [r.number for r in own[:-1] if r.good and r.number not in refused]
    assert (found.number if found else None) == (max(expected) if expected else None)


def test_the_last_good_one_is_kept_however_many_failed_after_it():
    own = [numbered(1, True), *(numbered(n, False) for n in range(2, HISTORY + 9))]
    assert own[0] not in surplus(own, {own[-1].name})
    assert len(surplus(own, {own[-1].name})) == 6


# --- what is told -----------------------------------------------------------------------------------------------------

FAILED = update(new(server=ended("Loading", "LoadFailed", "bad node")))
WITHHELD = {"withheld": told(FAILED, TWO, ONE), "revisions": (ONE, TWO)}


def conditions(found):
    return {c.type: c for c in found.conditions}


def test_a_version_that_was_taken_back_is_not_ready_though_the_old_one_serves():
    found = conditions(status(**WITHHELD))
    assert (found["Ready"].status, found["Ready"].reason) == ("False", "RolledBack")
    assert found["Available"].status == "True"
    assert found["Stalled"].status == "True"
    assert "Reconciling" not in found
    for words in ("resnet50-2", "LoadFailed", "bad node", "resnet50-1", "refresh"):
        assert words in found["Progressing"].message


def test_what_is_amiss_with_the_old_one_is_told_beside():
    seen = observe(deployment(), [pod(fetch=waiting("ErrImagePull", "no such image"))])
    found = conditions(status(**WITHHELD, observation=seen))
    assert found["Ready"].reason == "RolledBack"
    assert "ImagePullFailed" in found["Progressing"].message


def test_that_there_is_none_to_go_back_to_is_told():
    seen = observe(deployment(), [pod(fetch=FETCHED, server=ended("Loading", "LoadFailed", "bad node"))])
    found = conditions(status(observation=seen, alone=True))
    assert found["Ready"].reason == "LoadFailed"
    assert "none to go back to" in found["Ready"].message
    assert "none to go back to" not in conditions(status(observation=seen))["Ready"].message


@pytest.mark.parametrize(
    ("fields", "rolled_out"),
    [
        ({"ready": 1}, True),
        ({"ready": 1, "observed": 2}, False),
        ({"ready": 1, "total": 2}, False),
        ({"ready": 1, "updated": 0}, False),
        ({"wanted": 0, "ready": 0}, False),
        ({"ready": 1, "wanted": 2}, False),
    ],
)
def test_a_version_is_good_once_all_its_pods_served_at_the_same_time(fields, rolled_out):
    seen = observe(deployment(conditions=ROLLED_OUT, **fields), [pod(ready=True)])
    assert seen.rolled_out is rolled_out
    assert not observe(deployment(**fields), [pod(ready=False)]).rolled_out
