"""How much of a model each execution provider of ONNX Runtime computes, and what would fall back to the CPU."""

from collections import ChainMap, Counter
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

from onnx_operator.api.providers import load_tables
from onnx_operator.api.report import MAX_FALLBACKS, ProviderCoverage
from onnx_operator.model.checks.bodies import Functions, call_graph, definition_graph
from onnx_operator.model.checks.constants import Constants
from onnx_operator.model.checks.kernels import declared_types
from onnx_operator.model.figures.provider_support import Support, Use
from onnx_operator.model.nodes import domain_of, subgraphs

_MAX_DEPTH = 16
"""Functions within functions; what lies deeper counts as falling back."""
_MOST = 1 << 53
"""No count goes beyond it: functions that call functions grow without bounds."""
_OVERRIDABLE_FROM = 4
"""The IR version from which a caller may replace an initializer that is an input too."""
_MEASURES = frozenset({"Shape", "Size"})
_MAKERS = frozenset({"ConstantOfShape", "Expand", "EyeLike", "Range", "Tile"})
"""Operators that make tensors of a computed shape, which are data."""


def coverage(
    model: ModelProto,
    flops: Mapping[str, int],
    cpu_supports: Callable[[NodeProto], bool] | None = None,
    weights: Iterable[str] = (),
) -> list[ProviderCoverage]:
    """Tell for the CPU and each provider that a table describes how many nodes of a model it computes.

    ``model`` is one after inference, ``flops`` is keyed by a node's first output that has a name, and ``weights``
    names inputs that stand for initializers. ``cpu_supports`` is asked for nodes of the main graph, their subgraphs
    included; without it, the CPU computes the whole model.

    Nodes of subgraphs count, and those of local functions at each of their calls. What is computed while the model
    is loaded, and what computes shapes, falls back nowhere and carries no FLOPs. Where nothing has FLOPs, the share
    is that of nodes.
    """
    supports = [Support(table) for table in load_tables()]
    body = _Reader(model, flops, weights, supports).read(model.graph)
    return [_cpu(body, cpu_supports), *(_report(each.table.provider, _Count(each).of_model(body)) for each in supports)]


@dataclass
class _Item:
    use: Use
    free: bool
    """Computed while the model is loaded, or left on the CPU on purpose."""
    flops: int = 0
    bodies: list["_Body"] = field(default_factory=list)
    called: "_Body | None" = None
    read_definition: Callable[[], "_Body | None"] = lambda: None


@dataclass
class _Body:
    items: list[_Item] = field(default_factory=list)


Types = MutableMapping[str, TypeProto]
Measures = MutableMapping[str, bool]


class _Reader:
    """Reads a model once for all providers."""

    def __init__(
        self, model: ModelProto, flops: Mapping[str, int], weights: Iterable[str], supports: list[Support]
    ) -> None:
        self._flops = dict(flops)
        self._functions = Functions(model)
        self._opsets = {domain_of(each.domain): each.version for each in model.opset_import}
        self._kernels = next((each.kernels for each in supports if each.kernels is not None), None)
        fixed = set(weights)
        if model.ir_version < _OVERRIDABLE_FROM:
            fixed.update(tensor.name for tensor in model.graph.initializer)
        self._weights = Constants(GraphProto(initializer=[TensorProto(name=name) for name in fixed]))
        self._called: dict[tuple[str, bytes], _Body] = {}

    def read(
        self,
        graph: GraphProto,
        outer: Types | None = None,
        constants: Constants | None = None,
        measures: Measures | None = None,
        depth: int = 0,
    ) -> _Body:
        types: Types = ChainMap({}, {} if outer is None else outer)
        types.update(declared_types(graph))
        known = Constants(graph, self._weights if constants is None else constants)
        measured: Measures = ChainMap({}, {} if measures is None else measures)

        def is_known(name: str) -> bool:
            return known.folded(name) or name in measured

        body = _Body()
        for node in graph.node:
            known.add(node, types)
            self._complete(node, types)
            outputs = [name for name in node.output if name]
            free = bool(outputs) and all(known.folded(name) for name in outputs)
            if not free and _measures(node, types, known, measured):
                measured.update(dict.fromkeys(outputs, True))
                free = True
            item = _Item(Use(node, self._opsets, types, is_known), free)
            if outputs and not depth:
                # Equal names in different subgraphs share one count.
                item.flops = self._flops.pop(outputs[0], 0)
            item.bodies = [self.read(each, types, known, measured, depth) for each in subgraphs(node)]
            self._look_inside(item, depth)
            body.items.append(item)
        return body

    def _look_inside(self, item: _Item, depth: int) -> None:
        node, types = item.use.node, item.use.types
        function = self._functions.find(node)
        if function is not None and depth < _MAX_DEPTH:
            called = call_graph(function, node, types, self._functions)
            key = (called.name, called.graph.SerializeToString(deterministic=True))
            if key not in self._called:
                self._called[key] = self.read(called.graph, constants=Constants(GraphProto()), depth=depth + 1)
            item.called = self._called[key]

        def definition() -> _Body | None:
            found = definition_graph(node, types, self._opsets) if depth < _MAX_DEPTH else None
            if found is None:
                return None
            return self.read(found.graph, constants=Constants(GraphProto()), depth=_MAX_DEPTH)

        item.read_definition = definition

    def _complete(self, node: NodeProto, types: Types) -> None:
        """Derive types of outputs that inference left open: those of an operator that onnx does not define."""
        if self._kernels is not None and any(name and name not in types for name in node.output):
            for name, kind in self._kernels.output_types(node, self._opsets, types):
                types.setdefault(name, kind)


