"""What a model costs to run: operations, parameters, operators. How nodes are counted: ``operations``."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_operator.model.checks.structure import FAULTS_FOUND
from onnx_operator.model.figures.operations import Operands, attribute_of, operations
from onnx_operator.model.figures.sized import MAX_FIGURE, Tensor, fill_in, known_tensors
from onnx_operator.model.nodes import all_graphs, all_nodes, domain_of, subgraphs
from onnx_operator.model.reading.lists import floats_length
from onnx_operator.model.reading.skeleton import Weight

_DEPTH_LIMIT = 32
"""Functions that call functions beyond it count as nothing."""
_CALL_LIMIT = 1000
"""Calls of functions, of different sizes each, beyond which calls count as nothing."""

_SCALAR = Tensor(TensorProto.FLOAT, ())


def flops_by_node(model: ModelProto) -> dict[str, int]:
    """Operations of each node in a model from :func:`~onnx_operator.model.figures.sized.size_model`.

    The key is the node's first output that has a name. Nodes of subgraphs are there under their own: those of a
    loop count for all its turns where their number is known, else for one; a node that calls a function of the
    model counts for all of the function's nodes. Equal names in different subgraphs add up.
    """
    found: defaultdict[str, int] = defaultdict(int)
    _count_graph(model.graph, {}, {}, 1, _Context(model), found)
    return dict(found)


def total_flops(model: ModelProto, by_node: Mapping[str, int]) -> int:
    """Operations of one inference, from those of the nodes; of the branches of an If the dearer one counts."""
    return min(_total(model.graph, by_node), MAX_FIGURE)


def parameter_count(model: ModelProto, weights: Mapping[str, Weight]) -> int:
    """Numbers in the weights: those in ``weights``, and what is still in the model, constants included.

    Integers of 32 and more bits, truth values and texts are sizes, indices or the like, and do not count; the
    coefficients of classical models (``ai.onnx.ml``) do.
    """
    seen = [(weight.data_type, tuple(weight.dims)) for weight in weights.values()]
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    for graph in all_graphs(model.graph):
        seen += [(tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer if tensor.name not in weights]
        seen += [(each.values.data_type, tuple(each.values.dims)) for each in graph.sparse_initializer]
    count = 0
    for node in (node for body in bodies for node in all_nodes(body)):
        if node.op_type == "Constant":
            seen += [(each.t.data_type, tuple(each.t.dims)) for each in node.attribute if each.HasField("t")]
        elif domain_of(node.domain) == "ai.onnx.ml":
            count += sum(map(floats_length, node.attribute))
            seen += [(each.t.data_type, tuple(each.t.dims)) for each in node.attribute if each.HasField("t")]
    count += sum(Tensor(kind, dims).elements for kind, dims in seen if kind not in _NOT_LEARNT)
    return min(count, MAX_FIGURE)


def operator_counts(model: ModelProto) -> dict[str, int]:
    """Nodes by operator (``Conv``, ``com.microsoft.Gelu``), the most frequent first; then by name.

    A call of one of the model's functions counts as the function's nodes.
    """
    functions = {(domain_of(each.domain), each.name): each for each in model.functions}
    counts = _operators(model.graph.node, functions, {}, 0)
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


_NOT_LEARNT = frozenset(
    {
        TensorProto.BOOL,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.STRING,
        TensorProto.UINT32,
        TensorProto.UINT64,
        TensorProto.UNDEFINED,
    }
)


def _operators(
    nodes: Iterable[NodeProto],
    functions: Mapping[tuple[str, str], FunctionProto],
    done: dict[tuple[str, str], Counter[str]],
    depth: int,
) -> Counter[str]:
    counts: Counter[str] = Counter()
    for node in all_nodes(nodes):
        key = (domain_of(node.domain), node.op_type)
        if key not in functions or depth > _DEPTH_LIMIT:
            counts[f"{key[0]}.{key[1]}" if key[0] else key[1]] += 1
            continue
        if key not in done:
            done[key] = Counter()  # what calls itself ends here
            done[key] = _operators(functions[key].node, functions, done, depth + 1)
        for name, count in done[key].items():
            counts[name] = min(counts[name] + count, MAX_FIGURE)
    return counts


class _Context:
    """What all graphs of a model share."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.functions = {(domain_of(each.domain), each.name): each for each in model.functions}
        self.depth = 0
        self.counted: dict[object, int] = {}
        """Operations of calls, by function and what it was given."""


