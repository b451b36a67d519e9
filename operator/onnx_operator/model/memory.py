"""How much memory a model will need to be scored, estimated from its graph.

The constants are measured on ONNX Runtime's CPU provider with real models (see ``tests/unit/model``): they lie
on the safe side, since a pod that gets too little memory is killed and one that gets some more is not.
"""

from collections.abc import Iterable, Mapping

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TypeProto

from onnx_operator.api.report import MemoryEstimate
from onnx_operator.model.nodes import STANDARD_DOMAINS, domain_of, subgraphs
from onnx_operator.model.skeleton import Weight, tensor_bytes
from onnx_operator.model.structure import FAULTS_FOUND, forget_shapes

RUNTIME_BYTES = 160 << 20
"""The process with Python, ONNX Runtime and the server, before any model."""
WEIGHT_COPIES = 2.0
"""Loading holds the file's weights beside the runtime's own, repacked for its kernels."""
CONVOLUTION_COPIES = 1.0
"""Filters are there once more: fused with what follows, and reordered in blocks."""
ACTIVATION_SLACK = 2.25
"""Scratch memory of kernels, reordered copies, and what the arena loses by rounding and by fragments."""
_SMALLEST_BYTES = 256
"""The arena gives no less for a tensor."""
_NOT_FOLDED = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
) | {"RandomUniformLike"}
_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "ConvTranspose", "FusedConv", "QLinearConv"})
_LARGEST_BYTES = 1 << 60


def estimate_memory(model: ModelProto, weights: Mapping[str, Weight]) -> MemoryEstimate:
    """Estimate for one request, every dimension that the model leaves open being 1."""
    sized = _with_batch_of_one(model, weights)
    stored = {name: tensor_bytes(weight.data_type, weight.dims) for name, weight in weights.items()}
    plan = _Plan(sized.graph, stored)
    weights_bytes = min(plan.constant_bytes, _LARGEST_BYTES)
    activations = min(plan.peak_bytes, _LARGEST_BYTES)
    resident = RUNTIME_BYTES + WEIGHT_COPIES * weights_bytes + ACTIVATION_SLACK * activations
    resident += CONVOLUTION_COPIES * min(plan.filter_bytes, _LARGEST_BYTES)
    return MemoryEstimate(
        weights_bytes=weights_bytes,
        activations_bytes=activations,
        resident_bytes=int(resident) + plan.folding_bytes,
    )


