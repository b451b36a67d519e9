"""Revisions: what makes a new one, how it is called, how many are kept."""

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from onnx_operator.api import names
from onnx_operator.api.onnxmodel import ModelSource, OnnxModelSpec
from onnx_operator.api.report import MemoryEstimate
from onnx_operator.api.sources import ModelFiles, SourceFile, SourcePin
from onnx_operator.controller.revision import alpha
from onnx_operator.controller.revision.revisions import (
    HISTORY,
    MAX_REVISION,
    NOTE_INSPECTION,
    OTHER_FIELDS,
    POD_FIELDS,
    Revision,
    RevisionData,
    controller_revision,
    decode,
    new_revision,
    noted,
    pod_spec,
    proves,
    revision_name,
    surplus,
    unread,
    wish,
    with_revision_label,
)
from onnx_operator.controller.revision.seal import Key, Sealer, Subject, Trust, digest, fingerprint
from onnx_operator.controller.rollout.children import desired_children
from onnx_operator.controller.rollout.history import history
from tests.unit.controller.samples import URI, files, report, spec

SEALER = Sealer(Key(b"k" * 32))
MANIFESTS = [
    {
        "kind": "Deployment",
        "metadata": {"name": "m"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}}},
    },
    {"kind": "Service", "metadata": {"name": "m"}, "spec": {}},
]


def data(**changes) -> RevisionData:
    values = {
        "spec": pod_spec(spec()),
        "report": report(),
        "files": files(),
        "interface": "face",
        "pool": "cpu",
        "manifests": MANIFESTS,
    }
    return RevisionData(**(values | changes))


def stored(number: int = 1, sealer: Sealer = SEALER, **changes):
    """A ControllerRevision of the model default/m, as the API server keeps it."""
    return controller_revision(new_revision("m", number, data(**changes), "key"), "m", "default", sealer)


def read(*objects, model: str = "m", namespace: str = "default", sealer: Sealer = SEALER) -> list[Revision]:
    return [found for item in objects if (found := decode(item, model, namespace, sealer))]


def wished(spec_: OnnxModelSpec, found=None, scoring=None, test_data=None) -> str:
    return wish(pod_spec(spec_), found or report(), scoring or {}, test_data or [])


def test_every_field_of_the_spec_is_known_to_reach_the_pods_or_not():
    # A new field must be put into one of the two lists: an unlisted one would restart every pod, or change none.
    every = {name for name in OnnxModelSpec.model_json_schema(by_alias=True)["properties"] if name != "model"}
    every |= {f"model.{name}" for name in ModelSource.model_json_schema(by_alias=True)["properties"]}
    assert every == {*POD_FIELDS, *OTHER_FIELDS}, "name a field in POD_FIELDS or in OTHER_FIELDS (revisions.py)"
    assert not {*POD_FIELDS} & {*OTHER_FIELDS}


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
    assert wished(spec(**change)) == wished(spec())


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
    assert wished(spec(**change)) != wished(spec())


def test_another_script_or_other_test_data_makes_a_new_revision():
    scored = spec(scoring={"configMapName": "score"})
    assert wished(scored, scoring={"score.py": "a"}) != wished(scored, scoring={"score.py": "b"})
    found = files().files
    other = [found[0].model_copy(update={"pin": SourcePin(kind="Conditional", value='"other"')})]
    assert wished(spec(), test_data=found) != wished(spec(), test_data=other)


def test_other_bytes_make_a_new_revision():
    other = report(source=SourcePin(kind="Conditional", value='"etag-2"'))
    assert wished(spec(), other) != wished(spec())


def test_a_digest_that_is_only_found_out_later_makes_no_new_revision():
    assert wished(spec(), report(digest="")) == wished(spec())


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
        {"spec": pod_spec(spec(nodePool="t4"))},
        {"scoring": {"score.py": "x"}},
        {"manifests": []},
        {"interface": "other"},
        {"pool": "t4"},
        {"report": report(version="2")},
        {"files": files(model="other.onnx")},
        {"test_data": files().files},
    ],
    ids=lambda c: next(iter(c)),
)
def test_other_content_has_another_name(change):
    # The API server refuses to change the data of a ControllerRevision: other content must not meet its name.
    assert revision_name("m", data()) != revision_name("m", data(**change))


