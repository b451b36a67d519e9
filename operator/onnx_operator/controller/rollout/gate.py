"""The interface gate: a version that would break callers is held until its owner has said that they are ready. Pure.

What callers rely on is the interface of the revision that the Deployment holds, if that ever was complete; one that
never was binds nobody, and the newest one that was stands for it. A first version has no callers.
"""

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import ANY_INTERFACE, OnnxModelSpec
from onnx_operator.api.report import ModelReport, shorten
from onnx_operator.controller.observation.observe import Cause
from onnx_operator.controller.revision.revisions import Revision
from onnx_operator.controller.rollout.history import History
from onnx_operator.model.comparison import compare

MAX_DIFFERENCE_BYTES = 224
"""As JSON: the patch that lets the version through must fit the message as well."""


def base(known: History, applied: str, since: str) -> Revision | None:
    """The revision whose interface callers rely on; None where there is none.

    Args:
        known: the model's revisions.
        applied: the name of the one that the Deployment holds.
        since: when the model was made. What an earlier one of its name left behind binds nobody, unless it runs.
    """
    good = [r for r in known.good if r.name == applied or not r.created or r.created >= since]
    return next((r for r in good if r.name == applied), None) or (good[-1] if good else None)


def breaks(old: Revision, spec: OnnxModelSpec, report: ModelReport, interface: str) -> list[str]:
    """What of a new version would break those who call the old one, for people; by the rules of ``kubectl onnx diff``.

    Args:
        old: the revision that they call.
        spec: of the new version.
        report: what was found of its model.
        interface: the hash of all its inputs and outputs, also of those that the report leaves out.
    """
    scripted = "scoring" in old.data.spec
    if scripted and spec.scoring:
        # What a script takes and gives is its own affair.
        return []
    if scripted:
        return ["the scoring script, which answers /score, is gone"]
    if spec.scoring:
        return ["a scoring script answers /score now, and inference by the Open Inference Protocol is gone"]
    if old.data.interface and old.data.interface == interface:
        return []
    return [change.text for change in compare(old.data.report, report) if change.breaking]


def accepted(spec: OnnxModelSpec, interface: str) -> bool:
    """Whether the spec lets this interface through."""
    given = spec.rollout.accept_interface if spec.rollout else None
    return given is not None and given in (ANY_INTERFACE, interface)


def held(
    name: str, namespace: str, spec: OnnxModelSpec, old: Revision | None, report: ModelReport, interface: str
) -> Cause | None:
    """Why a new version is held, with the patch that lets it through; None where it may be rolled out.

    Args:
        name: of the model.
        namespace: of the model.
        spec: of the new version.
        old: the revision that callers rely on.
        report: what was found of the new version's model.
        interface: the hash of its inputs and outputs.
    """
    if old is None or accepted(spec, interface):
        return None
    found = breaks(old, spec, report, interface)
    if not found:
        return None
    given = spec.rollout.accept_interface if spec.rollout else None
    other = f" (acceptInterface is {given}, which is another)" if given else ""
    patch = f'{{"spec":{{"rollout":{{"acceptInterface":"{interface or ANY_INTERFACE}"}}}}}}'
    return Cause(
        Reason.INTERFACE_CHANGED,
        f"held, since callers would break: {shorten('; '.join(found), MAX_DIFFERENCE_BYTES)}{other}. The former "
        f"revision serves on. To roll it out: kubectl patch onnxmodel {name} -n {namespace} --type=merge -p '{patch}'",
    )
