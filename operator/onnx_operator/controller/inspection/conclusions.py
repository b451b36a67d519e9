"""What names an inspection, and what is known of it without looking at the source. Pure."""

from collections.abc import Sequence
from typing import Any

from onnx_operator.api import names
from onnx_operator.api.conditions import ConditionType, Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec, OnnxModelStatus, Runtime
from onnx_operator.api.report import InspectionResult, Refusal
from onnx_operator.api.signatures import SignatureSettings
from onnx_operator.api.sources import SourcePin
from onnx_operator.controller.cluster.kinds import Object
from onnx_operator.controller.observation.observe import Observation
from onnx_operator.controller.revision.fetching import uses_service_account, wants_folder
from onnx_operator.controller.revision.render import uses_gpu
from onnx_operator.controller.revision.revisions import OF_PLATFORM, Revision, pod_spec
from onnx_operator.controller.revision.seal import digest


def inspection_key(spec: OnnxModelSpec, model: Object, signatures: SignatureSettings | None = None) -> str:
    """Names an inspection: it changes exactly when looking at the source again is due.

    Scaling changes nothing, nor does another version of the operator: what serves goes on serving.
    """
    source = spec.model
    decisive = [
        source.uri,
        source.sha256,
        source.credentials.secret_name if source.credentials else None,
        *([source.test_data] if source.test_data else []),
        (model["metadata"].get("annotations") or {}).get(names.ANNOTATION_REFRESH),
    ]
    if uses_service_account(spec):
        decisive.append(spec.service_account_name)
    if wants_folder(spec):
        decisive.append("folder")
    if uses_gpu(spec):
        # Its verdict is another: kernels of the CPU do not decide.
        decisive.append(Runtime.GPU)
    if signatures and signatures.required:
        # Whom the platform trusts has changed: what serves goes on serving, and is told to be unsigned.
        return f"{digest(decisive)}{OF_PLATFORM}{digest(signatures.model_dump_json())}"
    return digest(decisive)


def persisted_result(
    key: str, spec: OnnxModelSpec, status: OnnxModelStatus, revisions: Sequence[Revision]
) -> InspectionResult | None:
    """What an earlier life of the operator concluded for this key: by the status and the operator's own revisions.

    What an accepted model holds is in its revision alone, which is sealed: the status only says which of several it
    was. Without one the model is looked at again. The key is short, and who writes the spec may look for another one of
    the same key: so the source itself is compared as well.
    """
    inspection = status.inspection
    source = _source(pod_spec(spec))
    same = [
        r for r in reversed(revisions) if r.inspection_key == key and r.data.files and _source(r.data.spec) == source
    ]
    if inspection and inspection.key == key:
        verdict = next((c for c in status.conditions if c.type == ConditionType.MODEL_VALID), None)
        # A reason that this version does not know, left by a newer one, is no conclusion.
        if inspection.outcome == "Refused" and verdict and verdict.reason in set(Reason):
            return InspectionResult(
                outcome="Refused",
                source=inspection.source,
                report=status.model,
                interface=status.interface or "",
                refusal=Refusal(reason=Reason(verdict.reason), message=verdict.message),
            )
        if inspection.outcome == "Accepted":
            same = [r for r in same if r.data.report.source == inspection.source]
    if not same:
        return None
    report, newest = same[0].report, same[0].data
    return InspectionResult(
        outcome="Accepted",
        source=report.source,
        report=report,
        interface=newest.interface,
        files=newest.files,
        test_data=newest.test_data,
    )


def _source(spec: dict[str, Any]) -> dict[str, Any]:
    """What is read, and with which keys: of :func:`pod_spec`."""
    return {name: spec["model"].get(name) for name in ("uri", "credentials", "testData")}


def changed_source(observation: Observation, current: Revision | None) -> SourcePin | None:
    """What pods of the current revision found at the source instead of what was inspected.

    A pod that gave up on a file of another size cannot name what it found: any value but the inspected one will do.
    """
    if current is None:
        return None
    for pod in observation.live_pods():
        cause = pod.cause
        if pod.revision == current.name and cause and cause.reason is Reason.SOURCE_CHANGED:
            return cause.observed or SourcePin(kind="None", value="unknown")
    return None
