"""Elements are moved, none is changed: the batch axis is followed."""

from onnx_operator.model.batching.call import Call, Rule, from_the_front, known
from onnx_operator.model.batching.rules.shapes import reshaped
from onnx_operator.model.batching.sizes import ONE, Size, product, quotient
from onnx_operator.model.batching.values import Sizes, UnprovenError, Value

_TO_THE_END = 10**9
"""As exporters write "all": no run has as many rows, for no request has as many bytes."""
_CUTS = "cuts or moves the rows"


def transpose(call: Call) -> Value:
    """Axes in another order."""
    value = call.required(0)
    if value.dims is None:
        if value.batch:
            raise UnprovenError(_CUTS)
        return Value()
    order = call.integers("perm") or list(range(len(value.dims)))[::-1]
    if sorted(order) != list(range(len(value.dims))):
        raise UnprovenError("has an order of axes that does not fit its input")
    dims = tuple(value.dims[each] for each in order)
    return Value(dims, None if value.axis is None else order.index(value.axis))


def flatten(call: Call) -> Value:
    """Two dimensions: those before the axis, and the rest."""
    value = call.required(0)
    if value.dims is None:
        return Value()
    rank = len(value.dims)
    axis = call.integer("axis", 1)
    if not -rank <= axis <= rank:
        raise UnprovenError(f"has an axis outside of the {rank} dimensions of its input")
    axis += rank if axis < 0 else 0
    sides = (product(value.dims[:axis]), product(value.dims[axis:]))
    if not value.batch:
        return Value(tuple(each or call.symbols.size() for each in sides))
    if sides[0] is None or sides[1] is None:
        raise UnprovenError(_CUTS)
    return reshaped(call, value, sides)


def squeeze(call: Call) -> Value:
    """Dimensions of one go."""
    value = call.required(0)
    axes = call.numbers(1, "axes")
    if value.dims is None or (axes is None and (not value.batch or call.input(1) is not None)):
        if value.batch:
            raise UnprovenError("takes away dimensions that are not known")
        return Value()
    if not axes:
        if not value.batch:
            return Value()
        raise UnprovenError("takes away every dimension of one, which the rows may be")
    gone = {from_the_front(axis, len(value.dims)) for axis in axes}
    if value.axis in gone:
        raise UnprovenError("takes away the dimension of the rows")
    kept = [index for index in range(len(value.dims)) if index not in gone]
    return Value(tuple(value.dims[i] for i in kept), None if value.axis is None else kept.index(value.axis))


def unsqueeze(call: Call) -> Value:
    """Dimensions of one are put in."""
    value = call.required(0)
    axes = call.numbers(1, "axes")
    if value.dims is None or axes is None:
        if value.batch:
            raise UnprovenError("puts in dimensions that are not known")
        return Value()
    rank = len(value.dims) + len(axes)
    new = {from_the_front(axis, rank) for axis in axes}
    if len(new) != len(axes):
        raise UnprovenError("puts in one dimension twice")
    old = [index for index in range(rank) if index not in new]
    dims = [ONE] * rank
    for index, size in zip(old, value.dims, strict=True):
        dims[index] = size
    return Value(tuple(dims), None if value.axis is None else old[value.axis])


def concat(call: Call) -> Value:
    """Beside each other, every part with the same rows."""
    values = list(call.given())
    if not any(value.batch for value in values):
        return _joined(call, [known(value) for value in values])
    axes = {value.axis for value in values}
    if len(axes) != 1 or None in axes:
        raise UnprovenError("puts rows beside what are not rows")
    place = axes.pop()
    assert place is not None
    shapes = [known(value) for value in values]
    axis = call.axis(1 if call.opset < 4 else 0, len(shapes[0]))
    if axis == place:
        raise UnprovenError("puts rows behind rows")
    if len({(len(dims), dims[place]) for dims in shapes}) != 1:
        raise UnprovenError("puts rows beside parts of rows")
    return Value(known(_joined(call, shapes)), place)


def _joined(call: Call, shapes: list[Sizes]) -> Value:
    """The shape of all parts together."""
    axis = call.axis(1 if call.opset < 4 else 0, len(shapes[0]))
    if len(set(map(len, shapes))) != 1:
        raise UnprovenError("puts together what has other dimensions")
    plain = [shape[axis].number for shape in shapes]
    total = Size(sum(n for n in plain if n is not None)) if None not in plain else call.symbols.size()
    return Value((*shapes[0][:axis], total, *shapes[0][axis + 1 :]))


def split(call: Call) -> list[Value]:
    """Parts along one axis."""
    value = call.required(0)
    count = len(call.node.output)
    call.only_fixed(1)
    if not value.batch:
        return [Value() for _ in range(count)]
    dims = known(value)
    axis = call.axis(0, len(dims))
    if axis == value.axis:
        raise UnprovenError(_CUTS)
    sizes = call.numbers(1, "split")
    if sizes is not None and len(sizes) == count and min(sizes) >= 0:
        parts = [Size(each) for each in sizes]
    elif call.input(1) is None and (even := quotient(dims[axis], Size(count))) is not None:
        parts = [even] * count
    else:
        parts = [call.symbols.size() for _ in range(count)]
    return [Value((*dims[:axis], part, *dims[axis + 1 :]), value.axis) for part in parts]


