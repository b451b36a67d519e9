"""Operations of one node, from the sizes of what it reads and makes.

A multiplication and the addition that follows count as two operations, as in PyTorch's ``torch.utils.flop_counter``
and in the figures that makers of processors give (papers on networks for pictures often count them as one). An
elementary function, a comparison and an integer operation count as one each; moving data counts as nothing.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from onnx import NodeProto, helper

from onnx_operator.model.figures.sized import Tensor
from onnx_operator.model.nodes import domain_of
from onnx_operator.model.reading.lists import list_length, trees_by_nodes


def operations(node: NodeProto, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    """Count for one run of a node without subgraphs; operators without a rule: one for each number they make."""
    rule = _RULES.get(node.op_type)
    try:
        if rule is not None:
            return max(rule(node, inputs, outputs), 0)
    except (IndexError, ValueError, TypeError, AttributeError):
        pass  # not the operands or attributes that the operator has: checks tell that, where they know it
    return _PER_ELEMENT.get(node.op_type, 1) * (outputs[0].elements if outputs else 0)


def attribute_of(node: NodeProto, name: str, default: Any) -> Any:
    """A node's attribute, or ``default`` where it has none of this name."""
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)


Operands = Sequence[Tensor]
Rule = Callable[[NodeProto, Operands, Operands], int]


def _convolution(weight: int) -> Rule:
    def count(node: NodeProto, inputs: Operands, outputs: Operands) -> int:
        filters = inputs[weight]
        return 2 * outputs[0].elements * filters.elements // max(filters.dims[0], 1)

    return count


def _transposed(_: NodeProto, inputs: Operands, __: Operands) -> int:
    return 2 * inputs[0].elements * inputs[1].elements // max(inputs[1].dims[0], 1)


def _product(*transposed: str) -> Rule:
    def count(node: NodeProto, inputs: Operands, outputs: Operands) -> int:
        dims = inputs[0].dims
        swapped = any(attribute_of(node, name, 0) for name in transposed) and len(dims) > 1
        return 2 * outputs[0].elements * dims[-2 if swapped else -1]

    return count


def _einsum(node: NodeProto, inputs: Operands, outputs: Operands) -> int:
    terms = attribute_of(node, "equation", b"").decode(errors="replace").replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    ellipsis: tuple[int, ...] = ()
    for term, operand in zip(terms, inputs, strict=False):
        head, dots, tail = term.partition("...")
        if dots:
            ellipsis = max(ellipsis, operand.dims[len(head) : len(operand.dims) - len(tail)], key=math.prod)
        labelled = zip(
            head + tail, operand.dims[: len(head)] + operand.dims[len(operand.dims) - len(tail) :], strict=False
        )
        for label, size in labelled:
            sizes[label] = max(sizes.get(label, 1), size)
    return max(len(inputs), 1) * math.prod(sizes.values()) * math.prod(ellipsis)


def _recurrent(node: NodeProto, inputs: Operands, _: Operands) -> int:
    steps = inputs[0].dims[0] * inputs[0].dims[1]
    weights, recurrence = inputs[1], inputs[2]
    return steps * (2 * (weights.elements + recurrence.elements) + 2 * math.prod(weights.dims[:2]))


def _softmax_of(rows: int, columns: int) -> int:
    return _PER_ELEMENT["Softmax"] * rows * columns


def _attention(node: NodeProto, inputs: Operands, outputs: Operands) -> int:
    """ai.onnx: query, key, value, mask, past key, past value."""
    query, key = inputs[0], inputs[1]
    keys = key.dims[-2] + (inputs[4].dims[-2] if len(inputs) > 4 and inputs[4].dims else 0)
    heads = attribute_of(node, "q_num_heads", 0) or query.dims[1]
    rows = query.dims[0] * heads * query.dims[-2]
    return 2 * keys * (query.elements + outputs[0].elements) + _softmax_of(rows, keys)


def _attention_of_one_input(node: NodeProto, inputs: Operands, outputs: Operands) -> int:
    """com.microsoft: queries, keys and values are made from one input first."""
    value, weights = inputs[0], inputs[1]
    rows, length = value.elements // max(value.dims[-1], 1), value.dims[-2]
    scores = rows * attribute_of(node, "num_heads", 1)
    return 2 * rows * weights.elements + 4 * outputs[0].elements * length + _softmax_of(scores, length)


def _attention_of_heads(past: int) -> Rule:
    """com.microsoft: queries and keys of shape batch, length, width; the past at ``past`` in heads."""

    def count(node: NodeProto, inputs: Operands, outputs: Operands) -> int:
        query = inputs[0]
        key = inputs[1] if len(inputs) > 1 and inputs[1].dims else query
        keys = key.dims[-2] if len(key.dims) > 3 else key.dims[1]
        if len(inputs) > past and len(inputs[past].dims) == 4:
            keys += inputs[past].dims[2]
        rows = query.dims[0] * query.dims[1] * attribute_of(node, "num_heads", 1)
        return 4 * keys * outputs[0].elements + _softmax_of(rows, keys)

    return count


def _pooling(node: NodeProto, _: Operands, outputs: Operands) -> int:
    kernel: Sequence[int] = attribute_of(node, "kernel_shape", [1])
    return outputs[0].elements * math.prod(kernel)


def _reads_all(_: NodeProto, inputs: Operands, __: Operands) -> int:
    return inputs[0].elements


