"""No caller ever meets another: whoever asks at the same moment, each gets the answer that it gets alone.

Random graphs, with and without what lets rows meet, also by values that are large or rare, are warmed up and served
through the real batching: a proof, where there is one, must hold to the bit or within rounding.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto

from onnx_operator.server.dataplane.batching import Batcher, BatchPolicy
from onnx_operator.server.dataplane.inference import Inference
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.runtime.rows import same
from onnx_operator.server.runtime.session import Model
from onnx_operator.server.runtime.warmup import WarmUp, warm_up
from tests.unit.server.serving import load_bytes, model_bytes, node, value

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
WIDTH = 6
Step = Callable[[str, str], list[NodeProto]]


def one(operator: str, *more: str, **attributes: Any) -> Step:
    """A step of one node, which keeps the shape ``[N, WIDTH]``."""
    return lambda a, b: [node(operator, [a, *more], [b], **attributes)]


def chain(*steps: Step) -> Step:
    """Several steps as one."""

    def made(a: str, b: str) -> list[NodeProto]:
        names = [a, *(f"{b}/{i}" for i in range(1, len(steps))), b]
        return [each for i, step in enumerate(steps) for each in step(names[i], names[i + 1])]

    return made


def reshaped(a: str, b: str) -> list[NodeProto]:
    """Apart into heads and back, the shapes being computed as PyTorch's exporter does."""
    return [
        node("Shape", [a], [f"{b}d"]),
        node("Gather", [f"{b}d", "i0"], [f"{b}n"]),
        node("Concat", [f"{b}n", "two", "minus"], [f"{b}to"], axis=0),
        node("Reshape", [a, f"{b}to"], [f"{b}h"]),
        node("Transpose", [f"{b}h"], [f"{b}t"], perm=[0, 2, 1]),
        node("Transpose", [f"{b}t"], [f"{b}u"], perm=[0, 2, 1]),
        node("Reshape", [f"{b}u", "flat"], [b]),
    ]


def attended(a: str, b: str) -> list[NodeProto]:
    """Each row attends to itself."""
    return [
        node("Reshape", [a, "heads"], [f"{b}q"]),
        node("Transpose", [f"{b}q"], [f"{b}k"], perm=[0, 2, 1]),
        node("MatMul", [f"{b}q", f"{b}k"], [f"{b}s"]),
        node("Softmax", [f"{b}s"], [f"{b}p"], axis=-1),
        node("MatMul", [f"{b}p", f"{b}q"], [f"{b}o"]),
        node("Reshape", [f"{b}o", "flat"], [b]),
    ]


def switched(a: str, b: str) -> list[NodeProto]:
    """Adds one to every row as soon as any row has a number beyond a limit that is hardly ever met."""
    return [
        node("ReduceMax", [a], [f"{b}m"], keepdims=0),
        node("Greater", [f"{b}m", "rare"], [f"{b}g"]),
        node("Cast", [f"{b}g"], [f"{b}f"], to=FLOAT),
        node("Add", [a, f"{b}f"], [b]),
    ]


def quantized(a: str, b: str) -> list[NodeProto]:
    """One scale for all rows."""
    return [
        node("DynamicQuantizeLinear", [a], [f"{b}q", f"{b}s", f"{b}z"]),
        node("DequantizeLinear", [f"{b}q", f"{b}s", f"{b}z"], [b]),
    ]


def averaged(a: str, b: str) -> list[NodeProto]:
    """A mean by the number of all elements, as some exporters write it."""
    return [
        node("Size", [a], [f"{b}s"]),
        node("Cast", [f"{b}s"], [f"{b}f"], to=FLOAT),
        node("Div", [a, f"{b}f"], [b]),
    ]


def by_count(a: str, b: str) -> list[NodeProto]:
    """Adds the number of rows."""
    return [
        node("Shape", [a], [f"{b}d"]),
        node("Gather", [f"{b}d", "i0"], [f"{b}n"]),
        node("Cast", [f"{b}n"], [f"{b}f"], to=FLOAT),
        node("Add", [a, f"{b}f"], [b]),
    ]


def looked_up(a: str, b: str) -> list[NodeProto]:
    """A row of a table by the largest column."""
    return [node("ArgMax", [a], [f"{b}i"], axis=1, keepdims=0), node("Gather", ["W", f"{b}i"], [b])]


def best(a: str, b: str) -> list[NodeProto]:
    """Adds the largest number of each column."""
    return [node("TopK", [a, "i1"], [f"{b}v", f"{b}i"], axis=0), node("Add", [a, f"{b}v"], [b])]


