"""Shapes as values: the numbers that Shape makes, what is computed of them, and what they then shape."""

from collections.abc import Callable, Sequence

from onnx_operator.model.batching.broadcasting import broadcast
from onnx_operator.model.batching.call import Call, Rule, known
from onnx_operator.model.batching.sizes import MINUS_ONE, ONE, ROWS, ZERO, Size, product, quotient
from onnx_operator.model.batching.tensors import constant, from_array
from onnx_operator.model.batching.values import MAX_FOLLOWED_ELEMENTS, Elements, Sizes, UnprovenError, Value
from onnx_operator.model.elements import Element

_NOT_FOLLOWED = "takes a shape that depends on the number of rows in a way that is not followed"


_ROW_BITS, _SIZE_BITS = 16, 22
_LEAST: dict[int, int] = {Element.INT32: -(2**31), Element.INT64: -(2**63), Element.BOOL: 0}
_LARGEST: dict[int, int] = {Element.INT32: 2**31 - 1, Element.INT64: 2**63 - 1, Element.BOOL: 1}


def numbers(dims: Sizes | None, elements: Elements) -> Value:
    """A small tensor of followed numbers."""
    return Value(dims, elements=elements, counted=any(each is None or each.rows for each in elements))


def shape(call: Call) -> Value:
    """The sizes of a tensor, or some of them."""
    value = call.required(0)
    if value.dims is None:
        if value.batch:
            raise UnprovenError(_NOT_FOLLOWED)
        return Value((call.symbols.size(),))
    first, last, _ = slice(call.integer("start", 0), call.integer("end", len(value.dims))).indices(len(value.dims))
    found = value.dims[first:last]
    return numbers((Size(len(found)),), found)


def counting(call: Call) -> Value:
    """Range: a vector."""
    call.only_fixed(*range(len(call.inputs)))
    return Value((call.symbols.size(),))


def size(call: Call) -> Value:
    """How many elements there are."""
    value = call.required(0)
    if value.dims is None:
        return Value(())
    return numbers((), (product(value.dims),))


def _combine(call: Call, operator: str, a: Size | None, b: Size | None) -> Size | None:
    """Compute with two followed numbers; None where the number of rows has a part in it that cannot be followed."""
    kind = call.required(0).kind
    if a is None or b is None:
        return None
    if a.number is not None and b.number is not None:
        found = _plain(operator, a.number, b.number)
        fits = found is not None and (operator in _COMPARISONS or _fits(found, kind))
        return Size(found) if found is not None and fits else call.symbols.anything()
    if operator == "Mul":
        followed = _times((a, b), kind)
    elif operator == "Div":
        followed = quotient(a, b)
    elif operator in ("Add", "Sub"):
        followed = a if b == ZERO else b if a == ZERO and operator == "Add" else None
    elif operator in ("Max", "Min"):
        followed = a if a == b else None
    elif operator == "Equal":
        followed = _equal(a, b)
    else:
        followed = None
    if followed is not None:
        return followed
    return None if a.rows or b.rows else call.symbols.anything()


_COMPARISONS = frozenset({"Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"})


def _fits(number: int, kind: int | None) -> bool:
    """Whether a number does not wrap, nor is so large that it is not followed."""
    return kind in _LEAST and _LEAST[kind] <= number <= _LARGEST[kind]


def _has_room(size: Size, kind: int | None) -> bool:
    """Whether a number, or a product of sizes, does not wrap: no run has so many rows, nor a row so long a dimension.

    ``?`` stands for any number: twice as much of it may wrap.
    """
    if size.number is not None:
        return _fits(size.number, kind)
    bits = size.coefficient.bit_length() + _ROW_BITS * size.rows + _SIZE_BITS * (len(size.symbols) - size.rows)
    return size.natural and kind in _LARGEST and bits <= _LARGEST[kind].bit_length()


def _times(factors: Sequence[Size], kind: int | None) -> Size | None:
    """A product, where it does not wrap."""
    several = [each for each in factors if each != ONE]
    if len(several) == 1:
        return several[0]
    found = product(factors)
    return found if found is not None and _has_room(found, kind) else None


def _equal(a: Size, b: Size) -> Size | None:
    if a == b:
        return ONE
    below = [size for size in (a, b) if size.number is not None and size.number < 0]
    return ZERO if below and any(size.natural for size in (a, b)) else None


