"""What a graph computes once, while it is loaded."""

from collections.abc import Mapping

import onnx
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, numpy_helper

from onnx_operator.model.nodes import domain_of, subgraphs

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_SHAPES = frozenset({"Shape", "Size"})


class Constants:
    """Values that do not depend on what a caller sends, with the truth of those that are one stored bool."""

    def __init__(self, graph: GraphProto, outer: "Constants | None" = None) -> None:
        self._outer = outer
        given = {value.name for value in graph.input}
        # A caller may replace an initializer that is an input too, so it decides nothing.
        self._known: dict[str, bool | None] = {
            tensor.name: _truth(tensor) for tensor in graph.initializer if tensor.name not in given
        }

    def add(self, node: NodeProto, types: Mapping[str, TypeProto]) -> None:
        """Take in the outputs of a node whose inputs were taken in before."""
        if domain_of(node.domain) or node.op_type in _RANDOM or next(subgraphs(node), None) is not None:
            return
        if node.op_type == "Constant":
            value = next((_truth(each.t) for each in node.attribute if each.name == "value"), None)
            self._known[node.output[0]] = value
            return
        shaped = node.op_type in _SHAPES and node.input and _static(types.get(node.input[0]))
        if shaped or (node.input and all(not name or self.folded(name) for name in node.input)):
            self._known.update((name, None) for name in node.output if name)

    def folded(self, name: str) -> bool:
        """Tell whether the value is known once the model is loaded."""
        return name in self._known or (self._outer is not None and self._outer.folded(name))

    def truth(self, name: str) -> bool | None:
        """The value where it is a stored bool; None where it would have to be computed."""
        if name in self._known or self._outer is None:
            return self._known.get(name)
        return self._outer.truth(name)


def _truth(tensor: TensorProto) -> bool | None:
    if tensor.data_type != onnx.TensorProto.BOOL or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError):
        return None
    return bool(values.flat[0]) if values.size == 1 else None


def _static(kind: TypeProto | None) -> bool:
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return False
    return all(dimension.HasField("dim_value") for dimension in kind.tensor_type.shape.dim)
