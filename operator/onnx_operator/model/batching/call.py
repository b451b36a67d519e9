"""One node as its rule sees it: what goes in, its attributes, and how to give up."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from onnx_operator.model.batching.graph_pb2 import Attribute, Node
from onnx_operator.model.batching.sizes import Size
from onnx_operator.model.batching.values import FOLLOWED, MAX_FOLLOWED_ELEMENTS, Elements, Sizes, UnprovenError, Value


class Symbols:
    """Makes symbols that nothing else has."""

    def __init__(self) -> None:
        self._made = 0

    def size(self) -> Size:
        """A size that rows do not change."""
        self._made += 1
        return Size(1, (f"s{self._made}",))

    def anything(self) -> Size:
        """A whole number that rows do not change, perhaps negative."""
        self._made += 1
        return Size(1, (f"?{self._made}",))


class Call:
    """A node with its inputs; an absent optional one is None."""

    def __init__(
        self,
        node: Node,
        opset: int,
        inputs: Sequence[Value | None],
        symbols: Symbols,
        attributes: dict[str, Attribute],
        fixed_rows: int,
    ) -> None:
        self.node = node
        self.operator = node.op_type
        self.opset = opset
        self.inputs = list(inputs)
        self.symbols = symbols
        self.attributes = attributes
        self.fixed_rows = fixed_rows
        """How many rows every run has; 0 where that is open."""

    def input(self, index: int) -> Value | None:
        """An input; None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def required(self, index: int) -> Value:
        """An input that must be there."""
        value = self.input(index)
        if value is None:
            raise UnprovenError(f"lacks input {index}")
        return value

    def given(self) -> Iterator[Value]:
        """The inputs that are there."""
        return (value for value in self.inputs if value is not None)

    def integer(self, name: str, default: int) -> int:
        """An attribute."""
        found = self.attributes.get(name)
        return found.i if found is not None else default

    def integers(self, name: str) -> list[int] | None:
        """An attribute; None where it is left out."""
        found = self.attributes.get(name)
        return list(found.ints) if found is not None else None

    def text(self, name: str, default: str) -> str:
        """An attribute."""
        found = self.attributes.get(name)
        return found.s.decode(errors="replace") if found is not None else default

    def axis(self, default: int, rank: int, name: str = "axis") -> int:
        """The attribute ``axis``, counted from the front."""
        return from_the_front(self.integer(name, default), rank)

    def elements(self, value: Value) -> Elements | None:
        """The numbers in a tensor that holds no rows; those that are not followed get symbols.

        Only of types that numbers are followed in: others wrap sooner, round, or are not equal to themselves.
        """
        if value.batch:
            return None
        if value.elements is not None:
            return value.elements
        if value.counted or value.dims is None or value.kind not in FOLLOWED:
            return None
        count = 1
        for size in value.dims:
            if size.number is None or (count := count * size.number) > MAX_FOLLOWED_ELEMENTS:
                return None
        return tuple(self.symbols.anything() for _ in range(count))

    def numbers(self, index: int, name: str = "") -> list[int] | None:
        """Whole numbers of an input, or of the attribute ``name`` where older opsets have them; None where unknown."""
        if name and name in self.attributes:
            return list(self.attributes[name].ints)
        value = self.input(index)
        if value is None or value.elements is None:
            return None
        found = [None if element is None else element.number for element in value.elements]
        return [each for each in found if each is not None] if None not in found else None

    def only_fixed(self, *indices: int) -> None:
        """Raise unless these inputs, where given, are the same in every run."""
        for index in indices:
            value = self.input(index)
            if value is not None and not value.fixed:
                raise UnprovenError(f"takes its input {index} from the rows of the request")


def from_the_front(axis: int, rank: int) -> int:
    """Count an axis from the front. Raises :class:`UnprovenError` for one that is not there."""
    if not -rank <= axis < rank:
        raise UnprovenError(f"has an axis outside of the {rank} dimensions of its input")
    return axis % rank


def known(value: Value) -> Sizes:
    """The shape of a tensor. Raises :class:`UnprovenError` where it is not known."""
    if value.dims is None:
        raise UnprovenError("takes a tensor whose number of dimensions is not known")
    return value.dims


Rule = Callable[[Call], "Value | list[Value]"]
Array = Any
