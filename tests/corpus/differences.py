"""Where the product says or does otherwise than ONNX Runtime. Every entry is a defect. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onnx_operator.api.report import TensorSpec, interface_hash
from tests.corpus.asking import CARRIED
from tests.corpus.running import Record

KINDS = ("ended", "verdict", "interface", "served", "metadata", "answers")


@dataclass(frozen=True)
class Difference:
    """One thing in which they differ."""

    model: str
    kind: str
    text: str


def differences(record: Record) -> Iterator[Difference]:
    """List them for one model."""

    def found(kind: str, text: str) -> Difference:
        return Difference(record.name, kind, " ".join(text.split())[:600])

    runtime, inspection = record.stages.get("runtime", {}), record.stages.get("inspection", {})
    serving = record.stages.get("serving", {})
    if record.ended:
        yield found("ended", record.ended)
    for stage in ("kinds", "runtime", "inspection", "serving"):
        if "error" in record.stages.get(stage, {}):
            yield found("ended", f"{stage}: {record.stages[stage]['error']}")
    if not {"loads", "accepted"} <= {*runtime, *inspection}:
        return
    if runtime["loads"] != inspection["accepted"]:
        said = f"{inspection.get('reason')}: {inspection.get('message')}"
        yield found("verdict", f"refused, {said}" if runtime["loads"] else f"accepted, but {runtime['message']}")
    if not runtime["loads"]:
        return
    if inspection["accepted"] and (text := interface_difference(runtime, inspection)):
        yield found("interface", text)
    if serving.get("ready") is False:
        yield found("served", f"not ready: {serving['message']}")
    if not serving.get("ready"):
        return
    for side in ("inputs", "outputs"):
        expected = [_as_protocol(tensor) for tensor in runtime[side] if tensor[1] in CARRIED]
        # Maps from class to score are tensors in the protocol; their values are compared with the answers.
        maps = {
            name for name, kind, _ in runtime[side] if kind.startswith("seq(map(") and kind.endswith("tensor(float)))")
        }
        told = [tensor for tensor in serving[side] if tensor[1] in CARRIED and tensor[0] not in maps]
        # Behind the inputs come those with a value of their own, which ONNX Runtime lists apart.
        if told[: len(expected)] != expected or (side == "outputs" and len(told) > len(expected)):
            yield found("metadata", f"{side} {told}, the runtime's {expected}")
    if serving.get("answers", "").startswith(("failed", "differ")):
        yield found("answers", serving["answers"])


def _as_protocol(tensor: list[Any]) -> list[Any]:
    """The protocol knows -1 for every open size, whatever its name."""
    name, datatype, shape = tensor
    return [name, datatype, [size if isinstance(size, int) else -1 for size in shape]]


def interface_difference(runtime: dict[str, Any], inspection: dict[str, Any]) -> str:
    """How inputs and outputs differ, or nothing. The hash tells it of those too that a report leaves out."""
    sides = {
        side: [TensorSpec(name=n, datatype=d, shape=s) for n, d, s in runtime[side]] for side in ("inputs", "outputs")
    }
    if interface_hash(sides["inputs"], sides["outputs"]) == inspection["interface"]:
        return ""
    for side in ("inputs", "outputs"):
        for expected, told in zip(runtime[side], inspection[side], strict=False):
            if expected != told:
                return f"{side}: {told}, the runtime's {expected}"
        if len(runtime[side]) != len(inspection[side]):
            return f"{len(inspection[side])} {side}, the runtime's {len(runtime[side])}"
    return "another hash of the interface"
