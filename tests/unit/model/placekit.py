"""Models with a weight in each of the places where one may be."""

from collections.abc import Callable

import numpy as np
import onnx
from modelkit import model, tensor, value
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node
Weight = Callable[[], TensorProto]


def large() -> TensorProto:
    return tensor("w", 64, 64)


def elsewhere(location: str, dims: tuple[int, ...] = (64, 64)) -> Weight:
    """A weight that lies in another file."""

    def made() -> TensorProto:
        found = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
        for key, each in (("location", location), ("offset", "0"), ("length", str(4 * int(np.prod(dims))))):
            found.external_data.add(key=key, value=each)
        return found

    return made


def _graph(nodes: list[onnx.NodeProto], initializers: list[TensorProto], name: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [value(name, None)], initializers)


def _whole(
    nodes: list[onnx.NodeProto], initializers: list[TensorProto] | None = None, **more: object
) -> onnx.ModelProto:
    return model(nodes, [value("x", ("N", 64))], [value("y", ("N", "M"))], initializers or [], **more)


def _if(of: Weight, *, constant: bool, known: bool) -> onnx.ModelProto:
    def branch(name: str) -> onnx.GraphProto:
        inner = [node("Constant", [], ["w"], value=of())] if constant else []
        return _graph([*inner, node("MatMul", ["x", "w"], [name])], [] if constant else [of()], name)

    condition = [node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))]
    if not known:
        condition = [node("Size", ["x"], ["s"]), node("Cast", ["s"], ["c"], to=TensorProto.BOOL)]
    return _whole([*condition, node("If", ["c"], ["y"], then_branch=branch("a"), else_branch=branch("b"))])


def _function(of: Weight) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", 17)]
    inner = [node("Constant", [], ["w"], value=of()), node("MatMul", ["x", "w"], ["y"])]
    function = helper.make_function("own", "F", ["x"], ["y"], inner, opsets)
    return _whole([node("F", ["x"], ["y"], domain="own")], opsets=[("", 17), ("own", 1)], functions=[function])


def _sparse(of: Weight) -> onnx.ModelProto:
    values = of()
    values.dims[:] = [64 * 64]
    sparse = onnx.SparseTensorProto(dims=[64, 64], values=values)
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(64 * 64), "i"))
    made = _whole([node("MatMul", ["x", "w"], ["y"])])
    made.graph.sparse_initializer.append(sparse)
    return made


def places(of: Weight = large) -> dict[str, onnx.ModelProto]:
    """The models by what they are."""
    product = [node("MatMul", ["x", "w"], ["y"])]
    sums = [node("Constant", [], ["k"], value=numpy_helper.from_array(np.array([-1, 64]))), node("Abs", ["k"], ["a"])]
    return {
        "initializer": _whole(product, [of()]),
        "not read": _whole([node("Relu", ["x"], ["y"])], [of()]),
        "sizes beside it": _whole(
            [*sums, node("Reshape", ["h", "a"], ["y"]), node("MatMul", ["x", "w"], ["h"])], [of()]
        ),
        "constant": _whole([node("Constant", [], ["w"], value=of()), *product]),
        "constant branch": _if(of, constant=True, known=False),
        "branch": _if(of, constant=False, known=False),
        "known constant branch": _if(of, constant=True, known=True),
        "known branch": _if(of, constant=False, known=True),
        "function": _function(of),
        "sparse": _sparse(of),
    }