def _plain(operator: str, a: int, b: int) -> int | None:
    if operator in ("Div", "Mod"):
        if not b:
            return None
        # As C divides: towards zero.
        if operator == "Div":
            return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return a % b if min(a, b) >= 0 else None
    made: dict[str, Callable[[int, int], int]] = {
        "Add": lambda x, y: x + y,
        "Sub": lambda x, y: x - y,
        "Mul": lambda x, y: x * y,
        "Max": max,
        "Min": min,
        "Equal": lambda x, y: int(x == y),
        "Greater": lambda x, y: int(x > y),
        "Less": lambda x, y: int(x < y),
        "GreaterOrEqual": lambda x, y: int(x >= y),
        "LessOrEqual": lambda x, y: int(x <= y),
    }
    return made[operator](a, b) if operator in made else None


def _spread(call: Call, *indices: int) -> tuple[Sizes | None, list[Elements]] | None:
    """The followed numbers of some inputs, broadcast to each other; None where they are not vectors or scalars."""
    found = []
    for index in indices:
        value = call.required(index)
        elements = call.elements(value)
        if elements is None or value.dims is None or len(value.dims) > 1:
            return None
        found.append((value.dims, elements))
    count = max(len(elements) for _, elements in found)
    if any(len(elements) not in (1, count) for _, elements in found):
        return None
    dims = max((dims for dims, _ in found), key=len)
    return (Size(count),) if dims else (), [each if len(each) == count else each * count for _, each in found]


def arithmetic(call: Call) -> Value | None:
    """Two numbers at a time."""
    spread = _spread(call, 0, 1) if len(call.inputs) == 2 else None
    if spread is None:
        return None
    dims, (first, second) = spread
    pairs = zip(first, second, strict=True)
    return numbers(dims, tuple(_combine(call, call.operator, a, b) for a, b in pairs))


def choice(call: Call) -> Value | None:
    """Where, on numbers."""
    spread = _spread(call, 0, 1, 2)
    if spread is None:
        return None
    dims, (conditions, first, second) = spread
    chosen: list[Size | None] = []
    for condition, a, b in zip(conditions, first, second, strict=True):
        if condition is not None and condition.number is not None:
            chosen.append(a if condition.number else b)
        elif condition is None or a is None or b is None or a.rows or b.rows:
            chosen.append(None)
        else:
            chosen.append(a if a == b else call.symbols.anything())
    return numbers(dims, tuple(chosen))


def same_numbers(call: Call) -> Value | None:
    """Identity, a cast between whole numbers, and what changes the shape alone."""
    value = call.required(0)
    elements = call.elements(value)
    if elements is None:
        return None
    if call.operator == "Cast":
        kind = call.integer("to", 0)
        if kind not in (Element.INT32, Element.INT64):
            return None
        return numbers(value.dims, tuple(_narrowed(call, each, kind) for each in elements))
    if call.operator == "Identity":
        return numbers(value.dims, elements)
    # Squeeze, Unsqueeze and Reshape of a vector or a scalar.
    dims: Sizes | None = None
    if call.operator == "Reshape":
        target = call.numbers(1, "shape")
        if target in ([-1], [len(elements)]):
            dims = (Size(len(elements)),)
        elif target == [] and len(elements) == 1:
            dims = ()
    elif call.operator == "Squeeze" and value.dims == (ONE,):
        dims = ()
    elif call.operator == "Unsqueeze" and value.dims == () and call.numbers(1, "axes") in ([0], [-1]):
        dims = (ONE,)
    return None if dims is None else numbers(dims, elements)


def _narrowed(call: Call, element: Size | None, kind: int) -> Size | None:
    """A number in another type."""
    if element is None or kind == Element.INT64 or call.required(0).kind == kind:
        return element
    if _has_room(element, kind):
        return element
    return None if element.rows else call.symbols.anything()


def joined(call: Call) -> Value | None:
    """Concat of vectors."""
    found: list[Size | None] = []
    for value in call.given():
        elements = call.elements(value)
        if elements is None or value.dims is None or len(value.dims) != 1:
            return None
        found += elements
    if len(found) > MAX_FOLLOWED_ELEMENTS:
        return None
    return numbers((Size(len(found)),), tuple(found))


