"""Walks over a graph and says of every tensor where its rows are, and whether they may meet.

What no rule speaks of is not proven, and nothing that is made of it. Subgraphs are not looked into: an operator with
some is the same in every run where nothing that goes in is of the rows, else unproven.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx_operator.model.batching.call import Call, Symbols
from onnx_operator.model.batching.graph_pb2 import Attribute, Function, Graph, Node
from onnx_operator.model.batching.kernels import DISCONTINUOUS, LABELLED, Kernels, names
from onnx_operator.model.batching.kinds import typed
from onnx_operator.model.batching.rules import ON_NUMBERS, RULES, SIZES_AT
from onnx_operator.model.batching.signs import signed, undefined
from onnx_operator.model.batching.tensors import FLOATS
from onnx_operator.model.batching.values import MAX_FOLLOWED_DIMENSIONS, Fault, UnprovenError, Value
from onnx_operator.model.limits import MAX_NODES
from onnx_operator.model.nodes import bound_attributes, domain_of, node_text

_MAX_DEPTH = 16
"""Functions within functions."""
_RANDOM = names(
    "Bernoulli BiasDropout BitmaskBiasDropout BitmaskDropout Dropout Multinomial RandomNormal RandomNormalLike "
    "RandomUniform RandomUniformLike Sampling"
)
_EXTREMES = frozenset({"Max", "Min"})
"""Of three and more, the sign of a zero depends on where it lies."""
_PASSED_ON = frozenset({"Identity", "Transpose"})
"""A constant of what is stored is computed when loading."""
_SHAPE_ONLY = {"Shape": 0, "Size": 0, "CastLike": 1}
"""The input of which only the shape or the type counts."""
_MANY = 2**31
_TREES = frozenset({"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"})
_PLAIN = frozenset({"", "ai.onnx.ml"})
_RUNTIMES = _PLAIN | {"com.microsoft"}
"""Domains whose operators depend on nothing but their inputs, where they are not random."""
_NOT_MADE_YET = "reads what no node before it makes"
Scope = dict[str, Value]
_Inside = tuple[frozenset[str], ...]
_Key = tuple[str, str, str]


class TooLargeError(Exception):
    """The graph is larger than what is looked at."""


@dataclass(frozen=True)
class Setting:
    """What holds for the whole model."""

    opsets: Mapping[str, int]
    functions: Mapping[_Key, Function]
    kernels: Kernels
    double: bool
    """Whether anything is computed in double precision."""
    fixed_rows: int


class Analysis:
    """One walk."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._symbols = Symbols()
        self._looked_at = 0

    @property
    def symbols(self) -> Symbols:
        """Where new sizes come from."""
        return self._symbols

    def walk(self, nodes: Iterable[Node], scope: Scope, depth: int = 0) -> None:
        """Add what ``nodes`` make to ``scope``. Raises :class:`TooLargeError`."""
        for node in nodes:
            # A function's nodes come again with every call, the large ones too.
            self._count(1 + (node.ByteSize() >> 8) if depth else 1)
            for name, value in zip(node.output, self._outputs(node, scope, depth), strict=False):
                if name:
                    again = name in scope
                    scope[name] = _faulty(node, "makes what is there already", 1)[0] if again else value

    def _count(self, nodes: int) -> None:
        self._looked_at += nodes
        if self._looked_at > MAX_NODES:
            raise TooLargeError

    def _outputs(self, node: Node, scope: Scope, depth: int) -> list[Value]:
        count = len(node.output)
        inputs: list[Value | None] = []
        for name in node.input:
            value = scope.get(name) if name else None
            if name and value is None:
                return _faulty(node, _NOT_MADE_YET, count)
            inputs.append(value)
        graphs: list[Graph] = []
        for graph, inside in _all_graphs(node) if node.attribute else ():
            self._count(len(graph.node))
            graphs.append(graph)
            captured = _captured(graph, inside, scope)
            if captured is None:
                return _faulty(node, _NOT_MADE_YET, count)
            inputs += captured
        for value in inputs:
            if value is not None and value.fault is not None:
                return [value] * count
        try:
            function = self._function(node) if self._setting.functions else None
            if graphs:
                if function is not None:
                    raise UnprovenError("calls a function and gives it graphs")
                return self._with_graphs(node, graphs, inputs)
            if function is not None:
                return self._called(node, function, inputs, depth)
            found = self._applied(node, inputs)
        except UnprovenError as error:
            return _faulty(node, str(error), count)
        except (ArithmeticError, LookupError, ValueError, TypeError, AttributeError):
            # A file may hold anything: attributes of other types, axes that no input has.
            return _faulty(node, "has attributes or inputs that do not fit each other", count)
        if len(found) < count:
            found += _faulty(node, "has an output that is not followed", count - len(found))
        return found

    def _with_graphs(self, node: Node, graphs: Sequence[Graph], inputs: Sequence[Value | None]) -> list[Value]:
        if any(value is not None and not value.fixed for value in inputs):
            raise UnprovenError("decides or repeats by what depends on the rows of the request, or works on them")
        if domain_of(node.domain) not in _PLAIN or any(map(_may_be_random, graphs)):
            raise UnprovenError("may draw random numbers")
        for inner in (each for graph in graphs for each in graph.node) if self._setting.functions else ():
            self._function(inner)
        return [Value() for _ in node.output]

    def _function(self, node: Node) -> Function | None:
        domain = domain_of(node.domain)
        function = self._setting.functions.get((domain, node.op_type, node.overload))
        if function is not None and domain in _RUNTIMES:
            raise UnprovenError("calls a function that has the name of an operator")
        return function

    def _called(self, node: Node, function: Function, inputs: Sequence[Value | None], depth: int) -> list[Value]:
        if depth >= _MAX_DEPTH:
            raise UnprovenError("calls functions within functions too deeply")
        taken = (function.input, function.output, function.attribute_proto, function.opset_import)
        self._count(sum(map(len, taken)))
        for each in function.opset_import:
            domain = domain_of(each.domain)
            if self._setting.opsets.get(domain, None if domain in _RUNTIMES else each.version) != each.version:
                raise UnprovenError("calls a function of another opset than the model's")
        inner: Scope = {}
        absent: set[str] = set()
        for position, name in enumerate(function.input):
            value = inputs[position] if position < len(inputs) else None
            if value is None:
                absent.add(name)
            else:
                inner[name] = value
        given = {each.name: each for each in function.attribute_proto} | {each.name: each for each in node.attribute}
        self.walk((_bound(each, given, absent) for each in function.node), inner, depth + 1)
        found = [inner.get(name) for name in function.output]
        if any(value is None for value in found):
            raise UnprovenError("calls a function without one of its outputs")
        return [value for value in found if value is not None]

    def _applied(self, node: Node, inputs: list[Value | None]) -> list[Value]:
        domain, operator = domain_of(node.domain), node.op_type
        present = [value for value in inputs if value is not None]
        batch = any(value.axis is not None for value in present)
        counted = [i for i, value in enumerate(inputs) if value is not None and value.counted]
        attributes = {each.name: each for each in node.attribute}
        if attributes and any(each.ref_attr_name for each in attributes.values()):
            raise UnprovenError("has an attribute that is not given")
        opset = self._setting.opsets.get(domain, 1)
        call = Call(node, opset, inputs, self._symbols, attributes, self._setting.fixed_rows)
        if not batch and not domain and operator in ON_NUMBERS:
            value = ON_NUMBERS[operator](call)
            if value is not None:
                return _described(call, [value])
        sizes_at = SIZES_AT.get(operator, frozenset()) if not domain else frozenset()
        if counted and not sizes_at.issuperset(counted):
            raise UnprovenError("computes with the number of rows")
        rule = RULES.get((domain, operator))
        if not batch and not counted and (rule is None or operator not in SIZES_AT):
            return _described(call, self._fixed(rule, call))
        if rule is None:
            raise UnprovenError("is an operator of which it is not known that it keeps rows apart")
        return _described(call, self._rounded(call, _checked(call, _listed(rule(call)))))

    def _fixed(self, rule: object, call: Call) -> list[Value]:
        """The same whatever the rows: it need only not be random."""
        if call.operator in _RANDOM and call.operator != "Dropout":
            raise UnprovenError("draws random numbers")
        if call.operator == "Dropout" or domain_of(call.node.domain) not in _RUNTIMES:
            if not callable(rule):
                raise UnprovenError("is an operator of which it is not known that it is the same in every run")
            return _listed(rule(call))
        try:
            found = _listed(rule(call)) if callable(rule) else []
        except UnprovenError:
            found = []
        found = [
            value if value.dims is None or len(value.dims) <= MAX_FOLLOWED_DIMENSIONS else Value() for value in found
        ]
        if call.operator == "Constant" or (call.operator in _PASSED_ON and call.required(0).stored):
            found = [value._replace(stored=True) for value in found]
        return found + [Value()] * (len(call.node.output) - len(found))

    def _rounded(self, call: Call, values: list[Value]) -> list[Value]:
        """Say of the results whether their last bits may differ; refuse what makes much of such a difference."""
        operator = call.operator
        before = any(value.rounded for value in call.given())
        jumps = operator in DISCONTINUOUS or (operator in ("Cast", "CastLike") and not _to_float(call))
        if jumps and before:
            raise UnprovenError(
                "makes another answer of a difference in the last bit, which the number of rows may make before it"
            )
        if undefined(call) and (before or (operator == "ReduceLogSum" and any(value.batch for value in call.given()))):
            raise UnprovenError("is not defined below zero, where a difference in the last bit may lead")
        exact = self._exact(call) and not (operator in _EXTREMES and len(call.inputs) > 2)
        rounded = before or not exact
        if rounded:
            values = [value._replace(rounded=True) if value.batch else value for value in values]
        if operator in LABELLED and not exact:
            values[:1] = _faulty(call.node, "chooses the largest of sums that may differ in their last bits", 1)
        for value in values:
            if value.dims is not None and len(value.dims) > MAX_FOLLOWED_DIMENSIONS:
                raise UnprovenError("makes a tensor of too many dimensions")
        return values

    def _exact(self, call: Call) -> bool:
        kernels = self._setting.kernels
        if call.operator in _TREES:
            return _trees(call) <= kernels.exact_trees
        return kernels.exact(call.operator, double=self._setting.double)


