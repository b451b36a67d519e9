"""Walking over the nodes of a model, those in subgraphs and functions too, and naming them for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

if TYPE_CHECKING:
    # The scoring server, which has no onnx package, names nodes too: messages of its own with the same fields.
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

_GRAPH = 5
"""AttributeProto.GRAPH."""

STANDARD_DOMAINS = frozenset({"", "ai.onnx.ml"})
"""Domains whose operators the onnx package defines and every runtime has; others the runtime must list."""


def domain_of(name: str) -> str:
    """Normalise a domain: the default one has two names."""
    return "" if name == "ai.onnx" else name


def domain_text(domain: str) -> str:
    """Name a domain for people."""
    return domain or "ai.onnx"


class Node(Protocol):
    """A NodeProto, onnx's or our own."""

    @property
    def name(self) -> str:
        """May be empty."""

    @property
    def op_type(self) -> str:
        """The operator."""

    @property
    def domain(self) -> str:
        """Where it is defined."""

    @property
    def output(self) -> Iterable[str]:
        """Names of what it makes."""


class Attribute(Protocol):
    """An AttributeProto, onnx's or our own."""

    name: str
    ref_attr_name: str

    def CopyFrom(self, other: Self) -> None:  # noqa: N802 - protobuf's name
        """Become a copy of another."""


Bound = TypeVar("Bound", bound=Attribute)


def bound_attributes(attributes: Iterable[Bound], given: Mapping[str, Bound]) -> list[Bound]:
    """Attributes of a node of a function, with those of the call in the place of references to them."""
    found: list[Bound] = []
    for each in attributes:
        if not each.ref_attr_name:
            found.append(each)
        elif each.ref_attr_name in given:
            value = type(each)()
            value.CopyFrom(given[each.ref_attr_name])
            value.name = each.name
            found.append(value)
    return found


def node_text(node: Node) -> str:
    """Name a node for people: by its name, or by its first output where it has none."""
    kind = f"{node.domain}.{node.op_type}" if domain_of(node.domain) else node.op_type
    if node.name:
        return f'node "{node.name}" ({kind})'
    output = next((name for name in node.output if name), "")
    return f'the node ({kind}) that makes "{output}"' if output else f"a node without a name ({kind})"


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Iterate over the graphs in a node's attributes."""
    # Most nodes have no attributes, and every check asks.
    return _graphs(node) if node.attribute else iter(())


def _graphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == _GRAPH or attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Iterate over nodes and, depth first, over those of their subgraphs."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from all_nodes(graph.node)


def all_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Iterate over a graph and all its subgraphs."""
    yield graph
    for node in graph.node:
        for each in subgraphs(node):
            yield from all_graphs(each)


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor, wherever it lies, without recursion."""
    graphs: list[GraphProto] = [model.graph]
    for training in model.training_info:
        graphs += [training.initialization, training.algorithm]
    for function in model.functions:
        for attribute in function.attribute_proto:
            yield from _tensors_of(attribute, graphs)
        for node in function.node:
            for attribute in node.attribute:
                yield from _tensors_of(attribute, graphs)
    while graphs:
        graph = graphs.pop()
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from _tensors_of(attribute, graphs)


def tensors_of(attribute: AttributeProto) -> Iterator[TensorProto]:
    """The tensors of an attribute itself, those of its graphs left out."""
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("sparse_tensor"):
        yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
    for sparse in attribute.sparse_tensors:
        yield from (sparse.values, sparse.indices)


def _tensors_of(attribute: AttributeProto, graphs: list[GraphProto]) -> Iterator[TensorProto]:
    yield from tensors_of(attribute)
    if attribute.HasField("g"):
        graphs.append(attribute.g)
    graphs.extend(attribute.graphs)