def _variadic(_: NodeProto, inputs: Operands, outputs: Operands) -> int:
    return max(len(inputs) - 1, 1) * outputs[0].elements


def _local_response(node: NodeProto, _: Operands, outputs: Operands) -> int:
    return outputs[0].elements * (2 * int(attribute_of(node, "size", 1)) + 4)


def _fourier(_: NodeProto, __: Operands, outputs: Operands) -> int:
    """5 N log₂ N for N complex numbers, the customary count (benchFFT: http://www.fftw.org/speed/method.html)."""
    dims = outputs[0].dims
    return 5 * (outputs[0].elements // 2) * max(max(dims[1:-1], default=1) - 1, 1).bit_length()


def _trees(node: NodeProto, inputs: Operands, _: Operands) -> int:
    """A comparison on each level of each tree, as if trees were balanced, and an addition for each tree."""
    rows = inputs[0].dims[0] if len(inputs[0].dims) > 1 else 1
    found = {each.name: each for each in node.attribute}
    sizes = trees_by_nodes(found["nodes_treeids"]) if "nodes_treeids" in found else {}
    if not sizes:
        roots = list_length(found["tree_roots"]) if "tree_roots" in found else 0
        nodes = list_length(found["nodes_featureids"]) if "nodes_featureids" in found else 0
        sizes = {nodes // max(roots, 1): max(roots, 1)}
    return rows * sum(trees * (max(size, 1).bit_length() + 1) for size, trees in sizes.items())


def _coefficients(name: str) -> Rule:
    def count(node: NodeProto, inputs: Operands, _: Operands) -> int:
        rows = inputs[0].dims[0] if len(inputs[0].dims) > 1 else 1
        return 2 * rows * len(attribute_of(node, name, []))

    return count


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvInteger", "FusedConv", "NhwcConv", "NhwcFusedConv", "DeformConv"), _convolution(1)),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed,
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm", "GemmFloat8", "FusedMatMul", "TransposeMatMul"), _product("transA")),
    **dict.fromkeys(("MatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"), _product()),
    **dict.fromkeys(("QLinearMatMul", "MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "FusedMatMulActivation"), _product()),
    "Einsum": _einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), _recurrent),
    "Attention": lambda node, inputs, outputs: (_attention_of_one_input if domain_of(node.domain) else _attention)(
        node, inputs, outputs
    ),
    "QAttention": _attention_of_one_input,
    "MultiHeadAttention": _attention_of_heads(6),
    "GroupQueryAttention": _attention_of_heads(3),
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool", "QLinearAveragePool"), _pooling),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "QLinearGlobalAveragePool"), _reads_all),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1"), _reads_all),
    **dict.fromkeys(("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"), _reads_all),
    **dict.fromkeys(("ArgMax", "ArgMin", "TopK", "NonZero", "Unique"), _reads_all),
    **dict.fromkeys(("Sum", "Mean", "Max", "Min"), _variadic),
    "LRN": _local_response,
    **dict.fromkeys(("DFT", "STFT", "Rfft", "Irfft"), _fourier),
    **dict.fromkeys(("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"), _trees),
    **dict.fromkeys(("LinearClassifier", "LinearRegressor"), _coefficients("coefficients")),
    **dict.fromkeys(("SVMClassifier", "SVMRegressor"), _coefficients("support_vectors")),
}

_PER_ELEMENT = {
    "BatchNormalization": 2,
    # Mean and variance, then centred, divided, scaled and moved.
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization", "GroupNorm"), 7),
    **dict.fromkeys(("SkipLayerNormalization", "EmbedLayerNormalization", "MeanVarianceNormalization"), 8),
    **dict.fromkeys(("RMSNormalization", "SimplifiedLayerNormalization", "LpNormalization"), 4),
    "SkipSimplifiedLayerNormalization": 5,
    # The largest, its difference, the power, the sum, the quotient.
    **dict.fromkeys(("Softmax", "LogSoftmax", "SoftmaxCrossEntropyLoss"), 5),
    **dict.fromkeys(("Gelu", "QuickGelu", "FastGelu"), 5),
    "BiasGelu": 6,
    **dict.fromkeys(("Sigmoid", "Softplus", "Softsign", "Mish", "HardSwish", "Swish", "Silu"), 3),
    **dict.fromkeys(("Elu", "Celu", "Selu", "HardSigmoid"), 2),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"), 2),
    **dict.fromkeys(("Scaler", "Normalizer"), 2),
    **dict.fromkeys(("Constant", "ConstantOfShape", "Shape", "Size", "Identity", "Dropout", "Range", "EyeLike"), 0),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Transpose", "Concat"), 0),
    **dict.fromkeys(("Split", "Slice", "Pad", "Gather", "GatherElements", "GatherND", "DepthToSpace"), 0),
    **dict.fromkeys(("SpaceToDepth", "ReverseSequence", "OneHot", "Compress", "Scatter", "ScatterElements"), 0),
    **dict.fromkeys(("ScatterND", "If", "Loop", "Scan", "Optional", "OptionalGetElement", "SequenceAt"), 0),
    **dict.fromkeys(("ZipMap", "ArrayFeatureExtractor", "FeatureVectorizer", "ReorderInput", "ReorderOutput"), 0),
}
"""Operations for each element of the first output, where that is not one."""