def picked(call: Call) -> Value | None:
    """Gather from a vector."""
    data, places = call.required(0), call.required(1)
    elements, at = call.elements(data), call.numbers(1)
    if elements is None or at is None or data.dims is None or len(data.dims) != 1:
        return None
    if any(not -len(elements) <= place < len(elements) for place in at):
        return None
    return numbers(places.dims, tuple(elements[place] for place in at))


def cut(call: Call) -> Value | None:
    """Slice of a vector."""
    data = call.required(0)
    elements = call.elements(data)
    starts, ends = call.numbers(1, "starts"), call.numbers(2, "ends")
    axes, steps = call.numbers(3, "axes"), call.numbers(4)
    if elements is None or data.dims is None or len(data.dims) != 1:
        return None
    if not starts or not ends or len(starts) != 1 or len(ends) != 1 or (axes or [0]) not in ([0], [-1]):
        return None
    if (call.input(3) is not None and axes is None) or (call.input(4) is not None and steps is None):
        return None
    step = (steps or [1])[0]
    if step < 1:
        return None
    found = elements[slice(starts[0], ends[0], step)]
    return numbers((Size(len(found)),), found)


def multiplied(call: Call) -> Value | None:
    """ReduceProd of a vector."""
    elements = call.elements(call.required(0))
    dims = call.required(0).dims
    if elements is None or None in elements or dims is None or len(dims) != 1:
        return None
    if call.integer("noop_with_empty_axes", 0):
        return None
    total = _times([each for each in elements if each is not None], call.required(0).kind)
    kept = (ONE,) if call.integer("keepdims", 1) else ()
    return None if total is None else numbers(kept, (total,))


def filled(call: Call) -> Value:
    """ConstantOfShape: all rows are alike."""
    target = call.elements(call.required(0))
    stored = call.attributes.get("value")
    made = constant(stored.t) if stored is not None and stored.HasField("t") else Value(kind=Element.FLOAT)
    value, kind = made.elements, made.kind
    if target is None or None in target:
        if call.required(0).counted:
            raise UnprovenError(_NOT_FOLLOWED)
        return Value(kind=kind)
    dims = tuple(each for each in target if each is not None)
    total = product(dims)
    if total is not None and total.number is not None and 0 <= total.number <= MAX_FOLLOWED_ELEMENTS and value:
        return Value(dims, elements=value * total.number, kind=kind)
    return Value(dims, _place_of_rows(dims), kind=kind)


def _place_of_rows(dims: Sizes) -> int | None:
    holders = [index for index, each in enumerate(dims) if each.rows]
    if not holders:
        return None
    if len(holders) > 1 or dims[holders[0]].rows > 1 or not dims[holders[0]].natural:
        raise UnprovenError("has the number of rows in its shape more than once, or multiplied by what is not known")
    return holders[0]


def expand(call: Call) -> Value:
    """Stretched to a shape, which may hold the number of rows."""
    value = call.required(0)
    target = call.elements(call.required(1))
    if target is None or None in target:
        if value.batch or call.required(1).counted:
            raise UnprovenError(_NOT_FOLLOWED)
        return Value()
    dims = tuple(each for each in target if each is not None)
    if any(not each.natural for each in dims) and value.batch:
        raise UnprovenError("is stretched to a shape that is not followed")
    return broadcast([value, Value(dims, _place_of_rows(dims))], call.symbols)


def reshape(call: Call) -> Value:
    """The rows stay whole where as many elements lie before them as before."""
    value = call.required(0)
    if "shape" in call.attributes:
        target: Elements | None = tuple(Size(each) for each in call.attributes["shape"].ints)
    else:
        target = call.elements(call.required(1))
    if target is None:
        if value.batch or call.required(1).counted:
            raise UnprovenError(_NOT_FOLLOWED)
        return Value()
    if not value.batch:
        return Value(_plain_shape(call, value, target))
    return reshaped(call, value, target)


