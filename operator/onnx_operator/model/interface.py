"""Inputs and outputs: what the model declares, made whole by what was inferred and by what the runtime says."""

from collections.abc import Sequence

import onnx
from onnx import ModelProto, ValueInfoProto

from onnx_operator.api.report import Dimension, TensorSpec
from onnx_operator.model.tensors import datatype_of, describe
from onnx_operator.model.trial.runtime import Declared


def interface(
    head: ModelProto, inferred: ModelProto, loaded: Sequence[Declared] = ()
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs that callers must give, and outputs; initializers among the inputs are none (all are, up to IR 3).

    ``loaded``: both, as the runtime describes them. It knows sizes that inference does not, and the other way round,
    for it loaded the model without optimizations; where they contradict, it is right.
    """
    graph = head.graph
    filled = {tensor.name for tensor in graph.initializer}
    filled |= {sparse.values.name for sparse in graph.sparse_initializer}
    found = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
    said = {each.name: each for each in loaded}
    inputs = [describe(value) for value in graph.input if value.name not in filled]
    outputs = [describe(_merge(value, found.get(value.name))) for value in graph.output]
    return [_agreed(each, said) for each in inputs], [_agreed(each, said) for each in outputs]


def _agreed(ours: TensorSpec, said: dict[str, Declared]) -> TensorSpec:
    theirs = said.get(ours.name)
    if theirs is None:
        return ours
    datatype = datatype_of(theirs.kind)
    shape = list(ours.shape)
    if not theirs.shape:
        # It says the same of a number and of a tensor whose rank it does not know.
        return ours.model_copy(update={"datatype": datatype})
    if len(shape) != len(theirs.shape):
        shape = [_known(size) for size in theirs.shape]
    else:
        shape = [_better(mine, their) for mine, their in zip(shape, theirs.shape, strict=True)]
    return ours.model_copy(update={"datatype": datatype, "shape": shape})


def _better(mine: Dimension, their: Dimension | None) -> Dimension:
    if mine == -1:
        return _known(their)
    return their if isinstance(their, int) and their >= 0 else mine


def _known(size: Dimension | None) -> Dimension:
    return -1 if size is None or (isinstance(size, int) and size < 0) or str(size).startswith("unk__") else size


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
