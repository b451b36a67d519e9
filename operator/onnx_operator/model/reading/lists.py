"""Lists in attributes, of which tree ensembles have some with millions of elements: left out of what is parsed.

A parsed list takes several times the room of its bytes, and every check copies it, though none looks at a tree's nodes.
The runtime does, and gets the bytes as they were written.
"""

import re
from collections import Counter
from collections.abc import Iterator

from onnx import AttributeProto, ModelProto

from onnx_operator.model.nodes import all_graphs
from onnx_operator.model.reading.numbers import AttributeField, GraphField, ModelField, NodeField
from onnx_operator.model.reading.window import Memory, Window
from onnx_operator.model.reading.wire import (
    BYTES,
    RUN,
    Field,
    fields,
    fixed_numbers,
    head,
    run_of,
    short_texts,
    whole_numbers,
)

LONG_BYTES = 256 << 10
"""Of an attribute of a tree ensemble whose lists are left out."""
_KEEP_IN_ALL_BYTES = 48 << 20
"""Of lists that are kept for the runtime, which takes eleven times as much for them."""
_FLOATS, _INTS, _TEXTS = AttributeField.FLOATS, AttributeField.INTS, AttributeField.STRINGS
_DOC_STRING = AttributeField.DOC_STRING
ELEMENTS = run_of(fixed_numbers(_FLOATS), whole_numbers(_INTS), short_texts(_TEXTS))
"""Elements that are fields of their own, as nearly all files have them."""
_ONE = run_of(fixed_numbers(_FLOATS), whole_numbers(_INTS), short_texts(_TEXTS), most=1)
_MARK = "left out: "
_MARKED = re.compile(_MARK + "([0-9]{1,9}) of ([0-9]{1,10}) to ([0-9]{1,10})", re.ASCII)
_CONTINUED = bytes(range(0x80, 0x100))
"""All bytes of a number but its last."""
_MAX_NUMBER_LENGTH = 10
_DESCENT = {
    "Model": {ModelField.GRAPH: "Graph"},
    "Graph": {GraphField.NODE: "Node"},
    "Node": {NodeField.ATTRIBUTE: "Attribute"},
    "Attribute": {AttributeField.G: "Graph", AttributeField.GRAPHS: "Graph"},
}
"""Where attributes with lists can be, by message and field."""


class LongLists:
    """The lists of a model that were left out, as long as they are not too many."""

    def __init__(self) -> None:
        self.whole = True
        """Whether all of them are kept."""
        self._kept: list[bytes] = []
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._kept) or not self.whole

    def has_room(self, size: int) -> bool:
        """Count bytes that are about to be kept; where they are too many, forget all."""
        self._bytes += size
        if self._bytes > _KEEP_IN_ALL_BYTES:
            self.whole = False
            self._kept.clear()
        return self.whole

    def keep(self, written: bytearray) -> int:
        """Keep the fields of one list; returns its index."""
        if self.whole:
            self._kept.append(bytes(written))
        return max(0, len(self._kept) - 1)

    def put_back(self, model: bytes) -> bytes:
        """A serialized model with its lists again, each once."""
        out = bytearray()
        waiting = dict(enumerate(self._kept))
        window = Memory(model)
        self._put_back(window, Field(0, BYTES, 0, 0, len(model), 0), "Model", out, waiting)
        return bytes(out)

    def _put_back(self, window: Window, message: Field, kind: str, out: bytearray, waiting: dict[int, bytes]) -> None:
        lists = b""
        if kind == "Attribute":
            texts = fields(window, message.begin, message.end, ELEMENTS)
            mark = next((window.slice(each.begin, each.end) for each in texts if each.number == _DOC_STRING), b"")
            lists = waiting.pop(_left_out(mark.decode(errors="replace"))[0], b"")
        descent = _DESCENT[kind]
        for each in fields(window, message.begin, message.end, ELEMENTS if kind == "Attribute" else None):
            if each.number in descent and each.wire_type == BYTES:
                inner = bytearray()
                self._put_back(window, each, descent[each.number], inner, waiting)
                out += head(each.number, len(inner))
                out += inner
            elif not (lists and each.number in (RUN, _FLOATS, _INTS, _TEXTS, _DOC_STRING)):
                window.append_to(out, each.start, each.end)
        out += lists


