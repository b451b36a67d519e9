"""A model in which every size is a number: what memory and operations are counted on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TypeProto

from onnx_operator.model.checks.structure import FAULTS_FOUND, forget_shapes
from onnx_operator.model.elements import tensor_bytes
from onnx_operator.model.nodes import STANDARD_DOMAINS, domain_of

MAX_FIGURE = 1 << 60
"""No count in a report goes beyond it: sums of a few stay within 64 bits."""


@dataclass(frozen=True)
class Tensor:
    """Type (``TensorProto.DataType``) and sizes of a value."""

    data_type: int
    dims: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        count = 1
        for size in self.dims:
            count = min(count * max(size, 0), MAX_FIGURE)
        return count

    @property
    def bytes(self) -> int:
        """What they take in memory."""
        return min(tensor_bytes(self.data_type, (self.elements,)), MAX_FIGURE)


def size_model(
    model: ModelProto,
    weights: Iterable[str],
    *,
    inferred: ModelProto | None = None,
    sizes: Mapping[str, int] | None = None,
) -> ModelProto:
    """Infer all shapes for one request, every dimension that the model leaves open being 1.

    Such dimensions are batches, mostly, but also lengths of sequences and sizes of pictures: what a request then
    needs beyond the estimate grows with them. ``sizes`` gives those that are known by name (``dim_param``).
    ``weights`` names inputs that stand for initializers. ``inferred`` is the model after strict inference: it is
    the answer where nothing was open, which saves a second one.
    """
    known = {*weights, *(tensor.name for tensor in model.graph.initializer)}
    open_inputs = [value for value in model.graph.input if value.name not in known and _is_open(value.type)]
    if inferred is not None and not open_inputs and not _foreign(model):
        return inferred
    sized = ModelProto()
    sized.CopyFrom(model)
    forget_shapes(sized)
    names = {value.name for value in open_inputs}
    for value in sized.graph.input:
        if value.name in names:
            _close(value.type, sizes or {})
    _keep_foreign_shapes(model, sized, sizes or {})
    try:
        return onnx.shape_inference.infer_shapes(sized, data_prop=True)
    except FAULTS_FOUND:
        return sized


def known_tensors(graph: GraphProto) -> dict[str, Tensor]:
    """Tensors among the graph's inputs, outputs, initializers and inferred values; dimensions left open are 1."""
    found: dict[str, Tensor] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type
        if kind.WhichOneof("value") == "tensor_type" and kind.tensor_type.HasField("shape"):
            # A dimension that inference left open depends on the data; 1 keeps the others in proportion.
            dims = [d.dim_value if d.WhichOneof("value") == "dim_value" else 1 for d in kind.tensor_type.shape.dim]
            found[value.name] = Tensor(kind.tensor_type.elem_type, tuple(max(size, 0) for size in dims))
    for tensor in graph.initializer:
        found[tensor.name] = Tensor(tensor.data_type, tuple(tensor.dims))
    for sparse in graph.sparse_initializer:
        found[sparse.values.name] = Tensor(sparse.values.data_type, tuple(sparse.dims))
    return found


def _is_open(kind: TypeProto) -> bool:
    return kind.WhichOneof("value") == "tensor_type" and any(
        size.WhichOneof("value") != "dim_value" or size.dim_value < 0 for size in kind.tensor_type.shape.dim
    )


def _close(kind: TypeProto, sizes: Mapping[str, int]) -> None:
    for dimension in kind.tensor_type.shape.dim:
        if dimension.WhichOneof("value") != "dim_value" or dimension.dim_value < 0:
            dimension.dim_value = sizes.get(dimension.dim_param, 1)


def _foreign(model: ModelProto) -> set[str]:
    return {name for node in model.graph.node if domain_of(node.domain) not in STANDARD_DOMAINS for name in node.output}


def _keep_foreign_shapes(model: ModelProto, sized: ModelProto, sizes: Mapping[str, int]) -> None:
    """Restore declared shapes where inference cannot know better: outputs of operators without a definition."""
    foreign = _foreign(model)
    if not foreign:
        return
    ours = {value.name: value for value in (*sized.graph.value_info, *sized.graph.output)}
    for declared in (*model.graph.value_info, *model.graph.output):
        if declared.name in foreign and declared.type.WhichOneof("value") == "tensor_type":
            value = ours[declared.name]
            value.CopyFrom(declared)
            _close(value.type, sizes)


def fill_in(node: NodeProto, tensors: dict[str, Tensor]) -> None:
    """Add a node's outputs to ``tensors`` where inference did not know them.

    That is so after operators that the onnx package does not define. Most make what they read first, changed
    number by number; products of matrices end in the size that the second one brings.
    """
    missing = [name for name in node.output if name and name not in tensors]
    if not missing:
        return
    if node.op_type == "Constant":
        stored = next((each.t for each in node.attribute if each.HasField("t")), None)
        if stored is not None:
            tensors[missing[0]] = Tensor(stored.data_type, tuple(stored.dims))
        return
    read = [tensors[name] for name in node.input if name in tensors]
    if not read:
        return
    guess = max(read, key=lambda each: each.bytes)
    if "MatMul" in node.op_type and len(read) > 1 and read[0].dims and len(read[1].dims) > 1:
        guess = Tensor(read[0].data_type, (*read[0].dims[:-1], read[1].dims[-1]))
    elif domain_of(node.domain):
        guess = read[0]
    tensors[missing[0]] = guess
