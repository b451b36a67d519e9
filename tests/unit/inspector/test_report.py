"""What a pod of a tenant's reports is believed only in the form of an honest report."""

import json

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import Capabilities, InspectionRequest, InspectionResult, ProviderCoverage, Refusal
from onnx_operator.api.sources import ModelFiles, SourceFile, SourcePin
from onnx_operator.inspector.once import report_line
from onnx_operator.inspector.report import MAX_REPORT_LENGTH, ReportError, find_report
from tests.unit.controller.samples import DIGEST, files, report

CAPABILITIES = Capabilities(onnx_runtime_version="1.32.0", ir_version=14, opsets={"ai.onnx": 28}, operators={})
LARGEST = 1 << 30
ACCEPTED = InspectionResult(
    outcome="Accepted", source=report().source, report=report(), interface="0123456789ab", files=files()
)
REFUSED = InspectionResult(outcome="Refused", refusal=Refusal(reason=Reason.NOT_ONNX, message="It is a zip."))


def request(**fields):
    return InspectionRequest(uri="pvc://claim/m.onnx", capabilities=CAPABILITIES, **fields)


def heard(log, **fields):
    return find_report(log, request(**fields), LARGEST)


def forged(result=ACCEPTED, **changes):
    return report_line(result.model_copy(update=changes))


@pytest.mark.parametrize("result", [ACCEPTED, REFUSED], ids=["accepted", "refused"])
def test_an_honest_report_is_found_after_all_that_the_log_holds_before_it(result):
    log = '{"time": "…", "message": "reading"}\nnot json at all "inspected"\n' + report_line(result) + "\n"
    assert heard(log) == result


def test_the_last_report_counts_and_what_is_no_report_is_passed_over():
    log = "\n".join([report_line(REFUSED), report_line(ACCEPTED), '{"event": "progress", "of": "inspected"}', "{"])
    assert heard(log) == ACCEPTED


def test_a_newer_image_may_say_more_than_this_operator_knows():
    line = json.dumps(json.loads(report_line(ACCEPTED)) | {"somethingNew": 1})
    assert heard(line) == ACCEPTED


@pytest.mark.parametrize(
    "log",
    [
        "",
        "Traceback",
        '["inspected"]',
        '"inspected"',
        '{"event": ["inspected"]}',
        '{"event": "inspected"',
        "[" * 100_000,
    ],
)
def test_without_a_report_there_is_none(log):
    with pytest.raises(ReportError, match="holds none"):
        heard(log)


def test_a_report_without_end_is_not_read():
    line = forged(REFUSED, refusal=Refusal(reason=Reason.NOT_ONNX, message="x" * MAX_REPORT_LENGTH))
    with pytest.raises(ReportError, match="bytes"):
        heard(line)


def test_long_words_are_cut():
    told = heard(forged(REFUSED, refusal=Refusal(reason=Reason.NOT_ONNX, message="x" * 100_000)))
    assert told.refusal is not None
    assert len(told.refusal.message) < 3000


def test_long_texts_of_the_model_are_cut_to_what_a_status_may_hold():
    told = heard(forged(report=report(producer="p" * 10_000, metadata={f"k{n}": "v" * 5000 for n in range(100)})))
    assert told.report is not None
    assert told.report.truncated
    assert len(told.report.model_dump_json()) < 16 * 1024


def one_file(**changes):
    file = files().files[0].model_copy(update=changes)
    return ModelFiles(files=[file], model=file.name)


def two(first, second):
    pin = SourcePin(kind="Conditional", value='"e"')
    named = [SourceFile(name=name, pin=pin, size_bytes=1) for name in (first, second)]
    return ModelFiles(files=named, model=first)


