"""What an inspection pod reports, read without trusting it. Pure.

The pod runs in the tenant's namespace: whoever may exec into it or write its status can make it say anything. So a
report counts for that one model alone, as little more than the spec itself, which the same people write; it is held
to the form and the size of an honest one, so that nothing in it can hurt the operator or other namespaces.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import MAX_INT64, MAX_PLAN_LENGTH
from onnx_operator.api.reasons import VERDICTS
from onnx_operator.api.report import (
    MAX_REPORT_BYTES,
    InspectionRequest,
    InspectionResult,
    ModelReport,
    Refusal,
    shorten,
)
from onnx_operator.api.sources import ModelFiles, SourceFile, SourcePin
from onnx_operator.model.inspection.testdata import MAX_DATA_SETS, MAX_TEST_DATA_BYTES, MAX_TEST_DATA_TENSORS
from onnx_operator.model.sources.base import is_confined

EVENT = "inspected"
"""Of the line of the log that is the report."""
MAX_REPORT_LENGTH = 1 << 20
"""Bytes of the report's line. A model of more files than fit could not be told to its pods either."""
LOG_BYTES = MAX_REPORT_LENGTH + 256 * 1024
"""Bytes that are read of a pod's log: the report comes last, after messages and progress."""
MAX_MESSAGE_LENGTH = 2048
MAX_PIN_LENGTH = 512
MAX_PROVIDERS = 16
_TEST_DATA = re.compile(r"(test_data_set_[0-9]{1,2}/)?(input|output)_[0-9]{1,2}\.pb")


class ReportError(Exception):
    """There is no report, or it is not one that an inspection gives; the text says why."""


def find_report(log: str, request: InspectionRequest, max_model_bytes: int) -> InspectionResult:
    """The result in a pod's log, cut to what a status may hold.

    Args:
        log: of the container that inspected.
        request: what it was asked.
        max_model_bytes: largest model that the settings allow.

    Raises:
        ReportError: there is none, or it is not in order.
    """
    for line in reversed(log.splitlines()):
        if f'"{EVENT}"' in line and line.startswith("{"):
            if len(line.encode()) > MAX_REPORT_LENGTH:
                raise ReportError(f"it takes more than {MAX_REPORT_LENGTH} bytes")
            try:
                if json.loads(line).get("event") != EVENT:
                    continue
                result = InspectionResult.model_validate_json(line)
            except ValidationError as error:
                first = error.errors(include_input=False, include_url=False)[0]
                raise ReportError(shorten(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 300)) from None
            except (ValueError, RecursionError):
                continue
            return checked(result, request, max_model_bytes)
    raise ReportError("its log holds none")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ReportError(what)


def checked(result: InspectionResult, request: InspectionRequest, max_model_bytes: int) -> InspectionResult:
    """A result as an honest inspection gives it, cut to what a status may hold. Raises :class:`ReportError`."""
    for number in _numbers(result.model_dump()):
        _require(-1 <= number <= MAX_INT64, f"the number {number!r:.40} is out of all bounds")
    if result.source:
        _check_pin(result.source)
    _require(re.fullmatch("([0-9a-f]{12})?", result.interface) is not None, "interface is not a hash")
    report = _bounded(result.report) if result.report else None
    if result.outcome == "Refused":
        refusal = result.refusal
        _require(refusal is not None, "it refuses without a reason")
        assert refusal is not None
        _require(refusal.reason in VERDICTS, f"{refusal.reason} is not a verdict on a model")
        refusal = refusal.model_copy(update={"message": shorten(refusal.message, MAX_MESSAGE_LENGTH)})
        return result.model_copy(update={"report": report, "refusal": refusal, "files": None})
    _require(result.refusal is None, "it accepts and refuses")
    _require(bool(result.interface), "interface is missing")
    _require(report is not None, "report is missing")
    _require(result.files is not None, "files is missing")
    assert report is not None
    assert result.files is not None
    _require(report.source == result.source, "report.source is not source")
    _check_files(result.files, max_model_bytes)
    if refusal := _too_many(result):
        # The list itself is dropped: results are kept for as long as their models are there, everybody's together.
        left: dict[str, Any] = {"files": None, "test_data": []}
        return result.model_copy(update={"outcome": "Refused", "report": report, "refusal": refusal, **left})
    _check_proofs(result.files, report, request)
    _check_test_data(result.test_data, request)
    return result.model_copy(update={"report": report})


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _numbers(each)
    elif isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value if math.isfinite(value) else math.inf


