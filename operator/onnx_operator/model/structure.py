"""Whether a graph holds together: every value made once, before it is used."""

import re
from collections import deque
from collections.abc import Set

import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper

from onnx_operator.api.conditions import Reason
from onnx_operator.model.nodes import all_graphs, all_nodes, all_tensors, domain_of, node_text, subgraphs
from onnx_operator.model.skeleton import RefusedError, Skeleton, Weight, bits, tensor_bytes

_MESSAGE_LIMIT = 600
_LARGEST_DIMENSION = 2**62
_TERM = rb"[A-Za-z]*(?:\.\.\.[A-Za-z]*)?"
_EQUATION = re.compile(_TERM + rb"(?:," + _TERM + rb")*(?:->" + _TERM + rb")?")
FAULTS_FOUND = (
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    ValueError,
    RuntimeError,
    IndexError,
    OverflowError,
)
"""What onnx's C++ code throws at a model: its own errors, and standard ones that pass through."""


def check_external_data(model: ModelProto) -> None:
    """Refuse tensors whose values lie in other files. Raises :class:`RefusedError`."""
    for tensor in all_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            location = next((e.value for e in tensor.external_data if e.key == "location"), "")
            raise RefusedError(
                Reason.EXTERNAL_DATA_MISSING,
                f'The values of tensor "{tensor.name}" lie in another file ("{location}"), and only this file was'
                " given. Save the model as one file (onnx.save with save_as_external_data=False).",
            )


def complete_model(skeleton: Skeleton) -> ModelProto:
    """Declare the weights that were left out as inputs, so that checks know their types and shapes.

    Raises :class:`RefusedError` (``InvalidGraph``) for weights that contradict themselves.
    """
    model = ModelProto()
    model.CopyFrom(skeleton.model)
    if skeleton.repeated:
        raise _invalid(f'Two initializers have the name "{skeleton.repeated[0]}".')
    declared = {each.name for each in model.graph.input}
    kept = {each.name for each in model.graph.initializer}
    for weight in skeleton.weights.values():
        _check_weight(weight)
        if weight.name in kept:
            raise _invalid(f'Two initializers have the name "{weight.name}".')
        if weight.name not in declared:
            value = helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
            model.graph.input.append(value)
    return model


def check_structure(model: ModelProto) -> None:
    """Check names and order, with all subgraphs and functions; nodes are brought into order where they are not.

    ONNX asks for sorted nodes, but the runtime sorts them itself, and some exporters rely on it. Raises
    :class:`RefusedError` (``InvalidGraph``).
    """
    for body in (model.graph.node, *(function.node for function in model.functions)):
        for node in all_nodes(body):
            _check_einsum(node)
    _check_graph(model.graph, frozenset())
    for function in model.functions:
        body = GraphProto(node=function.node)
        _check_nodes(body, set(function.input), f"the function {function.name}")


def check_formally(model: ModelProto) -> ModelProto:
    """Run onnx's checker and strict inference of types and shapes; returns the model with inferred values.

    Raises :class:`RefusedError` (``InvalidGraph``).
    """
    _import_used_domains(model)
    try:
        onnx.checker.check_model(_with_declared_shapes(model).SerializeToString())
    except FAULTS_FOUND as error:
        raise _invalid(_tidy(str(error))) from None
    lenient = ModelProto()
    lenient.CopyFrom(model)
    forget_shapes(lenient)
    try:
        return onnx.shape_inference.infer_shapes(lenient, check_type=True, strict_mode=True, data_prop=True)
    except FAULTS_FOUND as error:
        if not _only_function_bodies(str(error)):
            raise _invalid(_tidy(str(error))) from None
    try:
        return onnx.shape_inference.infer_shapes(lenient, data_prop=True)
    except FAULTS_FOUND as error:
        raise _invalid(_tidy(str(error))) from None


def _with_declared_shapes(model: ModelProto) -> ModelProto:
    """Give every input and output a shape, and the graph a name: the checker minds that there is one.

    The runtime needs neither, and infers the type of an output that is declared by its name alone.
    """
    declared = ModelProto()
    declared.CopyFrom(model)
    if any(value.type.WhichOneof("value") is None for value in declared.graph.output):
        found = {value.name: value for value in onnx.shape_inference.infer_shapes(declared).graph.output}
        for value in declared.graph.output:
            if value.name in found:
                value.CopyFrom(found[value.name])
    declared.graph.name = declared.graph.name or "graph"
    for graph in all_graphs(declared.graph):
        for value in (*graph.input, *graph.output):
            if value.type.WhichOneof("value") == "tensor_type":
                value.type.tensor_type.shape.SetInParent()
    return declared


def forget_shapes(model: ModelProto) -> None:
    """Drop the declared shapes of all values but the inputs: the runtime only warns where they are wrong."""
    for graph in all_graphs(model.graph):
        for value in (*graph.value_info, *graph.output):
            if value.type.WhichOneof("value") == "tensor_type":
                value.type.tensor_type.ClearField("shape")


def _check_einsum(node: NodeProto) -> None:
    # onnx's inference never returns from some equations that are not of this form.
    if node.op_type != "Einsum" or domain_of(node.domain):
        return
    for attribute in node.attribute:
        if attribute.name == "equation" and not _EQUATION.fullmatch(attribute.s.replace(b" ", b"")):
            raise _invalid(f"The equation {attribute.s[:80]!r} of {node_text(node)} is malformed.")


