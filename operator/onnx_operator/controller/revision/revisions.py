"""Revisions: what pods are made of, kept as owned ControllerRevisions that carry the operator's seal.

``data`` holds what pods are made of and nothing else, and the revision's name is a hash of it. What is found out about
a revision is kept in annotations, its notes. Scaling, suspending and tags make no revision; a field of the spec that is
not listed in :data:`POD_FIELDS` makes none either. The manifests are stored in the API server's own form, so that
comparing them with the live objects needs no knowledge of defaults.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, overload

from pydantic import Field, field_validator

from onnx_operator.api import names
from onnx_operator.api.onnxmodel import OnnxModelSpec, Runtime
from onnx_operator.api.report import ModelReport
from onnx_operator.api.sources import ApiModel, ModelFiles, SourceFile
from onnx_operator.controller.cluster.kinds import CHILD_KINDS, DEPLOYMENT
from onnx_operator.controller.observation.admission import Demands
from onnx_operator.controller.revision import alpha
from onnx_operator.controller.revision.render import Manifest, child_labels, uses_gpu
from onnx_operator.controller.revision.seal import Sealer, Subject, Trust, digest, fingerprint
from onnx_operator.controller.revision.warm_up import Kept

HISTORY = 5
"""Revisions kept besides the current one and those with pods."""
MAX_REVISION = 2**62

POD_FIELDS = (
    "model.uri",
    "model.credentials",
    "model.testData",
    "model.version",
    "runtime",
    "nodePool",
    "resources",
    "session",
    "batching",
    "warmUp",
    "scoring",
    "endpoint",
    "serviceAccountName",
    "podTemplate",
)
"""Fields of the spec that reach the pods: a change of one makes a revision."""
OTHER_FIELDS = ("model.sha256", "model.onChange", "model.tags", "model.description", "replicas", "rollout", "suspend")
"""Fields that reach no pod; ``sha256`` is compared with the digests of the files."""

NOTE_WARMED = "warmed-up"
"""The note that tells how a revision started: JSON of :class:`~onnx_operator.controller.revision.warm_up.Warmed`."""
NOTE_INSPECTION = "inspection-key"
"""The note that names the inspection which accepted the model last."""
OF_PLATFORM = "."
"""In an inspection's key, what is before it is the model's owner's to change, and what is after it the platform's."""
NOTE_SIGNER = "signer"
"""The note that names who signed the model, where a later inspection than the revision's own verified it."""
NOTE_GOOD = "good"
"""The note of a revision that was rolled out to its end once; ``true``."""
NOTE_FAILED = "failed"
"""The note of one that failed by its own fault: JSON of
:class:`~onnx_operator.controller.rollout.rollback.Failure`."""
NOTES = (NOTE_WARMED, NOTE_INSPECTION, NOTE_SIGNER, NOTE_GOOD, NOTE_FAILED)
NOTES_OF_CONTENT = (NOTE_WARMED, NOTE_GOOD, NOTE_FAILED)
"""What is as true of another revision of the same content."""


class Sizing(ApiModel):
    """Why the server's resources are what they are, for people."""

    cpu: str = ""
    limits: str = ""


def _fault(manifest: dict[str, Any]) -> str:
    """Why a manifest is no child of a model's; empty where it is one."""
    kind, metadata, spec = manifest.get("kind"), manifest.get("metadata"), manifest.get("spec")
    if kind not in {k.kind for k in CHILD_KINDS} or not isinstance(metadata, dict) or not isinstance(spec, dict):
        return "each manifest must be a child of a model, with metadata and spec"
    template = spec.get("template")
    if kind == DEPLOYMENT.kind and not (
        isinstance(template, dict)
        and isinstance(template.get("metadata", {}), dict)
        and isinstance(template.get("metadata", {}).get("labels", {}), dict)
    ):
        return "spec.template of a Deployment must be a map with metadata"
    return "" if isinstance(metadata.get("annotations", {}), dict) else "metadata.annotations must be a map"