@hypothesis_settings(deadline=None)
@given(name=st.from_regex(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?", fullmatch=True))
def test_a_revisions_name_is_a_label_value(name):
    assert len(revision_name(name, data())) <= 63
    assert revision_name(name, data()).startswith(f"{name}-")


def test_a_revision_is_read_back_as_it_was_written():
    manifest = stored(3, scoring={"score.py": "x"})
    written = new_revision("m", 3, data(scoring={"score.py": "x"}), "key")
    assert read(manifest) == [written]
    assert read(manifest)[0].inspection_key == "key"
    assert manifest["metadata"]["labels"][names.LABEL_MODEL] == "m"
    assert "app.kubernetes.io/instance" not in manifest["metadata"]["labels"]


def test_what_is_found_out_about_a_revision_changes_neither_its_data_nor_its_name():
    before = new_revision("m", 1, data(), "key")
    after = noted(before, {NOTE_INSPECTION: "after a refresh", "good": "true"})
    old, new = (controller_revision(r, "m", "default", SEALER) for r in (before, after))
    assert (old["data"], old["metadata"]["name"]) == (new["data"], new["metadata"]["name"])
    assert read(new)[0].notes == {NOTE_INSPECTION: "after a refresh", "good": "true"}
    assert read(new)[0].trust is Trust.SEALED


def alpha_revision(**changes):
    """A ControllerRevision as the first alpha stored it."""
    values = {
        "inputs": alpha.inputs_hash(spec(), report(), {}, []),
        "uri": URI,
        "inspectionKey": "old-key",
        "report": report().model_dump(mode="json", by_alias=True),
        "files": files().model_dump(mode="json", by_alias=True),
        "workloadIdentity": False,
        "interface": "face",
        "pool": "cpu",
        "image": "image:1",
        "gpu": False,
        "manifests": MANIFESTS,
    }
    metadata = {"name": "m-0123456789", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "revision": 4, "data": values | changes}


def test_a_revision_of_the_first_alpha_is_read_for_what_it_asks_for():
    found = read(alpha_revision())[0]
    assert (found.number, found.trust, found.inspection_key) == (4, Trust.UNSEALED, "old-key")
    assert (found.data.uri, found.data.files, found.data.gpu) == (URI, files(), False)
    assert found.serves(spec(), report(), {}, [])
    assert not found.serves(spec(nodePool="t4"), report(), {}, [])
    assert not found.serves(spec(), report(), {"score.py": "x"}, [])


def test_a_revision_of_the_first_alpha_holds_what_would_be_stored_now_where_its_pods_are_the_same():
    found = read(alpha_revision())[0]
    assert found.holds(data())
    assert not found.holds(data(manifests=MANIFESTS[:1]))
    assert not found.holds(data(report=report(version="other")))


def test_a_revision_of_a_version_that_kept_no_files_is_still_read():
    old = alpha_revision()
    del old["data"]["files"], old["data"]["workloadIdentity"]
    assert read(old)[0].data.files is None


def test_another_version_of_the_operator_or_other_settings_of_resources_make_no_new_revision():
    old = stored(1, kept=None)
    # As before there were demands, reasons for figures, and what serving takes.
    assert not {"demands", "sizing"} & set(old["data"])
    del old["data"]["report"]["memory"]["servingBytes"]
    found = read(old)[0]
    estimated_anew = MemoryEstimate(weights_bytes=1, activations_bytes=2, resident_bytes=4, serving_bytes=3)
    assert found.serves(spec(), report(memory=estimated_anew, flops=10**9), {}, [])


def test_revisions_come_in_their_order():
    found = history(read(*(stored(n, interface=str(n)) for n in (10, 9, 2))), "")
    assert [r.number for r in found.own] == [2, 9, 10]


@pytest.mark.parametrize(
    "broken",
    [
        {"data": None},
        {"data": {}},
        {"data": []},
        {"data": "x"},
        {"data": {"inputs": 1}},
        {"revision": -1},
        {"revision": MAX_REVISION},
        {"revision": True},
        {"revision": "1"},
        {"data": {**data().to_json(), "spec": {}}},
        {"data": {**data().to_json(), "manifests": [{"kind": "Secret", "metadata": {}, "spec": {}}]}},
        {"data": {**data().to_json(), "manifests": [{"kind": "Deployment", "metadata": {}, "spec": {}}]}},
        {"data": {**data().to_json(), "manifests": [{"kind": "Deployment", "metadata": {}, "spec": {"template": 1}}]}},
        {"data": {**data().to_json(), "manifests": ["x"]}},
    ],
    ids=lambda b: str(b)[-60:],
)
def test_a_revision_of_an_unknown_form_is_passed_over(broken):
    assert [r.number for r in read(stored(1) | broken, stored(2))] == [2]


def newer(**changes):
    """A revision of a newer version's, sealed as such a version seals it."""
    raw = data().to_json() | changes
    item = stored(7)
    notes = {"good": "true"}
    subject = Subject("default", "m", item["metadata"]["name"], 7, fingerprint(raw), notes)
    annotations = {names.ANNOTATION_SEAL: SEALER.seal(subject), f"{names.NOTE_PREFIX}good": "true"}
    return {**item, "data": raw, "metadata": {**item["metadata"], "annotations": annotations, "uid": "u"}}


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {"model": {"uri": URI}, "canary": {"percent": 10}}},
        {"spec": {"model": {"uri": URI}, "session": {"intraOpThreads": 1, "arena": False}}},
        {"report": {"form": 2}},
        {"manifests": [{"kind": "HTTPRoute"}]},
        {"spec": 3},
    ],
)
def test_a_revision_that_a_newer_version_made_is_known_by_its_seal_though_it_cannot_be_read(changes):
    item = newer(**changes)
    assert decode(item, "m", "default", SEALER) is None
    found = unread(item, "m", "default", SEALER)
    assert (found.name, found.number, found.uid) == (item["metadata"]["name"], 7, "u")
    assert list(found.manifests) == ([] if "manifests" in changes else MANIFESTS)
    assert unread(item, "other", "default", SEALER) is None
    assert unread(item, "m", "default", Sealer(Key(b"x" * 32))) is None
    assert unread({**item, "revision": 8}, "m", "default", SEALER) is None