def cut(call: Call) -> Value:
    """Slice, of any axis but that of the rows."""
    value = call.required(0)
    call.only_fixed(3, 4)
    if value.dims is None:
        return Value()
    starts, ends = _bounds(call, 1, "starts"), _bounds(call, 2, "ends")
    steps = call.numbers(4) or [1] * len(starts)
    axes = call.numbers(3, "axes")
    if axes is None:
        if call.input(3) is not None:
            raise UnprovenError("cuts along axes that are not known")
        axes = list(range(len(starts)))
    if len({len(starts), len(ends), len(steps), len(axes)}) != 1:
        raise UnprovenError("cuts in a way that is not known")
    if call.input(4) is not None and call.numbers(4) is None:
        raise UnprovenError("cuts in steps that are not known")
    dims = list(value.dims)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        at = from_the_front(axis, len(dims))
        if at == value.axis:
            whole = end == dims[at] or (end.number is not None and end.number >= _TO_THE_END)
            if start.number != 0 or not whole or step != 1:
                raise UnprovenError(_CUTS)
            continue
        if start.rows or end.rows:
            raise UnprovenError("cuts by the number of rows")
        dims[at] = _part(call, dims[at], start, end, step)
    return Value(tuple(dims), value.axis)


def _bounds(call: Call, index: int, name: str) -> list[Size]:
    if name in call.attributes:
        return [Size(each) for each in call.attributes[name].ints]
    found = call.elements(call.required(index))
    if found is None or None in found:
        raise UnprovenError("cuts at places that are not known")
    return [each for each in found if each is not None]


def _part(call: Call, size: Size, start: Size, end: Size, step: int) -> Size:
    if start.number is None or end.number is None or not step:
        return call.symbols.size()
    if size.number is not None:
        return Size(len(_places(size.number, start.number, end.number, step)))
    whole = start.number == 0 and end.number >= _TO_THE_END and step == 1
    return size if whole else call.symbols.size()


def _places(size: int, start: int, end: int, step: int) -> range:
    """What Slice takes of ``size`` elements: with a negative step it clamps otherwise than Python does."""
    low, high = (-1, size - 1) if step < 0 else (0, size)
    first = min(max(start + size if start < 0 else start, max(low, 0)), max(high, 0))
    last = min(max(end + size if end < 0 else end, low), high)
    return range(first, last, step) if size else range(0)


def pad(call: Call) -> Value:
    """Around the elements, none before or behind the rows."""
    value = call.required(0)
    call.only_fixed(1, 2, 3)
    if not value.batch or value.axis is None:
        return Value()
    dims = known(value)
    if "paddings" in call.attributes or call.opset < 2:
        raise UnprovenError("pads as opsets before 2 do")
    pads, axes = call.numbers(1, "pads"), call.numbers(3)
    if axes is None:
        axes = list(range(len(dims)))
        if call.input(3) is not None:
            raise UnprovenError("pads along axes that are not known")
    if pads is None or len(pads) != 2 * len(axes):
        raise UnprovenError("pads by what is not known")
    found = list(dims)
    for index, axis in enumerate(axes):
        more = pads[index], pads[index + len(axes)]
        at = from_the_front(axis, len(dims))
        if more == (0, 0):
            continue
        if at == value.axis:
            raise UnprovenError("pads the rows")
        number = dims[at].number
        found[at] = Size(number + sum(more)) if number is not None and number + sum(more) >= 0 else call.symbols.size()
    return Value(tuple(found), value.axis)


def tile(call: Call) -> Value:
    """Repeated, but never the rows."""
    value = call.required(0)
    call.only_fixed(1)
    if not value.batch or value.axis is None:
        return Value()
    dims = known(value)
    times = call.elements(call.required(1))
    if times is None or len(times) != len(dims) or times[value.axis] != ONE or call.opset < 6:
        raise UnprovenError("repeats the rows, or may")
    found = []
    for size, factor in zip(dims, times, strict=True):
        natural = factor is not None and factor.natural
        found.append((product((size, factor)) if factor is not None and natural else None) or call.symbols.size())
    return Value(tuple(found), value.axis)


def triangle(call: Call) -> Value:
    """Trilu: over the last two dimensions."""
    value = call.required(0)
    call.only_fixed(1)
    if value.batch and (value.axis is None or value.axis >= len(known(value)) - 2):
        raise UnprovenError("treats rows by their place")
    return Value(value.dims, value.axis)


RULES: dict[str, Rule] = {
    "Transpose": transpose,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    "Split": split,
    "Slice": cut,
    "Pad": pad,
    "Tile": tile,
    "Trilu": triangle,
}
