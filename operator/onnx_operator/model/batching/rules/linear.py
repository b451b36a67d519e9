"""Sums of products: rows stay apart where nothing is summed over them, and the other side is no row of another."""

from onnx_operator.model.batching.broadcasting import broadcast
from onnx_operator.model.batching.call import Call, Rule, known
from onnx_operator.model.batching.kernels import MAX_EXACT_TERMS
from onnx_operator.model.batching.sizes import ONE, Size
from onnx_operator.model.batching.values import UnprovenError, Value

_EVERY_ROW = "multiplies rows with rows of others"
_OVER_ROWS = "sums over the rows"


def matmul(call: Call) -> Value:
    """``numpy.matmul``: the last two dimensions are multiplied, those before are broadcast."""
    first, second = call.required(0), call.required(1)
    if not (first.batch or second.batch):
        return Value()
    a, b = known(first), known(second)
    if not a or not b:
        raise UnprovenError("multiplies a scalar")
    one_a, one_b = len(a) == 1, len(b) == 1
    full_a = (ONE, *a) if one_a else a
    full_b = (*b, ONE) if one_b else b
    place_a = None if first.axis is None else first.axis - len(a) if not one_a else -1
    place_b = None if second.axis is None else second.axis - len(b) if not one_b else -2
    if place_a == -1 or place_b == -2:
        raise UnprovenError(_OVER_ROWS)
    lead = broadcast(
        [
            Value(full_a[:-2], None if place_a is None or place_a > -3 else place_a + len(full_a)),
            Value(full_b[:-2], None if place_b is None or place_b > -3 else place_b + len(full_b)),
        ],
        call.symbols,
    )
    axis = lead.axis
    sides = [place for place, one in ((place_a, -2), (place_b, -1)) if place == one]
    if (sides and axis is not None) or len(sides) > 1:
        raise UnprovenError(_EVERY_ROW)
    assert lead.dims is not None
    dims = [*lead.dims, full_a[-2], full_b[-1]]
    if sides:
        axis = len(dims) + sides[0]
    # A vector's made-up dimension goes again, from the back.
    if one_b:
        dims.pop()
    if one_a:
        dims.pop(len(lead.dims))
        axis = axis - 1 if axis is not None and axis > len(lead.dims) else axis
    few = a[-1].number is not None and a[-1].number <= MAX_EXACT_TERMS
    summed_alike = second.stored if first.batch and not second.batch else first.batch and few
    return Value(tuple(dims), axis, rounded=call.operator == "MatMul" and not (summed_alike and place_b != -1))


def gemm(call: Call) -> Value:
    """Two matrices, and a third that is added."""
    first, second, third = call.required(0), call.required(1), call.input(2)
    if not any(value.batch for value in call.given()):
        return Value()
    a, b = known(first), known(second)
    if len(a) != 2 or len(b) != 2 or call.opset < 7:
        raise UnprovenError("multiplies what are not matrices")
    rows, columns = call.integer("transA", 0), 1 - call.integer("transB", 0)
    rows, columns = (1 if rows else 0), (1 if columns else 0)
    if first.batch and second.batch:
        raise UnprovenError(_EVERY_ROW)
    if (first.batch and first.axis != rows) or (second.batch and second.axis != columns):
        raise UnprovenError(_OVER_ROWS)
    axis = 0 if first.batch else 1 if second.batch else None
    made = Value((a[rows], b[columns]), axis, rounded=bool(axis or rows) or not second.stored)
    if third is None:
        return made
    total = broadcast([made, third], call.symbols)
    if total.dims is None or len(total.dims) != 2:
        raise UnprovenError("adds a tensor of more dimensions")
    return total._replace(rounded=made.rounded)


def einsum(call: Call) -> Value:
    """Rows must have a letter of their own, in every input that has rows, and in the result."""
    values = list(call.given())
    terms, right = _equation(call, values)
    sizes: dict[str, Size] = {}
    for term, value in zip(terms, values, strict=True):
        for each, size in zip(term, known(value), strict=True):
            sizes[each] = size if each not in sizes or sizes[each] == ONE else sizes[each]
    if not set(right) <= set(sizes):
        raise UnprovenError("has an equation that does not fit its inputs")
    made = tuple(sizes[each] for each in right)
    letters = {term[value.axis] for term, value in zip(terms, values, strict=True) if value.axis is not None}
    if not letters:
        return Value(made)
    if len(letters) != 1:
        raise UnprovenError(_EVERY_ROW)
    letter = letters.pop()
    rows: set[Size] = set()
    for term, value in zip(terms, values, strict=True):
        if letter in term and not value.batch:
            raise UnprovenError("meets the rows with a tensor that has a dimension of its own there")
        if value.axis is not None:
            rows.add(known(value)[value.axis])
    if right.count(letter) != 1 or len(rows) != 1:
        raise UnprovenError(_OVER_ROWS)
    return Value(made, right.index(letter))


def _equation(call: Call, values: list[Value]) -> tuple[list[str], str]:
    """The letters of each input, and of the result."""
    equation = call.text("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or len(terms) != len(values):
        raise UnprovenError(f'has the equation "{equation[:60]}", which is not followed')
    for term, value in zip(terms, values, strict=True):
        if len(known(value)) != len(term) or len(set(term)) != len(term):
            raise UnprovenError(f'has the equation "{equation[:60]}", which does not fit its inputs')
    return terms, right


def narrow_weights(call: Call) -> Value:
    """com.microsoft.MatMulNBits: a matrix of few bits for each weight."""
    value = call.required(0)
    call.only_fixed(*range(1, len(call.inputs)))
    if not value.batch:
        return Value()
    dims = known(value)
    if value.axis == len(dims) - 1:
        raise UnprovenError(_OVER_ROWS)
    columns = call.integer("N", 0)
    return Value((*dims[:-1], Size(columns) if columns > 0 else call.symbols.size()), value.axis)


RULES: dict[str, Rule] = {"MatMul": matmul, "Gemm": gemm, "Einsum": einsum}
MICROSOFT: dict[str, Rule] = {"MatMulNBits": narrow_weights}
