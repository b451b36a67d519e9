"""``kubectl onnx history``: what is said of a model's revisions, whatever their objects hold."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from onnx_operator.api import names
from onnx_operator.cli import tables
from onnx_operator.cli.history import FAILED, GOOD, History, Row, State, entries, told
from onnx_operator.cli.lookup import Found
from onnx_operator.cli.output import console
from onnx_operator.controller.rollout.rollback import Failure, note_of
from tests.security.test_terminal_output import EVIL, assert_safe
from tests.unit.cli.test_cli_rollback import A, B, revision

FAILURE = json.dumps({"reason": "LoadFailed", "message": "no kernel for node /conv1"})


def pod(name: str, of: str, *, ready: bool = True, **metadata: Any) -> Any:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "m-abc", "controller": True, "uid": "u"}
    labels = {names.LABEL_MODEL: "m", names.LABEL_REVISION: of}
    return {
        "metadata": {"name": name, "labels": labels, "ownerReferences": [owner], **metadata},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def model(serving: str = "", **status: Any) -> Any:
    told_of = {"serving": {"revision": serving}} if serving else {}
    return {
        "metadata": {"name": "m", "namespace": "default", "generation": 1},
        "spec": {"model": {"uri": B}},
        "status": {"observedGeneration": 1, **told_of, **status},
    }


def listed(*revisions: Any, serving: str = "", pods: Any = (), **status: Any) -> History:
    return told(Found(model(serving, **status), revisions, pods))


def rows(*revisions: Any, **more: Any) -> dict[int, Row]:
    return {row.number: row for row in listed(*revisions, **more).revisions}


def shown(found: History, columns: int = 300) -> str:
    out = io.StringIO()
    console(file=out, width=columns).print(tables.history(found))
    return out.getvalue()


def test_the_newest_comes_first_and_each_says_what_it_is() -> None:
    found = listed(
        revision(1, {}, good=True),
        revision(3, {"model": {"uri": B, "version": "v3"}}, failed=FAILURE),
        revision(2, {"model": {"uri": A, "version": "v2"}}, good=True),
        serving="m-2",
    )
    assert [(row.number, [str(s) for s in row.states]) for row in found.revisions] == [
        (3, ["wanted", "failed"]),
        (2, ["serving", "good"]),
        (1, ["good"]),
    ]
    newest = found.revisions[0]
    assert (newest.name, newest.uri, newest.digest) == ("m-3", B, f"sha256:{'bb' * 32}")
    assert (newest.interface, newest.created) == ("face", "2026-11-03T00:00:00Z")
    text = shown(found)
    assert "revision 3 failed: LoadFailed: no kernel for node /conv1" in text
    assert "sha256:bbbbbbbbbbbb" in text


def test_what_the_operator_notes_of_a_failure_is_what_is_shown() -> None:
    note = note_of(Failure(reason="TestFailed", message="output y differs", pods=["m-1"], inspection="key"))
    assert "revision 2 failed: TestFailed: output y differs" in shown(listed(revision(2, {}, failed=note)))


def test_the_share_is_that_of_the_ready_pods() -> None:
    pods = (
        *(pod(f"old-{n}", "m-1") for n in range(3)),
        pod("new-1", "m-2"),
        pod("new-2", "m-2", ready=False),
        pod("leaving", "m-1", deletionTimestamp="2026-11-01T00:00:00Z"),
    )
    found = rows(revision(1, {}), revision(2, {}), revision(3, {}), pods=pods)
    assert [(found[n].ready_pods, found[n].pods, found[n].share) for n in (1, 2, 3)] == [
        (3, 3, 0.75),
        (1, 2, 0.25),
        (0, 0, 0.0),
    ]
    text = shown(listed(revision(1, {}), revision(2, {}), revision(3, {}), pods=pods))
    for words in ("3 of 3", "75%", "1 of 2", "25%", "no pods"):
        assert words in text


def test_pods_that_cannot_be_seen_are_not_counted_as_none() -> None:
    row = rows(revision(1, {}), pods=None)[1]
    assert (row.pods, row.ready_pods, row.share) == (None, None, None)
    assert "not known" in shown(listed(revision(1, {}), pods=None))


def test_a_model_without_revisions_says_so() -> None:
    found = listed()
    assert found.revisions == []
    assert "no revision of it yet" in shown(found)


def test_what_a_newer_version_made_is_listed_and_counts_as_wanted() -> None:
    newer = revision(2, {})
    newer["data"] = {"form": 2}
    found = listed(revision(1, {}), newer)
    assert found.revisions[0].states == [State.WANTED, State.UNREADABLE]
    assert "made by another version" in shown(found)


def test_what_carries_no_seal_is_not_what_is_wanted() -> None:
    forged = revision(9, {})
    forged["metadata"]["annotations"].pop(names.ANNOTATION_SEAL)
    found = listed(revision(1, {}), forged)
    assert [row.states for row in found.revisions] == [[State.UNSEALED], [State.WANTED]]
    assert "no seal of the operator's" in shown(found)


def test_a_change_that_was_not_looked_at_and_a_pause_are_told() -> None:
    there = model(observedGeneration=0)
    there["metadata"]["annotations"] = {names.ANNOTATION_PAUSED: "true"}
    text = shown(told(Found(there, (revision(1, {}),))))
    assert "has not looked at the latest change" in text
    assert "is paused" in text


def test_what_the_model_says_of_itself_is_at_the_head() -> None:
    ready = {"type": "Ready", "status": "False", "reason": "RolledBack", "message": "revision m-2 cannot serve"}
    assert "Ready is False (RolledBack: revision m-2 cannot serve)" in shown(
        listed(revision(1, {}), conditions=[ready])
    )


@pytest.mark.parametrize("note", ["{", "[]", '"x"', '{"reason": 7}', "[" * 5000, "x" * 100_000])
def test_a_note_that_cannot_be_read_still_says_failed(note: str) -> None:
    row = rows(revision(1, {}, failed=note))[1]
    assert State.FAILED in row.states
    assert row.failure is not None
    assert row.failure.message


def test_of_notes_that_count_for_nothing_nothing_is_said() -> None:
    found = revision(1, {})
    found["metadata"]["annotations"] |= {GOOD: "false", FAILED: ""}
    assert rows(found)[1].states == [State.WANTED]


@pytest.mark.parametrize("columns", [40, 80, 4096])
def test_hostile_texts_steer_no_terminal_and_forge_no_line(columns: int) -> None:
    evil = revision(1, {"model": {"uri": f"s3://b/{EVIL}", "version": EVIL[:60]}}, interface=EVIL)
    evil["metadata"]["annotations"] |= {FAILED: json.dumps({"reason": EVIL, "message": f"{EVIL}\nnote: all is well"})}
    evil["metadata"]["creationTimestamp"] = EVIL
    evil["data"]["report"] |= {"digest": EVIL, "version": EVIL}
    ready = {"type": "Ready", "status": EVIL, "reason": EVIL, "message": EVIL}
    found = listed(evil, conditions=[ready], serving=EVIL, pods=[pod(EVIL, EVIL)])
    text = shown(found, columns)
    assert_safe(text)
    assert "\nnote: all is well" not in text


def test_long_texts_are_cut() -> None:
    long = revision(1, {}, interface="x" * 100_000)
    long["metadata"]["annotations"] |= {FAILED: json.dumps({"reason": "y" * 9000, "message": "z" * 50_000})}
    long["data"]["report"] |= {"digest": "d" * 100_000, "version": "v" * 100_000}
    assert len(listed(long).model_dump_json()) < 5000


JUNK: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
WORDS = [
    "metadata",
    "name",
    "annotations",
    "creationTimestamp",
    "data",
    "revision",
    "spec",
    "report",
    "status",
    "files",
]
PARTS = ["status", "serving", "revision", "conditions"]


def replaced(document: Any, path: list[str], junk: Any) -> Any:
    if not path or not isinstance(document, dict):
        return junk
    return {**document, path[0]: replaced(document.get(path[0]), path[1:], junk)}


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.lists(st.sampled_from(WORDS), max_size=3), JUNK), max_size=3))
def test_whatever_an_object_holds_the_others_are_listed(changes: Any) -> None:
    broken = revision(2, {})
    for path, junk in changes:
        broken = replaced(broken, path, junk)
    broken = broken if isinstance(broken, dict) else {}
    found = listed(revision(1, {}, good=True), broken)
    assert 1 in {row.number for row in found.revisions} or len(entries([broken])) == 1
    assert State.GOOD in next(row for row in found.revisions if row.name == "m-1").states
    assert_safe(shown(found))


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.lists(st.sampled_from(PARTS)), JUNK), max_size=2))
def test_whatever_a_models_status_holds_it_is_listed(changes: Any) -> None:
    status: Any = model()
    for path, junk in changes:
        status = replaced(status, ["status", *path], junk)
    assert told(Found(status, (revision(1, {}),))).revisions