def _plain_shape(call: Call, value: Value, target: Elements) -> Sizes:
    """Of a tensor without rows."""
    if any(each is None or each.rows for each in target):
        raise UnprovenError("gives a tensor without rows a shape that depends on their number")
    total = product(value.dims) if value.dims is not None else None
    rest = product([each for each in target if each not in (None, MINUS_ONE)])
    found: list[Size] = []
    for index, each in enumerate(target):
        if each == MINUS_ONE:
            inferred = quotient(total, rest) if total is not None and rest is not None else None
            found.append(inferred or call.symbols.size())
        elif each == ZERO and not call.integer("allowzero", 0):
            copied = value.dims[index] if value.dims is not None and index < len(value.dims) else None
            found.append(copied or call.symbols.size())
        else:
            found.append(each if each is not None and each.natural else call.symbols.size())
    return tuple(found)


def reshaped(call: Call, value: Value, target: Elements) -> Value:
    """Give a tensor with rows another shape. Raises :class:`UnprovenError` where rows would be merged or cut."""
    dims, axis = known(value), value.axis
    assert axis is not None
    if ZERO in dims:
        raise UnprovenError("gives another shape to a tensor without elements")
    wanted: list[Size | None] = []
    inferred = None
    for index, each in enumerate(target):
        if each is None:
            raise UnprovenError(_NOT_FOLLOWED)
        if each == MINUS_ONE and inferred is None:
            inferred = index
            wanted.append(None)
        elif each == ZERO:
            if call.integer("allowzero", 0) or index >= len(dims):
                raise UnprovenError("gives a shape with a size of zero")
            wanted.append(dims[index])
        elif each.coefficient < 0:
            raise UnprovenError("gives a shape with a negative size")
        else:
            # What may be 0 or -1 stands for another size than its own.
            wanted.append(each if each.natural else call.symbols.size())
    if call.fixed_rows and axis == 0 and wanted and wanted[0] == Size(call.fixed_rows):
        wanted[0] = Size(1, (ROWS,))
    if inferred is not None:
        wanted[inferred] = _inferred(call, dims, [each for each in wanted if each is not None])
    shape = tuple(each for each in wanted if each is not None)
    place = _place_of_rows(shape)
    if place is None or product(shape[:place]) != product(dims[:axis]) or product(dims[:axis]) is None:
        raise UnprovenError("merges rows into another dimension, or cuts them")
    return Value(shape, place)


def _inferred(call: Call, dims: Sizes, others: list[Size]) -> Size:
    total, rest = product(dims), product(others)
    found = quotient(total, rest) if total is not None and rest is not None else None
    if found is not None:
        return found
    if any(each.rows for each in others):
        return call.symbols.size()
    raise UnprovenError("gives a shape of which it is not known that it keeps the rows apart")


def constant_node(call: Call) -> Value:
    """A stored value, in one of its forms."""
    import numpy as np

    for name, attribute in call.attributes.items():
        if name == "value":
            return constant(attribute.t)
        if name == "value_int":
            return from_array(np.array(attribute.i, np.int64))
        if name == "value_float":
            return from_array(np.array(attribute.f, np.float32))
        if name in ("value_ints", "value_floats"):
            many = attribute.ints or attribute.floats
            if len(many) > MAX_FOLLOWED_ELEMENTS or not many:
                # None: they were left out, being many.
                kind = Element.INT64 if name == "value_ints" else Element.FLOAT
                return Value((Size(len(many)) if many else call.symbols.size(),), kind=kind)
            return from_array(np.array(list(many), np.int64 if name == "value_ints" else np.float32))
        if name == "sparse_value":
            return Value(tuple(Size(each) for each in attribute.sparse_tensor.dims))
    return Value()


ON_NUMBERS: dict[str, Callable[[Call], Value | None]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Equal"), arithmetic),
    **dict.fromkeys(("Greater", "Less", "GreaterOrEqual", "LessOrEqual"), arithmetic),
    **dict.fromkeys(("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape"), same_numbers),
    "Where": choice,
    "Concat": joined,
    "Gather": picked,
    "Slice": cut,
    "ReduceProd": multiplied,
}
SIZES_AT: dict[str, frozenset[int]] = {
    "ConstantOfShape": frozenset({0}),
    "Expand": frozenset({1}),
    "Reshape": frozenset({1}),
    "Resize": frozenset({3}),
    "Shape": frozenset({0}),
    "Size": frozenset({0}),
    "CastLike": frozenset({1}),
}
RULES: dict[str, Rule] = {
    "Range": counting,
    "Shape": shape,
    "Size": size,
    "ConstantOfShape": filled,
    "Constant": constant_node,
    "Expand": expand,
    "Reshape": reshape,
}
