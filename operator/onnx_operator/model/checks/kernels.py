"""Whether the serving runtime computes every operator of a model on the CPU at the types it is used with.

The rules are those of ONNX Runtime (``test_kernels.py`` compares each with it): an operator without a kernel is
computed through the operators that define it, and float16 in float32. A node that nothing reads counts as well.
"""

from collections import ChainMap
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TypeProto

from onnx_operator.api.capabilities import Capabilities
from onnx_operator.api.conditions import Reason
from onnx_operator.model.checks.bodies import Body, Functions, call_graph, definition_graph
from onnx_operator.model.checks.constants import Constants
from onnx_operator.model.checks.kerneltable import Kernels, Unserved
from onnx_operator.model.nodes import all_graphs, domain_of, domain_text, node_text, subgraphs
from onnx_operator.model.refusal import RefusedError

_MAX_DEPTH = 16
"""Definitions within definitions; no operator of the standard needs more than three."""
_RECURRENT = frozenset({"RNN", "GRU", "LSTM"})
Types = MutableMapping[str, TypeProto]


@dataclass(frozen=True)
class Missing:
    """A node that no kernel computes."""

    node: NodeProto
    unserved: Unserved
    within: tuple[NodeProto, ...] = ()
    """The nodes whose definitions hold it, the model's own first."""


def check_kernels(model: ModelProto, capabilities: Capabilities) -> None:
    """Refuse a model with a node that has no CPU kernel at its types; types that are unknown are not judged.

    ``model`` is one after inference. Capabilities that list no kernels refuse nothing. Raises
    :class:`RefusedError` (``UnknownOperator``).
    """
    if not capabilities.kernels.operators:
        return
    for found in _Judge(model, Kernels(capabilities)).missing_in(model.graph):
        raise RefusedError(Reason.UNKNOWN_OPERATOR, _message(found, capabilities))


class _Judge:
    def __init__(self, model: ModelProto, kernels: Kernels) -> None:
        self._kernels = kernels
        self._functions = Functions(model)
        self._opsets = {domain_of(each.domain): each.version for each in model.opset_import}
        self._called: dict[tuple[str, bytes], Missing | None] = {}

    def missing_in(self, graph: GraphProto) -> Iterator[Missing]:
        for _, missing in self.by_node(graph):
            yield from missing

    def by_node(
        self,
        graph: GraphProto,
        outer: Types | None = None,
        constants: Constants | None = None,
        within: tuple[NodeProto, ...] = (),
    ) -> Iterator[tuple[NodeProto, Iterator[Missing]]]:
        types: Types = ChainMap({}) if outer is None else ChainMap({}, outer)
        types.update(declared_types(graph))
        known = Constants(graph, constants)
        uses = _Uses(graph)
        for node in graph.node:
            known.add(node, types)
            self._complete(node, types)
            yield node, self._missing(node, types, known, uses, within)

    def _complete(self, node: NodeProto, types: Types) -> None:
        """Derive types of outputs that inference left open: those of an operator that onnx does not define."""
        if all(not name or name in types for name in node.output):
            return
        for name, kind in self._kernels.output_types(node, self._opsets, types):
            types.setdefault(name, kind)

    def _missing(
        self, node: NodeProto, types: Types, constants: Constants, uses: "_Uses", within: tuple[NodeProto, ...]
    ) -> Iterator[Missing]:
        yield from self._missing_inside(node, types, constants, within)
        function = self._functions.find(node)
        if function is not None:
            yield from self._missing_in_call(node, call_graph(function, node, types, self._functions), within)
            return
        if not self._kernels.lists(domain_of(node.domain)):
            return
        unserved = self._kernels.unserved(node, self._opsets, types)
        if unserved is None and (value := _refused_attribute(node)):
            unserved = Unserved(self._opsets.get("", 1), attribute=value)
        if unserved is None or uses.removable(node):
            return
        body = definition_graph(node, types, self._opsets) if len(within) < _MAX_DEPTH else None
        if body is not None:
            for _, found in self.by_node(body.graph, within=(*within, node)):
                yield from found
        elif _refused_attribute(node) or not self._kernels.served_in_float32(node, self._opsets, types):
            yield Missing(node, unserved, within)

    def _missing_inside(
        self, node: NodeProto, types: Types, constants: Constants, within: tuple[NodeProto, ...]
    ) -> Iterator[Missing]:
        inner = list(subgraphs(node))
        if node.op_type == "If" and not domain_of(node.domain) and constants.folded(node.input[0]):
            yield from self._missing_in_chosen(node, types, constants, within)
            return
        for graph in inner:
            for _, missing in self.by_node(graph, types, constants, within):
                yield from missing

    def _missing_in_chosen(
        self, node: NodeProto, types: Types, constants: Constants, within: tuple[NodeProto, ...]
    ) -> Iterator[Missing]:
        """Judge an ``If`` that is decided while loading: the other branch is dropped before kernels are sought."""
        chosen = constants.truth(node.input[0])
        found: list[Missing] = []
        for attribute in node.attribute:
            if chosen is not None and (attribute.name == "then_branch") != chosen:
                continue
            inner = self.by_node(attribute.g, types, constants, within)
            first = next((each for _, missing in inner for each in missing), None)
            if first is None:
                return
            found.append(first)
        yield from found

    def _missing_in_call(self, node: NodeProto, body: Body, within: tuple[NodeProto, ...]) -> Iterator[Missing]:
        key = (body.name, body.graph.SerializeToString(deterministic=True))
        if key not in self._called:
            # The entry ends a recursion too, which the checker refuses anyway.
            self._called[key] = None
            inner = self.by_node(body.graph, within=(*within, node)) if len(within) < _MAX_DEPTH else ()
            self._called[key] = next((each for _, missing in inner for each in missing), None)
        found = self._called[key]
        if found is not None:
            yield found


