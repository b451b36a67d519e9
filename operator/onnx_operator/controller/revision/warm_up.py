"""What pods are told of inputs to warm up with: what the spec says, what is kept from revisions before. Pure."""

from pydantic import Field

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import ModelReport
from onnx_operator.api.sources import ApiModel
from onnx_operator.api.warm_up import WarmUpInputs, check_inputs
from onnx_operator.model.refusal import RefusedError

MAX_WARM_UP_LENGTH = 32 * 1024
"""Bytes of spec.warmUp as JSON: it is one argument of the server, and Linux takes 128 KiB of one (MAX_ARG_STRLEN)."""

MAX_REQUEST_SECONDS = 3600.0
"""Of CPU time; longer measurements are not believed."""


class Kept(ApiModel):
    """What a revision takes over from those before it."""

    inputs: WarmUpInputs | None = Field(default=None, description="what warmed up a revision of the same interface")
    required: bool = Field(default=False, description="whether it may not serve unless it is warm")
    request_cpu_seconds: float | None = Field(
        default=None, description="CPU time of a run that a pod measured, of a model of the same operations"
    )


class Warmed(ApiModel):
    """How a revision started: whether it was warmed up, and by what."""

    warmed: bool
    inputs: WarmUpInputs | None = None
    request_cpu_seconds: float | None = Field(default=None, ge=0, le=MAX_REQUEST_SECONDS, allow_inf_nan=False)


def check_warm_up(spec: OnnxModelSpec, report: ModelReport) -> None:
    """See that the model takes ``spec.warmUp``. Raises :class:`RefusedError` (``PodTemplateRejected``).

    What a report does not tell (it is cut, or a shape is of any rank) the server judges.
    """
    given = spec.warm_up.inputs() if spec.warm_up else WarmUpInputs()
    if given.empty:
        return
    if spec.scoring:
        raise _refused("spec.warmUp: with spec.scoring the script loads the model; let its init() warm it up")
    # One open size is also how a report writes a shape of any rank.
    known = {each.name: (each.datatype, [] if each.shape == [-1] else each.shape) for each in report.inputs}
    try:
        check_inputs(given, known, whole=not report.truncated)
    except ValueError as error:
        raise _refused(str(error)) from None
    size = len(given.to_text().encode())
    if size > MAX_WARM_UP_LENGTH:
        raise _refused(
            f"spec.warmUp takes {size} bytes as JSON; expected at most {MAX_WARM_UP_LENGTH}. Test data "
            "(spec.model.testData) may be larger"
        )


def _refused(message: str) -> RefusedError:
    return RefusedError(Reason.POD_TEMPLATE_REJECTED, message)
