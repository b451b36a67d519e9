"""Operators that are made of other operators: the model's local functions, and definitions of the standard."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TypeProto, helper

from onnx_operator.model.checks.schemas import FAULTS_FOUND, has_body
from onnx_operator.model.checks.schemas import find_schema as find_schema
from onnx_operator.model.nodes import STANDARD_DOMAINS, all_nodes, bound_attributes, domain_of, subgraphs

_MICROSOFT = {
    "Gelu": ("Mul", "Erf", "Add"),
    "FastGelu": ("Mul", "Add", "Tanh"),
    "QuickGelu": ("Mul", "Sigmoid"),
}
"""Operators of com.microsoft that the runtime defines by standard ones, all at the same type, and these."""
Key = tuple[str, str, str]
"""Domain, name and overload of a function."""
_UNARY = frozenset({"Erf", "Sigmoid", "Tanh"})


@dataclass(frozen=True)
class Body:
    """What is computed in the place of a node, with inferred types."""

    name: str
    graph: GraphProto


class Functions:
    """The local functions of a model."""

    def __init__(self, model: ModelProto) -> None:
        self.all = list(model.functions)
        self.imports = {domain_of(each.domain): each.version for each in model.opset_import}
        self._known = {_key(f): f for f in self.all}
        self._called: dict[Key, list[FunctionProto]] = {}
        self._bodies: dict[tuple[Key, bytes], Body] = {}

    def find(self, node: NodeProto) -> FunctionProto | None:
        """The function that a node calls; an operator of the standard is never one."""
        if not self._known:
            return None
        function = self._known.get(_called_by(node))
        if function is not None and has_definition(node, self.imports):
            return None
        return function

    def body(self, function: FunctionProto, graph: GraphProto) -> Body:
        """A body that was put together for a call, with inferred types; the same for the same call."""
        key = (_key(function), graph.SerializeToString(deterministic=True))
        if key not in self._bodies:
            imports = {domain_of(each.domain): each.version for each in function.opset_import} | self.imports
            inferred = _inferred(graph, imports, self._reached(function))
            self._bodies[key] = Body(f"{function.domain}.{function.name}", inferred)
        return self._bodies[key]

    def _reached(self, function: FunctionProto) -> list[FunctionProto]:
        """The functions that a function calls, directly or through others: inference reads no more."""
        start = _key(function)
        if start not in self._called:
            reached: dict[Key, FunctionProto] = {}
            waiting = [function]
            while waiting:
                for node in all_nodes(waiting.pop().node):
                    key = _called_by(node)
                    if key in self._known and key not in reached:
                        reached[key] = self._known[key]
                        waiting.append(self._known[key])
            self._called[start] = list(reached.values())
        return self._called[start]


def _key(function: FunctionProto) -> Key:
    return domain_of(function.domain), function.name, function.overload


def _called_by(node: NodeProto) -> Key:
    return domain_of(node.domain), node.op_type, node.overload


def has_definition(node: NodeProto, opsets: Mapping[str, int]) -> bool:
    """Tell whether the onnx package defines the operator of a node."""
    domain = domain_of(node.domain)
    return domain in STANDARD_DOMAINS and find_schema(domain, node.op_type, opsets.get(domain, 1)) is not None


def call_graph(function: FunctionProto, node: NodeProto, types: Mapping[str, TypeProto], functions: Functions) -> Body:
    """The body of a local function at the types and attributes of a call.

    The runtime puts it in the place of the node, so that the model's opsets count, not the function's own.
    """
    return functions.body(function, _body_graph(function, node, types))


def _body_graph(function: FunctionProto, node: NodeProto, types: Mapping[str, TypeProto]) -> GraphProto:
    graph = GraphProto(name=function.name)
    absent = set(function.input[len(node.input) :])
    for parameter, argument in zip(function.input, node.input, strict=False):
        if not argument:
            absent.add(parameter)
            continue
        graph.input.add(name=parameter).type.CopyFrom(types.get(argument, TypeProto()))
    given = {each.name: each for each in function.attribute_proto} | {each.name: each for each in node.attribute}
    for each in function.node:
        copy = graph.node.add()
        copy.CopyFrom(each)
        _bind(copy, given, absent)
    graph.value_info.extend(function.value_info)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in function.output)
    return graph


def _bind(node: NodeProto, given: Mapping[str, AttributeProto], absent: set[str]) -> None:
    """Put the attributes of a call in the place of references to them."""
    for index, name in enumerate(node.input):
        if name in absent:
            node.input[index] = ""
    bound = bound_attributes(node.attribute, given)
    if len(bound) != len(node.attribute) or any(each.ref_attr_name for each in node.attribute):
        copies = [AttributeProto.FromString(each.SerializeToString()) for each in bound]
        del node.attribute[:]
        node.attribute.extend(copies)
    for graph in subgraphs(node):
        for inner in graph.node:
            _bind(inner, given, absent)


def definition_graph(node: NodeProto, types: Mapping[str, TypeProto], opsets: Mapping[str, int]) -> Body | None:
    """The operators that define the one of a node, at its types; None where nothing defines it."""
    domain = domain_of(node.domain)
    if domain == "com.microsoft" and node.op_type in _MICROSOFT:
        return _microsoft_graph(node, types, opsets)
    schema = find_schema(domain, node.op_type, opsets.get(domain, 1)) if domain in STANDARD_DOMAINS else None
    if schema is None or not has_body(schema):
        return None
    function = _definition(schema, node, types, opsets.get("", 1))
    if function is None:
        return None
    imports = {domain_of(each.domain): each.version for each in function.opset_import} | dict(opsets)
    return Body(node.op_type, _inferred(_body_graph(function, node, types), imports, ()))


def _definition(
    schema: onnx.defs.OpSchema, node: NodeProto, types: Mapping[str, TypeProto], opset: int
) -> FunctionProto | None:
    """The function that defines an operator; None where there is none that holds at the model's opset."""
    # The package's type stubs leave these attributes out.
    untyped: Any = schema
    dependent = [each for each in untyped.context_dependent_function_opset_versions if each <= opset]
    if dependent:
        kinds = [types.get(name, TypeProto()).SerializeToString() for name in node.input]
        try:
            text = untyped.get_context_dependent_function_with_opset_version(
                max(dependent), node.SerializeToString(), kinds
            )
        except FAULTS_FOUND:
            text = b""
        if text:
            return _parsed(text)
    plain = [each for each in untyped.function_opset_versions if each <= opset]
    if not plain:
        return None
    function = _parsed(untyped.get_function_with_opset_version(max(plain)))
    # A definition is good as long as none of its own operators changed since it was written.
    for each in function.node:
        if not domain_of(each.domain) and _since(each.op_type, opset) != _since(each.op_type, max(plain)):
            return None
    return function


