"""Which outputs are class scores by name, and what to change in a file for them to be tensors.

Converters of scikit-learn, XGBoost, LightGBM and CatBoost end a classifier with ``ZipMap``, which makes a map from
class to score of every row: no protocol but ``/score`` can carry that, and no two requests can share it. Where an
output of the graph is such a sequence, its ``ZipMap`` is replaced by ``Identity`` of the same name, and the labels are
told. One in a branch of an ``If`` or in a local function stays: which branch makes the maps is known only when it
runs, and a function may be called elsewhere too.

Only the few bytes that change are parsed.
"""

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnx_operator.model.elements import Element
from onnx_operator.model.reading.numbers import (
    AttributeField,
    GraphField,
    ModelField,
    NodeField,
    TensorTypeField,
    TypeField,
    ValueInfoField,
)
from onnx_operator.model.reading.window import Memory, Window
from onnx_operator.model.reading.wire import BYTES, VARINT, Field, WireError, fields, head, varints

Classes = tuple[int, ...] | tuple[str, ...]

MAX_GRAPH_FIELDS = 500_000
"""Nodes, weights and tensors of a graph; larger ones stay as they are."""
MAX_LABEL_BYTES = 1 << 20
"""Of one ``ZipMap`` node."""
_FLOAT_TENSOR = (
    head(ValueInfoField.TYPE, 4)
    + head(TypeField.TENSOR_TYPE, 2)
    + bytes([TensorTypeField.ELEM_TYPE << 3 | VARINT, Element.FLOAT])
)
"""``type`` of a ValueInfoProto: a tensor of FLOAT, its shape left to inference."""


@dataclass(frozen=True)
class Edit:
    """Bytes of the file that others take the place of."""

    start: int
    end: int
    content: bytes


@dataclass(frozen=True)
class Change:
    """What to change in a file: within the graph, whose own head is among the edits. In the order of the file."""

    edits: tuple[Edit, ...] = ()
    classes: Mapping[str, Classes] = field(default_factory=dict)
    """The labels of each output that became a tensor, in the order of its columns."""


def find_change(content: bytes | mmap.mmap) -> Change:
    """What is to be changed in a file. Nothing where it cannot be read, or holds anything unexpected."""
    try:
        return _Reader(Memory(content)).change()
    except (WireError, ValueError, IndexError):
        return Change()


class _Reader:
    def __init__(self, window: Window) -> None:
        self._window = window

    def change(self) -> Change:
        graphs = [each for each in fields(self._window, 0, self._window.size) if each.number == ModelField.GRAPH]
        if len(graphs) != 1 or graphs[0].wire_type != BYTES:
            return Change()
        graph = graphs[0]
        nodes: list[Field] = []
        told: dict[int, list[Field]] = {GraphField.OUTPUT: [], GraphField.VALUE_INFO: []}
        for count, each in enumerate(fields(self._window, graph.begin, graph.end)):
            if count > MAX_GRAPH_FIELDS:
                return Change()
            if each.number == GraphField.NODE:
                nodes.append(each)
            elif each.number in told:
                told[each.number].append(each)
        outputs = {
            self._text(each, ValueInfoField.NAME): each for each in told[GraphField.OUTPUT] if self._is_sequence(each)
        }
        found: dict[str, tuple[Edit, Classes]] = {}
        for each in nodes if outputs else ():
            replaced = self._replaced(each, outputs)
            if replaced is not None:
                found[replaced[0]] = replaced[1:]
        if not found:
            return Change()
        edits = [edit for edit, _ in found.values()]
        for name in found:
            output = outputs[name]
            body = head(ValueInfoField.NAME, len(name.encode())) + name.encode() + _FLOAT_TENSOR
            edits.append(Edit(output.start, output.end, head(GraphField.OUTPUT, len(body)) + body))
        for each in told[GraphField.VALUE_INFO]:
            if self._text(each, ValueInfoField.NAME) in found:
                edits.append(Edit(each.start, each.end, b""))
        edits.sort(key=lambda edit: edit.start)
        size = graph.end - graph.begin + sum(len(edit.content) - (edit.end - edit.start) for edit in edits)
        edits.insert(0, Edit(graph.start, graph.begin, head(ModelField.GRAPH, size)))
        return Change(tuple(edits), {name: classes for name, (_, classes) in found.items()})

    def _is_sequence(self, value: Field) -> bool:
        kinds = [each for each in fields(self._window, value.begin, value.end) if each.number == ValueInfoField.TYPE]
        return any(
            each.number == TypeField.SEQUENCE_TYPE
            for kind in kinds[-1:]
            for each in fields(self._window, kind.begin, kind.end)
        )

    def _replaced(self, node: Field, outputs: Mapping[str, Field]) -> tuple[str, Edit, Classes] | None:
        """The output that the node makes, ``Identity`` in its place, and its labels; None for any other node."""
        found: dict[int, list[Field]] = {}
        for each in fields(self._window, node.begin, node.end):
            if each.wire_type == BYTES:
                found.setdefault(each.number, []).append(each)
        operators, domains = found.get(NodeField.OP_TYPE, []), found.get(NodeField.DOMAIN, [])
        if not operators or operators[-1].end - operators[-1].begin != len("ZipMap"):
            return None
        if self._content(operators[-1]) != b"ZipMap" or not domains or self._content(domains[-1]) != b"ai.onnx.ml":
            return None
        made = [self._content(each) for each in found.get(NodeField.OUTPUT, ())]
        if len(made) != 1 or len(found.get(NodeField.INPUT, ())) != 1 or made[0].decode() not in outputs:
            return None
        classes = self._classes(found.get(NodeField.ATTRIBUTE, []))
        if not classes or len(set(classes)) != len(classes):
            return None
        kept = [
            each
            for number in (NodeField.INPUT, NodeField.OUTPUT, NodeField.NAME)
            for each in found.get(number, ())[-1:]
        ]
        body = b"".join(self._window.slice(each.start, each.end) for each in kept)
        body += head(NodeField.OP_TYPE, len(b"Identity")) + b"Identity"
        return made[0].decode(), Edit(node.start, node.end, head(GraphField.NODE, len(body)) + body), classes

    def _classes(self, attributes: Sequence[Field]) -> Classes:
        texts: list[str] = []
        numbers: list[int] = []
        for attribute in attributes:
            if attribute.end - attribute.begin > MAX_LABEL_BYTES:
                return ()
            name = self._text(attribute, AttributeField.NAME)
            for each in fields(self._window, attribute.begin, attribute.end):
                if name == "classlabels_strings" and each.number == AttributeField.STRINGS:
                    texts.append(self._content(each).decode())
                elif name == "classlabels_int64s" and each.number == AttributeField.INTS:
                    values = [each.value] if each.wire_type == VARINT else varints(self._content(each))
                    numbers += [value - (1 << 64) if value >> 63 else value for value in values]
        if texts and numbers:
            return ()
        return tuple(texts) or tuple(numbers)

    def _text(self, message: Field, number: int) -> str:
        found = [each for each in fields(self._window, message.begin, message.end) if each.number == number]
        return self._content(found[-1]).decode() if found else ""

    def _content(self, each: Field) -> bytes:
        if each.wire_type != BYTES:
            raise WireError(f"field {each.number} has the wire type {each.wire_type}", each.start)
        return self._window.slice(each.begin, each.end)
