"""Requests that arrive together run together, and no request notices but by the time it takes."""

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from onnx_operator.server.dataplane.batching import Batcher, BatchPolicy
from onnx_operator.server.dataplane.inference import Inference
from onnx_operator.server.dataplane.plane import DataPlane
from onnx_operator.server.errors import RequestError
from onnx_operator.server.runtime.session import Model
from tests.unit.server.serving import identity, linear, load_bytes, model_bytes, node, slow, value

INLINE = BatchPolicy(8, inline=True, largest=10_000)
POOLED = BatchPolicy(8)


class Ran:
    """What ran: requests and rows of each run."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []

    def __call__(self, requests: int, rows: int, waited: float) -> None:
        assert waited >= 0
        self.runs.append((requests, rows))


def ask(model: Model, policy: BatchPolicy, feeds: list[Any], outputs: Any = None, workers: int = 1) -> tuple[Any, Ran]:
    """Send all feeds at once; return their answers (or errors) in order, and what ran."""
    ran = Ran()

    async def main() -> list[Any]:
        plane = DataPlane("m", timeout=30)
        plane.attach(model, Batcher(model, policy, workers, ran))
        names = tuple(info.name for info in model.outputs)
        try:
            asked = outputs or [names] * len(feeds)
            pairs = zip(feeds, asked, strict=True)
            return await asyncio.gather(
                *(plane.infer(Inference(feed, chosen)) for feed, chosen in pairs), return_exceptions=True
            )
        finally:
            plane.close()

    return asyncio.run(main()), ran


def row(*numbers: float) -> dict[str, Any]:
    return {"X": np.array([numbers], np.float32)}


@pytest.mark.parametrize("policy", [INLINE, POOLED])
def test_requests_of_one_moment_share_a_run_and_each_gets_its_own_rows(policy: BatchPolicy) -> None:
    feeds = [row(n, 0, 0, 0) for n in range(5)]
    answers, ran = ask(load_bytes(linear()), policy, feeds)
    assert [answer[1][0, 1] for answer in answers] == pytest.approx([n / 10 for n in range(5)])
    assert sum(requests for requests, _ in ran.runs) == 5
    # With a thread, the first is under way before the others are there.
    assert len(ran.runs) == (1 if policy.inline else len(ran.runs)) <= 2


def test_no_run_has_more_rows_than_the_policy_allows() -> None:
    feeds = [{"X": np.zeros((rows, 4), np.float32)} for rows in (3, 4, 5, 1, 8, 9, 2)]
    answers, ran = ask(load_bytes(linear()), INLINE, feeds)
    assert [len(answer[0]) for answer in answers] == [3, 4, 5, 1, 8, 9, 2]
    # A request of its own may be larger: it runs alone.
    assert all(rows <= 8 or requests == 1 for requests, rows in ran.runs)
    assert len(ran.runs) < len(feeds)


def test_a_request_that_the_model_refuses_fails_alone() -> None:
    content = model_bytes(
        [node("Gather", ["table", "i"], ["y"])],
        [value("i", TensorProto.INT64, ["N"])],
        [value("y", TensorProto.FLOAT, ["N"])],
        {"table": np.arange(3, dtype=np.float32)},
    )
    answers, ran = ask(load_bytes(content), INLINE, [{"i": np.array([n])} for n in (0, 7, 2)])
    assert ran.runs == [(3, 3)]
    assert answers[0][0] == [0]
    assert isinstance(answers[1], RequestError)
    assert "idx=7" in answers[1].message
    assert answers[2][0] == [2]


def test_other_shapes_and_other_outputs_run_apart() -> None:
    model = load_bytes(identity(TensorProto.FLOAT, ["N", "width"]))
    feeds = [{"x": np.ones((1, width), np.float32)} for width in (2, 3, 2, 3)]
    answers, ran = ask(model, INLINE, feeds)
    assert [answer[0].shape for answer in answers] == [(1, 2), (1, 3), (1, 2), (1, 3)]
    assert ran.runs == [(2, 2), (2, 2)]
    chosen: list[tuple[str, ...]] = [("label",), ("logits",), ("label", "logits")]
    answers, ran = ask(load_bytes(linear()), INLINE, [row(1, 0, 0, 0)] * 3, chosen)
    assert [len(answer) for answer in answers] == [1, 1, 2]
    assert len(ran.runs) == 3


def test_scalars_and_empty_batches_run_alone() -> None:
    model = load_bytes(identity(TensorProto.FLOAT, ["N"]))
    answers, ran = ask(model, INLINE, [{"x": np.zeros(0, np.float32)}, {"x": np.zeros(2, np.float32)}] * 2)
    assert [len(answer[0]) for answer in answers] == [0, 2, 0, 2]
    assert sorted(ran.runs) == [(1, 1), (1, 1), (2, 4)]


def test_a_model_of_a_fixed_size_is_filled_up() -> None:
    content = model_bytes(
        [node("Neg", ["X"], ["y"])],
        [value("X", TensorProto.FLOAT, [4, 2])],
        [value("y", TensorProto.FLOAT, [4, 2])],
    )
    policy = BatchPolicy(4, pad=4, inline=True, largest=100)
    answers, ran = ask(load_bytes(content), policy, [{"X": np.full((1, 2), n, np.float32)} for n in range(6)])
    assert [answer[0].tolist() for answer in answers] == [[[-n, -n]] for n in range(6)]
    assert ran.runs == [(4, 4), (2, 2)]


def test_a_request_waits_for_others_no_longer_than_it_may() -> None:
    async def main() -> list[tuple[int, int]]:
        ran = Ran()
        model = load_bytes(linear())
        plane = DataPlane("m", timeout=30)
        plane.attach(model, Batcher(model, BatchPolicy(4, delay=0.2, inline=True, largest=100), 1, ran))
        first = [asyncio.create_task(plane.infer(Inference(row(1, 0, 0, 0), ("label",)))) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert not first[0].done()
        # A full batch waits for nobody; the two left over wait for their time.
        more = [asyncio.create_task(plane.infer(Inference(row(1, 0, 0, 0), ("label",)))) for _ in range(4)]
        await asyncio.gather(*first, *more)
        plane.close()
        return ran.runs

    assert asyncio.run(main()) == [(4, 4), (2, 2)]


def test_an_inference_that_takes_too_long_is_stopped_and_the_next_one_runs() -> None:
    async def main() -> Any:
        model = load_bytes(slow())
        plane = DataPlane("m", timeout=0.2)
        plane.attach(model, Batcher(model, BatchPolicy(), 1))
        with pytest.raises(RequestError, match=r"no answer within 0\.2 s") as refusal:
            await plane.infer(Inference({"n": np.array([10**12])}, ("total",)))
        assert refusal.value.status == 504
        plane.timeout = 30
        answer = await plane.infer(Inference({"n": np.array([1])}, ("total",)))
        plane.close()
        return answer

    assert asyncio.run(main()) == [64.0]


def test_a_batch_is_stopped_only_when_nobody_waits_for_any_of_it() -> None:
    model = load_bytes(slow())

    async def main() -> list[Any]:
        plane = DataPlane("m", timeout=60)
        plane.attach(model, Batcher(model, BatchPolicy(8), 1))
        tasks = [asyncio.create_task(plane.infer(Inference({"n": np.array([n])}, ("total",)))) for n in (1, 1, 1)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        plane.close()
        return list(answers)

    first, second, third = asyncio.run(main())
    assert first == third == [64.0]
    assert isinstance(second, asyncio.CancelledError)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=30),
    st.sampled_from([1, 2, 5, 16]),
    st.booleans(),
)
def test_whatever_arrives_together_answers_are_those_of_each_alone(
    requests: list[tuple[int, int]], size: int, inline: bool
) -> None:
    model = MODEL
    generator = np.random.default_rng(sum(rows for rows, _ in requests))
    feeds = [{"X": generator.integers(-9, 9, (rows, 4)).astype(np.float32)} for rows, _ in requests]
    chosen = [(("label",), ("logits",), ("label", "logits"), ("logits", "label"))[which] for _, which in requests]
    answers, _ = ask(model, BatchPolicy(size, inline=inline, largest=10_000), feeds, chosen, workers=2)
    for feed, names, answer in zip(feeds, chosen, answers, strict=True):
        expected = model.session.run(list(names), feed)
        assert len(answer) == len(expected)
        for found, wanted in zip(answer, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


MODEL = load_bytes(linear())


def test_who_gives_a_default_of_the_model_another_value_runs_alone() -> None:
    content = model_bytes(
        [node("Gemm", ["x", "prototypes"], ["y"], transB=1)],
        [value("x", TensorProto.FLOAT, ["N", 3]), value("prototypes", TensorProto.FLOAT, ["K", 3])],
        [value("y", TensorProto.FLOAT, ["N", "K"])],
        {"prototypes": np.eye(3, dtype=np.float32)},
    )
    x = np.array([[1, 2, 3]], np.float32)
    feeds = [{"x": x, "prototypes": np.array([[n, 0, 0]], np.float32)} for n in range(4)]
    answers, ran = ask(load_bytes(content), INLINE, [*feeds, {"x": x}, {"x": x}])
    assert [answer[0].tolist() for answer in answers] == [[[n]] for n in range(4)] + [[[1, 2, 3]]] * 2
    assert ran.runs == [(1, 1)] * 4 + [(2, 2)]


def test_fewer_rows_than_a_fixed_number_are_taken_where_they_are_filled_up() -> None:
    content = model_bytes(
        [node("Relu", ["x"], ["y"])],
        [value("x", TensorProto.FLOAT, [3, 2])],
        [value("y", TensorProto.FLOAT, [3, 2])],
        {},
    )
    model = load_bytes(content)
    assert not model.input_by_name["x"].accepts((1, 2))
    model.fill_up()
    taken = [
        shape for shape in ((1, 2), (3, 2), (4, 2), (0, 2), (1, 3), (1,)) if model.input_by_name["x"].accepts(shape)
    ]
    assert taken == [(1, 2), (3, 2)]