def _parsed(text: bytes) -> FunctionProto:
    function = FunctionProto()
    function.ParseFromString(text)
    return function


def _since(operator: str, opset: int) -> int:
    schema = find_schema("", operator, opset)
    return 0 if schema is None else schema.since_version


def _microsoft_graph(node: NodeProto, types: Mapping[str, TypeProto], opsets: Mapping[str, int]) -> Body:
    graph = GraphProto(name="body")
    x = node.input[0]
    graph.input.add(name=x).type.CopyFrom(types.get(x, TypeProto()))
    for operator in _MICROSOFT[node.op_type]:
        graph.node.append(helper.make_node(operator, [x] if operator in _UNARY else [x, x], [f"{x}/{operator}"]))
    return Body(node.op_type, _inferred(graph, opsets, ()))


def _model(graph: GraphProto, opsets: Mapping[str, int], functions: Iterable[FunctionProto] = ()) -> ModelProto:
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return ModelProto(ir_version=10, graph=graph, opset_import=imports, functions=list(functions))


def _inferred(graph: GraphProto, opsets: Mapping[str, int], functions: Iterable[FunctionProto]) -> GraphProto:
    try:
        return onnx.shape_inference.infer_shapes(_model(graph, opsets, functions)).graph
    except FAULTS_FOUND:
        # What cannot be inferred stays unknown, and is not judged.
        return graph
