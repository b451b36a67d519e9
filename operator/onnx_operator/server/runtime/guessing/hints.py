"""Which values an input may take, by the operators that read it: categories, axes, sizes, numbers of parts. Pure."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

from onnx_operator.server.dataplane.tensors import TensorInfo
from onnx_operator.server.runtime.guessing.graph import Graph, Node, readers
from onnx_operator.server.runtime.guessing.guess import Value

Shape = tuple[int, ...]
Values = tuple[Value, ...]
ShapeOf = Callable[[str], Shape | None]

_SAME = frozenset({"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose", "Slice", "Expand"})
"""Operators whose result holds their first input's elements, in whatever form."""
_COMPARED = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
_MAX_STEPS = 256
MAX_OPTIONS = 6
MAX_COMBINATIONS = 24

_CATEGORIES = {
    "OneHotEncoder": ("cats_strings", "cats_int64s"),
    "LabelEncoder": ("keys_strings", "keys_int64s", "keys_floats", "classes_strings"),
    "CategoryMapper": ("cats_strings", "cats_int64s"),
    "DictVectorizer": ("string_vocabulary", "int64_vocabulary"),
}

_CONSTANTS: dict[tuple[str, int], tuple[Value, ...]] = {
    ("Expand", 1): (1,),
    ("Tile", 1): (1,),
    ("Pad", 1): (0,),
    ("Slice", 1): (0,),
    ("Slice", 2): (1,),
    ("Slice", 4): (1,),
    ("TopK", 1): (1,),
    ("OneHot", 1): (3,),
    ("OneHot", 2): (0, 1),
    ("Range", 0): (0,),
    ("Range", 1): (3,),
    ("Range", 2): (1,),
    ("Resize", 2): (1.0,),
    ("Upsample", 1): (1.0,),
    ("ConstantOfShape", 0): (1,),
    ("Trilu", 1): (0,),
    ("CumSum", 1): (0,),
    ("STFT", 1): (1,),
    ("STFT", 3): (4,),
    ("CenterCropPad", 1): (1,),
    ("Loop", 0): (1,),
    ("Loop", 1): (True,),
    ("Div", 1): (1,),
    ("Mod", 1): (1,),
    ("MelWeightMatrix", 0): (8,),
    ("MelWeightMatrix", 1): (16,),
    ("MelWeightMatrix", 2): (8192,),
    ("MelWeightMatrix", 3): (0.0,),
    ("MelWeightMatrix", 4): (4000.0,),
}
"""By operator and position: values that are always possible there."""
_AXES = frozenset({("Unsqueeze", 1), ("Slice", 3), ("Pad", 3), ("CenterCropPad", 2), ("Resize", 4)})


class Hints:
    """What a graph tells about the values of its inputs."""

    def __init__(self, graph: Graph, inputs: Sequence[TensorInfo]) -> None:
        self._graph = graph
        readers_of = readers(graph)
        self._uses = {info.name: list(_uses(info.name, readers_of, graph)) for info in inputs}

    def combinations(self, shapes: Mapping[str, Shape]) -> list[dict[str, Values]]:
        """Values by input, those that are likeliest first; none where nothing is known.

        Args:
            shapes: of the inputs, as they are to be filled.
        """

        def shape_of(name: str) -> Shape | None:
            constant = self._graph.constants.get(name)
            return shapes.get(name, constant.dims if constant else None)

        options = {name: self._options(name, shape, shape_of) for name, shape in shapes.items()}
        known = {name: found for name, found in options.items() if found}
        chosen: list[dict[str, Values]] = []
        for values in product(*known.values()):
            if len(chosen) == MAX_COMBINATIONS:
                break
            chosen.append(dict(zip(known, values, strict=True)))
        return [each for each in chosen if each]

    def _options(self, name: str, shape: Shape, shape_of: ShapeOf) -> list[Values]:
        found: list[Values] = []
        columns: dict[int, Value] = {}
        for node, position, column in self._uses.get(name, ()):
            options = list(_wanted(node, position, shape, shape_of, self._graph))
            if column is not None and options:
                columns.setdefault(column, options[0][0])
            else:
                found += [each for each in options if each not in found]
        if columns and shape and max(columns) < shape[-1] <= 4096:
            example = next(iter(columns.values()))
            filler: Value = "" if isinstance(example, str) else 0
            found.insert(0, tuple(columns.get(column, filler) for column in range(shape[-1])))
        return found[:MAX_OPTIONS]


