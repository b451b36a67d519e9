"""``kubectl onnx rollback``: the patch that asks for an earlier revision, and what it says of what it cannot do."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from onnx_operator.api import names
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.sources import SourceFile, SourcePin
from onnx_operator.cli.history import FAILED, GOOD, Entry, entries
from onnx_operator.cli.mergepatch import applied
from onnx_operator.cli.rollback import Plan, RollbackError, choose, plan
from onnx_operator.controller.revision.revisions import OTHER_FIELDS, pod_spec
from onnx_operator.controller.revision.seal import fingerprint
from tests.unit.controller.revision.test_revisions import stored
from tests.unit.controller.samples import report

A, B = "s3://models/a.onnx", "s3://models/b.onnx"
DIGESTS = {A: "aa" * 32, B: "bb" * 32}


def revision(number: int, spec: dict[str, Any], *, good: bool = False, failed: str = "", **changes: Any) -> Any:
    """A stored revision of this spec, whose name tells its number."""
    asked = OnnxModelSpec.model_validate({"model": {"uri": A}, **spec})
    pin = SourcePin(kind="Conditional", value=f'"{asked.model.uri}"')
    found = {"report": report(digest=f"sha256:{DIGESTS.get(asked.model.uri, 'cc' * 32)}", source=pin)} | changes
    made = stored(number, spec=pod_spec(asked), **found)
    made["metadata"] |= {"name": f"m-{number}", "creationTimestamp": f"2026-11-0{number}T00:00:00Z"}
    made["metadata"]["annotations"] |= {GOOD: "true"} if good else {}
    made["metadata"]["annotations"] |= {FAILED: failed} if failed else {}
    return made


def model(spec: dict[str, Any], **metadata: Any) -> Any:
    return {"metadata": {"name": "m", "namespace": "default", **metadata}, "spec": {"model": {"uri": A}, **spec}}


def back(spec: dict[str, Any], *revisions: Any, to: str = "", **metadata: Any) -> Plan:
    known = entries(revisions)
    return plan(model(spec, **metadata), known, choose(known, to, model(spec)["spec"]))


def chosen(*revisions: Any, spec: dict[str, Any] | None = None, to: str = "") -> Entry:
    asked = revisions[-1]["data"]["spec"] if spec is None else model(spec)["spec"]
    return choose(entries(revisions), to, asked)


# --- which one --------------------------------------------------------------------------------------------------------


def v(number: int) -> dict[str, Any]:
    return {"model": {"uri": A, "version": str(number)}}


def test_the_last_good_one_is_gone_back_to() -> None:
    found = chosen(revision(1, v(1), good=True), revision(2, v(2), good=True), revision(3, v(3)), revision(4, v(4)))
    assert found.number == 2


def test_of_none_that_is_known_as_good_it_is_the_one_before() -> None:
    assert chosen(revision(1, v(1)), revision(2, v(2)), revision(3, v(3))).number == 2


def test_what_failed_is_not_gone_back_to() -> None:
    failed = '{"reason": "LoadFailed", "message": "no"}'
    assert chosen(revision(1, v(1)), revision(2, v(2), failed=failed), revision(3, v(3))).number == 1
    assert chosen(revision(1, v(1)), revision(2, v(2), good=True, failed=failed), revision(3, v(3))).number == 1


def test_a_change_that_made_no_revision_is_taken_back() -> None:
    """It was refused, and what it was changed from serves on."""
    found = chosen(revision(1, v(1), good=True), revision(2, v(2)), spec={"model": {"uri": "s3://models/corrupt.onnx"}})
    assert found.number == 2


@pytest.mark.parametrize("to", ["1", "m-1"])
def test_any_can_be_named_by_number_or_name(to: str) -> None:
    assert chosen(revision(1, v(1)), revision(2, v(2)), revision(3, v(3)), to=to).number == 1


@pytest.mark.parametrize("to", ["7", "m-7", "", "-1", "1.0", "\x1b[2J"])
def test_what_there_is_is_listed_where_there_is_no_such_revision(to: str) -> None:
    revisions = [revision(1, v(1))] if not to else [revision(1, v(1)), revision(2, v(2))]
    with pytest.raises(RollbackError, match=r"1 \(m-1\)") as refused:
        chosen(*revisions, to=to)
    assert "\x1b" not in refused.value.message
    with pytest.raises(RollbackError, match="none"):
        choose((), to, model({})["spec"])


def test_an_object_of_somebody_else_cannot_take_the_place_of_a_revision() -> None:
    forged = revision(2, {"model": {"uri": "s3://evil/m.onnx"}}, good=True)
    forged["metadata"] |= {"name": "m-2-forged", "annotations": {GOOD: "true"}}
    known = [revision(1, v(1)), revision(2, v(2)), forged, revision(3, v(3))]
    assert chosen(*known).name == "m-2"
    assert chosen(*known, to="2").name == "m-2"
    with pytest.raises(RollbackError, match="carries no seal"):
        back(v(3), *known, to="m-2-forged")


def test_two_with_the_same_number_must_be_named() -> None:
    other = revision(2, v(7))
    other["metadata"]["name"] = "m-other"
    with pytest.raises(RollbackError, match=r"name one of 2 \(m-2\), 2 \(m-other\)"):
        chosen(revision(2, v(2)), other, revision(3, v(3)), to="2")


def test_what_a_newer_version_made_is_not_guessed_at() -> None:
    newer = revision(1, v(1))
    newer["data"]["spec"]["canary"] = {"percent": 10}
    with pytest.raises(RollbackError, match="another version of the operator"):
        back(v(2), newer, revision(2, v(2)), to="1")
    with pytest.raises(RollbackError, match="no revision to go back to"):
        back(v(2), newer, revision(2, v(2)))


def test_what_the_first_alpha_made_holds_no_spec_to_go_back_to() -> None:
    old = revision(1, v(1))
    old["data"] = {k: w for k, w in old["data"].items() if k != "spec"} | {"inputs": "abc", "uri": A, "gpu": False}
    with pytest.raises(RollbackError, match="first alpha"):
        back(v(2), old, revision(2, v(2)), to="1")
    with pytest.raises(RollbackError, match="no revision to go back to"):
        back(v(2), old, revision(2, v(2)))


# --- the patch --------------------------------------------------------------------------------------------------------

FULL = {
    "model": {"uri": A, "version": "1", "credentials": {"secretName": "a"}},
    "runtime": "GPU",
    "session": {"intraOpThreads": 2, "onFallback": "Fail"},
    "podTemplate": {"spec": {"nodeSelector": {"a": "1"}}},
}


def test_the_patch_holds_what_differs_and_nothing_else() -> None:
    now = {
        "model": {"uri": B, "version": "1", "tags": {"team": "vision"}, "description": "x"},
        "runtime": "GPU",
        "session": {"intraOpThreads": 4, "interOpThreads": 1, "onFallback": "Fail"},
        "batching": {"maxBatchSize": 4},
        "podTemplate": {"spec": {"nodeSelector": {"a": "1", "b": "2"}}},
        "replicas": 7,
        "suspend": True,
    }
    found = back(now, revision(1, FULL), revision(2, now))
    assert found.patch == {
        "spec": {
            "model": {"uri": A, "credentials": {"secretName": "a"}},
            "session": {"intraOpThreads": 2, "interOpThreads": None},
            "batching": None,
            "podTemplate": {"spec": {"nodeSelector": {"b": None}}},
        }
    }


@pytest.mark.parametrize(
    "spelled",
    [
        {"runtime": "CPU"},
        {"session": {}, "batching": {}},
        {"resources": {"limits": {"cpu": 0.5}}, "replicas": 3},
        {"resources": {"limits": {"cpu": "0.5"}}},
    ],
    ids=str,
)
def test_another_spelling_of_the_same_is_left_as_it_is(spelled: dict[str, Any]) -> None:
    then = {"resources": {"limits": {"cpu": "0.5"}}} if "resources" in spelled else {}
    assert back(spelled, revision(1, then), to="1").patch == {}


def test_what_this_version_does_not_know_is_taken_away_where_the_revision_had_nothing_of_it() -> None:
    now = {"session": {"intraOpThreads": 2, "spinning": True}, "canary": {"percent": 10}}
    found = back(now, revision(1, {"session": {"intraOpThreads": 2}}), to="1")
    assert found.patch == {"spec": {"session": {"spinning": None}}}
    assert any("spec.canary" in note for note in found.notes)


def test_a_value_that_only_a_newer_version_knows_is_changed_back() -> None:
    assert back({"runtime": "NPU"}, revision(1, {"runtime": "GPU"}), to="1").patch == {"spec": {"runtime": "GPU"}}
    assert back({"runtime": "NPU"}, revision(1, {}), to="1").patch == {"spec": {"runtime": None}}
    with pytest.raises(RollbackError, match=r"spec\.suspend is not known"):
        back({"suspend": "Nightly"}, revision(1, {}), to="1")


def test_a_null_that_no_patch_can_write_is_told_and_not_left_out() -> None:
    then = {"podTemplate": {"spec": {"a": {"b": None}}}}
    with pytest.raises(RollbackError, match=r"spec\.podTemplate.*null"):
        back({}, revision(1, then), to="1")
    # In a list it can, and where it is there already nothing has to be written.
    assert back({}, revision(1, {"podTemplate": {"spec": {"a": [None]}}}), to="1").patch
    assert back(then, revision(1, then), to="1").patch == {}


NAMES = st.sampled_from(["a", "b", "c-d"])
TREES: Any = st.recursive(
    st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=6,
)
MODELS = st.fixed_dictionaries(
    {"uri": st.sampled_from([A, B])},
    optional={
        "version": st.sampled_from(["1", "1e3", "y"]),
        "credentials": NAMES.map(lambda name: {"secretName": name}),
        "testData": st.sampled_from(["s3://models/t", "s3://models/u"]),
        "sha256": st.sampled_from([*DIGESTS.values(), "dd" * 32]),
        "tags": st.dictionaries(NAMES, st.text(max_size=3), max_size=2),
        "description": st.text(min_size=1, max_size=3),
    },
)
QUANTITIES = st.sampled_from([1, 0.5, "0.5", "500m", "2Gi"])
AMOUNTS = st.fixed_dictionaries({}, optional={k: st.dictionaries(NAMES, QUANTITIES) for k in ("requests", "limits")})
SPECS = st.fixed_dictionaries(
    {"model": MODELS},
    optional={
        "runtime": st.sampled_from(["CPU", "GPU"]),
        "nodePool": NAMES,
        "replicas": st.integers(0, 9),
        "suspend": st.booleans(),
        "resources": AMOUNTS,
        "session": st.fixed_dictionaries(
            {}, optional={"intraOpThreads": st.integers(1, 3), "onFallback": st.sampled_from(["Serve", "Fail"])}
        ),
        "batching": st.fixed_dictionaries({}, optional={"maxBatchSize": st.integers(1, 3)}),
        "warmUp": st.fixed_dictionaries({}, optional={"values": st.dictionaries(NAMES, st.just([1, 0.5]))}),
        "scoring": st.fixed_dictionaries({"script": st.text(min_size=1, max_size=9)}),
        "endpoint": st.fixed_dictionaries({}, optional={"cors": st.just({"allowOrigins": ["*"]})}),
        "serviceAccountName": NAMES,
        "podTemplate": st.fixed_dictionaries({}, optional={"spec": st.dictionaries(NAMES, TREES, max_size=3)}),
    },
)


def kept(spec: Any) -> Any:
    """What a rollback never touches."""
    paths = [path for path in OTHER_FIELDS if path != "model.sha256"]
    return {p: spec["model"].get(p.removeprefix("model.")) if "." in p else spec.get(p) for p in paths}


@hypothesis_settings(max_examples=300, deadline=None)
@given(SPECS, SPECS)
def test_whatever_the_spec_is_the_patch_makes_it_ask_for_the_revision(now: Any, then: Any) -> None:
    found = back(now, revision(1, then), to="1")
    after = applied(now, found.patch.get("spec", {}))
    read = OnnxModelSpec.model_validate(after)
    assert fingerprint(pod_spec(read)) == fingerprint(revision(1, then)["data"]["spec"])
    assert kept(after) == kept(now)
    # A file that is pinned stays pinned, by the digest of the revision's own.
    assert (read.model.sha256 is None) == ("sha256" not in now["model"])
    assert read.model.sha256 in (None, DIGESTS[then["model"]["uri"]])
    # And there is nothing left to be done.
    again = plan({**model({}), "spec": after}, entries([revision(1, then)]), entries([revision(1, then)])[0])
    assert again.patch == {}


# --- the digest -------------------------------------------------------------------------------------------------------


def pinned(uri: str, digest: str | None) -> dict[str, Any]:
    return {"model": {"uri": uri} | ({"sha256": digest} if digest else {})}


def test_the_digest_follows_the_file_and_that_is_said() -> None:
    found = back(pinned(B, DIGESTS[B]), revision(1, pinned(A, None)), revision(2, pinned(B, None)))
    assert found.patch == {"spec": {"model": {"uri": A, "sha256": DIGESTS[A]}}}
    assert any("spec.model.sha256 becomes aaaaaaaaaaaa" in note for note in found.notes)


def test_a_digest_that_fits_nothing_known_is_taken_away() -> None:
    unknown = revision(1, pinned(A, None), report=report(digest=""))
    found = back(pinned(B, DIGESTS[B]), unknown, revision(2, pinned(B, None)))
    assert found.patch == {"spec": {"model": {"uri": A, "sha256": None}}}
    assert any("taken away" in note for note in found.notes)
    forged = revision(1, pinned(A, None), report=report(digest="sha256:latest"))
    assert back(pinned(B, DIGESTS[B]), forged, revision(2, pinned(B, None))).patch == found.patch


def test_the_digest_stays_where_the_file_is_the_same() -> None:
    pin = SourcePin(kind="Immutable", value="v1")
    then = revision(1, {"batching": {"maxBatchSize": 1}}, report=report(digest="", source=pin))
    now = revision(2, {"batching": {"maxBatchSize": 2}}, report=report(digest=f"sha256:{DIGESTS[A]}", source=pin))
    spec = {**pinned(A, DIGESTS[A]), "batching": {"maxBatchSize": 2}}
    assert back(spec, then, now, to="1").patch == {"spec": {"batching": {"maxBatchSize": 1}}}


def test_a_model_without_a_pin_gets_none() -> None:
    assert back(pinned(B, None), revision(1, pinned(A, None)), revision(2, pinned(B, None))).patch == {
        "spec": {"model": {"uri": A}}
    }


# --- what no spec brings back -----------------------------------------------------------------------------------------


def test_bytes_that_have_changed_under_the_same_address_are_told() -> None:
    first, second = (report(source=SourcePin(kind="Conditional", value=f'"{n}"')) for n in (1, 2))
    found = back({}, revision(1, {}, report=first), revision(2, {}, report=second))
    assert (found.patch, found.moved) == ({}, True)
    assert any("leads to other bytes than then" in note for note in found.notes)
    assert not back({}, revision(1, {}, report=first), revision(2, {}, report=second), to="2").moved


def test_a_script_and_test_data_that_have_changed_are_told() -> None:
    script = {"scoring": {"configMapName": "score"}}
    found = back(script, revision(1, script, scoring={"score.py": "1"}), revision(2, script, scoring={"score.py": "2"}))
    assert found.moved
    assert any("the ConfigMap score held another script" in note for note in found.notes)
    tested = {"model": {"uri": A, "testData": "s3://models/t"}}
    files = [
        [SourceFile(name="input_0.pb", pin=SourcePin(kind="Immutable", value=str(n)), size_bytes=1)] for n in (1, 2)
    ]
    found = back(tested, revision(1, tested, test_data=files[0]), revision(2, tested, test_data=files[1]))
    assert any("spec.model.testData leads to other files" in note for note in found.notes)


def test_what_may_surprise_is_told() -> None:
    failed = '{"reason": "LoadFailed", "message": "no kernel"}'
    known = entries([revision(1, v(1), failed=failed, interface="face1"), revision(2, v(2), interface="face2")])
    there = model(v(2), annotations={names.ANNOTATION_PAUSED: "true"})
    there["status"] = {"serving": {"revision": "m-2", "interface": "face2"}}
    notes = " ".join(plan(there, known, choose(known, "1", there["spec"])).notes)
    for words in ("LoadFailed: no kernel", "face1 instead of face2", "is paused"):
        assert words in notes