class _Plan:
    """What stays in memory for good, and the most that lives at the same time beside it."""

    def __init__(self, graph: GraphProto, stored: Mapping[str, int], outer: Mapping[str, int] | None = None) -> None:
        self._sizes = dict(outer or {}) | dict(stored)
        for value in (*graph.input, *graph.value_info, *graph.output):
            size = _type_bytes(value.type)
            if size is not None and value.name not in stored:
                self._sizes[value.name] = size
        constants = set(stored)
        for tensor in graph.initializer:
            constants.add(tensor.name)
            self._sizes[tensor.name] = tensor_bytes(tensor.data_type, list(tensor.dims))
        for sparse in graph.sparse_initializer:
            constants.add(sparse.values.name)
            self._sizes[sparse.values.name] = tensor_bytes(sparse.values.data_type, list(sparse.dims))
        self._inner_constants = self._inner_filters = 0
        running = [node for node in graph.node if not self._fold(node, constants)]
        used = {name for node in running for name in node.input} | {value.name for value in graph.output}
        made = {name for node in graph.node for name in node.output if name in constants}
        self.peak_bytes = self._peak(graph, running, constants)
        kept = (constants - made) | (made & used)
        filters = {n.input[1] for n in running if n.op_type in _CONVOLUTIONS and len(n.input) > 1} & constants
        self.filter_bytes = sum(self._sizes.get(name, 0) for name in filters) + self._inner_filters
        self.constant_bytes = sum(self._sizes.get(name, 0) for name in kept) + self._inner_constants
        # Constants that only lead to other constants live until the folding is done.
        self.folding_bytes = max((self._sizes.get(name, 0) for name in made - used), default=0)

    def _fold(self, node: NodeProto, constants: set[str]) -> bool:
        """Tell whether the runtime computes the node once, while loading; its outputs become constants."""
        if node.op_type in _NOT_FOLDED or any(True for _ in subgraphs(node)):
            return False
        if not all(name in constants for name in node.input if name):
            return False
        if not node.input and node.op_type != "Constant":
            return False
        if domain_of(node.domain) not in STANDARD_DOMAINS:
            return False
        for name in node.output:
            if name:
                constants.add(name)
                self._sizes[name] = self._output_bytes(node, name)
        return True

    def _output_bytes(self, node: NodeProto, name: str) -> int:
        if name in self._sizes:
            return self._sizes[name]
        if node.op_type == "Constant":
            return sum(tensor_bytes(a.t.data_type, list(a.t.dims)) for a in node.attribute)
        # Of unknown shape: most operators make nothing larger than what they read.
        return max((self._sizes.get(each, 0) for each in node.input), default=0)

    def _peak(self, graph: GraphProto, nodes: list[NodeProto], constants: set[str]) -> int:
        last: dict[str, int] = {}
        for index, node in enumerate(nodes):
            for name in _all_reads(node):
                last[name] = index
        end = len(nodes)
        last |= {value.name: end for value in graph.output}
        live = {v.name: self._sizes.get(v.name, 0) for v in graph.input if v.name not in constants}
        current = sum(live.values())
        peak = current
        for index, node in enumerate(nodes):
            inner = 0
            for name in node.output:
                if not name or name in live:
                    continue
                size = max(self._output_bytes(node, name), _SMALLEST_BYTES)
                self._sizes[name] = live[name] = size
                current += size
            for body in subgraphs(node):
                plan = _Plan(body, {}, self._sizes)
                self._inner_constants += plan.constant_bytes
                self._inner_filters += plan.filter_bytes
                inner += plan.peak_bytes + plan.folding_bytes
            peak = max(peak, current + inner)
            for name in {*_all_reads(node), *node.output}:
                if last.get(name, -1) <= index and name in live and last.get(name, -1) != end:
                    current -= live.pop(name)
        return peak


def _all_reads(node: NodeProto) -> set[str]:
    names = {name for name in node.input if name}
    for graph in subgraphs(node):
        for each in graph.node:
            names |= _all_reads(each)
        names |= {value.name for value in graph.output}
    return names


def _with_batch_of_one(model: ModelProto, weights: Iterable[str]) -> ModelProto:
    sized = ModelProto()
    sized.CopyFrom(model)
    forget_shapes(sized)
    known = {*weights, *(tensor.name for tensor in sized.graph.initializer)}
    for value in sized.graph.input:
        if value.name in known or value.type.WhichOneof("value") != "tensor_type":
            continue
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.WhichOneof("value") != "dim_value" or dimension.dim_value < 0:
                dimension.dim_value = 1
    _keep_foreign_shapes(model, sized)
    try:
        return onnx.shape_inference.infer_shapes(sized, data_prop=True)
    except FAULTS_FOUND:
        return sized


def _keep_foreign_shapes(model: ModelProto, sized: ModelProto) -> None:
    """Restore declared shapes where inference cannot know better: outputs of operators without a definition."""
    foreign = {
        name for node in model.graph.node if domain_of(node.domain) not in STANDARD_DOMAINS for name in node.output
    }
    for declared in (*model.graph.value_info, *model.graph.output):
        if declared.name not in foreign or declared.type.WhichOneof("value") != "tensor_type":
            continue
        for value in (*sized.graph.value_info, *sized.graph.output):
            if value.name == declared.name:
                value.CopyFrom(declared)
                for dimension in value.type.tensor_type.shape.dim:
                    if dimension.WhichOneof("value") != "dim_value":
                        dimension.dim_value = 1


def _type_bytes(kind: TypeProto) -> int | None:
    if kind.WhichOneof("value") != "tensor_type" or not kind.tensor_type.HasField("shape"):
        return None
    # A dimension that inference left open depends on the data; 1 keeps the others in proportion.
    dims = [d.dim_value if d.WhichOneof("value") == "dim_value" else 1 for d in kind.tensor_type.shape.dim]
    return min(tensor_bytes(kind.tensor_type.elem_type, [max(d, 0) for d in dims]), _LARGEST_BYTES)
