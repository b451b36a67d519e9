"""The verdict on a model: pure, from a folder's bytes and capabilities to a report or a refusal."""

from collections.abc import Callable
from dataclasses import dataclass

from onnx import ModelProto

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import (
    Capabilities,
    InspectionResult,
    ModelReport,
    RowsProof,
    TensorSpec,
    interface_hash,
)
from onnx_operator.api.sources import ModelFiles, SourceFile, SourcePin
from onnx_operator.model.archive import Archive, ArchiveLimits, MemberReader, kind_of
from onnx_operator.model.batching.proof import Proof, prove
from onnx_operator.model.batching.reading import MAX_STRUCTURE_BYTES, UnreadableError, parse_skeleton
from onnx_operator.model.checks.kernels import check_kernels
from onnx_operator.model.checks.size import check_size
from onnx_operator.model.checks.structure import check_formally, check_structure, infer_what_can_be
from onnx_operator.model.checks.training import training_only
from onnx_operator.model.checks.versions import check_versions
from onnx_operator.model.figures.cost import flops_by_node, operator_counts, parameter_count, total_flops
from onnx_operator.model.figures.coverage import coverage
from onnx_operator.model.figures.memory import estimate_memory
from onnx_operator.model.figures.sized import size_model
from onnx_operator.model.interface import interface
from onnx_operator.model.limits import MAX_FILE_BYTES, InspectionLimits
from onnx_operator.model.nodes import domain_of, domain_text
from onnx_operator.model.reading.folder import Beside, FileOf, Folder, beside
from onnx_operator.model.reading.lists import without_stand_ins
from onnx_operator.model.reading.skeleton import Skeleton, find_malformed_text, read_skeleton
from onnx_operator.model.reading.weights import complete_model, folders_passed
from onnx_operator.model.reading.window import Window
from onnx_operator.model.reading.zipmaps import find_change
from onnx_operator.model.refusal import RefusedError
from onnx_operator.model.tensors import SCORES, protocol_notes, unsendable
from onnx_operator.model.trial.runtime import Answer
from onnx_operator.model.weighing import Refusals

Trial = Callable[[Skeleton, Folder, str], Answer]
"""Asks the runtime about a structure, given the folder and the name of its file."""
_KIND_BYTES = 512
"""From which a tar archive shows."""
UNKNOWN_PIN = SourcePin(kind="None", value="")
"""Of files in a verdict: whoever read them knows what pins them."""


def verify(
    folder: Folder,
    name: str,
    *,
    capabilities: Capabilities,
    archives: ArchiveLimits | None = None,
    max_nodes: int = InspectionLimits.max_nodes,
    before_checks: Callable[[], None] = lambda: None,
    trial: Trial | None = None,
) -> InspectionResult:
    """Accept or refuse the model in the file ``name``, which may be an archive; never raises for what the bytes hold.

    Sources and digests are for the caller to fill in: the report's are empty. ``before_checks`` is called, once
    or more often, when what takes memory and time begins. ``trial`` asks the runtime, which then decides what it can;
    without it the tables of ``capabilities`` do.
    """
    task = _Task(capabilities, max_nodes, before_checks, trial)
    try:
        size = folder.size(name)
        if size is None:
            raise RefusedError(Reason.SOURCE_NOT_FOUND, f"There is no file {name}.")
        file = FileOf(folder, name)
        window = Window(file, size, expect=file.expect)
        if kind_of(window.slice(0, min(size, _KIND_BYTES))):
            return _verify_archive(folder, name, size, task, archives or ArchiveLimits())
        return _verify_file(folder, name, window, task)
    except RefusedError as refused:
        return refused.result()


@dataclass(frozen=True)
class _Task:
    capabilities: Capabilities
    max_nodes: int
    before_checks: Callable[[], None]
    trial: Trial | None


def _verify_archive(folder: Folder, name: str, size: int, task: _Task, limits: ArchiveLimits) -> InspectionResult:
    archive = Archive(FileOf(folder, name), size, limits)
    member = archive.model_member()
    unpacked = _Unpacked(archive)
    window = Window(FileOf(unpacked, member), unpacked.size(member) or 0)
    result = _verify_file(unpacked, member, window, task)
    if result.files is None or result.report is None:
        return result
    files = ModelFiles(
        files=[SourceFile(name=name, pin=UNKNOWN_PIN, size_bytes=size)],
        archive=True,
        model=member,
        unpacked_bytes=archive.unpacked_bytes,
        folders=result.files.folders,
    )
    return result.model_copy(update={"files": files})


