"""What an inspection finds out about a model: the content of ``status.model``, and the refusals."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from onnx_operator.api.capabilities import Capabilities as Capabilities
from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import ApiModel, SourcePin, SourceSettings

MAX_TENSORS = 64
MAX_METADATA = 32
MAX_TEXT_BYTES = 256

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
    resident_bytes: int = Field(description="weights, folded constants, activations and the runtime together")


class ModelReport(ApiModel):
    """What was read in the model. Kept small enough for ``status`` (see ``truncated``)."""

    source: SourcePin
    version: str = Field(default="", description="spec.model.version, or the digest's first twelve digits")
    digest: str = Field(description="sha256:… of the file")
    size_bytes: int
    producer: str = ""
    ir_version: int
    opsets: dict[str, int] = Field(description="version by domain; the default domain is ai.onnx")
    metadata: dict[str, str] = Field(default_factory=dict, description="the model's metadata properties")
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    memory: MemoryEstimate
    truncated: bool = Field(default=False, description="true when tensors, metadata or texts were cut")

    def bounded(self) -> "ModelReport":
        """Cut tensors, metadata and texts to what ``status`` may hold, and say so in ``truncated``."""
        cut = False

        def text(value: str) -> str:
            nonlocal cut
            raw = value.encode()
            if len(raw) <= MAX_TEXT_BYTES:
                return value
            cut = True
            return raw[: MAX_TEXT_BYTES - 3].decode(errors="ignore") + "…"

        def tensors(specs: list[TensorSpec]) -> list[TensorSpec]:
            nonlocal cut
            cut = cut or len(specs) > MAX_TENSORS
            return [
                TensorSpec(
                    name=text(s.name),
                    datatype=s.datatype,
                    shape=[text(d) if isinstance(d, str) else d for d in s.shape],
                )
                for s in specs[:MAX_TENSORS]
            ]

        inputs, outputs = tensors(self.inputs), tensors(self.outputs)
        metadata = {text(k): text(v) for k, v in list(self.metadata.items())[:MAX_METADATA]}
        cut = cut or len(self.metadata) > MAX_METADATA
        return self.model_copy(
            update={
                "inputs": inputs,
                "outputs": outputs,
                "metadata": metadata,
                "producer": text(self.producer),
                "truncated": self.truncated or cut,
            }
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

    uri: str
    sha256: str = ""
    credentials: dict[str, str] = Field(default_factory=dict, repr=False)
    sources: SourceSettings = Field(default_factory=SourceSettings)
    capabilities: Capabilities


class InspectionResult(ApiModel):
    """Either a report of an accepted model, or a refusal (then with the report as far as it was read).

    ``interface`` covers all tensors, also those that ``report.bounded()`` cuts.
    """

    outcome: Literal["Accepted", "Refused"]
    source: SourcePin | None = Field(default=None, description="what was looked at, also when it was refused")
    report: ModelReport | None = None
    interface: str = ""
    refusal: Refusal | None = None
