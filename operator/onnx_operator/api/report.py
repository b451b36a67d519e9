"""What an inspection finds out about a model: the content of ``status.model``, and the refusals."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from onnx_operator.api.capabilities import Capabilities as Capabilities
from onnx_operator.api.conditions import Reason
from onnx_operator.api.signatures import SignatureSettings
from onnx_operator.api.sources import ApiModel, ModelFiles, SourceFile, SourcePin, SourceSettings
from onnx_operator.api.warm_up import MAX_DIMENSIONS
from onnx_operator.common.text import visible

MAX_REPORT_TENSORS = 64
"""Inputs and outputs together."""
MAX_METADATA = 32
MAX_OPSETS = 16
MAX_OPERATORS = 24
MAX_FALLBACKS = 8
"""Operators named per execution provider."""
MAX_NOTES = 8
MAX_TEXT_BYTES = 256
MAX_SHORT_TEXT_BYTES = 64
"""Of symbolic dimensions and operator domains."""
MAX_DETAIL_BYTES = 1024 + 768
"""Of notes, fallbacks and operators together, as JSON; what callers ask for, inputs and outputs, has the rest."""
MAX_REPORT_BYTES = 6 * 1024 + 768
"""As JSON, whatever the model holds: the status shares its 16 KiB with conditions and failing pods."""


def _json_bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode(errors="replace"))


def shorten(text: str, limit: int) -> str:
    """``text``, cut between characters and ended with an ellipsis where it takes more than ``limit`` bytes in JSON.

    All that a status and its events quote passes here, for ``kubectl describe`` to print: it is made visible as well.
    """
    # A little of a long text is enough: what is written out only grows.
    text = visible(text[: limit + 1])
    if _json_bytes(text) - 2 <= limit:
        return text
    room = limit - len("…".encode())
    end = 0
    for character in text:
        room -= _json_bytes(character) - 2
        if room < 0:
            break
        end += 1
    return text[:end] + "…"


Dimension = Annotated[
    int | str, WithJsonSchema({"x-kubernetes-int-or-string": True, "description": "a size, a name, or -1"})
]


class TensorSpec(ApiModel):
    """One input or output of a model."""

    name: str
    datatype: str = Field(description="Open Inference Protocol name (FP32, INT64, BYTES …) or the ONNX type")
    shape: list[Dimension] = Field(description="sizes; a symbolic dimension by its name, an unknown one as -1")


class MemoryEstimate(ApiModel):
    """Expected memory of the scoring process, in bytes."""

    weights_bytes: int
    activations_bytes: int
    resident_bytes: int = Field(
        description="at the peak, which is mostly while loading: weights, folded constants, activations and the runtime"
    )
    serving_bytes: int = Field(default=0, description="the same once the model is loaded; 0 where it was not estimated")


class ProviderCoverage(ApiModel):
    """How much of a model one execution provider of ONNX Runtime can run."""

    provider: str = Field(description="CPU, CUDA, TensorRT, OpenVINO, MIGraphX or ROCm")
    covered_nodes: int
    total_nodes: int
    fallback_operators: list[str] = Field(
        default_factory=list, description="operators that would run on the CPU instead, those with most nodes first"
    )
    fallback_flops_share: float = Field(default=0.0, description="their share of the model's FLOPs, 0 to 1")


class RowsProof(ApiModel):
    """Whether requests may share a run of the model: what its graph proves of the rows of a batch."""

    proof: Literal["Exact", "Tolerant", "Unproven"] = Field(
        description="Exact: an answer is the same to the bit whoever shares the run, on a CPU of x86-64; Tolerant: but "
        "for rounding; Unproven: rows may meet, and requests run alone"
    )
    node: str = Field(default="", description="the first node that may let rows meet")
    reason: str = Field(default="", description="why nothing is proven")


class ModelReport(ApiModel):
    """What was read in the model. Kept small enough for ``status`` (see ``truncated``)."""

    source: SourcePin
    version: str = Field(default="", description="spec.model.version, or the first twelve digits of digest or pin")
    digest: str = Field(
        default="", description="sha256:… of the file; empty where nobody vouches for one and it was not read whole"
    )
    size_bytes: int = Field(description="bytes of all files of the model, external data included")
    files: int = Field(default=1, description="files the model consists of, external data included")
    producer: str = ""
    ir_version: int
    opsets: dict[str, int] = Field(description="version by domain; the default domain is ai.onnx")
    metadata: dict[str, str] = Field(default_factory=dict, description="the model's metadata properties")
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    memory: MemoryEstimate
    parameters: int = Field(default=0, description="numbers in the weights")
    flops: int = Field(
        default=0, description="floating-point operations of one inference, open dimensions counted as 1"
    )
    operators: dict[str, int] = Field(default_factory=dict, description="nodes by operator, the most frequent first")
    coverage: list[ProviderCoverage] = Field(default_factory=list, description="by execution provider")
    batching: RowsProof | None = Field(default=None, description="whether requests may share a run")
    notes: list[str] = Field(default_factory=list, description="what callers should know although the model is valid")
    signer: str = Field(default="", description="who signed the model, where a signature was verified")
    truncated: bool = Field(
        default=False, description="true when tensors, metadata or texts were cut, or characters in them written out"
    )

    def bounded(self) -> "ModelReport":
        """Cut tensors, metadata and texts to what ``status`` may hold, and say so in ``truncated``."""
        few_inputs = min(len(self.inputs), max(MAX_REPORT_TENSORS // 2, MAX_REPORT_TENSORS - len(self.outputs)))
        inputs = [_bounded_tensor(t) for t in self.inputs[:few_inputs]]
        outputs = [_bounded_tensor(t) for t in self.outputs[: MAX_REPORT_TENSORS - few_inputs]]
        metadata = [
            (shorten(k, MAX_TEXT_BYTES), shorten(v, MAX_TEXT_BYTES))
            for k, v in list(self.metadata.items())[:MAX_METADATA]
        ]
        opsets = {shorten(k, MAX_SHORT_TEXT_BYTES): v for k, v in list(self.opsets.items())[:MAX_OPSETS]}
        detail = _Room(MAX_DETAIL_BYTES)
        notes = [n for n in (shorten(n, MAX_TEXT_BYTES) for n in self.notes[:MAX_NOTES]) if detail.takes(n)]
        coverage = [_bounded_coverage(c, detail) for c in self.coverage]
        named = ((shorten(k, MAX_SHORT_TEXT_BYTES), v) for k, v in list(self.operators.items())[:MAX_OPERATORS])
        operators = {k: v for k, v in named if detail.takes({k: v})}
        bare = self.model_copy(
            update={
                "inputs": [],
                "outputs": [],
                "metadata": {},
                "opsets": opsets,
                "operators": operators,
                "coverage": coverage,
                "notes": notes,
                "batching": self.batching and _bounded_proof(self.batching),
                "signer": shorten(self.signer, MAX_TEXT_BYTES),
                "producer": shorten(self.producer, MAX_TEXT_BYTES),
            }
        )
        room = MAX_REPORT_BYTES - _json_bytes(bare.model_dump(mode="json", by_alias=True))

        kept_inputs: list[TensorSpec] = []
        kept_outputs: list[TensorSpec] = []
        # In turn, so that neither side pushes out the other.
        for position in range(MAX_REPORT_TENSORS):
            for kept, tensors in ((kept_inputs, inputs), (kept_outputs, outputs)):
                if position < len(tensors):
                    room -= _json_bytes(tensors[position].model_dump(mode="json", by_alias=True)) + 2
                    if room >= 0:
                        kept.append(tensors[position])
        kept_metadata: dict[str, str] = {}
        for key, value in metadata:
            room -= _json_bytes({key: value})
            if room >= 0:
                kept_metadata[key] = value

        result = bare.model_copy(update={"inputs": kept_inputs, "outputs": kept_outputs, "metadata": kept_metadata})
        return result.model_copy(update={"truncated": self.truncated or result != self})


def _bounded_proof(proof: RowsProof) -> RowsProof:
    node, reason = (shorten(text, MAX_TEXT_BYTES) for text in (proof.node, proof.reason))
    return proof.model_copy(update={"node": node, "reason": reason})


class _Room:
    """Bytes of JSON that are left; what does not fit any more is left out."""

    def __init__(self, size: int) -> None:
        self._left = size

    def takes(self, value: object) -> bool:
        size = _json_bytes(value) + 2
        fits = size <= self._left
        if fits:
            self._left -= size
        return fits


def _bounded_coverage(coverage: ProviderCoverage, room: _Room) -> ProviderCoverage:
    named = (shorten(name, MAX_SHORT_TEXT_BYTES) for name in coverage.fallback_operators[:MAX_FALLBACKS])
    return coverage.model_copy(update={"fallback_operators": [name for name in named if room.takes(name)]})


def _bounded_tensor(tensor: TensorSpec) -> TensorSpec:
    return TensorSpec(
        name=shorten(tensor.name, MAX_TEXT_BYTES),
        datatype=shorten(tensor.datatype, MAX_TEXT_BYTES),
        shape=[shorten(d, MAX_SHORT_TEXT_BYTES) if isinstance(d, str) else d for d in tensor.shape[:MAX_DIMENSIONS]],
    )


def interface_hash(inputs: list[TensorSpec], outputs: list[TensorSpec]) -> str:
    """Twelve hex digits that change exactly when names, types or shapes of inputs or outputs do.

    The order of tensors does not count: callers name them.
    """

    def side(specs: list[TensorSpec]) -> list[list[object]]:
        return sorted(([s.name, s.datatype, list(s.shape)] for s in specs), key=lambda row: str(row[0]))

    canonical = json.dumps([side(inputs), side(outputs)], separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


class Refusal(ApiModel):
    """Why a model was not accepted: a reason of ``ModelValid``, in words a person can act on."""

    reason: Reason
    message: str
    retriable: bool = Field(default=False, description="whether trying again without any change can help")


class InspectionRequest(ApiModel):
    """What the controller asks of the inspector. ``credentials`` never leave the pod and are never logged."""

    tenant: str = Field(default="", description="whose inspection it is; tenants share the inspector fairly")
    uri: str
    sha256: str = ""
    credentials: dict[str, str] = Field(default_factory=dict, repr=False)
    workload_identity: bool = Field(default=False, description="whether the process's own cloud identity may read it")
    sources: SourceSettings = Field(default_factory=SourceSettings)
    signatures: SignatureSettings = Field(default_factory=SignatureSettings)
    whole_folder: bool = Field(
        default=False, description="whether all files of the folder are wanted, as by a scoring script"
    )
    test_data: str = Field(default="", description="folder of test inputs and outputs; empty: none")
    capabilities: Capabilities


class InspectionResult(ApiModel):
    """Either a report of an accepted model, or a refusal (then with the report as far as it was read).

    ``interface`` covers all tensors, also those that ``report.bounded()`` cuts.
    """

    outcome: Literal["Accepted", "Refused"]
    source: SourcePin | None = Field(default=None, description="what was looked at, also when it was refused")
    report: ModelReport | None = None
    interface: str = ""
    files: ModelFiles | None = Field(default=None, description="of an accepted model: what pods fetch")
    test_data: list[SourceFile] = Field(
        default_factory=list, description="of an accepted model: test inputs and outputs"
    )
    refusal: Refusal | None = None
