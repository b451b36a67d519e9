"""Reductions and normalizations: rows stay apart where nothing is taken over their axis."""

from onnx_operator.model.batching.broadcasting import broadcast
from onnx_operator.model.batching.call import Call, Rule, from_the_front, known
from onnx_operator.model.batching.sizes import ONE
from onnx_operator.model.batching.values import UnprovenError, Value

_OVER = "is computed over all rows together"
_AXES_INPUT = {"ReduceSum": 13}
"""Opset from which axes are an input; 18 for other reductions."""


def reduction(call: Call) -> Value:
    """Sums, means, extremes over some axes."""
    value = call.required(0)
    call.only_fixed(1)
    if not value.batch:
        return Value()
    dims = known(value)
    as_input = call.opset >= _AXES_INPUT.get(call.operator, 18)
    axes = call.numbers(1) if as_input else call.integers("axes") or []
    if as_input and call.input(1) is None:
        axes = []
    if axes is None:
        raise UnprovenError("reduces over axes that are not known")
    if not axes:
        if as_input and call.integer("noop_with_empty_axes", 0):
            return Value(dims, value.axis)
        raise UnprovenError(_OVER)
    return _reduced(call, value, {from_the_front(axis, len(dims)) for axis in axes})


def extreme_place(call: Call) -> Value:
    """ArgMax and ArgMin."""
    value = call.required(0)
    if not value.batch:
        return Value()
    return _reduced(call, value, {call.axis(0, len(known(value)))})


def _reduced(call: Call, value: Value, axes: set[int]) -> Value:
    dims = known(value)
    assert value.axis is not None
    if value.axis in axes:
        raise UnprovenError(_OVER)
    if call.integer("keepdims", 1):
        return Value(tuple(ONE if i in axes else size for i, size in enumerate(dims)), value.axis)
    kept = [i for i in range(len(dims)) if i not in axes]
    return Value(tuple(dims[i] for i in kept), kept.index(value.axis))


def softmax(call: Call) -> Value:
    """Before opset 13 over all dimensions from ``axis`` on, since then over that one."""
    value = call.required(0)
    if not value.batch or value.axis is None:
        return Value(value.dims)
    dims = known(value)
    axis = call.axis(-1 if call.opset >= 13 else 1, len(dims))
    if value.axis == axis or (call.opset < 13 and value.axis > axis):
        raise UnprovenError(_OVER)
    return Value(dims, value.axis)


def along(call: Call) -> Value:
    """CumSum and LpNormalization: along one axis."""
    value = call.required(0)
    call.only_fixed(1)
    if not value.batch:
        return Value(value.dims)
    dims = known(value)
    if call.operator == "CumSum":
        axes = call.numbers(1)
        if not axes or len(axes) != 1:
            raise UnprovenError("sums along an axis that is not known")
        axis = from_the_front(axes[0], len(dims))
    else:
        axis = call.axis(-1, len(dims))
    if axis == value.axis:
        raise UnprovenError(_OVER)
    return Value(dims, value.axis)


def layer(call: Call) -> list[Value]:
    """LayerNormalization and its relatives: over all dimensions from ``axis`` on."""
    value = call.required(0)
    call.only_fixed(*range(1, len(call.inputs)))
    if not value.batch or value.axis is None:
        return [Value(value.dims)]
    dims = known(value)
    axis = call.axis(-1, len(dims))
    if value.axis >= axis:
        raise UnprovenError(_OVER)
    for other in call.inputs[1:]:
        if other is not None and broadcast([value, other], call.symbols).axis != value.axis:
            raise UnprovenError("has a scale of more dimensions than its input")
    small = Value(dims[:axis] + (ONE,) * (len(dims) - axis), value.axis)
    return [Value(dims, value.axis), small, small]


def skip_layer(call: Call) -> list[Value]:
    """com.microsoft: a second tensor, and a bias, are added first; over the last dimension."""
    first, second = call.required(0), call.required(1)
    call.only_fixed(*range(2, len(call.inputs)))
    if not (first.batch and second.batch) or first.axis != second.axis:
        raise UnprovenError("adds a tensor that has no rows")
    dims = known(first)
    if len(dims) != len(known(second)) or first.axis == len(dims) - 1:
        raise UnprovenError(_OVER)
    total = broadcast([first, second], call.symbols)
    small = Value((*known(total)[:-1], ONE), total.axis)
    return [total, small, small, total]


def by_channel(call: Call) -> Value:
    """InstanceNormalization, GroupNormalization, LRN, over the channels and places of each image."""
    value = call.required(0)
    call.only_fixed(*range(1, len(call.inputs)))
    if value.batch and (value.axis != 0 or len(known(value)) < 3):
        raise UnprovenError("works on images, and the rows are not at its axis 0")
    return Value(value.dims, value.axis)


def batch_normalization(call: Call) -> Value:
    """With stored means; training mode takes those of the batch."""
    value = call.required(0)
    call.only_fixed(*range(1, len(call.inputs)))
    if call.opset < 7 or call.integer("training_mode", 0) or len([name for name in call.node.output if name]) > 1:
        raise UnprovenError("may take its mean over all rows (training mode)")
    if value.batch and (value.axis == 1 or len(known(value)) < 2):
        raise UnprovenError("takes the rows for channels")
    return Value(value.dims, value.axis)


def mean_variance(call: Call) -> Value:
    """MeanVarianceNormalization: over the batch too, unless told otherwise."""
    value = call.required(0)
    if not value.batch:
        return Value(value.dims)
    if call.opset < 9:
        raise UnprovenError("normalizes in the way of an opset before 9")
    dims = known(value)
    axes = call.integers("axes")
    axes = [0, 2, 3] if axes is None else axes
    if not axes or value.axis in {from_the_front(axis, len(dims)) for axis in axes}:
        raise UnprovenError(_OVER)
    return Value(dims, value.axis)


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
RULES: dict[str, Rule] = {
    **{f"Reduce{name}": reduction for name in _REDUCTIONS},
    **dict.fromkeys(("ArgMax", "ArgMin"), extreme_place),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), softmax),
    **dict.fromkeys(("CumSum", "LpNormalization"), along),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), layer),
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization", "LRN"), by_channel),
    "BatchNormalization": batch_normalization,
    "MeanVarianceNormalization": mean_variance,
}
MICROSOFT: dict[str, Rule] = {
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), skip_layer),
}
