"""Each element of the result is made of the elements at its place."""

from onnx_operator.model.batching.broadcasting import broadcast
from onnx_operator.model.batching.call import Call, Rule, known
from onnx_operator.model.batching.kernels import names
from onnx_operator.model.batching.values import UnprovenError, Value


def stretched(call: Call) -> Value:
    """All inputs are broadcast to each other."""
    if call.opset < 7:
        raise UnprovenError("has the broadcasting rules of an opset before 7")
    return broadcast(list(call.given()), call.symbols)


def alike(call: Call) -> Value:
    """The first input, element by element; the others are the same in every run, and single numbers."""
    value = call.required(0)
    if not value.batch:
        return Value(value.dims)
    known(value)
    call.only_fixed(*range(1, len(call.inputs)))
    for other in call.inputs[1:]:
        if other is not None and any(size.number != 1 for size in known(other)):
            raise UnprovenError("has a parameter that is not a single number")
    return Value(value.dims, value.axis)


def cast_like(call: Call) -> Value:
    """Only the type of the second input counts."""
    value = call.required(0)
    return Value(value.dims, value.axis)


def dropout(call: Call) -> list[Value]:
    """Nothing is dropped while scoring; training mode draws random numbers."""
    value = call.required(0)
    training = call.input(2)
    if call.opset < 7 or (training is not None and (training.data is None or training.data.reshape(-1).any())):
        raise UnprovenError("may drop values at random (training mode)")
    call.only_fixed(1)
    result = Value(value.dims, value.axis)
    return [result, result]


def parametric(call: Call) -> Value:
    """PRelu: the second input is stretched to the first, never the other way."""
    value = stretched(call)
    first = call.required(0)
    if value.batch and (first.dims is None or value.dims is None or len(value.dims) != len(first.dims)):
        raise UnprovenError("has a slope of more dimensions than its input")
    return value


def bias_gelu(call: Call) -> Value:
    """A bias for the last dimension is added first."""
    call.only_fixed(1)
    return broadcast(list(call.given()), call.symbols)


_ALIKE = names(
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid "
    "HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh "
    "Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"
)
_STRETCHED = names(
    "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min "
    "Mod Mul Or Pow Sub Sum Where Xor"
)
RULES: dict[str, Rule] = {
    **dict.fromkeys(_ALIKE, alike),
    **dict.fromkeys(_STRETCHED, stretched),
    "CastLike": cast_like,
    "Dropout": dropout,
    "PRelu": parametric,
}
MICROSOFT: dict[str, Rule] = {"Gelu": alike, "QuickGelu": alike, "FastGelu": bias_gelu, "BiasGelu": bias_gelu}
