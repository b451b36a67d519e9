"""The facts of a good start are read beside everything else, and no namespace keeps others' from being read."""

import asyncio
import json

import pytest

from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.status.facts import READS, FactReader

FACTS = {
    "event": "started",
    "executionProviders": ["CPUExecutionProvider"],
    "loadSeconds": 1,
    "warmUpSeconds": 1,
    "residentMemoryBytes": 1,
}


class Nodes:
    """Stands for the API server: it passes logs on from nodes, of which one namespace's never answer."""

    async def log(self, namespace: str, pod: str, container: str, limit_bytes: int) -> str:
        if namespace == "slow":
            await asyncio.Event().wait()
        return json.dumps(FACTS)


async def test_nodes_that_do_not_answer_keep_no_other_namespace_waiting():
    queue: KeyedQueue = KeyedQueue()
    reader = FactReader(Nodes(), queue)  # type: ignore[arg-type]
    for number in range(4 * READS):
        reader.poll(f"slow-{number}", ("slow", f"m{number}"), "r", "p")
    await asyncio.sleep(0)
    reader.poll("u", ("other", "m"), "r", "p")
    assert await asyncio.wait_for(queue.get(), 5) == ("other", "m")
    assert reader.poll("u", ("other", "m"), "r", "p") is not None
    for number in range(4 * READS):
        reader.forget(f"slow-{number}")


async def test_what_a_pod_tells_of_its_warm_up_is_kept_once():
    queue: KeyedQueue = KeyedQueue()
    told = FACTS | {"warmUp": {"warmed": True, "inputs": {"shapes": {"x": [1, 4]}}}}

    class Pods:
        """Stands for the API server: it passes a log on."""

        async def log(self, namespace: str, pod: str, container: str, limit_bytes: int) -> str:
            return json.dumps(told)

    reader = FactReader(Pods(), queue)  # type: ignore[arg-type]
    reader.poll("u", ("n", "m"), "r", "p")
    await asyncio.wait_for(queue.get(), 5)
    facts = reader.warm_up("u", "r")
    assert facts is not None
    assert facts.inputs is not None
    assert facts.inputs.shapes == {"x": [1, 4]}
    assert reader.warm_up("u", "another") is None
    reader.noted("u")
    assert reader.warm_up("u", "r") is None
    assert reader.poll("u", ("n", "m"), "r", "p") is not None, "the other facts stay"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"intraOpThreads": 2, "processes": 3}, (2, 3, None)),
        ({"warmUp": {"warmed": True, "requestCpuSeconds": 0.0123}}, (None, None, 12300)),
        ({"intraOpThreads": -1, "processes": 10**12}, (None, None, None)),
        ({"warmUp": {"warmed": True, "requestCpuSeconds": 1e300}}, (None, None, None)),
    ],
    ids=str,
)
async def test_threads_and_the_time_of_a_request_are_told_where_they_can_be_true(told, expected):
    class Pods:
        async def log(self, namespace: str, pod: str, container: str, limit_bytes: int) -> str:
            return json.dumps(FACTS | told)

    queue: KeyedQueue = KeyedQueue()
    reader = FactReader(Pods(), queue)  # type: ignore[arg-type]
    reader.poll("u", ("n", "m"), "r", "p")
    await asyncio.wait_for(queue.get(), 5)
    found = reader.poll("u", ("n", "m"), "r", "p")
    assert found is not None
    assert (found.intra_op_threads, found.processes, found.request_cpu_microseconds) == expected
