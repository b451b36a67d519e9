"""Whether a graph holds together: every value made once, before it is used."""

import re
from collections import deque
from collections.abc import Set

import onnx
from onnx import GraphProto, ModelProto, NodeProto

from onnx_operator.api.conditions import Reason
from onnx_operator.model.checks.adapted import adapted, restore, with_own_opsets
from onnx_operator.model.checks.schemas import FAULTS_FOUND as FAULTS_FOUND
from onnx_operator.model.checks.schemas import has_body
from onnx_operator.model.nodes import all_graphs, all_nodes, domain_of, node_text, subgraphs
from onnx_operator.model.refusal import RefusedError

_MESSAGE_LIMIT = 600
_TERM = rb"[A-Za-z]*(?:\.\.\.[A-Za-z]*)?"
_EQUATION = re.compile(_TERM + rb"(?:," + _TERM + rb")*(?:->" + _TERM + rb")?")
_SHARED_NAMES = "already exists"


def check_structure(model: ModelProto) -> None:
    """Check names and order, with all subgraphs and functions; nodes are brought into order where they are not.

    ONNX asks for sorted nodes, but the runtime sorts them itself, and some exporters rely on it. Raises
    :class:`RefusedError` (``InvalidGraph``).
    """
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in all_nodes(nodes):
            _check_einsum(node)
    _check_graph(model.graph, frozenset())
    for function in model.functions:
        body = GraphProto(node=function.node)
        _check_nodes(body, set(function.input), f"the function {function.name}")


def check_formally(model: ModelProto) -> ModelProto:
    """Run onnx's checker and strict inference of types and shapes; returns the model with inferred values.

    Raises :class:`RefusedError` (``InvalidGraph``).
    """
    lenient = adapted(model)
    try:
        onnx.checker.check_model(_with_declared_shapes(with_own_opsets(lenient)).SerializeToString())
    except FAULTS_FOUND as error:
        raise _invalid(_tidy(str(error))) from None
    forget_shapes(lenient)
    return restore(_infer(lenient), model.functions)


def infer_what_can_be(model: ModelProto) -> ModelProto:
    """Infer types and shapes where it is possible, of a model that checks object to."""
    try:
        return onnx.shape_inference.infer_shapes(model)
    except FAULTS_FOUND:
        return model


def _infer(model: ModelProto) -> ModelProto:
    """Infer strictly, and less so only where inference itself is at fault."""
    try:
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except FAULTS_FOUND as error:
        text = str(error)
    if _SHARED_NAMES in text:
        # It follows values by their names, and two branches may use the same ones.
        try:
            return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        except FAULTS_FOUND as error:
            text = str(error)
    if not _only_function_bodies(text):
        raise _invalid(_tidy(text))
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
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
        # The runtime turns Constants into initializers before it looks at names.
        constant = node.op_type == "Constant" and not domain_of(node.domain)
        if not constant and node.name and node.name in names:
            raise _invalid(f'Two nodes of {where} have the name "{node.name}", which the runtime refuses.')
        if not constant:
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
        for name in reads(node):
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


def reads(node: NodeProto) -> set[str]:
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
        used |= reads(node)
    return used - bound


def _only_function_bodies(text: str) -> bool:
    """Tell whether strict inference failed inside the body of an operator that is defined by other operators.

    Inference of such bodies has faults of its own; ``op_type:`` names the outer operator first.
    """
    outer = text.partition("(op_type:")[2].partition(")")[0].partition(",")[0].strip()
    return (
        any(schema.name == outer and has_body(schema) for schema in onnx.defs.get_all_schemas())
        and text.count("op_type:") > 1
    )


def _invalid(text: str) -> RefusedError:
    return RefusedError(Reason.INVALID_GRAPH, text)


def _tidy(text: str) -> str:
    lines = [line.strip() for line in text.replace("==> Context:", " ").splitlines() if line.strip()]
    joined = " ".join(lines)
    short = joined if len(joined) <= _MESSAGE_LIMIT else joined[:_MESSAGE_LIMIT] + "…"
    return f"The graph is not valid ONNX: {short}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
