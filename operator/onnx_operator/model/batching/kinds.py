"""The element type of what a node makes, as far as numbers are followed: those of some types wrap, others round."""

from onnx_operator.model.batching.call import Call
from onnx_operator.model.batching.kernels import names
from onnx_operator.model.batching.values import Value
from onnx_operator.model.elements import Element

_AS_FIRST = names(
    "AveragePool BatchNormalization Ceil Celu Conv Cos Elu Erf Exp Floor Gelu Gemm GlobalAveragePool GlobalMaxPool "
    "HardSigmoid HardSwish LayerNormalization LeakyRelu Log LogSoftmax MatMul MaxPool Mean Mish Pow Reciprocal Relu "
    "Round Selu Sigmoid Sin Softmax Softplus Softsign Sqrt Tanh "
    "Abs Add Clip Concat CumSum Div Dropout Expand Flatten Gather GatherElements GatherND Identity Max Min Mod Mul Neg "
    "Pad Range ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Reshape Sign "
    "Slice Split Squeeze Sub Sum Tile Transpose Trilu Unsqueeze"
)
_AS_SECOND = frozenset({"CastLike", "Where"})
_TRUTHS = names("And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Xor")
_PLACES = names("ArgMax ArgMin NonZero Shape Size")


def typed(call: Call, values: list[Value]) -> list[Value]:
    """Add the types of the outputs of an operator of the standard; what is not in a table has none that is known."""
    if call.node.domain not in ("", "ai.onnx"):
        return values
    kind = _kind(call)
    if call.operator == "TopK":
        return [value._replace(kind=of) for value, of in zip(values, (_of(call, 0), Element.INT64), strict=False)]
    return values if kind is None else [value._replace(kind=kind) for value in values[:1]] + values[1:]


def _kind(call: Call) -> int | None:
    if call.operator == "Cast":
        return call.integer("to", 0)
    if call.operator in _TRUTHS:
        return Element.BOOL
    if call.operator in _PLACES:
        return Element.INT64
    if call.operator in _AS_FIRST:
        return _of(call, 0)
    return _of(call, 1) if call.operator in _AS_SECOND else None


def _of(call: Call, index: int) -> int | None:
    value = call.input(index)
    return None if value is None else value.kind
