"""No caller meets another: requests share a run only where the graph proves that rows keep apart.

Here are graphs to prove it of, in few words.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_operator.api.report import RowsProof
from onnx_operator.model.batching.graph_pb2 import Model
from onnx_operator.model.batching.kernels import BUNDLED, Kernels
from onnx_operator.model.batching.proof import Proof, prove
from tests.unit.model.modelkit import verdict

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Shape = Sequence[int | str | None]
Inputs = dict[str, tuple[int, Shape]]
X: Inputs = {"x": (FLOAT, ["N", 4])}
N = helper.make_node


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Inputs | None = None,
    stored: dict[str, Any] | None = None,
    opset: int = 21,
    outputs: Sequence[str] = ("y",),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A model of which the types of outputs are left open."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in (inputs or X).items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (stored or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    imports += [helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def proof(*nodes: onnx.NodeProto, kernels: Kernels = BUNDLED, **rest: Any) -> Proof:
    """What is proven of a model."""
    return prove(Model.FromString(model(nodes, **rest).SerializeToString()), kernels)


def judged(built: onnx.ModelProto) -> RowsProof:
    """What the report of an inspection says."""
    report = verdict(built).report
    assert report is not None
    assert report.batching is not None
    return report.batching


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def reals(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


class Case:
    """A graph, with what the test calls it."""

    def __init__(self, name: str, *nodes: onnx.NodeProto, **rest: Any) -> None:
        self.name, self.nodes, self.rest = name, nodes, rest

    def proof(self) -> Proof:
        """What is proven of it."""
        return proof(*self.nodes, **self.rest)


def named(cases: Sequence[Case]) -> Any:
    return pytest.mark.parametrize("case", [pytest.param(each, id=each.name) for each in cases])


def keep_apart(*cases: Case) -> Any:
    """A test: of each of these graphs it is proven that rows keep apart."""

    @named(cases)
    def test(case: Case) -> None:
        found = case.proof()

        assert found.holds, found

    return test


def meet(*cases: Case) -> Any:
    """A test: of none of these graphs anything is proven, and the reason is told."""

    @named(cases)
    def test(case: Case) -> None:
        found = case.proof()

        assert not found.holds, found
        assert found.reason

    return test


IMAGE: Inputs = {"x": (FLOAT, ["N", 3, 8, 8])}
WORDS: Inputs = {"x": (FLOAT, ["N", "S", 4])}
IDS: Inputs = {"x": (INT64, ["N", "S"])}
SHAPE_OF = [N("Shape", ["x"], ["d"]), N("Gather", ["d", "zero"], ["n"])]
ZERO = {"zero": ints(0), "one": ints(1)}
