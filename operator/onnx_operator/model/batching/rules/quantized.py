"""Whole numbers for real ones: scales must be stored, for one that is computed is computed over all rows."""

from onnx_operator.model.batching.call import Call, Rule, known
from onnx_operator.model.batching.rules.linear import matmul
from onnx_operator.model.batching.rules.spatial import convolution
from onnx_operator.model.batching.values import UnprovenError, Value


def quantize(call: Call) -> Value:
    """QuantizeLinear, DequantizeLinear: one scale, or one for each place of an axis that is not the rows'."""
    value, scale = call.required(0), call.required(1)
    call.only_fixed(1, 2)
    if not value.batch:
        return Value(value.dims)
    dims, scales = known(value), known(scale)
    if call.integer("block_size", 0) or len(scales) > 1:
        raise UnprovenError("has a scale for each block")
    if scales and scales[0].number != 1 and call.axis(1, len(dims)) == value.axis:
        raise UnprovenError("has a scale for each row")
    return Value(dims, value.axis)


def _with(call: Call, *indices: int) -> Call:
    """The same node without its scales and zero points."""
    return Call(call.node, call.opset, [call.input(i) for i in indices], call.symbols, call.attributes, call.fixed_rows)


def _one_number(call: Call, *indices: int) -> None:
    """Scales and zero points of what has rows: more numbers could be one for each row."""
    call.only_fixed(*indices)
    for index in indices:
        value = call.input(index)
        if value is not None and any(size.number != 1 for size in known(value)):
            raise UnprovenError("has a scale or zero point for each row, or may have")


def matmul_integer(call: Call) -> Value:
    """The zero point of the side with the rows is one number."""
    call.only_fixed(1, 2, 3)
    if call.required(0).batch:
        _one_number(call, 2)
    return matmul(_with(call, 0, 1))


def matmul_quantized(call: Call) -> Value:
    """QLinearMatMul, with constant weights."""
    call.only_fixed(*range(1, len(call.inputs)))
    if call.required(0).batch:
        _one_number(call, 1, 2, 6, 7)
    return matmul(_with(call, 0, 3))


def convolution_quantized(call: Call) -> Value:
    """QLinearConv."""
    call.only_fixed(*range(1, len(call.inputs)))
    if call.required(0).batch:
        _one_number(call, 1, 2, 6, 7)
    return convolution(_with(call, 0, 3))


RULES: dict[str, Rule] = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": quantize,
    "MatMulInteger": matmul_integer,
    "QLinearMatMul": matmul_quantized,
    "QLinearConv": convolution_quantized,
}
