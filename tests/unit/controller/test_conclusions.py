"""What an earlier life of the operator concluded: kept while it is complete, otherwise looked for again."""

from dataclasses import replace

import pytest

from onnx_operator.api import names
from onnx_operator.api.conditions import ConditionStatus, Reason
from onnx_operator.api.onnxmodel import Condition, Inspection, OnnxModelStatus
from onnx_operator.api.report import InspectionResult, ModelReport
from onnx_operator.api.signatures import SignatureSettings
from onnx_operator.api.sources import SourcePin
from onnx_operator.controller.inspection.conclusions import inspection_key, persisted_result
from onnx_operator.controller.revision.fetching import wants_folder
from onnx_operator.controller.revision.revisions import NOTE_INSPECTION, NOTE_SIGNER, Revision, RevisionData, pod_spec
from onnx_operator.controller.revision.warm_up import Kept
from onnx_operator.controller.rollout.deciding import _kept
from onnx_operator.controller.rollout.history import History
from tests.unit.controller.samples import files, report, spec

OTHER = report(source=SourcePin(kind="Conditional", value='"etag-2"'))


def revision(number: int = 1, found: ModelReport | None = None, inspection: str = "key", **changes) -> Revision:
    found = found or report()
    values = {
        "spec": pod_spec(spec()),
        "report": found,
        "files": files(found),
        "interface": "face",
        "pool": "cpu",
        "manifests": [],
    }
    return Revision(f"m-{number}", number, RevisionData(**(values | changes)), {NOTE_INSPECTION: inspection})


def status(outcome="Accepted", reason=Reason.INSPECTED, found: ModelReport | None = None, key="key") -> OnnxModelStatus:
    found = found or report()
    condition = Condition(
        type="ModelValid",
        status=ConditionStatus.TRUE if outcome == "Accepted" else ConditionStatus.FALSE,
        reason=reason,
        message="words",
        last_transition_time="2026-01-01T00:00:00.000000Z",
        observed_generation=1,
    )
    return OnnxModelStatus(
        conditions=[condition],
        inspection=Inspection(key=key, outcome=outcome, source=found.source),
        model=found,
        interface="face",
    )


def test_an_accepted_model_counts_with_the_files_that_its_revision_keeps():
    found = persisted_result("key", spec(), status(), [revision()])
    assert found.outcome == "Accepted"
    assert found.report == report()
    assert found.files == files()


def test_an_accepted_model_whose_files_nobody_knows_is_looked_at_again():
    assert persisted_result("key", spec(), status(), []) is None
    assert persisted_result("key", spec(), status(), [revision(files=None)]) is None
    assert persisted_result("key", spec(), status(), [revision(inspection="earlier")]) is None


def test_files_of_other_bytes_than_were_last_accepted_do_not_count():
    assert persisted_result("key", spec(), status(found=OTHER), [revision()]) is None
    found = persisted_result("key", spec(), status(found=OTHER), [revision(1), revision(2, OTHER), revision(3)])
    assert found.files == files(OTHER)


def test_when_the_status_is_lost_the_newest_revision_of_the_key_counts():
    found = persisted_result(
        "key", spec(), OnnxModelStatus(), [revision(1), revision(2, OTHER), revision(3, files=None)]
    )
    assert (found.report, found.files) == (OTHER, files(OTHER))
    assert persisted_result("key", spec(), status(key="earlier"), [revision()]).files == files()


@pytest.mark.parametrize(
    "source",
    [
        {"uri": "s3://models/other.onnx"},
        {"testData": "s3://models/data"},
        {"credentials": {"secretName": "other"}},
    ],
)
def test_what_was_found_at_one_source_says_nothing_of_another_whose_key_is_the_same(source):
    """A key has forty bits, and who writes a spec can make up as many as it takes."""
    assert persisted_result("key", spec(model=source), status(), [revision()]) is None


def test_who_signed_the_model_is_known_although_it_was_found_out_after_the_revision_was_made():
    later = replace(revision(), notes={NOTE_INSPECTION: "key", NOTE_SIGNER: "key 12ab"})
    assert persisted_result("key", spec(), status(), [later]).report == report(signer="key 12ab")


def test_a_refusal_counts_without_any_revision():
    found = persisted_result("key", spec(), status("Refused", Reason.CORRUPT), [])
    assert (found.outcome, found.refusal.reason, found.refusal.message) == ("Refused", Reason.CORRUPT, "words")


def key(**fields) -> str:
    annotations = fields.pop("annotations", None)
    return inspection_key(spec(**fields), {"metadata": {"annotations": annotations} if annotations else {}})


@pytest.mark.parametrize(
    "fields",
    [
        {"model": {"sha256": "ab" * 32}},
        {"model": {"uri": "s3://models/other.onnx"}},
        {"model": {"credentials": {"secretName": "s"}}},
        {"annotations": {names.ANNOTATION_REFRESH: "1"}},
        {"serviceAccountName": "reader"},
        # Kernels of the CPU decide about models for it alone.
        {"runtime": "GPU"},
    ],
    ids=str,
)
def test_what_decides_about_the_source_is_a_reason_to_look_again(fields):
    assert key(**fields) != key()


@pytest.mark.parametrize(
    "fields",
    [{"replicas": 7}, {"suspend": True}, {"runtime": "CPU"}, {"model": {"version": "2"}}, {"annotations": {"a": "b"}}],
    ids=str,
)
def test_nothing_else_is_a_reason_to_look_again(fields):
    assert key(**fields) == key()


@pytest.mark.parametrize("uri", ["s3://models/iris/", "models:/iris/1", "oci://registry.example.com/iris:1"])
def test_a_script_is_a_reason_to_look_for_what_lies_beside_the_model(uri):
    script = {"scoring": {"script": "def init(): pass"}}
    assert key(model={"uri": uri}, **script) != key(model={"uri": uri})
    assert wants_folder(spec(model={"uri": uri}, **script))
    assert not wants_folder(spec(model={"uri": uri}))


@pytest.mark.parametrize("uri", ["s3://models/m.onnx", "s3://models/m.zip", "https://h.example/m.onnx"])
def test_a_script_beside_a_single_file_is_no_reason_to_look_again(uri):
    assert key(model={"uri": uri}, scoring={"script": "def init(): pass"}) == key(model={"uri": uri})


def test_a_service_account_that_reads_nothing_is_no_reason_to_look_again():
    credentials = {"model": {"credentials": {"secretName": "s"}}}
    assert key(serviceAccountName="models", **credentials) == key(**credentials)
    address = {"model": {"uri": "https://h.example/m.onnx"}}
    assert key(serviceAccountName="models", **address) == key(**address)


def test_whom_the_platform_trusts_to_sign_is_a_reason_to_look_again():
    trusted = SignatureSettings(required=True, public_keys="PEM")
    told = {"metadata": {}}
    assert inspection_key(spec(), told, trusted) != inspection_key(spec(), told, SignatureSettings())
    assert inspection_key(spec(), told, SignatureSettings()) == inspection_key(spec(), told)


def test_a_first_version_of_other_bytes_with_the_same_etag_is_an_update_of_what_serves():
    """Some stores give other bytes the same ETag: these take over nothing that the earlier ones took over."""
    first, other = report(), report(digest="sha256:" + "1" * 64)
    known = History((revision(),))

    def kept(found: ModelReport) -> Kept | None:
        result = InspectionResult(outcome="Accepted", source=found.source, report=found, files=files(found))
        return _kept(spec(), result, {}, known, "m-1", same=False)

    assert kept(first) is None
    assert kept(other) == Kept(required=True)