def test_a_newer_revision_is_the_newest_only_while_nothing_of_this_version_follows():
    found = unread(newer(report={}), "m", "default", SEALER)
    own = [Revision(f"m-{number}", number, data()) for number in (6, 8)]
    assert history(own[:1], "", [found]).newer is found
    assert history([], "", [found]).newer is found
    assert history(own, "", [found]).newer is None
    assert history(own, "").newer is None


def test_whatever_a_revision_says_its_children_are_the_models_in_its_namespace():
    manifests = [
        {**MANIFESTS[0], "apiVersion": "v9", "metadata": {"name": "carols", "namespace": "kube-system"}},
        {**MANIFESTS[1], "apiVersion": "x/../../v1", "metadata": {"name": "../../secrets", "namespace": "other"}},
        {**MANIFESTS[0], "metadata": {"name": "second"}},
    ]
    model = {"metadata": {"name": "m", "namespace": "tenant", "uid": "u"}}
    desired = desired_children(model, spec(), Revision("m-1", 1, data(manifests=manifests)))
    assert [(d["apiVersion"], d["kind"], d["metadata"]["namespace"], d["metadata"]["name"]) for d in desired] == [
        ("apps/v1", "Deployment", "tenant", "m"),
        ("v1", "Service", "tenant", "m"),
    ]


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
