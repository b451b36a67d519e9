"""What the proof takes for known of every tensor of a random graph (its shape, numbers, type, sign) is what it has."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_operator.model.batching.analysis import Analysis, Scope
from onnx_operator.model.batching.graph_pb2 import Model, Node
from onnx_operator.model.batching.proof import prove
from onnx_operator.model.batching.sizes import N, Size
from onnx_operator.model.batching.values import Value
from tests.unit.server.runtime.test_serving_random_graphs import Form, Garden, ask, session

ROWS = 5
OF_NUMBERS = [
    Form("Cast", "i", {"to": (TensorProto.INT32, TensorProto.UINT8)}, 1, 3),
    Form("Cast", "j", {"to": (TensorProto.INT64, TensorProto.UINT8)}, 1, 3),
    Form("Cast", "q", {"to": (TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT)}, 1, 2),
    Form("Add Sub Mul Max Min Equal Less", "jj", {}, 1, 4),
    Form("Add Sub Mul Max Min Equal", "ii", {}, 1, 4),
    Form("Add Sub Mul Equal", "qq", {}, 1, 2),
    Form("Equal", "bb"),
    Form("ReduceProd", "j", {"keepdims": (0, 1), "noop_with_empty_axes": (0, 0, 1)}),
    Form("Where", "bii", {}, 1, 2),
    Form("Where", "bjj", {}, 1, 2),
]
"""Arithmetic of all widths, besides the operators of other graphs."""


class Wild(Garden):
    """Grows numbers that wrap."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        more: dict[str, Any] = {
            "wide": np.int64(2**32 + 1),
            "wider": np.array([2**62], np.int64),
            "much": np.int32(2**16),
            "most": np.array([2**31 - 1, -1], np.int32),
            "byte": np.array([200, 1], np.uint8),
        }
        self.stored |= more
        self.pool += [(name, {"int64": "i", "int32": "j", "uint8": "q"}[str(a.dtype)]) for name, a in more.items()]

    def node(self, name: str) -> Any:
        if self.random.random() < 0.4:
            return super().node(name)
        form = self.choose([form for form in OF_NUMBERS for _ in range(form.weight)])
        inputs = [self.pick(kind) for kind in form.takes]
        attributes = {key: self.choose(values) for key, values in form.attributes.items()}
        return helper.make_node(self.choose(form.operators.split()), inputs, [name], **attributes)


def known(content: bytes) -> Scope:
    """All that the proof says of the tensors of a model."""
    found: list[Scope] = []
    walk = Analysis.walk

    def kept(self: Analysis, nodes: Iterable[Node], scope: Scope, depth: int = 0) -> None:
        found.append(scope)
        walk(self, nodes, scope, depth)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Analysis, "walk", kept)
        prove(Model.FromString(content))
    return found[0] if found else {}


def numbers(value: Value, array: Any) -> Iterable[tuple[Size | None, int]]:
    """What is said, and what is so."""
    if value.dims is not None:
        yield from zip(value.dims, array.shape, strict=True)
    if value.elements is not None:
        yield from zip(value.elements, (int(each) for each in array.reshape(-1)), strict=True)


def check_graph(seed: int) -> Counter[str]:
    garden, found = Wild(seed), Counter[str]()
    for index in range(16):
        garden.grow(f"n{index}")
    outputs = [name for node in garden.nodes for name in node.output if name]
    graph = helper.make_graph(
        garden.nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *s]) for name, s in garden.inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in garden.stored.items()],
    )
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    scope, loaded = known(whole.SerializeToString()), session(whole)
    feed = garden.feed(ROWS, 1.0)
    answers = loaded.run(None, feed) if ask(loaded, feed) is not None else []
    symbols: dict[Size, int] = {N: ROWS}
    for name, array in zip(outputs, answers, strict=False):
        value = scope.get(name)
        if value is None or value.fault is not None:
            found["nothing"] += 1
            continue
        for size, is_so in numbers(value, array):
            says = None if size is None else size.number if size.number is not None else symbols.setdefault(size, is_so)
            assert says in (None, is_so), (seed, name, size, is_so)
            found["numbers"] += 1
        if value.kind is not None:
            assert value.kind == helper.np_dtype_to_tensor_dtype(array.dtype), (seed, name)
            found["types"] += 1
        if value.natural and array.dtype.kind == "f":
            assert not (array < 0).any(), (seed, name)
            found["signs"] += 1
    return found


def check_graphs(seeds: range) -> None:
    found = sum((check_graph(seed) for seed in seeds), Counter[str]())
    assert min(found[each] for each in ("numbers", "types", "signs", "nothing")) > len(seeds) / 5


def test_what_is_known_of_tensors_of_random_graphs_is_so() -> None:
    check_graphs(range(40))


@pytest.mark.soak
def test_what_is_known_of_tensors_of_thousands_of_random_graphs_is_so() -> None:
    check_graphs(range(40, 2000))