def _measures(node: NodeProto, types: Types, known: Constants, measured: Measures) -> bool:
    """Tell whether a node computes a shape or a part of one."""
    if domain_of(node.domain):
        return False
    if node.op_type in _MEASURES:
        return True
    inputs = [name for name in node.input if name]
    if node.op_type in _MAKERS or next(subgraphs(node), None) is not None:
        return False
    small = all(_rank(types.get(name)) in (None, 0, 1) for name in node.output if name)
    follows = all(name in measured or known.folded(name) for name in inputs)
    return small and follows and any(name in measured for name in inputs)


def _rank(kind: TypeProto | None) -> int | None:
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    return len(kind.tensor_type.shape.dim)


@dataclass
class _Tally:
    nodes: int = 0
    counted: int = 0
    """Nodes that are not free."""
    flops: float = 0.0
    lost: int = 0
    """Nodes that fall back, all of them and those that are not in subgraphs."""
    lost_here: int = 0
    lost_flops: float = 0.0
    operators: Counter[str] = field(default_factory=Counter)

    def add(self, other: "_Tally") -> None:
        self.nodes = min(self.nodes + other.nodes, _MOST)
        self.counted = min(self.counted + other.counted, _MOST)
        self.lost = min(self.lost + other.lost, _MOST)
        self.flops += other.flops
        self.lost_flops += other.lost_flops
        self.operators.update(other.operators)

    def add_node(self, item: _Item, computed: bool) -> None:
        self.nodes += 1
        if item.free:
            return
        self.counted += 1
        # The nodes of its bodies carry the operations of a node that has some.
        flops = 0 if item.bodies else item.flops
        self.flops += flops
        if not computed:
            self.lost += 1
            self.lost_here += 1
            self.lost_flops += flops
            self.operators[_operator(item.use.node)] += 1


class _Count:
    """Counts for one provider."""

    def __init__(self, support: Support) -> None:
        self._support = support
        self._known: dict[tuple[int, bool], _Tally] = {}

    def of_model(self, body: _Body) -> _Tally:
        tally = self.of(body, True)
        most = self._support.table.most_fallbacks
        return tally if most is None or tally.lost_here <= most else self.of(body, False)

    def of(self, body: _Body, allowed: bool) -> _Tally:
        """Count a body; where it is not ``allowed``, none of it is computed whatever it holds."""
        key = (id(body), allowed)
        if key not in self._known:
            self._known[key] = self._count(body, allowed)
        return self._known[key]

    def _count(self, body: _Body, allowed: bool) -> _Tally:
        tally = _Tally()
        for item in body.items:
            if item.called is not None:
                inner = self.of(item.called, allowed)
                tally.add(inner)
                tally.lost_here += inner.lost_here
                tally.flops += item.flops
                tally.lost_flops += item.flops * inner.lost / max(inner.counted, 1)
                continue
            computed = item.free or (allowed and self._computes(item))
            allowed_inside = allowed
            if self._support.table.whole_bodies and item.bodies:
                computed = computed and not any(self.of(each, True).lost for each in item.bodies)
                allowed_inside = computed
            tally.add_node(item, computed)
            for each in item.bodies:
                tally.add(self.of(each, allowed_inside))
        return tally

    def _computes(self, item: _Item) -> bool:
        if self._support.computes(item.use):
            return True
        node = item.use.node
        if domain_of(node.domain) or node.op_type not in self._support.defined:
            return False
        definition = item.read_definition()
        return definition is not None and self._count(definition, True).lost == 0


def _cpu(body: _Body, cpu_supports: Callable[[NodeProto], bool] | None) -> ProviderCoverage:
    tally = _Tally()
    for item in body.items:
        computed = cpu_supports is None or cpu_supports(item.use.node)
        _add_all(tally, item, computed)
    return _report("CPU", tally)


def _add_all(tally: _Tally, item: _Item, computed: bool) -> None:
    known: dict[int, _Tally] = {}

    def count(body: _Body) -> _Tally:
        if id(body) not in known:
            known[id(body)] = inner = _Tally()
            for each in body.items:
                add(inner, each)
        return known[id(body)]

    def add(to: _Tally, each: _Item) -> None:
        if each.called is not None:
            to.add(count(each.called))
            to.flops += each.flops
            to.lost_flops += 0 if computed else each.flops
            return
        to.add_node(each, computed)
        for body in each.bodies:
            to.add(count(body))

    add(tally, item)


def _report(provider: str, tally: _Tally) -> ProviderCoverage:
    whole, lost = (tally.flops, tally.lost_flops) if tally.flops > 0 else (tally.counted, tally.lost)
    named = sorted(tally.operators.items(), key=lambda each: (-each[1], each[0]))
    return ProviderCoverage(
        provider=provider,
        covered_nodes=tally.nodes - tally.lost,
        total_nodes=tally.nodes,
        fallback_operators=[name for name, _ in named[:MAX_FALLBACKS]],
        fallback_flops_share=min(1.0, round(lost / whole, 4)) if lost else 0.0,
    )


def _operator(node: NodeProto) -> str:
    domain = domain_of(node.domain)
    return f"{domain}.{node.op_type}" if domain else node.op_type
