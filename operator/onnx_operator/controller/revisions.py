"""Revisions: what was inspected and rendered, kept as owned ControllerRevisions.

A revision is made when something changes that reaches the pods; scaling, suspending and tags make none. Its manifests
are stored in the API server's own form, so that comparing them with the live objects needs no knowledge of defaults,
and a new operator version or setting does not restart what already runs.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from onnx_operator.api import names
from onnx_operator.api.onnxmodel import OnnxModelSpec, Runtime
from onnx_operator.api.report import ModelReport
from onnx_operator.api.sources import ApiModel, ModelFiles, SourceFile
from onnx_operator.controller.render import Manifest, child_labels

HISTORY = 5
"""Revisions kept besides the current one and those with pods."""


def digest(value: Any) -> str:
    """Ten hex digits of a JSON-able value, the same whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:10]


class RevisionData(ApiModel):
    """What a ControllerRevision holds."""

    inputs: str = Field(description="hash of all that the user decides about the pods, and of the inspected source")
    uri: str
    inspection_key: str
    report: ModelReport
    files: ModelFiles | None = Field(default=None, description="what the pods fetch; unknown in revisions of old")
    test_data: list[SourceFile] = Field(default_factory=list, description="recorded inputs and outputs that pods fetch")
    workload_identity: bool = Field(default=False, description="whether the pods' own identity reads the source")
    interface: str
    pool: str
    image: str
    gpu: bool = False
    manifests: list[dict[str, Any]]


@dataclass(frozen=True)
class Revision:
    """A ControllerRevision of a model, decoded."""

    name: str
    number: int
    data: RevisionData


def inputs_hash(
    spec: OnnxModelSpec,
    report: ModelReport,
    scoring: dict[str, str] | None = None,
    test_data: list[SourceFile] | None = None,
) -> str:
    """Changes exactly when the pods would have to: by the spec (less replicas, suspend, tags), by the source's pin,
    or by the content of the scoring script and the test data.

    A digest that is found out later changes nothing: :func:`proves` compares digests.
    """
    relevant = spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"replicas", "suspend"})
    # Defaults that are written out ask for nothing else than those that are not.
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


def proves(files: ModelFiles | None, wanted: ModelFiles) -> bool:
    """Whether pods that fetched ``files`` serve the bytes of ``wanted``, which has the same pins.

    Not where two digests differ: some stores give other bytes the same ETag. Nor where somebody claims a digest now
    that these pods never had to prove.
    """
    had = {file.name: file.sha256 for file in files.files} if files else {}
    return all(
        file.name in had and (had[file.name] == file.sha256 or not (had[file.name] or file.claimed) or not file.sha256)
        for file in wanted.files
    )


def revision_name(model: str, data: RevisionData) -> str:
    """The name that a revision of this content has: the same content, the same name.

    The API server never lets the data of a ControllerRevision change, so all of it counts.
    """
    return f"{model}-{digest(data.model_dump(mode='json', by_alias=True))}"


def with_revision_label(manifests: list[Manifest], revision: str) -> list[Manifest]:
    """The manifests, with the revision's name on the pods."""
    result = []
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            spec = manifest["spec"]
            metadata = spec["template"].get("metadata", {})
            labels = {**metadata.get("labels", {}), names.LABEL_REVISION: revision}
            template = {**spec["template"], "metadata": {**metadata, "labels": labels}}
            manifest = {**manifest, "spec": {**spec, "template": template}}
        result.append(manifest)
    return result


def controller_revision(model: str, namespace: str, number: int, data: RevisionData) -> Manifest:
    """The ControllerRevision that stores a revision (https://kubernetes.io/docs/reference/kubernetes-api/)."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": revision_name(model, data),
            "namespace": namespace,
            "labels": child_labels(model),
        },
        "data": data.model_dump(mode="json", by_alias=True, exclude_none=True),
        "revision": number,
    }


def decode(objects: list[Manifest]) -> list[Revision]:
    """The revisions in ascending order; one that this version cannot read is passed over."""
    revisions = []
    for item in objects:
        try:
            data = RevisionData.model_validate(item.get("data"))
        except ValueError:
            continue
        revisions.append(Revision(item["metadata"]["name"], int(item.get("revision", 0)), data))
    return sorted(revisions, key=lambda r: r.number)


def surplus(revisions: list[Revision], in_use: set[str]) -> list[Revision]:
    """Revisions beyond the history that no pod and no Deployment uses any more, oldest first."""
    unused = [r for r in revisions if r.name not in in_use]
    return unused[: max(0, len(unused) - HISTORY)]
