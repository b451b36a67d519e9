"""Revisions as the first alpha wrote them: read for as long as such a revision is the newest of a model.

They hold a hash of the whole spec instead of the fields that reach the pods, and no seal.
"""

from typing import Any

from onnx_operator.api.onnxmodel import OnnxModelSpec, Runtime
from onnx_operator.api.report import ModelReport
from onnx_operator.api.sources import SourceFile
from onnx_operator.controller.revision.seal import digest


def inputs_hash(
    spec: OnnxModelSpec,
    report: ModelReport,
    scoring: dict[str, str],
    test_data: list[SourceFile],
) -> str:
    """The hash that the first alpha kept of all that decides about the pods."""
    relevant = spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"replicas", "suspend"})
    if relevant.get("runtime") == Runtime.CPU:
        del relevant["runtime"]
    for field in ("podTemplate", "session", "batching", "resources"):
        if not relevant.get(field):
            relevant.pop(field, None)
    for field in ("tags", "description", "sha256"):
        relevant["model"].pop(field, None)
    decisive: list[Any] = [relevant, report.source.model_dump(mode="json")]
    if scoring:
        decisive.append(scoring)
    if test_data:
        decisive.append([file.model_dump(mode="json", exclude={"sha256"}) for file in test_data])
    return digest(decisive)


def translated(data: dict[str, Any]) -> dict[str, Any]:
    """The data of such a revision, under the names of today."""
    kept = ("report", "interface", "files", "testData", "pool", "manifests")
    runtime = {"runtime": Runtime.GPU.value} if data.get("gpu") else {}
    return {name: data[name] for name in kept if name in data} | {"spec": {"model": {"uri": data["uri"]}, **runtime}}
