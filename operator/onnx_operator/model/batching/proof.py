"""The proof itself: may requests share a run of this model?"""

from dataclasses import dataclass
from typing import Literal

from onnx_operator.model.batching.analysis import Analysis, Scope, Setting, TooLargeError
from onnx_operator.model.batching.graph_pb2 import Graph, Model, Node, Shape, ValueInfo
from onnx_operator.model.batching.kernels import BUNDLED, Kernels
from onnx_operator.model.batching.sizes import N, Size
from onnx_operator.model.batching.tensors import HALVES, constant
from onnx_operator.model.batching.values import MAX_FOLLOWED_DIMENSIONS, Value
from onnx_operator.model.elements import Element
from onnx_operator.model.limits import MAX_NODES
from onnx_operator.model.nodes import domain_of

Strength = Literal["Exact", "Tolerant", "Unproven"]
_OF_TYPE = frozenset({"to", "dtype", "output_dtype", "stash_type"})
"""Attributes that are a type."""


@dataclass(frozen=True)
class Proof:
    """``Exact``: the answer to a row is the same to the bit, whoever shares the run; ``Tolerant``: but for rounding.

    ``Unproven``: rows may meet; ``reason`` says why, and where it is one node's doing, ``node`` names it.
    """

    strength: Strength
    node: str = ""
    reason: str = ""

    @property
    def holds(self) -> bool:
        """Whether rows never meet."""
        return self.strength != "Unproven"

    def explain(self) -> str:
        """The reason in a sentence; empty where it holds."""
        return " ".join(part for part in (self.node, self.reason) if part)


def prove(model: Model, kernels: Kernels = BUNDLED) -> Proof:
    """Look at a model whose large tensors may lack their values. Never raises for what a model may hold."""
    try:
        return _prove(model, kernels)
    except TooLargeError:
        return Proof("Unproven", reason="its graph has more nodes than are looked at")
    except RecursionError:
        return Proof("Unproven", reason="its graph is nested too deeply")
    except Exception as error:
        # A fault of ours costs speed, never a verdict or a start.
        return Proof("Unproven", reason=f"{FAILED} ({type(error).__name__})")


FAILED = "the proof failed, which is a fault of onnx-operator's"


def _prove(model: Model, kernels: Kernels) -> Proof:
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    stored |= {sparse.values.name for sparse in graph.sparse_initializer}
    required = [info for info in graph.input if info.name not in stored]
    fixed = _rows(required)
    if isinstance(fixed, Proof):
        return fixed
    scope: Scope = {"": Value()}
    # Up to version 3 of the format every initializer is listed as an input, and nobody can replace it.
    replaceable = {info.name for info in graph.input} if model.ir_version > 3 else set[str]()
    for tensor in graph.initializer:
        scope[tensor.name] = constant(tensor)._replace(stored=tensor.name not in replaceable)
    for sparse in graph.sparse_initializer:
        scope[sparse.values.name] = Value(tuple(Size(size) for size in sparse.dims), kind=sparse.values.data_type)
    opsets: dict[str, int] = {}
    for each in model.opset_import:
        if opsets.setdefault(domain_of(each.domain), each.version) != each.version:
            return Proof("Unproven", reason="it names two opsets of one domain")
    types = _types(model)
    setting = Setting(
        opsets,
        {(domain_of(each.domain), each.name, each.overload): each for each in model.functions},
        kernels,
        Element.DOUBLE in types,
        fixed,
    )
    analysis = Analysis(setting)
    for info in required:
        scope[info.name] = _input(info, analysis)
    outputs = {info.name for info in graph.output}
    analysis.walk([_served(each, outputs) for each in graph.node], scope)
    return _verdict(graph, scope, types)


def _served(node: Node, outputs: set[str]) -> Node:
    """The node as it is served: maps from class to score that are an output are its input (server's zipmaps)."""
    if node.op_type != "ZipMap" or node.domain != "ai.onnx.ml" or outputs.isdisjoint(node.output):
        return node
    return Node(input=node.input, output=node.output, name=node.name, op_type="Identity")