ALIKE = "Abs Acosh Atan Cos Elu Erf Exp Floor HardSigmoid HardSwish LeakyRelu Log Mish Neg Relu Round Selu Sigmoid Sign"
APART: list[Step] = [
    *(one(name) for name in (ALIKE + " Sin Softplus Softsign Sqrt Tanh ThresholdedRelu").split()),
    *(one(name, "v") for name in ("Add", "Mul", "Sub", "Max", "Min", "PRelu")),
    *(one("Softmax", axis=axis) for axis in (1, -1)),
    one("LayerNormalization", "v", axis=-1),
    one("LpNormalization", axis=1),
    one("CumSum", "c1"),
    one("MatMul", "W"),
    one("Gemm", "W", "v"),
    one("Gemm", "W", transB=1),
    one("Einsum", "W", equation="nk,km->nm"),
    chain(one("QuantizeLinear", "small", "zero"), one("DequantizeLinear", "small", "zero")),
    chain(one("Transpose"), one("Softmax", axis=0), one("Transpose")),
    chain(one("Unsqueeze", "i1"), one("GlobalAveragePool"), one("Squeeze", "i1"), one("Expand", "wide")),
    chain(one("Unsqueeze", "i1"), one("Conv", "K", pads=[1, 1]), one("Squeeze", "i1")),
    chain(one("Slice", "i0", "i2", "i1"), one("Pad", "pads")),
    reshaped,
    attended,
    looked_up,
]
TOGETHER: list[Step] = [
    switched,
    quantized,
    averaged,
    by_count,
    one("Softmax", axis=0),
    one("CumSum", "c0"),
    one("LpNormalization", axis=0),
    chain(one("Transpose"), one("Softmax", axis=1), one("Transpose")),
    chain(one("Reshape", "all"), one("Softmax", axis=1), one("Reshape", "flat")),
    chain(one("ReduceMean", "i0"), one("Mul", "x")),
    chain(one("Slice", "back", "far", "i0", "back"), one("Add", "x")),
    best,
    chain(one("Unsqueeze", "i0"), one("GlobalAveragePool"), one("Squeeze", "i0"), one("Mul", "x")),
]
STORED: dict[str, Any] = {
    "i0": np.array([0]),
    "i1": np.array([1]),
    "i2": np.array([3]),
    "c0": np.array(0),
    "c1": np.array(1),
    "two": np.array([2]),
    "minus": np.array([-1]),
    "heads": np.array([-1, 2, WIDTH // 2]),
    "flat": np.array([-1, WIDTH]),
    "all": np.array([1, -1]),
    "wide": np.array([1, WIDTH]),
    "back": np.array([-1]),
    "far": np.array([-(2**40)]),
    "pads": np.array([0, 0, 0, WIDTH - 3]),
    "small": np.float32(0.05),
    "zero": np.uint8(128),
    "rare": np.float32(1e6),
}


def random_graph(random: np.random.Generator) -> tuple[bytes, bool]:
    """A model, and whether a step was put in that lets rows meet."""
    steps = [APART[random.integers(len(APART))] for _ in range(random.integers(1, 7))]
    meets = bool(random.random() < 0.4)
    if meets:
        steps.insert(int(random.integers(len(steps) + 1)), TOGETHER[random.integers(len(TOGETHER))])
    names = ["x", *(f"h{i}" for i in range(1, len(steps))), "h"]
    nodes = [each for i, step in enumerate(steps) for each in step(names[i], names[i + 1])]
    weights = {
        "W": random.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        "v": random.normal(size=WIDTH).astype(np.float32),
        "K": random.normal(size=(1, 1, 3)).astype(np.float32),
    }
    nodes.append(node("Cast", ["h"], ["y"], to=FLOAT))
    inputs, outputs = [value("x", FLOAT, ["N", WIDTH])], [value("y", FLOAT, None)]
    return model_bytes(nodes, inputs, outputs, STORED | weights), meets


def callers(random: np.random.Generator) -> list[dict[str, Any]]:
    """Feeds of one to three rows of ordinary, large, rare and special numbers."""
    feeds = []
    for scale in (1, 1, 1, 0.01, 30, 1000, 1e7, 0, 1, 1, 1, 100):
        rows = random.normal(size=(random.integers(1, 4), WIDTH)) * scale
        feeds.append({"x": rows.astype(np.float32)})
    return feeds


def answers(model: Model, found: WarmUp, feeds: list[dict[str, Any]]) -> tuple[list[Any], int]:
    """Ask all at once, through the batching that the server sets up; the second value counts requests in company."""
    company = 0

    def observe(requests: int, rows: int, waited: float) -> None:
        nonlocal company
        company += requests if requests > 1 else 0

    async def main() -> list[Any]:
        plane = DataPlane("m", timeout=30)
        policy = BatchPolicy(16 if found.batchable else 1, inline=True, largest=10_000)
        plane.attach(model, Batcher(model, policy, 1, observe))
        try:
            return await asyncio.gather(*(plane.infer(Inference(feed, ("y",))) for feed in feeds))
        finally:
            plane.close()

    return asyncio.run(main()), company


def check_graph(seed: int) -> tuple[bool, str, int]:
    """Whether rows may meet in the graph of this seed, what is proven, and how many requests had company."""
    random = np.random.default_rng(seed)
    content, meets = random_graph(random)
    model = load_bytes(content)
    found = warm_up(model, 16)
    assert not found.contradicted, seed
    assert not (meets and found.proof != "Unproven"), seed
    feeds = callers(random)
    alone = [model.run_plain(("y",), feed)[0] for feed in feeds]
    together, company = answers(model, found, feeds)
    for one_answer, (other,) in zip(alone, together, strict=True):
        if found.proof == "Exact" or not found.batchable:
            assert one_answer.tobytes() == other.tobytes(), seed
        else:
            assert all(same(a, b, "FP32") for a, b in zip(one_answer, other, strict=True)), seed
    return meets, found.proof, company


def check_graphs(count: int) -> None:
    results = [check_graph(seed) for seed in range(count)]
    apart = [proof for meets, proof, _ in results if not meets]
    # The test would hold as well if nothing were ever proven, or nobody ever had company.
    assert sum(proof != "Unproven" for proof in apart) > len(apart) / 2
    assert {"Exact", "Tolerant"} <= set(apart)
    assert sum(company for *_, company in results) > 3 * count


def test_who_asks_at_the_same_moment_gets_the_same_answer_as_alone() -> None:
    check_graphs(60)


@pytest.mark.soak
def test_of_thousands_of_graphs_none_lets_callers_meet() -> None:
    check_graphs(2500)