def _listed(found: Value | list[Value]) -> list[Value]:
    return found if isinstance(found, list) else [found]


def _described(call: Call, values: list[Value]) -> list[Value]:
    return signed(call, typed(call, values))


def _checked(call: Call, values: list[Value]) -> list[Value]:
    """Refuse what no rule may say: that nothing of the rows is in what is made of them, or that they lie nowhere."""
    shape_only = _SHAPE_ONLY.get(call.operator, -1)
    of_rows = any(v is not None and (v.batch or v.counted) and i != shape_only for i, v in enumerate(call.inputs))
    for value in values:
        if value.fault is not None:
            continue
        if of_rows and value.fixed:
            raise UnprovenError("takes from the rows what is not followed")
        if value.axis is not None and (
            value.dims is None
            or [size.rows for size in value.dims] != [i == value.axis for i in range(len(value.dims))]
        ):
            raise UnprovenError("puts the rows where they are not followed")
    return values


def _faulty(node: Node, reason: str, count: int) -> list[Value]:
    return [Value(fault=Fault(node_text(node), reason))] * count


def _to_float(call: Call) -> bool:
    return call.operator == "Cast" and call.integer("to", 0) in FLOATS


def _trees(call: Call) -> int:
    for name in ("nodes_treeids", "tree_roots"):
        if name in call.attributes:
            # None: they were left out, being many.
            return len(set(call.attributes[name].ints)) or _MANY
    return _MANY


