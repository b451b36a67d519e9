"""Models made to harm the process in which the runtime loads them end within bounds; the next one gets a verdict."""

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
import pytest_asyncio
from onnx import TensorProto, helper, numpy_helper

from onnx_operator.api.capabilities import load_capabilities
from onnx_operator.api.report import InspectionResult
from onnx_operator.model.inspection.faults import ParserError
from onnx_operator.model.inspection.isolation import Parser
from onnx_operator.model.limits import InspectionLimits

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIMITS = InspectionLimits(cpu_seconds=10, load_seconds=2, memory_bytes=512 << 20, max_model_bytes=64 << 30)
node = helper.make_node


class Files:
    def __init__(self, content: bytes) -> None:
        self.content = content

    async def size(self, name: str) -> int | None:
        return len(self.content) if name == "m.onnx" else 1 << 40 if name == "w.bin" else None

    async def read(self, name: str, begin: int, end: int) -> bytes:
        return self.content[begin:end] if name == "m.onnx" else bytes(end - begin)

    def expect(self, name: str, begin: int, end: int) -> None:
        pass


def built(nodes: list[onnx.NodeProto], initializers: list[TensorProto], size: object = 4) -> bytes:
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", size)),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def outer(name: str, *dims: int) -> TensorProto:
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    made.external_data.add(key="location", value="w.bin")
    return made


def array(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def huge(tensors: int, size: int) -> bytes:
    """More weights than there is memory, which take none."""
    adds = [node("Add", [f"h{each}" if each else "x", f"w{each}"], [f"h{each + 1}"]) for each in range(tensors)]
    weights = [outer(f"w{each}", size, 4) for each in range(tensors)]
    return built([*adds, node("Identity", [f"h{tensors}"], ["y"])], weights)


def sparse(size: int) -> bytes:
    """A few bytes that a dense tensor is made of."""
    made = onnx.ModelProto.FromString(built([node("MatMul", ["x", "w"], ["y"])], [], 4))
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    made.graph.sparse_initializer.append(onnx.SparseTensorProto(dims=[4, size], values=values, indices=array("i", 0)))
    return bytes(made.SerializeToString())


def product(letters: str, size: int) -> bytes:
    """A sum over all combinations of what lies in a few constants."""
    values = [numpy_helper.from_array(np.ones(size, np.float32), letter) for letter in letters]
    equation = ",".join(letters) + "->"
    return built([node("Einsum", list(letters), ["s"], equation=equation), node("Add", ["x", "s"], ["y"])], values)


def grown(size: int) -> bytes:
    """A constant as large as one likes, from its size alone."""
    nodes = [node("ConstantOfShape", ["k"], ["c"]), node("ReduceSum", ["c"], ["s"]), node("Add", ["x", "s"], ["y"])]
    return built(nodes, [array("k", size)])


def division() -> bytes:
    nodes = [node("Div", ["a", "b"], ["k"]), node("Reshape", ["x", "k"], ["y"])]
    return built(nodes, [array("a", -1, 4), array("b", 1, 0)])


ATTACKS = {
    "forty weights of a gibibyte": huge(40, 1 << 26),
    "one weight of more than everything": huge(1, 1 << 36),
    "many weights": huge(4_000, 300),
    "sparse": sparse(1 << 34),
    "long product": product("abcdef", 1024),
    "grown": grown(1 << 38),
    "division by zero": division(),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def parser() -> AsyncIterator[Parser]:
    async with Parser(LIMITS) as started:
        await verify(started, GOOD)
        yield started


GOOD = built([node("Relu", ["x"], ["y"])], [])


async def verify(parser: Parser, content: bytes) -> InspectionResult:
    return await parser.verify(Files(content), "m.onnx", size=len(content), capabilities=load_capabilities())


@pytest.mark.parametrize("attack", ATTACKS)
async def test_it_ends_in_bounds_and_the_next_model_is_judged(parser: Parser, attack: str) -> None:
    assert parser.zygote.process is not None
    forks, forbidden = parser.zygote.process.pid, parser.forbidden_calls
    # A limit of ours is an error, which says nothing of the model; all else is a verdict.
    with suppress(ParserError):
        result = await verify(parser, ATTACKS[attack])
        assert result.outcome in ("Accepted", "Refused")
    assert parser.forbidden_calls == forbidden
    assert parser.zygote.process.pid == forks
    assert (await verify(parser, GOOD)).outcome == "Accepted"


async def test_the_process_that_forks_stays_as_it_began(parser: Parser) -> None:
    """One thread, no other file, and no page of the zeros written: whatever its children loaded."""
    assert parser.zygote.process is not None
    pid = parser.zygote.process.pid
    for attack in ("sparse", "forty weights of a gibibyte"):
        await verify(parser, ATTACKS[attack])
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Threads"].strip() == "1"
    assert Path(f"/proc/{pid}/task/{pid}/children").read_text().split() == []
    assert parser.zygote.zeros is not None
    assert (parser.zygote.zeros / "zeros").stat().st_blocks == 0
