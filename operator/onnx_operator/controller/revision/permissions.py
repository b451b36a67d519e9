"""What the platform team's settings forbid a model. Pure: asked before anything is read or made, and again at apply.

Whatever is wrong here does not depend on the source: refusing it first means that no pod is made, no Secret is read
and no byte is fetched for a model that may not run anyway.
"""

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import Refusal
from onnx_operator.controller.revision.fetching import needs_pod
from onnx_operator.controller.revision.inspection_template import template_of
from onnx_operator.controller.revision.pools import check_pools
from onnx_operator.controller.settings.settings import Settings
from onnx_operator.model.refusal import RefusedError
from onnx_operator.model.sources import SourceError
from onnx_operator.model.sources.hosts import check_plain_http


def forbidden(spec: OnnxModelSpec, namespace: str, settings: Settings) -> Refusal | None:
    """Why a model of this namespace may not be inspected or run, whatever lies at its source; None where it may.

    Changing the spec or the settings cures it, nothing else does: it is never a conclusion about the source.
    """
    if spec.pod_template and not settings.allow_pod_template:
        return _forbids(Reason.POD_TEMPLATE_REJECTED, "spec.podTemplate", "allowPodTemplate")
    if spec.scoring and not settings.allow_scoring:
        return _forbids(Reason.SCORING_REJECTED, "spec.scoring", "allowScoring")
    if spec.model.credentials and not settings.allow_credentials:
        return _forbids(Reason.SOURCE_REFUSED, "spec.model.credentials", "allowCredentials")
    try:
        _check_plain_http(spec, settings)
        check_pools(spec, namespace, settings.effective_pools())
        if needs_pod(spec, settings):
            if not settings.allow_inspection_pods:
                what = "a source that only a pod of the model's namespace can read (pvc, spec.serviceAccountName)"
                return _forbids(Reason.SOURCE_REFUSED, f"spec.model.uri: {what}", "allowInspectionPods")
            template_of(spec)
    except RefusedError as error:
        return error.refusal
    return None


def _check_plain_http(spec: OnnxModelSpec, settings: Settings) -> None:
    for field, uri in (("spec.model.uri", spec.model.uri), ("spec.model.testData", spec.model.test_data)):
        try:
            check_plain_http(uri or "", settings.sources)
        except SourceError as error:
            raise RefusedError(error.reason, f"{field}: {error.message}") from None


def _forbids(reason: Reason, what: str, setting: str) -> Refusal:
    return Refusal(reason=reason, message=f"{what}: the operator's settings forbid it ({setting}: false)")
