"""Other bytes at the source, without a change of the spec: whether they may be rolled out. Pure.

An inspection's key stands for what somebody has asked for: address, pin, credentials, ``refresh``. The bytes that were
accepted first under a key are those that were agreed to; where the model or the settings say Hold, others wait until
somebody asks for something else, which is how consent is given.
"""

from fnmatch import fnmatchcase

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import InspectionResult, shorten
from onnx_operator.api.sources import ModelFiles
from onnx_operator.controller.observation.observe import Cause
from onnx_operator.controller.revision.revisions import OF_PLATFORM, Revision, proves
from onnx_operator.controller.settings.settings import Settings

MAX_SHOWN = 96
"""Bytes of what names a version at its source; a store may make it long."""


def holds(spec: OnnxModelSpec, namespace: str, settings: Settings) -> bool:
    """Whether other bytes at the source wait for somebody's consent: by the model's word, else by the settings'."""
    if spec.model.on_change is not None:
        return spec.model.on_change == "Hold"
    return any(fnmatchcase(namespace, pattern) for pattern in settings.hold_source_changes)


def _digests(files: ModelFiles | None) -> dict[str, str]:
    found = {file.name: file.sha256 for file in files.files} if files else {}
    return found if found and all(found.values()) else {}


def same_bytes(revision: Revision, result: InspectionResult) -> bool:
    """Whether an inspection found what a revision's pods serve: by digests where all are known, else by the pins."""
    data = revision.data
    if result.files is None or result.report is None:
        return False
    ours, theirs = _digests(data.files), _digests(result.files)
    if ours and theirs:
        return ours == theirs
    return data.report.source == result.report.source and proves(data.files, result.files)


def _asked(inspection: str) -> str:
    """What of an inspection's key is the model's owner's: whose signatures count is the platform's, and no consent."""
    return inspection.partition(OF_PLATFORM)[0]


def held_back(newest: Revision | None, inspection: str, result: InspectionResult) -> bool:
    """Whether an accepted inspection found other bytes than those that were agreed to.

    Args:
        newest: the newest revision of the operator's own.
        inspection: the key of the inspection.
        result: what it concluded.
    """
    if newest is None or newest.data.files is None or _asked(newest.inspection_key) != _asked(inspection):
        return False
    return not same_bytes(newest, result)


def held_cause(newest: Revision, result: InspectionResult) -> Cause:
    """What the status says of bytes that wait."""
    report = result.report
    digest = report.digest.removeprefix("sha256:") if report else ""
    found = digest or (report.source.value if report else "")
    had = newest.data.report.digest.removeprefix("sha256:") or newest.data.report.source.value
    pin = f"spec.model.sha256: {digest}" if digest else "its digest as spec.model.sha256"
    return Cause(
        Reason.SOURCE_HELD,
        f"the source holds other bytes ({shorten(found, MAX_SHOWN)}) than were rolled out ({shorten(had, MAX_SHOWN)}), "
        f"and nobody has asked for them. To have them rolled out, set {pin}, or a new value of the annotation "
        f"{names.ANNOTATION_REFRESH}; pods that start anew need the old ones",
    )