def _uses(
    name: str, readers_of: Mapping[str, Sequence[tuple[Node, int]]], graph: Graph
) -> Iterator[tuple[Node, int, int | None]]:
    """The nodes that read an input's elements, the position, and which column they see where it is one."""
    waiting: list[tuple[str, int | None]] = [(name, None)]
    seen: set[str] = set()
    while waiting and len(seen) < _MAX_STEPS:
        tensor, column = waiting.pop(0)
        if tensor in seen:
            continue
        seen.add(tensor)
        for node, position in readers_of.get(tensor, ()):
            yield node, position, column
            if position == 0 and node.operator in _SAME:
                waiting += [(output, column) for output in node.outputs[:1]]
            elif position == 0 and node.operator in ("ArrayFeatureExtractor", "Gather"):
                index = graph.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
                last = node.operator == "ArrayFeatureExtractor" or node.attributes.get("axis") in (1, -1)
                if last and index and len(index.values) == 1 and column is None:
                    waiting += [(output, _whole(index.values[0])) for output in node.outputs]


def _whole(value: Value) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _wanted(node: Node, position: int, own: Shape, shape_of: ShapeOf, graph: Graph) -> Iterator[Values]:
    """What an input of the shape ``own`` may hold, as this node reads it there."""
    place = (node.operator, position)
    data = shape_of(node.inputs[0]) if node.inputs else None
    if place in _CONSTANTS:
        yield _CONSTANTS[place]
    elif place in _AXES or (node.operator.startswith("Reduce") and position == 1):
        yield tuple(range(max(1, math.prod(own))))
    elif place == ("Squeeze", 1):
        yield tuple(axis for axis, size in enumerate(data or ()) if size == 1) or (0,)
    elif place == ("Reshape", 1):
        count = math.prod(own)
        yield (-1, *[1] * (count - 1)) if count else (1,)
    elif place in (("Split", 1), ("SplitToSequence", 1)):
        yield _parts(node, own, data)
    elif place in (("Resize", 3), ("DFT", 1)) and data:
        yield data if position == 3 else (max(1, data[1]) if len(data) > 1 else 1,)
    elif place == ("AffineGrid", 1) and data:
        yield (data[0], *[2] * (math.prod(own) - 1))
    elif place == ("MaxUnpool", 2) and data:
        yield (*data[:2], *(2 * size for size in data[2:]))
    elif place == ("If", 0):
        yield (True,)
        yield (False,)
    elif node.operator in _CATEGORIES:
        for attribute in _CATEGORIES[node.operator]:
            listed = node.attributes.get(attribute)
            if isinstance(listed, tuple) and listed:
                yield (listed[0],)
    elif node.operator in _COMPARED:
        other = graph.constants.get(node.inputs[1 - position]) if len(node.inputs) == 2 else None
        if other and 0 < len(other.values) <= 8:
            yield from ((value,) for value in other.values)


def _parts(node: Node, own: Shape, data: Shape | None) -> Values:
    """Sizes of parts that make up the whole."""
    count = math.prod(own)
    axis = node.attributes.get("axis", 0)
    if not own or not count or data is None or not isinstance(axis, int) or not -len(data) <= axis < len(data):
        return (1,)
    size = data[axis]
    return (*[size // count] * (count - 1), size - size // count * (count - 1))
