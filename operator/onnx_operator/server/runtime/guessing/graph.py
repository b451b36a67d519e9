"""What a model's graph says, as far as guesses need it: operators, what they read, small constants.

Read straight from the protobuf wire format, for the server image has no onnx package; large tensors are skipped. The
file is a stranger's: work is bounded, and what cannot be read tells nothing.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnx_operator.model.reading import wire
from onnx_operator.model.reading.numbers import AttributeField, GraphField, ModelField, NodeField, TensorField
from onnx_operator.model.reading.window import Window, mapped
from onnx_operator.model.reading.wire import BYTES, FIXED32, VARINT, Field, WireError, fields, varints
from onnx_operator.server.runtime.tensorproto import TensorError, parse_tensor

MAX_GUESS_NODES = 20_000
MAX_DEPTH = 8
"""Of subgraphs within subgraphs."""
MAX_CONSTANTS = 20_000
MAX_LISTED = 256
"""Elements of an attribute or a constant that are looked at."""
SMALL_BYTES = 4096
"""Larger constants are weights."""
_TEXTS_OF_NODE = frozenset({NodeField.INPUT, NodeField.OUTPUT, NodeField.NAME, NodeField.OP_TYPE, NodeField.DOMAIN})

Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]


@dataclass(frozen=True)
class Constant:
    """An initializer or a Constant node: its sizes, and its elements where there are few."""

    dims: tuple[int, ...]
    values: tuple[bool | int | float | str, ...] = ()


@dataclass(frozen=True)
class Node:
    """A node; ``order`` counts in the order of the file, a node of a subgraph after the node that holds it."""

    operator: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    order: int


@dataclass(frozen=True)
class Graph:
    """Nodes of the graph and all its subgraphs, and its constants by name."""

    nodes: tuple[Node, ...] = ()
    constants: Mapping[str, Constant] = field(default_factory=dict)


NOTHING = Graph()
"""What is known of a graph that cannot be read."""


def read_graph(path: Path | None) -> Graph:
    """What the model at ``path`` says; :data:`NOTHING` where that cannot be read."""
    try:
        if path is None or not path.is_file():
            return NOTHING
        with mapped(path) as file:
            return parse_graph(file)
    except (OSError, ValueError):
        return NOTHING


def parse_graph(file: Window) -> Graph:
    """What a serialized ModelProto says; as much of it as can be read."""
    reader = _Reader(file)
    try:
        for each in fields(file, 0, file.size):
            if each.number == ModelField.GRAPH and each.wire_type == BYTES:
                reader.graph(each, 0)
    except (WireError, ValueError, IndexError, struct.error):
        pass
    return Graph(tuple(reader.nodes), reader.constants)


class _Reader:
    def __init__(self, window: Window) -> None:
        self.window = window
        self.nodes: list[Node] = []
        self.constants: dict[str, Constant] = {}
        self._order = 0

    def graph(self, message: Field, depth: int) -> None:
        if depth > MAX_DEPTH:
            return
        for each in fields(self.window, message.begin, message.end):
            if each.wire_type != BYTES:
                continue
            if each.number == GraphField.NODE and self._order < MAX_GUESS_NODES:
                self._node(each, depth)
            elif each.number == GraphField.INITIALIZER and len(self.constants) < MAX_CONSTANTS:
                name, constant = self._tensor(each)
                self.constants[name] = constant

    def _node(self, message: Field, depth: int) -> None:
        texts: dict[int, list[str]] = {}
        attributes: dict[str, Attribute] = {}
        order, self._order = self._order, self._order + 1
        stored: Constant | None = None
        for each in fields(self.window, message.begin, message.end):
            if each.wire_type != BYTES:
                continue
            if each.number in _TEXTS_OF_NODE:
                texts.setdefault(each.number, []).append(self._text(each))
            elif each.number == NodeField.ATTRIBUTE:
                name, value, tensor = self._attribute(each, depth)
                stored = tensor or stored
                if value is not None:
                    attributes[name] = value
        inputs, outputs = tuple(texts.get(NodeField.INPUT, ())), tuple(texts.get(NodeField.OUTPUT, ()))
        named = (NodeField.NAME, NodeField.OP_TYPE, NodeField.DOMAIN)
        name, operator, domain = (texts.get(number, [""])[-1] for number in named)
        self.nodes.append(Node(operator, domain, name, inputs, outputs, attributes, order))
        if operator == "Constant" and outputs:
            self.constants[outputs[0]] = stored or _constant_of(attributes)

    def _attribute(self, message: Field, depth: int) -> tuple[str, Attribute | None, Constant | None]:
        name = ""
        value: Attribute | None = None
        tensor: Constant | None = None
        ints: list[int] = []
        floats: list[float] = []
        strings: list[str] = []
        for each in fields(self.window, message.begin, message.end):
            if max(len(ints), len(floats), len(strings)) >= MAX_LISTED:
                # A tree ensemble has millions more. The name comes first: writers keep the order of the numbers.
                break
            match each.number, each.wire_type:
                case AttributeField.NAME, wire.BYTES:
                    name = self._text(each)
                case AttributeField.F, wire.FIXED32:
                    value = self._floats(each)[0]
                case AttributeField.I, wire.VARINT:
                    value = _signed(each.value)
                case AttributeField.S, wire.BYTES:
                    value = self._text(each)
                case AttributeField.T, wire.BYTES:
                    tensor = self._tensor(each)[1]
                case ((AttributeField.G | AttributeField.GRAPHS), wire.BYTES):
                    self.graph(each, depth + 1)
                case AttributeField.FLOATS, _:
                    floats += self._floats(each)[:MAX_LISTED]
                case AttributeField.INTS, _:
                    ints += self._ints(each)[:MAX_LISTED]
                case AttributeField.STRINGS, wire.BYTES:
                    strings.append(self._text(each))
        if ints:
            value = tuple(ints)
        elif floats or strings:
            value = tuple(floats) if floats else tuple(strings)
        return name, value, tensor

    def _tensor(self, message: Field) -> tuple[str, Constant]:
        dims: list[int] = []
        name = ""
        for each in fields(self.window, message.begin, message.end):
            if each.number == TensorField.DIMS:
                dims += self._ints(each)[:MAX_LISTED]
            elif each.number == TensorField.NAME and each.wire_type == BYTES:
                name = self._text(each)
        values: tuple[bool | int | float | str, ...] = ()
        if message.end - message.begin <= SMALL_BYTES:
            try:
                array = parse_tensor(self.window.slice(message.begin, message.end)).array
                values = tuple(array.reshape(-1)[:MAX_LISTED].tolist())
            except TensorError:
                pass
        return name, Constant(tuple(dims), values)

    def _text(self, message: Field) -> str:
        return self.window.slice(message.begin, min(message.end, message.begin + SMALL_BYTES)).decode(errors="replace")

    def _floats(self, message: Field) -> list[float]:
        end = min(message.end, message.begin + 4 * MAX_LISTED)
        content = self.window.slice(message.begin, message.begin + 4 if message.wire_type == FIXED32 else end)
        return [number for (number,) in struct.iter_unpack("<f", content[: len(content) // 4 * 4])]

    def _ints(self, message: Field) -> list[int]:
        if message.wire_type == VARINT:
            return [_signed(message.value)]
        if message.wire_type != BYTES or message.end - message.begin > SMALL_BYTES:
            return []
        return [_signed(value) for value in varints(self.window.slice(message.begin, message.end))]


def _constant_of(attributes: Mapping[str, Attribute]) -> Constant:
    """A Constant node without a tensor: ``value_int``, ``value_floats`` and the like."""
    for value in attributes.values():
        if isinstance(value, tuple):
            return Constant((len(value),), value)
        return Constant((), (value,))
    return Constant(())


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def readers(graph: Graph) -> Mapping[str, tuple[tuple[Node, int], ...]]:
    """The nodes that read each tensor, with the position at which they do."""
    found: dict[str, list[tuple[Node, int]]] = {}
    for node, position, name in _reads(graph):
        found.setdefault(name, []).append((node, position))
    return {name: tuple(nodes) for name, nodes in found.items()}


def _reads(graph: Graph) -> Iterator[tuple[Node, int, str]]:
    for node in graph.nodes:
        for position, name in enumerate(node.inputs):
            if name:
                yield node, position, name