def _graphs(node: Node) -> Iterable[Graph]:
    for each in node.attribute:
        if each.HasField("g"):
            yield each.g
        yield from each.graphs


def _all_graphs(node: Node) -> Iterator[tuple[Graph, _Inside]]:
    """The subgraphs of a node, and those within them, each with what it and the subgraphs around it make."""
    waiting: list[tuple[Graph, _Inside]] = [(graph, ()) for graph in _graphs(node)]
    while waiting:
        graph, around = waiting.pop()
        inside = (*around, _made(graph))
        yield graph, inside
        waiting += [(each, inside) for inner in graph.node for each in _graphs(inner)]


def _made(graph: Graph) -> frozenset[str]:
    named = [each.name for messages in (graph.input, graph.initializer) for each in messages]
    named += [each.values.name for each in graph.sparse_initializer]
    return frozenset([*named, *(name for inner in graph.node for name in inner.output)])


def _captured(graph: Graph, inside: _Inside, scope: Scope) -> list[Value] | None:
    """What a subgraph reads of the graph around it; None where nothing has made that yet.

    ONNX Runtime puts nodes in order: what a later one makes is captured as well.
    """
    found: list[Value] = []
    for name in [name for inner in graph.node for name in inner.input] + [each.name for each in graph.output]:
        value = scope.get(name) if name else None
        if value is not None:
            found.append(value)
        elif name and not any(name in made for made in inside):
            return None
    return found


def _may_be_random(graph: Graph) -> bool:
    return any(n.op_type in _RANDOM or domain_of(n.domain) not in _PLAIN for n in graph.node)


def _bound(node: Node, given: Mapping[str, Attribute], absent: set[str]) -> Node:
    """A node of a function with the attributes and without the inputs that the call leaves out."""
    if not any(each.ref_attr_name for each in node.attribute) and not absent.intersection(node.input):
        return node
    bound = Node()
    bound.CopyFrom(node)
    for index, name in enumerate(bound.input):
        if name in absent:
            bound.input[index] = ""
    kept = bound_attributes(node.attribute, given)
    del bound.attribute[:]
    bound.attribute.extend(kept)
    return bound
