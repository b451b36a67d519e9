"""What the settings forbid models to ask for. Pure."""

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import Refusal
from onnx_operator.controller.settings import Settings


def forbidden(spec: OnnxModelSpec, settings: Settings) -> Refusal | None:
    """Why the settings will not have a model of this spec; None where they will."""
    if spec.pod_template and not settings.allow_pod_template:
        message = "spec.podTemplate: the operator's settings forbid it (allowPodTemplate: false)"
        return Refusal(reason=Reason.POD_TEMPLATE_REJECTED, message=message)
    if spec.scoring and not settings.allow_scoring:
        message = "spec.scoring: the operator's settings forbid scripts (allowScoring: false)"
        return Refusal(reason=Reason.SCORING_REJECTED, message=message)
    return None