def declared_types(graph: GraphProto) -> Iterator[tuple[str, TypeProto]]:
    """The types that a graph tells of its values, by name."""
    for value in (*graph.value_info, *graph.output, *graph.input):
        if value.type.WhichOneof("value") is not None:
            yield value.name, value.type
    for tensor in graph.initializer:
        yield tensor.name, onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, onnx.helper.make_tensor_type_proto(sparse.values.data_type, list(sparse.dims))


def _refused_attribute(node: NodeProto) -> str:
    """An attribute whose value a kernel of the runtime refuses when it is made."""
    if domain_of(node.domain) or node.op_type not in _RECURRENT:
        return ""
    return next((f"{a.name}={a.i}" for a in node.attribute if a.name == "layout" and a.i != 0), "")


class _Uses:
    """Who reads and makes the values of a graph: nodes that only pass a value on are removed while loading."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self._readers: dict[str, int] | None = None
        self._outputs = {value.name for value in graph.output}
        self._made: set[str] = set()

    def removable(self, node: NodeProto) -> bool:
        if domain_of(node.domain) or node.op_type not in ("Identity", "Dropout") or not node.input:
            return False
        if self._readers is None:
            self._count()
        assert self._readers is not None
        source, target = node.input[0], node.output[0]
        if node.op_type == "Dropout":
            extra = [*node.input[1:], *node.output[1:]]
            return not any(extra) and target not in self._outputs and self._readers.get(target, 0) > 0
        if target not in self._outputs:
            return self._readers.get(target, 0) > 0
        alone = self._readers.get(source, 0) == 1 and self._readers.get(target, 0) == 0
        return alone and source in self._made and source not in self._outputs

    def _count(self) -> None:
        self._readers = {}
        for node in self._graph.node:
            self._made.update(node.output)
            for name in (*node.input, *_captured(node)):
                self._readers[name] = self._readers.get(name, 0) + 1


def _captured(node: NodeProto) -> Iterator[str]:
    for graph in subgraphs(node):
        for inner in all_graphs(graph):
            for each in inner.node:
                yield from each.input
            yield from (value.name for value in inner.output)


def _message(found: Missing, capabilities: Capabilities) -> str:
    node, unserved = found.node, found.unserved
    runtime = f"ONNX Runtime {capabilities.onnx_runtime_version} of the server image"
    outer = "".join(f", which {node_text(each)} is computed through" for each in reversed(found.within))
    head = f"{runtime} has no CPU kernel for {node_text(node)}"
    opset = f"opset {unserved.opset} of {domain_text(domain_of(node.domain))}"
    if unserved.attribute:
        return (
            f"{head} with {unserved.attribute}{outer}: it takes 0 only, the sequence first and then the batch."
            " Export the model so, and transpose inputs and outputs around it."
        )
    if unserved.accepted:
        wanted = _listed(unserved.types)
        offered = " or ".join(_listed(kernel) for kernel in unserved.accepted)
        half = "" if "float16" in wanted else ", or in float16, which the CPU computes in float32"
        return (
            f"{head} with {wanted} ({opset}){outer}; there are kernels for {offered}. Cast to one of these types"
            f" around the node, or export the model in float32{half}."
        )
    if unserved.versions:
        to = f"opset {unserved.newer} or newer" if unserved.newer else f"an opset older than {unserved.since}"
        return (
            f"{head} as {opset} defines it{outer}, only for other versions of the operator. Export the model with"
            f" {to}, or convert it with onnx.version_converter."
        )
    return f"{head} ({opset}){outer}, whatever its types. Export the model without this operator."


def _listed(types: Sequence[tuple[str, str]]) -> str:
    return " and ".join(f"{name}: {kinds}" for name, kinds in types)
