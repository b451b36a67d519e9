"""A scoring script's files: read from where the spec says they are, as they were at that moment."""

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import Refusal
from onnx_operator.controller.cluster.kube import CONFIG_MAP, Kube

MOST_BYTES = 64 * 1024
SCRIPT = "score.py"


class ScoringRejectedError(Exception):
    """``spec.scoring`` cannot be used; ``refusal`` says why."""

    def __init__(self, message: str, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.refusal = Refusal(reason=Reason.SCORING_REJECTED, message=message, retriable=retriable)


async def read_scoring(kube: Kube, namespace: str, spec: OnnxModelSpec) -> dict[str, str]:
    """The script's files by name; none without a script, or where an image holds it.

    Raises:
        ScoringRejectedError: its ConfigMap is missing, too large, or without a script.
        ApiError: the API server cannot be asked.
    """
    scoring = spec.scoring
    if scoring is None:
        return {}
    if scoring.script is not None:
        return {SCRIPT: scoring.script}
    if scoring.config_map_name is None:
        return {}
    name, field = scoring.config_map_name, "spec.scoring.configMapName"
    found = await kube.get(CONFIG_MAP, namespace, name)
    if found is None:
        raise ScoringRejectedError(
            f"{field}: there is no ConfigMap {name!r} in namespace {namespace!r}; create it, as with: "
            f"kubectl create configmap {name} -n {namespace} --from-file={SCRIPT}",
            retriable=True,
        )
    if found.get("binaryData"):
        raise ScoringRejectedError(
            f"{field}: ConfigMap {name!r} holds binary data ({', '.join(sorted(found['binaryData']))}); "
            "only text is possible, make an image with kubectl onnx package",
            retriable=True,
        )
    files: dict[str, str] = found.get("data") or {}
    scripts = [file for file in files if file.endswith(".py")]
    if SCRIPT not in files and len(scripts) != 1:
        raise ScoringRejectedError(
            f"{field}: ConfigMap {name!r} must hold {SCRIPT}; it holds {', '.join(sorted(files)) or 'nothing'}",
            retriable=True,
        )
    size = sum(len(text.encode()) for text in files.values())
    if size > MOST_BYTES:
        raise ScoringRejectedError(
            f"{field}: ConfigMap {name!r} holds {size} bytes, {MOST_BYTES} are possible; make an image with "
            "kubectl onnx package",
            retriable=True,
        )
    return files


def script_path(spec: OnnxModelSpec) -> str:
    """Where the server finds the script; empty without one."""
    if spec.scoring is None:
        return ""
    return names.IMAGE_SCORING_DIRECTORY if spec.scoring.image else names.SCORING_DIRECTORY
