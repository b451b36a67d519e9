"""The proof itself: may requests share a run of this model?"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from onnx_operator.model.batching.analysis import Analysis, Scope, Setting, TooLargeError, domain_of
from onnx_operator.model.batching.graph_pb2 import Graph, Model, Node, Shape, ValueInfo
from onnx_operator.model.batching.kernels import BUNDLED, Kernels
from onnx_operator.model.batching.sizes import N, Size
from onnx_operator.model.batching.tensors import DOUBLE, constant
from onnx_operator.model.batching.values import MOST_DIMENSIONS, Value

Strength = Literal["Exact", "Tolerant", "Unproven"]


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


def _prove(model: Model, kernels: Kernels) -> Proof:
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    stored |= {sparse.values.name for sparse in graph.sparse_initializer}
    required = [info for info in graph.input if info.name not in stored]
    fixed = _rows(required)
    if isinstance(fixed, Proof):
        return fixed
    scope: Scope = {"": Value()}
    for tensor in graph.initializer:
        scope[tensor.name] = constant(tensor)
    for sparse in graph.sparse_initializer:
        scope[sparse.values.name] = Value(tuple(Size(size) for size in sparse.dims))
    setting = Setting(
        {domain_of(each.domain): each.version for each in model.opset_import},
        {(domain_of(each.domain), each.name, each.overload): each for each in model.functions},
        kernels,
        _double(model),
        fixed,
    )
    analysis = Analysis(setting)
    for info in required:
        scope[info.name] = _input(info, analysis)
    analysis.walk(graph.node, scope)
    return _verdict(graph, scope)


def _rows(required: list[ValueInfo]) -> int | Proof:
    """How many rows every run has, 0 where that is open; or why nothing can be a batch."""
    if not required:
        return Proof("Unproven", reason="it has no inputs")
    first: set[int | str] = set()
    for info in required:
        shape = _shape(info)
        if shape is None or not shape.dim or len(shape.dim) > MOST_DIMENSIONS:
            return Proof("Unproven", reason=f'its input "{info.name}" is no tensor with declared dimensions')
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
        Size(each.dim_value) if each.HasField("dim_value") and each.dim_value >= 0 else analysis.symbols.size()
        for each in shape.dim[1:]
    ]
    return Value((N, *rest), 0)


def _verdict(graph: Graph, scope: Scope) -> Proof:
    rounded = False
    for info in graph.output:
        value = scope.get(info.name)
        if value is None:
            return Proof("Unproven", reason=f'nothing makes its output "{info.name}"')
        if value.fault is not None:
            return Proof("Unproven", value.fault.node, value.fault.reason)
        if value.axis != 0 or value.dims is None or value.dims[0] != N:
            return Proof("Unproven", reason=f'its output "{info.name}" has not one place for each row at axis 0')
        rounded = rounded or value.rounded
    return Proof("Tolerant" if rounded else "Exact")


def _double(model: Model) -> bool:
    """Whether anything may be computed in double precision, for which other kernels are chosen."""
    graph = model.graph
    if any(info.type.tensor_type.elem_type == DOUBLE for info in graph.input):
        return True
    if any(tensor.data_type == DOUBLE for tensor in graph.initializer):
        return True
    functions = (node for function in model.functions for node in function.node)
    return _makes_double(graph.node) or _makes_double(functions)


def _makes_double(nodes: Iterable[Node]) -> bool:
    for node in nodes:
        for each in node.attribute:
            if (each.HasField("t") and each.t.data_type == DOUBLE) or any(t.data_type == DOUBLE for t in each.tensors):
                return True
            if each.i == DOUBLE and (each.name in ("to", "dtype", "output_dtype", "stash_type")):
                return True
            if each.HasField("g") or each.graphs:
                # What is inside is only followed where it holds no rows.
                continue
    return False
