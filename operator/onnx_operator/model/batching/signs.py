"""What cannot be below zero, however its sums are rounded; and what is not defined there.

A sum that should be zero may be a little less for one number of rows, and a little more for another: the root of the
one is no number, that of the other is one.
"""

from typing import Any

from onnx_operator.model.batching.call import Call
from onnx_operator.model.batching.kernels import names
from onnx_operator.model.batching.tensors import FLOATS
from onnx_operator.model.batching.values import Value

_ALWAYS = names(
    "Abs Cosh Exp GlobalLpPool HardSigmoid Hardmax LpPool ReduceL1 ReduceL2 ReduceSumSquare Relu Sigmoid Softmax "
    "Softplus Sqrt"
)
_AS_FIRST = names(
    "AveragePool Ceil CumSum DepthToSpace Dropout Expand Flatten Floor Gather GatherElements GatherND "
    "GlobalAveragePool GlobalMaxPool Identity LeakyRelu MaxPool ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "Reshape Round Sign Slice SpaceToDepth Split Squeeze Tile TopK Transpose Trilu Unsqueeze"
)
_AS_ALL = names("Add Concat Div MatMul Mean Min Mul Sum")


def signed(call: Call, values: list[Value]) -> list[Value]:
    """Say of what an operator of the standard makes whether it cannot be below zero."""
    if call.node.domain in ("", "ai.onnx") and _not_below_zero(call):
        return [value._replace(natural=True) for value in values]
    return values


def undefined(call: Call) -> bool:
    """Whether an operator is not defined below zero, where what it is given may be."""
    if call.operator not in ("Sqrt", "Log", "Pow", "ReduceLogSum") or _natural(call, 0):
        return False
    return call.operator != "Pow" or not _whole(call.input(1))


def _not_below_zero(call: Call) -> bool:
    operator = call.operator
    if operator in _ALWAYS:
        return True
    if operator == "Cast":
        # Whole numbers may have wrapped.
        return call.integer("to", 0) in FLOATS and call.required(0).kind in FLOATS and _natural(call, 0)
    if operator in _AS_FIRST:
        return _natural(call, 0)
    if operator == "Mul" and len(call.inputs) == 2 and call.node.input[0] == call.node.input[1]:
        return True
    every = [_natural(call, index) for index in range(len(call.inputs))]
    if operator in _AS_ALL:
        return all(every)
    if operator == "Max":
        return any(every)
    if operator == "Where":
        return all(every[1:])
    if operator == "Pow":
        return every[0] or _whole(call.input(1), even=True)
    return operator == "Clip" and _clipped(call)


def _clipped(call: Call) -> bool:
    low, high = (
        call.attributes[name].f >= 0
        if name in call.attributes
        else None
        if call.input(index) is None
        else _natural(call, index)
        for index, name in ((1, "min"), (2, "max"))
    )
    return high is not False and bool(low or _natural(call, 0))


def _natural(call: Call, index: int) -> bool:
    value = call.input(index)
    if value is None:
        return False
    if value.natural:
        return True
    if value.elements is not None:
        return all(each is not None and each.natural for each in value.elements)
    return value.data is not None and bool((value.data >= 0).all())


def _whole(value: Value | None, *, even: bool = False) -> bool:
    """Whether an exponent is stored, and such that a number below zero has that power."""
    data: Any = None if value is None else value.data
    return data is not None and bool((data % (2 if even else 1) == 0).all())