LIES = {
    "no reason": {"outcome": "Refused"},
    "accepts and refuses": {"refusal": REFUSED.refusal},
    "no report": {"report": None},
    "no files": {"files": None},
    "no interface": {"interface": ""},
    "an interface that is no hash": {"interface": "face; drop"},
    "another source": {"source": SourcePin(kind="Immutable", value="other")},
    "an endless pin": {"source": SourcePin(kind="None", value="x" * 5000)},
    "a pin that is no text": {"source": SourcePin(kind="None", value="a\r\nHost: b")},
    "a path out": {"files": one_file(name="../../etc/passwd")},
    "a path from the root": {"files": one_file(name="/etc/passwd")},
    "a model out of the archive": {"files": files(archive=True, model="../m.onnx")},
    "a model that is none of the files": {"files": files(model="other.onnx")},
    "an archive of two files": {"files": two("a.zip", "b.zip").model_copy(update={"archive": True})},
    "the same file twice": {"files": two("a", "a")},
    "no file": {"files": ModelFiles(files=[], model="m.onnx")},
    "a file larger than allowed": {"files": one_file(size_bytes=LARGEST + 1)},
    "a file of negative size": {"files": one_file(size_bytes=-1)},
    "an archive that unpacks to more than allowed": {"files": files(archive=True, unpacked_bytes=LARGEST + 1)},
    "a digest that is none": {"files": one_file(sha256="0" * 63 + "x")},
    "a report's digest that is none": {"report": report(digest="sha256:$(rm)")},
    "a negative size": {"report": report(size_bytes=-5)},
    "negative memory": {"report": report(memory=report().memory.model_copy(update={"resident_bytes": -1}))},
    "a number beyond all bounds": {"report": report(flops=10**30)},
    "an IR version below all bounds": {"report": report(ir_version=-(10**6))},
    "a provider that is no name": {
        "report": report(coverage=[ProviderCoverage(provider="a b", covered_nodes=1, total_nodes=1)])
    },
    "providers without end": {
        "report": report(coverage=[ProviderCoverage(provider="CPU", covered_nodes=1, total_nodes=1)] * 17)
    },
    "a share of more than all": {
        "report": report(
            coverage=[ProviderCoverage(provider="CPU", covered_nodes=1, total_nodes=1, fallback_flops_share=7.0)]
        )
    },
}


@pytest.mark.parametrize("changes", LIES.values(), ids=LIES)
def test_a_report_that_no_inspection_gives_does_not_count(changes):
    with pytest.raises(ReportError):
        heard(forged(**changes))


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": "Excellent"},
        {"files": {"files": "none"}},
        {"report": {"source": None}},
        {"refusal": {"reason": "MadeUp", "message": ""}},
    ],
)
def test_a_report_of_another_form_does_not_count(change):
    with pytest.raises(ReportError):
        heard(json.dumps(json.loads(report_line(ACCEPTED)) | change))


@pytest.mark.parametrize("reason", [Reason.COMPLETE, Reason.INSPECTED, Reason.CREDENTIALS_NOT_FOUND, Reason.SUSPENDED])
def test_a_pod_refuses_only_for_what_is_wrong_with_a_model(reason):
    with pytest.raises(ReportError, match="not a verdict"):
        heard(forged(REFUSED, refusal=Refusal(reason=reason, message="m")))


def test_a_refusal_names_no_files_to_fetch():
    assert heard(forged(REFUSED, files=files())).files is None


def test_a_pinned_digest_must_be_what_the_pods_will_compare():
    assert heard(report_line(ACCEPTED), sha256=f"sha256:{DIGEST}") == ACCEPTED
    with pytest.raises(ReportError, match=r"spec\.model\.sha256"):
        heard(report_line(ACCEPTED), sha256="0" * 64)
    with pytest.raises(ReportError, match=r"spec\.model\.sha256"):
        heard(forged(files=one_file(sha256="")), sha256=DIGEST)


def test_a_signature_that_is_required_leaves_no_file_unproven():
    signatures = {"required": True, "publicKeys": "PEM"}
    signed = report(signer="CN=release")
    assert heard(forged(report=signed), signatures=signatures).outcome == "Accepted"
    with pytest.raises(ReportError, match="nobody signed"):
        heard(report_line(ACCEPTED), signatures=signatures)
    with pytest.raises(ReportError, match="sha256"):
        heard(forged(report=signed, files=one_file(sha256="")), signatures=signatures)