class ListReader:
    """Takes the lists out of one attribute."""

    def __init__(self, window: Window, lists: LongLists) -> None:
        self._window = window
        self._lists = lists
        self._written = bytearray()
        self._first = b""
        self._count = 0
        self._last = 0

    def take(self, field: Field) -> bool:
        """Take a field, where it is of a list."""
        if field.number not in (RUN, _FLOATS, _INTS, _TEXTS):
            return False
        self._first = self._first or self._one(field)
        if field.number == _FLOATS and field.wire_type == BYTES:
            self._count += (field.end - field.begin) // 4
        else:
            self._count += sum(_counted(field, piece) for piece in self._pieces(field))
        self._last = _last_of(self._window.slice(max(field.begin, field.end - _MAX_NUMBER_LENGTH), field.end))
        if self._lists.has_room(field.end - field.start):
            self._window.append_to(self._written, field.start, field.end)
        else:
            self._written.clear()
        return True

    def finish(self, out: bytearray) -> None:
        """Append what stands for the lists: an element, and a mark with their length."""
        if self._first:
            mark = f"{_MARK}{self._lists.keep(self._written)} of {self._count} to {self._last}".encode()
            out += self._first + head(_DOC_STRING, len(mark)) + mark

    def _one(self, field: Field) -> bytes:
        """A first element, as a field."""
        beginning = self._window.slice(field.begin, min(field.end, field.begin + (1 << 12)))
        if field.number == RUN:
            matched = _ONE.match(beginning)
            return matched.group() if matched else b""
        if field.wire_type != BYTES or field.number == _TEXTS:
            return head(_TEXTS, 0)
        size = 4
        if field.number == _INTS:
            number = beginning[:_MAX_NUMBER_LENGTH]
            size = next((at for at, byte in enumerate(number, 1) if byte < 0x80), 0)
        return head(field.number, len(beginning[:size])) + beginning[:size]

    def _pieces(self, field: Field) -> Iterator[bytes]:
        at = field.begin
        while at < field.end:
            buffer, first = self._window.around(at, 1)
            end = min(field.end, first + len(buffer))
            yield buffer[at - first : end - first]
            at = end


def without_stand_ins(model: ModelProto) -> ModelProto:
    """The model with empty lists where some were left out, for a reader to whom their first elements say nothing."""
    nodes = [node for graph in all_graphs(model.graph) for node in graph.node]
    if not any(_left_out(each.doc_string)[1] for node in nodes for each in node.attribute):
        return model
    emptied = ModelProto()
    emptied.CopyFrom(model)
    for graph in all_graphs(emptied.graph):
        for attribute in (each for node in graph.node for each in node.attribute):
            if _left_out(attribute.doc_string)[1]:
                del attribute.ints[:], attribute.floats[:], attribute.strings[:]
    return emptied


def list_length(attribute: AttributeProto) -> int:
    """How many numbers an attribute lists, also where they were left out."""
    return _left_out(attribute.doc_string)[1] or max(len(attribute.ints), len(attribute.floats))


def floats_length(attribute: AttributeProto) -> int:
    """How many of them are floating-point ones."""
    return list_length(attribute) if attribute.floats else 0


def trees_by_nodes(attribute: AttributeProto) -> dict[int, int]:
    """How many trees have so many nodes, from the attribute with each node's tree; averages where it was left out."""
    _, count, last = _left_out(attribute.doc_string)
    if not count:
        return Counter(Counter(attribute.ints).values())
    trees = min(last + 1, count)
    return {count // trees: trees}


def _left_out(mark: str) -> tuple[int, int, int]:
    """Which list was left out, its length, and its last number. A file may say so itself, of its own attributes."""
    matched = _MARKED.fullmatch(mark)
    return (int(matched[1]), int(matched[2]), int(matched[3])) if matched else (-1, 0, 0)


def _last_of(end: bytes) -> int:
    """The last number that ends there; 0 for what is no number of trees."""
    begin = next((at for at in range(len(end) - 1, 0, -1) if end[at - 1] < 0x80), 0)
    value = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(end[begin:]))
    return value if value < 1 << 31 else 0


def _counted(field: Field, piece: bytes) -> int:
    """Numbers in a part of a field, which may be a row of whole fields."""
    if field.number == RUN:
        # By the tag, which is a byte like the last one of a number.
        number = piece[0] >> 3
        return {_FLOATS: len(piece) // 5, _INTS: len(piece.translate(None, _CONTINUED)) // 2}.get(number, 0)
    return len(piece.translate(None, _CONTINUED)) if field.number == _INTS else 0
