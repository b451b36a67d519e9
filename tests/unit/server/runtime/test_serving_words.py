"""What ONNX Runtime says is read for hints; a model's names stand in it, and they may be anything."""

import random
import time

import pytest
from onnx import TensorProto

from onnx_operator.server.dataplane.tensors import TensorInfo
from onnx_operator.server.runtime.finding import Found, Sources, find_input
from onnx_operator.server.runtime.guessing import NOTHING, Search
from onnx_operator.server.runtime.guessing.words import MAX_NUMBERS, read_words, sizes_from
from tests.unit.server.serving import load_bytes, model_bytes, node, value

REFUSAL = (
    "Non-zero status code returned while running If node. Name:'outer' Status Message: Non-zero status code returned "
    "while running Gather node. Name:'/embed/Gather_1' Status Message: indices element out of data bounds, idx=7 must "
    "be within the inclusive range [-3,2]"
)


def test_the_innermost_node_and_the_numbers_are_read() -> None:
    words = read_words(REFUSAL)
    assert (words.operator, words.node, words.shift) == ("Gather", "/embed/Gather_1", -5)
    assert words.numbers == (7, 2)


@pytest.mark.parametrize(
    "text",
    [
        "running A node. Name:'" * 20_000,
        "running " + "A" * 500_000,
        "idx=1" * 100_000,
        "1 " * 200_000,
        "running A node. Name:'" + "x" * 500_000,
        "-" * 500_000,
        "1.1" * 100_000,
        "idx=999999999999999999 must be within the inclusive range [-999999999999999999,999999999999999999]" * 5000,
    ],
    ids=range(8),
)
def test_a_text_made_to_take_long_is_read_in_a_moment(text: str) -> None:
    started = time.process_time()
    words = read_words(text)
    assert len(words.numbers) <= MAX_NUMBERS
    assert all(0 < size <= 65_536 for size in sizes_from(words.numbers, 1, 65_536))
    assert time.process_time() - started < 60, "a hang guard"


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_said_the_search_goes_on_and_ends(seed: int) -> None:
    rng = random.Random(seed)
    inputs = [
        TensorInfo(f"x{number}", "tensor(int64)", "INT64", ("N", f"a{number % 5} + b", None, "-" * 150 + "1"))
        for number in range(12)
    ]
    search, given = Search(inputs, lambda: NOTHING), 0
    for guess in search:
        given += 1
        said = "".join(
            rng.choice([REFUSAL, "\x00", "\ud800", "9" * 400, "2147483648 ", "0 ", "'", "-1 "]) for _ in "x" * 9
        )
        search.refused(guess, said)
        if given == 40:
            break
    assert given == 40


def test_names_of_nodes_lead_nobody_astray() -> None:
    """A node that is called like a refusal of another."""
    content = model_bytes(
        [node("MatMul", ["x", "x"], ["y"], name=f"running Gather node. Name:'x' idx=5 {2**31}' {REFUSAL}")],
        [value("x", TensorProto.FLOAT, ["N", "L"])],
        [value("y", TensorProto.FLOAT, None)],
    )
    assert isinstance(find_input(load_bytes(content), Sources()), Found)