class RevisionData(ApiModel):
    """What a ControllerRevision holds."""

    spec: dict[str, Any] = Field(description="the fields of the spec that reach the pods")
    scoring: dict[str, str] = Field(default_factory=dict, description="the scoring script's files, by name")
    report: ModelReport
    interface: str
    files: ModelFiles | None = Field(default=None, description="what the pods fetch; unknown in revisions of old")
    test_data: list[SourceFile] = Field(default_factory=list, description="test inputs and outputs that pods fetch")
    kept: Kept | None = Field(default=None, description="of revisions before; absent in a first one")
    demands: Demands | None = Field(default=None, description="what the namespace was found to demand of containers")
    sizing: Sizing | None = Field(default=None, description="why containers ask for what they do")
    pool: str
    manifests: list[dict[str, Any]]

    @field_validator("spec")
    @classmethod
    def _is_spec(cls, value: dict[str, Any]) -> dict[str, Any]:
        # What is compared and shown later is what the spec's own types hold.
        OnnxModelSpec.model_validate(value)
        return value

    @field_validator("manifests")
    @classmethod
    def _are_children(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for manifest in value:
            if fault := _fault(manifest):
                raise ValueError(fault)
        return value

    def spec_as_read(self) -> dict[str, Any]:
        """The spec, without what this version does not know of it."""
        return OnnxModelSpec.model_validate(self.spec).model_dump(mode="json", by_alias=True, exclude_unset=True)

    def to_json(self) -> dict[str, Any]:
        """The data as it is stored."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @property
    def uri(self) -> str:
        """Where the model came from."""
        uri: str = self.spec["model"]["uri"]
        return uri

    @property
    def gpu(self) -> bool:
        """Whether the model should run on a GPU at least in part."""
        return uses_gpu(OnnxModelSpec.model_validate(self.spec))


class _Data:
    """The field of a revision that holds its data, or a call that reads it once it is asked for.

    A history's lists of files are long, and hardly ever asked for.
    """

    @overload
    def __get__(self, revision: None, owner: type) -> "_Data": ...
    @overload
    def __get__(self, revision: "Revision", owner: type) -> RevisionData: ...
    def __get__(self, revision: "Revision | None", owner: type) -> "_Data | RevisionData":
        if revision is None:
            # There is no default.
            raise AttributeError("data")
        held = vars(revision)["data"]
        found: RevisionData = held if isinstance(held, RevisionData) else held()
        return found

    def __set__(self, revision: "Revision", value: RevisionData | Callable[[], RevisionData]) -> None:
        vars(revision)["data"] = value


@dataclass(frozen=True)
class Revision:
    """A ControllerRevision of a model, decoded."""

    name: str
    number: int
    data: _Data = _Data()
    notes: Mapping[str, str] = field(default_factory=dict)
    """What was found out about it, as far as its seal holds: anybody may write annotations."""
    written: frozenset[str] = field(default=frozenset(), compare=False)
    """Names of all notes that the stored object carries, whoever wrote them."""
    trust: Trust = Trust.SEALED
    content: str = ""
    """The full SHA-256 of the data as it is stored; empty in a revision that is not stored yet."""
    created: str = ""
    """When it was stored, by the API server's clock."""
    uid: str = field(default="", compare=False)
    """Of the object that stores it; empty in a revision that is not stored yet."""
    inputs: str = ""
    """What the first alpha compared instead of the spec; empty in all revisions but its own."""

    @property
    def inspection_key(self) -> str:
        """The inspection that accepted the model last."""
        return self.notes.get(NOTE_INSPECTION, "")

    @property
    def good(self) -> bool:
        """Whether it was rolled out to its end once."""
        return self.notes.get(NOTE_GOOD, "") not in ("", "false")

    @property
    def report(self) -> ModelReport:
        """What is known of the model, with what was found out since the revision was made."""
        signer = self.notes.get(NOTE_SIGNER)
        return self.data.report.model_copy(update={"signer": signer}) if signer else self.data.report

    def serves(
        self,
        spec: OnnxModelSpec,
        report: ModelReport,
        scoring: dict[str, str],
        test_data: list[SourceFile],
    ) -> bool:
        """Whether pods of this revision are those that the spec, the source's pin, the script and the data ask for.

        A digest that is found out later changes nothing: :func:`proves` compares digests.
        """
        if self.inputs:
            return self.inputs == alpha.inputs_hash(spec, report, scoring, test_data)
        data = self.data
        return wish(data.spec, data.report, data.scoring, data.test_data) == wish(
            pod_spec(spec), report, scoring, test_data
        )

    def holds(self, data: RevisionData) -> bool:
        """Whether this, whoever stored it, is exactly what would be stored now."""
        if self.inputs:
            ours = {"spec": data.spec, "scoring": data.scoring, "sizing": data.sizing}
            return self.data.model_copy(update=ours) == data
        return self.content == fingerprint(data.to_json())


@dataclass(frozen=True)
class Unread:
    """A ControllerRevision that carries the operator's seal and that this version cannot read: a newer one made it."""

    name: str
    number: int
    spec: dict[str, Any]
    """The fields of the spec that reach the pods, as that version has them."""
    pool: str
    manifests: tuple[Manifest, ...]
    """Those that are of the kinds that this version knows."""
    trust: Trust
    uid: str = field(default="", compare=False)


def pod_spec(spec: OnnxModelSpec) -> dict[str, Any]:
    """The fields of the spec that reach the pods. Defaults that are written out ask for nothing else."""
    whole = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    chosen: dict[str, Any] = {}
    for path in POD_FIELDS:
        group, _, name = path.rpartition(".")
        value = whole.get(group, {}).get(name) if group else whole.get(name)
        if value in (None, {}) or (path == "runtime" and value == Runtime.CPU):
            continue
        (chosen.setdefault(group, {}) if group else chosen)[name] = value
    return chosen


def wish(spec: dict[str, Any], report: ModelReport, scoring: dict[str, str], test_data: list[SourceFile]) -> str:
    """A hash of all that decides which pods there should be: of :func:`pod_spec`, the source's pin, and the rest."""
    tested = [file.model_dump(mode="json", exclude={"sha256"}) for file in test_data]
    return fingerprint([spec, report.source.model_dump(mode="json"), scoring, tested])


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
    return f"{model}-{digest(data.to_json())}"


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


def new_revision(model: str, number: int, data: RevisionData, inspection_key: str) -> Revision:
    """A revision of this content, not stored yet."""
    content = fingerprint(data.to_json())
    return Revision(revision_name(model, data), number, data, {NOTE_INSPECTION: inspection_key}, content=content)


def noted(revision: Revision, notes: Mapping[str, str]) -> Revision:
    """The revision with other notes; a name without text is taken away."""
    return replace(revision, notes={k: v for k, v in {**revision.notes, **notes}.items() if v})


def annotations(revision: Revision, model: str, namespace: str, sealer: Sealer) -> dict[str, str]:
    """The annotations that keep a revision's notes and its seal."""
    return {
        **{names.NOTE_PREFIX + name: text for name, text in revision.notes.items()},
        names.ANNOTATION_SEAL: sealer.seal(_subject(revision, model, namespace)),
    }


def controller_revision(revision: Revision, model: str, namespace: str, sealer: Sealer) -> Manifest:
    """The ControllerRevision that stores a revision (https://kubernetes.io/docs/reference/kubernetes-api/)."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": revision.name,
            "namespace": namespace,
            "labels": child_labels(model),
            "annotations": annotations(revision, model, namespace, sealer),
        },
        "data": revision.data.to_json(),
        "revision": revision.number,
    }


def _subject(revision: Revision, model: str, namespace: str) -> Subject:
    return Subject(namespace, model, revision.name, revision.number, revision.content, revision.notes)


def claimed(item: Manifest) -> Revision | None:
    """A revision as its object tells it, whoever wrote that: for those who have no key, and no more than show it.

    None for what this version cannot read.
    """
    metadata, number, raw = item.get("metadata", {}), item.get("revision", 0), item.get("data")
    if not isinstance(raw, dict) or type(number) is not int or not 0 <= number < MAX_REVISION:
        return None
    try:
        if "inputs" in raw:
            data = RevisionData.model_validate(alpha.translated(raw))
            found = Revision(metadata["name"], number, data, _notes_of_alpha(raw), inputs=str(raw["inputs"]))
        else:
            found = Revision(metadata["name"], number, RevisionData.model_validate(raw))
    except (ValueError, KeyError, TypeError):
        return None
    if not found.inputs and holds_unknown(raw.get("spec"), found.data.spec_as_read()):
        return None
    kept = _notes(metadata)
    return replace(
        found,
        notes={**found.notes, **kept},
        written=frozenset(kept),
        content=fingerprint(raw),
        created=str(metadata.get("creationTimestamp", "")),
        uid=str(metadata.get("uid", "")),
    )


def _notes(metadata: Manifest) -> dict[str, str]:
    written = metadata.get("annotations") or {}
    return {k.removeprefix(names.NOTE_PREFIX): v for k, v in written.items() if k.startswith(names.NOTE_PREFIX)}


def holds_unknown(written: Any, read: Any) -> bool:
    """Whether something was written that was not read: a field that a newer version has."""
    if isinstance(written, dict) and isinstance(read, dict):
        return any(key not in read or holds_unknown(value, read[key]) for key, value in written.items())
    if isinstance(written, list) and isinstance(read, list):
        return any(holds_unknown(a, b) for a, b in zip(written, read, strict=False))
    return False


def unread(item: Manifest, model: str, namespace: str, sealer: Sealer) -> Unread | None:
    """What can be said of a revision of the operator's own that :func:`decode` cannot read; None for any other."""
    metadata, number, raw = item["metadata"], item.get("revision", 0), item.get("data")
    if not isinstance(raw, dict) or type(number) is not int or not 0 <= number < MAX_REVISION:
        return None
    subject = Subject(namespace, model, metadata["name"], number, fingerprint(raw), _notes(metadata))
    trust = sealer.trust(subject, (metadata.get("annotations") or {}).get(names.ANNOTATION_SEAL))
    if not trust.holds:
        return None
    manifests, spec = raw.get("manifests"), raw.get("spec")
    return Unread(
        name=metadata["name"],
        number=number,
        spec=spec if isinstance(spec, dict) else {},
        pool=str(raw.get("pool", "")),
        manifests=tuple(
            m for m in (manifests if isinstance(manifests, list) else []) if isinstance(m, dict) and not _fault(m)
        ),
        trust=trust,
        uid=str(metadata.get("uid", "")),
    )


def _notes_of_alpha(raw: Manifest) -> dict[str, str]:
    """What the first alpha kept in the data."""
    return {NOTE_INSPECTION: str(raw.get("inspectionKey", ""))} if "inputs" in raw else {}


def decode(item: Manifest, model: str, namespace: str, sealer: Sealer) -> Revision | None:
    """A revision with what its seal says, whoever stored it; None for what this version cannot read.

    A field of the spec that this version does not know reaches pods that it would not make so: that is not read either.
    """
    found = claimed(item)
    if found is None:
        return None
    seal = (item["metadata"].get("annotations") or {}).get(names.ANNOTATION_SEAL)
    trust = sealer.trust(_subject(found, model, namespace), seal)
    # Whoever takes it over later seals no note that somebody else wrote.
    return replace(found, trust=trust, notes=found.notes if trust.holds else _notes_of_alpha(item["data"]))


def surplus(revisions: list[Revision], in_use: set[str]) -> list[Revision]:
    """Revisions beyond the history that no pod and no Deployment uses any more, oldest first.

    The last good one stays as well: there may be nothing else to go back to.
    """
    in_use = in_use | {r.name for r in [r for r in revisions if r.good][-1:]}
    unused = [r for r in revisions if r.name not in in_use]
    return unused[: max(0, len(unused) - HISTORY)]