def _check_pin(pin: SourcePin) -> None:
    _require(
        0 < len(pin.value.encode()) <= MAX_PIN_LENGTH and pin.value.isprintable(),
        "a pin is not a text that a store gives",
    )


def _bounded(report: ModelReport) -> ModelReport:
    _require(re.fullmatch("(sha256:[0-9a-f]{64})?", report.digest) is not None, "report.digest is not a sha256")
    _require(len(report.coverage) <= MAX_PROVIDERS, "report.coverage names too many providers")
    _check_pin(report.source)
    for coverage in report.coverage:
        _require(re.fullmatch("[A-Za-z0-9]{1,32}", coverage.provider) is not None, "a provider is not a name")
        _require(0 <= coverage.fallback_flops_share <= 1, "a share is not between 0 and 1")
    least = min(
        report.size_bytes,
        report.files,
        report.memory.weights_bytes,
        report.memory.activations_bytes,
        report.memory.resident_bytes,
        report.memory.serving_bytes,
    )
    _require(least >= 0, "a size is negative")
    bounded = report.bounded()
    size = len(bounded.model_dump_json(by_alias=True))
    # Texts that need no cutting may take a little more than the tensors are given room for.
    _require(size <= 2 * MAX_REPORT_BYTES, f"report takes {size} bytes")
    return bounded


def _check_files(files: ModelFiles, max_model_bytes: int) -> None:
    named = [file.name for file in files.files]
    _require(bool(named) and len(set(named)) == len(named), "files names none, or one twice")
    for name in (*named, files.model):
        _require(is_confined(name), f"the file {name!r:.80} leads out of the model's folder")
    if files.archive:
        _require(len(named) == 1, "files.archive is of several files")
    else:
        _require(files.model in named, "files.model is none of the files")
    for file in files.files:
        _check_file(file)
    _require(0 <= files.unpacked_bytes <= max_model_bytes, "files.unpackedBytes is more than the settings allow")
    _require(files.size_bytes <= max_model_bytes, "the files are larger than the settings allow")


def _too_many(result: InspectionResult) -> Refusal | None:
    """The refusal of a model of more files than its pods could be told of."""
    files = [*(result.files.files if result.files else []), *result.test_data]
    size = sum(len(file.model_dump_json(by_alias=True)) for file in files)
    if size <= MAX_PLAN_LENGTH:
        return None
    message = (
        f"the model consists of {len(files)} files, more than a pod can be told of; keep its external data in fewer "
        "files (onnx.save_model with all_tensors_to_one_file=True), or make an archive of it"
    )
    return Refusal(reason=Reason.TOO_LARGE, message=message)


def _check_file(file: SourceFile) -> None:
    _check_pin(file.pin)
    _require(re.fullmatch("([0-9a-f]{64})?", file.sha256) is not None, "files holds a sha256 that is none")
    _require(file.size_bytes >= 0, "a file's size is negative")


def _check_test_data(files: list[SourceFile], request: InspectionRequest) -> None:
    _require(bool(request.test_data) or not files, "testData was not asked for")
    _require(
        len({file.name for file in files}) == len(files) <= 2 * MAX_TEST_DATA_TENSORS * MAX_DATA_SETS,
        "testData is not a set of files",
    )
    for file in files:
        _require(_TEST_DATA.fullmatch(file.name) is not None, f"{file.name!r:.80} is not the name of a test data file")
        _check_file(file)
    _require(sum(file.size_bytes for file in files) <= MAX_TEST_DATA_BYTES, "testData is larger than it may be")


def _check_proofs(files: ModelFiles, report: ModelReport, request: InspectionRequest) -> None:
    """See that the pods will prove what was asked to be proven: they compare the bytes with these digests."""
    wanted = request.sha256.lower().removeprefix("sha256:")
    if wanted:
        _require(files.files[0].sha256 == wanted, "the file's sha256 is not spec.model.sha256")
    if request.signatures.required:
        _require(bool(report.signer), "nobody signed")
        _require(all(file.sha256 for file in files.files), "a signed file has no sha256")
