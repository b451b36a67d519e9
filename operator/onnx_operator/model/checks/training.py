"""Recognising graphs that train a model instead of using it."""

from collections.abc import Iterable, Iterator

import onnx

_DOMAINS = {"ai.onnx.training", "ai.onnx.preview.training"}
_OPERATORS = {
    "AdamOptimizer",
    "AdamWOptimizer",
    "GradientAccumulator",
    "InPlaceAccumulator",
    "InPlaceAccumulatorV2",
    "LambOptimizer",
    "MixedPrecisionScale",
    "ReduceAllL2",
    "SGDOptimizer",
    "SGDOptimizerV2",
    "SoftmaxCrossEntropyLossInternal",
    "YieldOp",
    "ZeroGradient",
}
"""Of ``com.microsoft``, besides those whose names end with ``Grad``: training builds have them."""


def training_only(model: onnx.ModelProto) -> str:
    """Say that a model can only be trained, not scored; "" for all others.

    A model whose ``training_info`` lies beside a usable graph is none of these.
    """
    if model.training_info and not model.graph.node:
        return (
            f"The model holds {len(model.training_info)} training graphs (training_info) and no graph for inference;"
            " export the trained model without its training information."
        )
    for node in _nodes([model.graph.node, *(function.node for function in model.functions)]):
        if node.domain in _DOMAINS or (node.domain == "com.microsoft" and _trains(node.op_type)):
            shown = f"{node.domain}.{node.op_type}"
            return (
                f"Node {node.name or (node.output[0] if node.output else '')!r} is {shown}, which only training needs;"
                " export the model for inference (ONNX Runtime: Module.export_model_for_inferencing)."
            )
    return ""


def _trains(operator: str) -> bool:
    return operator in _OPERATORS or operator.endswith(("Grad", "Gradient"))


def _nodes(graphs: Iterable[Iterable[onnx.NodeProto]]) -> Iterator[onnx.NodeProto]:
    """All nodes, those of subgraphs too, without recursion: graphs may be nested as deeply as the parser lets them."""
    waiting = list(graphs)
    while waiting:
        for node in waiting.pop():
            yield node
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    waiting.append(attribute.g.node)
                elif attribute.type == onnx.AttributeProto.GRAPHS:
                    waiting.extend(graph.node for graph in attribute.graphs)