def _count_graph(
    graph: GraphProto,
    outer: Mapping[str, Tensor],
    outer_scalars: Mapping[str, int],
    times: int,
    context: _Context,
    found: defaultdict[str, int],
) -> None:
    tensors = {**outer, **known_tensors(graph)}
    scalars = {**outer_scalars, **_scalars(graph)}
    for node in graph.node:
        fill_in(node, tensors)
        turns = times * _turns(node, tensors, scalars)
        for body in subgraphs(node):
            _count_graph(body, tensors, scalars, min(turns, MAX_FIGURE), context, found)
        key = next(filter(None, node.output), "")
        if key:
            found[key] = min(found[key] + times * _node_flops(node, tensors, context), MAX_FIGURE)


def _node_flops(node: NodeProto, tensors: Mapping[str, Tensor], context: _Context) -> int:
    inputs = [tensors.get(name, _SCALAR) if name else _SCALAR for name in node.input]
    outputs = [tensors.get(name, _SCALAR) for name in node.output if name]
    function = context.functions.get((domain_of(node.domain), node.op_type))
    if function is not None:
        return _function_flops(node, function, inputs, context)
    if any(True for _ in subgraphs(node)):
        return 0
    return operations(node, inputs, outputs)


def _function_flops(node: NodeProto, function: FunctionProto, inputs: Operands, context: _Context) -> int:
    """Infer the shapes inside a function for the inputs of this call, and count there."""
    key = (function.domain, function.name, tuple(inputs), tuple(each.SerializeToString() for each in node.attribute))
    if key in context.counted:
        return context.counted[key]
    if context.depth >= _DEPTH_LIMIT or len(context.counted) >= _CALL_LIMIT:
        return 0
    context.counted[key] = 0  # what calls itself ends here
    given = {attribute.name: attribute for attribute in (*function.attribute_proto, *node.attribute)}
    body = GraphProto(name=function.name, node=[_bind(each, given) for each in function.node])
    for name, tensor in zip(function.input, inputs, strict=False):
        body.input.append(helper.make_tensor_value_info(name, tensor.data_type or TensorProto.FLOAT, tensor.dims))
    called = ModelProto(ir_version=context.model.ir_version, graph=body, opset_import=function.opset_import)
    called.functions.extend(context.model.functions)
    with suppress(*FAULTS_FOUND):
        called = onnx.shape_inference.infer_shapes(called, data_prop=True)
    found: defaultdict[str, int] = defaultdict(int)
    context.depth += 1
    _count_graph(called.graph, {}, {}, 1, context, found)
    context.depth -= 1
    context.counted[key] = min(_total(called.graph, found), MAX_FIGURE)
    return context.counted[key]


def _bind(node: NodeProto, given: Mapping[str, onnx.AttributeProto]) -> NodeProto:
    """Put the attributes of a call in the place of references to them."""
    bound = NodeProto()
    bound.CopyFrom(node)
    del bound.attribute[:]
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            bound.attribute.append(attribute)
        elif attribute.ref_attr_name in given:
            bound.attribute.append(given[attribute.ref_attr_name])
            bound.attribute[-1].name = attribute.name
    return bound


def _total(graph: GraphProto, by_node: Mapping[str, int]) -> int:
    total = 0
    for node in graph.node:
        total += by_node.get(next(filter(None, node.output), ""), 0)
        inner = [_total(body, by_node) for body in subgraphs(node)]
        total += max(inner, default=0) if node.op_type == "If" else sum(inner)
    return total


def _scalars(graph: GraphProto) -> dict[str, int]:
    """Whole numbers that the graph holds by name: numbers of turns, mostly."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            tensors |= dict.fromkeys(node.output[:1], next((each.t for each in node.attribute), TensorProto()))
    found = {}
    for name, tensor in tensors.items():
        if tensor.data_type == TensorProto.INT64 and list(tensor.dims) in ([], [1]) and not tensor.external_data:
            try:
                found[name] = int(numpy_helper.to_array(tensor).reshape(-1)[0])
            except (ValueError, IndexError):
                continue
    return found


def _turns(node: NodeProto, tensors: Mapping[str, Tensor], scalars: Mapping[str, int]) -> int:
    """How often the node's subgraphs run; 1 where that is not known."""
    if node.op_type == "Loop" and node.input:
        return max(scalars.get(node.input[0], 1), 1)
    scanned = attribute_of(node, "num_scan_inputs", 0)
    if node.op_type == "Scan" and 0 < scanned <= len(node.input):
        axes = attribute_of(node, "scan_input_axes", []) or [0]
        dims = tensors.get(node.input[-scanned], _SCALAR).dims
        return max(dims[axes[0]], 1) if -len(dims) <= axes[0] < len(dims) else 1
    return 1
