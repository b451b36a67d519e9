"""The verdict on a model file: pure, from bytes and capabilities to a report or a refusal."""

import onnx
from onnx import ModelProto, ValueInfoProto

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import (
    Capabilities,
    InspectionResult,
    ModelReport,
    TensorSpec,
    interface_hash,
)
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.limits import LARGEST_FILE_BYTES
from onnx_operator.model.memory import estimate_memory
from onnx_operator.model.nodes import domain_of, domain_text
from onnx_operator.model.skeleton import RefusedError, Skeleton, find_malformed_text, read_skeleton
from onnx_operator.model.structure import (
    check_external_data,
    check_formally,
    check_structure,
    complete_model,
)
from onnx_operator.model.tensors import describe
from onnx_operator.model.versions import check_versions


def judge(data: memoryview, *, source: SourcePin, sha256: str, capabilities: Capabilities) -> InspectionResult:
    """Accept or refuse the model in ``data``; never raises for anything that the bytes hold."""
    try:
        skeleton = read_skeleton(data)
        try:
            report, interface = _report(skeleton, data, source, sha256, capabilities)
        except (RefusedError, MemoryError):
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
    except RefusedError as refused:
        return InspectionResult(outcome="Refused", source=source, refusal=refused.refusal)
    return InspectionResult(outcome="Accepted", source=source, report=report.bounded(), interface=interface)


def _report(
    skeleton: Skeleton, data: memoryview, source: SourcePin, sha256: str, capabilities: Capabilities
) -> tuple[ModelReport, str]:
    head = skeleton.model
    if len(data) > LARGEST_FILE_BYTES:
        raise RefusedError(
            Reason.TOO_LARGE,
            f"The file has {len(data)} bytes, and no runtime reads an ONNX file above 2 GiB. Store the weights"
            " beside it as external data, or quantize the model.",
        )
    check_versions(head, capabilities)
    check_external_data(head)
    model = complete_model(skeleton)
    check_structure(model)
    inferred = check_formally(model)
    inputs, outputs = _interface(skeleton, inferred)
    report = ModelReport(
        source=source,
        digest=f"sha256:{sha256}",
        size_bytes=len(data),
        producer=f"{head.producer_name} {head.producer_version}".strip(),
        ir_version=head.ir_version,
        opsets={domain_text(domain_of(each.domain)): each.version for each in head.opset_import},
        metadata={each.key: each.value for each in head.metadata_props},
        inputs=inputs,
        outputs=outputs,
        memory=estimate_memory(model, skeleton.weights),
    )
    return report, interface_hash(inputs, outputs)


def _interface(skeleton: Skeleton, inferred: ModelProto) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs that callers must give, and outputs; initializers among the inputs are none (all are, up to IR 3)."""
    graph = skeleton.model.graph
    filled = {tensor.name for tensor in graph.initializer} | skeleton.weights.keys()
    filled |= {sparse.values.name for sparse in graph.sparse_initializer}
    found = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
    inputs = [describe(value) for value in graph.input if value.name not in filled]
    outputs = [describe(_merge(value, found.get(value.name))) for value in graph.output]
    return inputs, outputs


def _merge(declared: ValueInfoProto, found: ValueInfoProto | None) -> ValueInfoProto:
    """Complete a declared output by what was inferred; where they contradict, the inferred size is the true one."""
    if found is None or found.type.WhichOneof("value") != "tensor_type":
        return declared
    if declared.type.WhichOneof("value") != "tensor_type":
        return found
    merged = ValueInfoProto()
    merged.CopyFrom(declared)
    ours, theirs = merged.type.tensor_type, found.type.tensor_type
    if not theirs.HasField("shape"):
        return merged
    if not ours.HasField("shape") or len(ours.shape.dim) != len(theirs.shape.dim):
        ours.shape.CopyFrom(theirs.shape)
        _drop_invented_names(ours.shape)
        return merged
    for mine, their in zip(ours.shape.dim, theirs.shape.dim, strict=True):
        if their.WhichOneof("value") == "dim_value":
            mine.CopyFrom(their)
    return merged


def _drop_invented_names(shape: onnx.TensorShapeProto) -> None:
    """Forget names such as ``unk__0`` that inference makes up: they say nothing and may change."""
    for dimension in shape.dim:
        if dimension.dim_param.startswith("unk__"):
            dimension.ClearField("dim_param")
