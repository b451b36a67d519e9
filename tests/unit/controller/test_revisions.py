"""Revisions: what makes a new one, how it is called, how many are kept."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from onnx_operator.api import names
from onnx_operator.api.sources import ModelFiles, SourceFile, SourcePin
from onnx_operator.controller.revisions import (
    HISTORY,
    Revision,
    RevisionData,
    controller_revision,
    decode,
    digest,
    inputs_hash,
    proves,
    revision_name,
    surplus,
    with_revision_label,
)
from tests.unit.controller.samples import files, report, spec

MANIFESTS = [
    {
        "kind": "Deployment",
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}},
    },
    {"kind": "Service", "spec": {}},
]


def data(**changes) -> RevisionData:
    values = {
        "inputs": "abc",
        "uri": "s3://models/model.onnx",
        "inspection_key": "key",
        "report": report(),
        "files": files(),
        "interface": "face",
        "pool": "cpu",
        "image": "image:1",
        "manifests": MANIFESTS,
    }
    return RevisionData(**(values | changes))


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 5},
        {"suspend": True},
        {"suspend": False},
        {"model": {"tags": {"team": "vision"}}},
        {"model": {"description": "words"}},
        {"model": {"sha256": "ab" * 32}},
    ],
    ids=str,
)
def test_what_does_not_reach_the_pods_makes_no_new_revision(change):
    assert inputs_hash(spec(**change), report()) == inputs_hash(spec(), report())


@pytest.mark.parametrize(
    "change",
    [
        {"runtime": "GPU"},
        {"nodePool": "t4"},
        {"resources": {"limits": {"cpu": 1}}},
        {"session": {"intraOpThreads": 2}},
        {"serviceAccountName": "models"},
        {"podTemplate": {"spec": {"priorityClassName": "high"}}},
        {"batching": {"maxBatchSize": 4}},
        {"scoring": {"script": "x"}},
        {"model": {"testData": "s3://models/data"}},
        {"model": {"version": "2"}},
        {"model": {"uri": "s3://models/other.onnx"}},
        {"model": {"credentials": {"secretName": "s"}}},
    ],
    ids=str,
)
def test_what_reaches_the_pods_makes_a_new_revision(change):
    assert inputs_hash(spec(**change), report()) != inputs_hash(spec(), report())


def test_another_script_or_other_test_data_makes_a_new_revision():
    scored = spec(scoring={"configMapName": "score"})
    assert inputs_hash(scored, report(), {"score.py": "a"}) != inputs_hash(scored, report(), {"score.py": "b"})
    data = files().files
    other = [data[0].model_copy(update={"pin": SourcePin(kind="Conditional", value='"other"')})]
    assert inputs_hash(spec(), report(), {}, data) != inputs_hash(spec(), report(), {}, other)


def test_other_bytes_make_a_new_revision():
    other = report(source=SourcePin(kind="Conditional", value='"etag-2"'))
    assert inputs_hash(spec(), other) != inputs_hash(spec(), report())


def test_a_digest_that_is_only_found_out_later_makes_no_new_revision():
    assert inputs_hash(spec(), report(digest="")) == inputs_hash(spec(), report())


def of(*digests: str, claimed: bool = False) -> ModelFiles:
    """Files with these digests, each named after its place."""
    pin = report().source
    found = [
        SourceFile(name=str(n), pin=pin, size_bytes=1, sha256=d and d * 64, claimed=claimed)
        for n, d in enumerate(digests)
    ]
    return ModelFiles(files=found, model="0")


@pytest.mark.parametrize(
    ("had", "wanted", "same"),
    [
        (of("a", ""), of("a", ""), True),
        (of("a", "b"), of("a", ""), True),
        (of("a", ""), of("a", "b"), True),
        (of("a", "b"), of("a", "c"), False),
        (of("a", ""), of("a", "b", claimed=True), False),
        (of("a", "b"), of("a", "b", claimed=True), True),
        (of("a", "b", claimed=True), of("a", "c", claimed=True), False),
        (of("a"), of("a", "b"), False),
        (None, of("a"), False),
    ],
    ids=[
        "the same",
        "one is not known any more",
        "one was found out",
        "other bytes under the same pin",
        "one is claimed that was never proven",
        "one is claimed that was proven",
        "another is claimed",
        "another file",
        "of old",
    ],
)
def test_pods_go_on_as_long_as_they_serve_the_bytes_that_are_wanted(had, wanted, same):
    assert proves(had, wanted) is same


def test_the_same_content_has_the_same_name_whatever_the_order_of_its_keys():
    turned = [dict(reversed(list(m.items()))) for m in MANIFESTS]
    assert revision_name("m", data()) == revision_name("m", data(manifests=turned))


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": "other"},
        {"manifests": []},
        {"uri": "s3://models/model.onnx", "inspection_key": "after a refresh"},
        {"interface": "other"},
        {"pool": "t4"},
        {"image": "image:2"},
        {"report": report(version="2")},
        {"files": files(model="other.onnx")},
        {"workload_identity": True},
    ],
    ids=lambda c: next(iter(c)),
)
def test_other_content_has_another_name(change):
    # The API server refuses to change the data of a ControllerRevision: going back to an earlier model after a refresh
    # must not meet the old revision's name.
    assert revision_name("m", data()) != revision_name("m", data(**change))


@hypothesis_settings(deadline=None)
@given(name=st.from_regex(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?", fullmatch=True))
def test_a_revisions_name_is_a_label_value(name):
    assert len(revision_name(name, data())) <= 63
    assert revision_name(name, data()).startswith(f"{name}-")


def test_a_revision_is_read_back_as_it_was_written():
    manifest = controller_revision("m", "default", 3, data(gpu=True))
    assert decode([manifest]) == [Revision(revision_name("m", data(gpu=True)), 3, data(gpu=True))]
    assert manifest["metadata"]["labels"][names.LABEL_MODEL] == "m"
    assert "app.kubernetes.io/instance" not in manifest["metadata"]["labels"]


def test_a_revision_of_a_version_that_kept_no_files_is_still_read():
    manifest = controller_revision("m", "default", 1, data())
    del manifest["data"]["files"], manifest["data"]["workloadIdentity"]
    assert decode([manifest])[0].data == data(files=None)


def test_revisions_come_in_their_order():
    found = decode([controller_revision("m", "d", n, data(inputs=str(n))) for n in (10, 9, 2)])
    assert [r.number for r in found] == [2, 9, 10]


@pytest.mark.parametrize("broken", [None, {}, [], "x", {"inputs": 1}])
def test_a_revision_of_an_unknown_form_is_passed_over(broken):
    manifest = controller_revision("m", "d", 1, data()) | {"data": broken}
    assert decode([manifest, controller_revision("m", "d", 2, data())])[0].number == 2


def test_the_revision_marks_the_pods_and_never_the_selector():
    deployment, service = with_revision_label(MANIFESTS, "m-1")
    assert deployment["spec"]["template"]["metadata"]["labels"] == {"a": "b", names.LABEL_REVISION: "m-1"}
    assert deployment["spec"]["selector"] == {"matchLabels": {"a": "b"}}
    assert service == MANIFESTS[1]
    assert names.LABEL_REVISION not in str(MANIFESTS)


@hypothesis_settings(deadline=None)
@given(count=st.integers(0, 20), used=st.sets(st.integers(0, 20)))
def test_the_last_five_unused_revisions_are_kept_and_all_that_are_used(count, used):
    revisions = [Revision(f"m-{n}", n, data()) for n in range(count)]
    gone = surplus(revisions, {f"m-{n}" for n in used})

    kept = [r for r in revisions if r not in gone]
    assert all(r.number not in used for r in gone)
    unused_kept = [r.number for r in kept if r.number not in used]
    assert len(unused_kept) == min(HISTORY, count - len([n for n in used if n < count]))
    assert all(r.number < min(unused_kept, default=99) for r in gone)


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest([1, 2]) != digest([2, 1])
