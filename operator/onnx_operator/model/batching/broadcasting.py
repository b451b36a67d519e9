"""Shapes that are stretched to each other: whether every row still meets only itself."""

from collections.abc import Sequence

from onnx_operator.model.batching.call import Symbols
from onnx_operator.model.batching.sizes import ONE, Size
from onnx_operator.model.batching.values import Sizes, UnprovenError, Value


def broadcast(values: Sequence[Value], symbols: Symbols) -> Value:
    """The shape, and the batch axis, of what is made of ``values`` element by element.

    Raises :class:`UnprovenError` where rows would meet, or might.
    """
    batch = [value for value in values if value.batch]
    shapes: list[Sizes] = []
    for value in values:
        if value.dims is None:
            if batch:
                raise UnprovenError("is given a tensor whose number of dimensions is not known")
            return Value()
        shapes.append(value.dims)
    rank = max(map(len, shapes), default=0)
    place = _place(batch)
    dims: list[Size] = []
    for position in range(-rank, 0):
        sizes = [shape[position] for shape in shapes if len(shape) >= -position]
        if position == place:
            dims.append(_rows(values, position))
        else:
            dims.append(_stretched(sizes, symbols))
    return Value(tuple(dims), axis=None if place is None else rank + place)


def _place(batch: Sequence[Value]) -> int | None:
    """Where the rows are, counted from the last dimension, as shapes are aligned."""
    places = {value.axis - len(value.dims) for value in batch if value.axis is not None and value.dims is not None}
    if len(places) > 1:
        raise UnprovenError("meets the rows of one input with another dimension of the other")
    return places.pop() if places else None


def _rows(values: Sequence[Value], position: int) -> Size:
    sizes = set()
    for value in values:
        assert value.dims is not None
        if len(value.dims) < -position:
            continue
        size = value.dims[position]
        if value.batch:
            sizes.add(size)
        elif size != ONE:
            raise UnprovenError("meets the rows with a tensor that has a dimension of its own there")
    if len(sizes) != 1:
        raise UnprovenError("meets rows with parts of rows")
    return sizes.pop()


def _stretched(sizes: Sequence[Size], symbols: Symbols) -> Size:
    distinct = set(sizes) - {ONE}
    if len(distinct) <= 1:
        return distinct.pop() if distinct else ONE
    numbers = [size for size in distinct if size.number is not None]
    return numbers[0] if numbers else symbols.size()