def _rows(required: list[ValueInfo]) -> int | Proof:
    """How many rows every run has, 0 where that is open; or why nothing can be a batch."""
    if not required:
        return Proof("Unproven", reason="it has no inputs")
    first: set[int | str] = set()
    for info in required:
        shape = _shape(info)
        if shape is None or not shape.dim or len(shape.dim) > MAX_FOLLOWED_DIMENSIONS:
            return Proof("Unproven", reason=f'its input "{info.name}" is not a tensor with declared dimensions')
        rows = shape.dim[0]
        first.add(rows.dim_value if rows.HasField("dim_value") else rows.dim_param)
        names = [each.dim_param for each in shape.dim[1:]]
        if rows.dim_param and rows.dim_param in names:
            return Proof("Unproven", reason=f'its open first dimension "{rows.dim_param}" is also another one')
    if len(first) > 1:
        return Proof("Unproven", reason="its inputs differ in their first dimension")
    size = first.pop()
    if not isinstance(size, int) or size < 0:
        return 0
    if size < 2:
        return Proof("Unproven", reason=f"its first dimension is always {size}")
    return size


def _shape(info: ValueInfo) -> Shape | None:
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        return None
    return info.type.tensor_type.shape


def _input(info: ValueInfo, analysis: Analysis) -> Value:
    shape = _shape(info)
    assert shape is not None
    # Sizes of one name need not be equal at run time: nobody compares them.
    rest = [
        Size(each.dim_value) if each.HasField("dim_value") and each.dim_value > 0 else analysis.symbols.size()
        for each in shape.dim[1:]
    ]
    return Value((N, *rest), 0, kind=info.type.tensor_type.elem_type)


def _verdict(graph: Graph, scope: Scope, types: set[int]) -> Proof:
    rounded = False
    for info in graph.output:
        value = scope.get(info.name)
        if value is None:
            return Proof("Unproven", reason=f'nothing makes its output "{info.name}"')
        if value.fault is not None:
            return Proof("Unproven", value.fault.node, value.fault.reason)
        if value.axis != 0 or value.dims is None or value.dims[0] != N:
            return Proof("Unproven", reason=f'its output "{info.name}" has not one place for each row at axis 0')
        if value.rounded and types & HALVES and info.type.tensor_type.elem_type not in HALVES:
            # Half a thousandth is within the rounding of the one type, and far from that of the other.
            reason = f'its output "{info.name}" is of more digits than what may differ in its last bits on the way'
            return Proof("Unproven", reason=reason)
        rounded = rounded or value.rounded
    return Proof("Tolerant" if rounded else "Exact")


def _types(model: Model) -> set[int]:
    """Types that anything in the model may be computed in, as far as tensors and attributes name them."""
    graph = model.graph
    found = {info.type.tensor_type.elem_type for info in graph.input}
    found |= {tensor.data_type for tensor in graph.initializer}
    found |= {sparse.values.data_type for sparse in graph.sparse_initializer}
    called = {(domain_of(each.domain), each.name) for each in model.functions}
    waiting = [*graph.node, *(node for function in model.functions for node in function.node)]
    found |= {each.i for function in model.functions for each in function.attribute_proto}
    looked_at = 0
    while waiting and (looked_at := looked_at + 1) <= MAX_NODES:
        node = waiting.pop()
        # A function may hand on an attribute of its own as the type of a node.
        calls = (domain_of(node.domain), node.op_type) in called
        for each in node.attribute:
            found.update(tensor.data_type for tensor in each.tensors)
            if each.HasField("t"):
                found.add(each.t.data_type)
            if each.HasField("sparse_tensor"):
                found.add(each.sparse_tensor.values.data_type)
            if calls or each.name in _OF_TYPE:
                found.add(each.i)
            for inner in [*([each.g] if each.HasField("g") else []), *each.graphs]:
                found |= {tensor.data_type for tensor in inner.initializer}
                waiting += inner.node
    return found
