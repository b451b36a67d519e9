"""Walking over the nodes of a model, those in subgraphs and functions too, and naming them for people."""

from collections.abc import Iterable, Iterator

from onnx import AttributeProto, GraphProto, NodeProto

STANDARD_DOMAINS = frozenset({"", "ai.onnx.ml"})
"""Domains whose operators the onnx package defines and every runtime has; others the runtime must list."""


def domain_of(name: str) -> str:
    """Normalise a domain: the default one has two names."""
    return "" if name == "ai.onnx" else name


def domain_text(domain: str) -> str:
    """Name a domain for people."""
    return domain or "ai.onnx"


def node_text(node: NodeProto) -> str:
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
        if attribute.type == AttributeProto.GRAPH or attribute.HasField("g"):
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