def _check_weight(weight: Weight) -> None:
    if any(size > _LARGEST_DIMENSION for size in weight.dims):
        raise _invalid(f'The initializer "{weight.name}" has a negative dimension.')
    expected = tensor_bytes(weight.data_type, weight.dims)
    if bits(weight.data_type) == 0:
        raise _invalid(f'The initializer "{weight.name}" has no known type ({weight.data_type}).')
    fixed = weight.raw or weight.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    if fixed and weight.stored_bytes != expected:
        raise _invalid(
            f'The initializer "{weight.name}" of shape {list(weight.dims)} needs {expected} bytes but holds'
            f" {weight.stored_bytes}."
        )


def _check_graph(graph: GraphProto, outer: Set[str]) -> None:
    known = {value.name for value in graph.input}
    known |= {tensor.name for tensor in graph.initializer}
    known |= {sparse.values.name for sparse in graph.sparse_initializer}
    made = _check_nodes(graph, known | outer, f'the graph "{graph.name}"')
    for value in graph.output:
        if value.name not in made and value.name not in known and value.name not in outer:
            raise _invalid(f'Nothing makes the output "{value.name}" of the graph "{graph.name}".')


def _check_nodes(graph: GraphProto, known: set[str], where: str) -> set[str]:
    makers: dict[str, int] = {}
    names: set[str] = set()
    for index, node in enumerate(graph.node):
        if node.name and node.name in names:
            raise _invalid(f'Two nodes of {where} have the name "{node.name}", which the runtime refuses.')
        names.add(node.name)
        for name in node.output:
            if name and name in makers:
                first = node_text(graph.node[makers[name]])
                raise _invalid(f'Both {first} and {node_text(node)} make the value "{name}".')
            if name:
                makers[name] = index
    order = _order(graph, makers, known, where)
    if order != list(range(len(order))):
        nodes = [NodeProto.FromString(graph.node[index].SerializeToString()) for index in order]
        del graph.node[:]
        graph.node.extend(nodes)
    for node in graph.node:
        for inner in subgraphs(node):
            _check_graph(inner, known | makers.keys())
    return set(makers)


def _order(graph: GraphProto, makers: dict[str, int], known: set[str], where: str) -> list[int]:
    """Return the indices of the nodes so that each comes after those it reads; the given order where it does."""
    waits: list[int] = [0] * len(graph.node)
    readers: list[list[int]] = [[] for _ in graph.node]
    sorted_already = True
    for index, node in enumerate(graph.node):
        for name in _reads(node):
            maker = makers.get(name)
            if maker is not None:
                waits[index] += 1
                readers[maker].append(index)
                sorted_already = sorted_already and maker < index
            elif name not in known:
                raise _invalid(f'{_upper(node_text(node))} in {where} reads "{name}", which nothing makes.')
    if sorted_already:
        return list(range(len(graph.node)))
    ready = deque(index for index, count in enumerate(waits) if count == 0)
    order: list[int] = []
    while ready:
        index = ready.popleft()
        order.append(index)
        for reader in readers[index]:
            waits[reader] -= 1
            if waits[reader] == 0:
                ready.append(reader)
    if len(order) < len(graph.node):
        stuck = graph.node[next(index for index, count in enumerate(waits) if count)]
        raise _invalid(f"{_upper(node_text(stuck))} in {where} depends on its own output.")
    return order


def _reads(node: NodeProto) -> set[str]:
    """Names a node reads, by itself or from within its subgraphs."""
    names = {name for name in node.input if name}
    for graph in subgraphs(node):
        names |= _free(graph)
    return names


def _free(graph: GraphProto) -> set[str]:
    bound = {value.name for value in graph.input}
    bound |= {tensor.name for tensor in graph.initializer}
    bound |= {sparse.values.name for sparse in graph.sparse_initializer}
    bound |= {name for node in graph.node for name in node.output}
    used = {value.name for value in graph.output}
    for node in graph.node:
        used |= _reads(node)
    return used - bound


def _import_used_domains(model: ModelProto) -> None:
    """Add operator sets that the runtime adds by itself, for the checker insists on them."""
    present = {domain_of(each.domain) for each in model.opset_import}
    for graph in all_graphs(model.graph):
        for node in graph.node:
            if domain_of(node.domain) not in present:
                present.add(domain_of(node.domain))
                model.opset_import.append(helper.make_opsetid(node.domain, 1))


def _only_function_bodies(text: str) -> bool:
    """Tell whether strict inference failed inside the body of an operator that is defined by other operators.

    Inference of such bodies has faults of its own; ``op_type:`` names the outer operator first.
    """
    outer = text.partition("(op_type:")[2].partition(")")[0].partition(",")[0].strip()
    return (
        any(schema.name == outer and _has_body(schema) for schema in onnx.defs.get_all_schemas())
        and text.count("op_type:") > 1
    )


def _has_body(schema: onnx.defs.OpSchema) -> bool:
    # The package's type stubs leave both attributes out.
    return bool(getattr(schema, "has_function", False) or getattr(schema, "has_context_dependent_function", False))


def _invalid(text: str) -> RefusedError:
    return RefusedError(Reason.INVALID_GRAPH, text)


def _tidy(text: str) -> str:
    lines = [line.strip() for line in text.replace("==> Context:", " ").splitlines() if line.strip()]
    joined = " ".join(lines)
    short = joined if len(joined) <= _MESSAGE_LIMIT else joined[:_MESSAGE_LIMIT] + "…"
    return f"The graph is not valid ONNX: {short}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
