"""A scoring script's files: read from where the spec says they are, as they were at that moment."""

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.controller.cluster.kinds import CONFIG_MAP
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.sight import Sight
from onnx_operator.model.refusal import RefusedError

MAX_SCRIPT_BYTES = 64 * 1024
SCRIPT = "score.py"


async def read_scoring(sight: Sight | Kube, namespace: str, spec: OnnxModelSpec) -> dict[str, str]:
    """The script's files by name; none without a script, or where an image holds it.

    Raises:
        RefusedError: ``ScoringRejected``, its ConfigMap is missing, too large, or without a script.
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
    found = await sight.get(CONFIG_MAP, namespace, name)
    if found is None:
        raise _refused(
            f"{field}: there is no ConfigMap {name!r} in namespace {namespace!r}; create it, as with: "
            f"kubectl create configmap {name} -n {namespace} --from-file={SCRIPT}"
        )
    if found.get("binaryData"):
        raise _refused(
            f"{field}: ConfigMap {name!r} holds binary data ({', '.join(sorted(found['binaryData']))}); "
            "expected only text; for other files make an image with kubectl onnx package"
        )
    files: dict[str, str] = found.get("data") or {}
    scripts = [file for file in files if file.endswith(".py")]
    if scoring.entry_script and scoring.entry_script not in files:
        raise _refused(
            f"spec.scoring.entryScript: ConfigMap {name!r} holds no {scoring.entry_script} (its keys have no folders); "
            f"it holds {', '.join(sorted(files)) or 'nothing'}"
        )
    if not scoring.entry_script and SCRIPT not in files and len(scripts) != 1:
        raise _refused(
            f"{field}: ConfigMap {name!r} must hold {SCRIPT}; it holds {', '.join(sorted(files)) or 'nothing'}"
        )
    size = sum(len(text.encode()) for text in files.values())
    if size > MAX_SCRIPT_BYTES:
        raise _refused(
            f"{field}: ConfigMap {name!r} holds {size} bytes; expected at most {MAX_SCRIPT_BYTES}. For more make "
            "an image with kubectl onnx package"
        )
    return files


def script_path(spec: OnnxModelSpec) -> str:
    """Where the server finds the script; empty without one."""
    if spec.scoring is None:
        return ""
    return names.IMAGE_SCORING_DIRECTORY if spec.scoring.image else names.SCORING_DIRECTORY


def _refused(message: str) -> RefusedError:
    # Somebody may change the ConfigMap.
    return RefusedError(Reason.SCORING_REJECTED, message, retriable=True)