class _Unpacked:
    """The members of an archive as a folder."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._sizes = {member.name: member.size for member in archive.members()}
        self._open: dict[str, MemberReader] = {}

    def size(self, name: str) -> int | None:
        return self._sizes.get(name)

    def read_at(self, name: str, begin: int, end: int) -> bytes:
        if name not in self._open:
            self._open[name] = self._archive.open(name)
        return self._open[name].read_at(begin, end)


def _verify_file(folder: Folder, name: str, window: Window, task: _Task) -> InspectionResult:
    skeleton = read_skeleton(window, task.before_checks)
    try:
        return _report(skeleton, folder, name, window.size, task)
    except (RefusedError, MemoryError, OSError):
        raise
    except Exception:
        # protobuf hands out text that is no UTF-8 as bytes, and whatever meets it first fails.
        text = find_malformed_text(skeleton.model)
        if text is None:
            raise
        raise RefusedError(
            Reason.CORRUPT,
            f"The file holds a name or text that is not UTF-8 ({text[:80]!r}). Upload it again, and compare its"
            " size and sha256 with the original.",
        ) from None


def _report(skeleton: Skeleton, folder: Folder, name: str, size: int, task: _Task) -> InspectionResult:
    head, capabilities = skeleton.model, task.capabilities
    if size > MAX_FILE_BYTES:
        raise RefusedError(
            Reason.TOO_LARGE,
            f"{name} has {size} bytes, and no runtime reads an ONNX file above 2 GiB. Store the weights beside it as"
            " external data, or quantize the model.",
        )
    if training := training_only(head):
        raise RefusedError(Reason.NOT_ONNX, training)
    check_size(head, task.max_nodes)
    path = beside(name)
    answer = _ask(skeleton, folder, name, task)
    refusals = Refusals(answer)
    with refusals.collecting():
        check_versions(head, capabilities)
    model, weights = complete_model(skeleton, Beside(folder, name), refusals.add)
    inferred = _checked(model, capabilities, refusals)
    refusals.decide(capabilities)
    inputs, outputs = interface(head, inferred, answer.interface)
    if why := unsendable(inputs):
        raise RefusedError(Reason.INVALID_GRAPH, why)
    sized = size_model(model, weights, inferred=inferred)
    flops = flops_by_node(sized)
    files = [SourceFile(name=name, pin=UNKNOWN_PIN, size_bytes=size)]
    files += [
        SourceFile(name=path(file), pin=UNKNOWN_PIN, size_bytes=folder.size(path(file)) or 0)
        for file in sorted({weight.file for weight in weights.values() if weight.file})
    ]
    report = ModelReport(
        source=UNKNOWN_PIN,
        size_bytes=sum(file.size_bytes for file in files),
        files=len(files),
        producer=f"{head.producer_name} {head.producer_version}".strip(),
        ir_version=head.ir_version,
        opsets={domain_text(domain_of(each.domain)): each.version for each in head.opset_import},
        metadata={each.key: each.value for each in head.metadata_props},
        inputs=inputs,
        outputs=outputs,
        memory=estimate_memory(model, weights, inferred=sized),
        parameters=parameter_count(model, weights),
        flops=total_flops(sized, flops),
        operators=operator_counts(model),
        coverage=coverage(inferred, flops, weights=weights),
        batching=_batching(head),
        notes=[*refusals.notes(), *protocol_notes(inputs, outputs, _scores(head, outputs))],
    )
    return InspectionResult(
        outcome="Accepted",
        report=report.bounded(),
        interface=interface_hash(inputs, outputs),
        files=ModelFiles(files=files, model=name, folders=sorted(map(path, folders_passed(head)))),
    )


def _scores(head: ModelProto, outputs: list[TensorSpec]) -> dict[str, int]:
    """How many classes the scores have that are maps in the file, and tensors where the model is served."""
    if not any(each.datatype.startswith(SCORES) for each in outputs):
        return {}
    return {name: len(classes) for name, classes in find_change(head.SerializeToString()).classes.items()}


def _batching(head: ModelProto) -> RowsProof:
    """What is proven of the rows of a batch."""
    try:
        if head.ByteSize() > MAX_STRUCTURE_BYTES:
            raise UnreadableError("its graph takes more bytes than are looked at")
        found = prove(parse_skeleton(without_stand_ins(head).SerializeToString()))
    except UnreadableError as error:
        found = Proof("Unproven", reason=str(error))
    return RowsProof(proof=found.strength, node=found.node, reason=found.reason)


def _ask(skeleton: Skeleton, folder: Folder, name: str, task: _Task) -> Answer:
    """The runtime's word on a structure that is within bounds; where it cannot be asked, why."""
    if task.trial is None:
        return Answer(None)
    try:
        return task.trial(skeleton, folder, name)
    except MemoryError:
        return Answer(None, "it had too little memory")


def _checked(model: ModelProto, capabilities: Capabilities, refusals: Refusals) -> ModelProto:
    """The model with inferred values; as good as can be where checks object to it."""
    with refusals.collecting():
        check_structure(model)
    inferred = None
    with refusals.collecting():
        inferred = check_formally(model)
    if inferred is None:
        return infer_what_can_be(model)
    with refusals.collecting():
        check_kernels(inferred, capabilities)
    return inferred
