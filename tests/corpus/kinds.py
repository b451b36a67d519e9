"""What a model is made of, for the tables: versions, operator sets, subgraphs, functions, quantization."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, NodeProto

_QUANTIZED = {
    "DynamicQuantizeLinear": "dynamic",
    "DynamicQuantizeMatMul": "dynamic",
    "DynamicQuantizeLSTM": "dynamic",
    "MatMulIntegerToFloat": "dynamic",
    "MatMulInteger": "dynamic",
    "ConvInteger": "dynamic",
    "QuantizeLinear": "QDQ",
    "DequantizeLinear": "QDQ",
    "QLinearMatMul": "QLinear",
    "QLinearConv": "QLinear",
    "MatMulNBits": "block-wise",
    "GatherBlockQuantized": "block-wise",
}
_MAX_DEPTH = 32


def kinds_of(path: Path) -> dict[str, Any]:
    """Describe the model's file, without its external data. Raises what protobuf raises."""
    model = onnx.load(path, load_external_data=False)
    nodes = [*_nodes(model.graph, 0), *(node for function in model.functions for node in _all(function.node, 0))]
    graphs = [*_graphs(model.graph, 0)]
    return {
        "ir": model.ir_version,
        "producer": model.producer_name,
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "nodes": len(nodes),
        "functions": len(model.functions),
        "subgraphs": sorted({node.op_type for node in nodes if any(_bodies(node))}),
        "contrib": sorted({node.op_type for node in nodes if node.domain == "com.microsoft"}),
        "ml": sorted({node.op_type for node in nodes if node.domain == "ai.onnx.ml"}),
        "quantized": sorted({_QUANTIZED[node.op_type] for node in nodes if node.op_type in _QUANTIZED}),
        "random": any(node.op_type.startswith(("Random", "Bernoulli", "Multinomial")) for node in nodes),
        "external": any(tensor.data_location == 1 for graph in graphs for tensor in graph.initializer),
        "bytes": path.stat().st_size,
    }


def _graphs(graph: GraphProto, depth: int) -> Iterator[GraphProto]:
    yield graph
    if depth < _MAX_DEPTH:
        for node in graph.node:
            for body in _bodies(node):
                yield from _graphs(body, depth + 1)


def _nodes(graph: GraphProto, depth: int) -> Iterator[NodeProto]:
    return _all(graph.node, depth)


def _all(nodes: Any, depth: int) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        if depth < _MAX_DEPTH:
            for body in _bodies(node):
                yield from _nodes(body, depth + 1)


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs
