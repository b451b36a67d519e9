"""The facts of a good start are read beside everything else, and no namespace keeps others' from being read."""

import asyncio
import json

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
        reader.look(f"slow-{number}", ("slow", f"m{number}"), "r", "p")
    await asyncio.sleep(0)
    reader.look("u", ("other", "m"), "r", "p")
    assert await asyncio.wait_for(queue.get(), 5) == ("other", "m")
    assert reader.look("u", ("other", "m"), "r", "p") is not None
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
    reader.look("u", ("n", "m"), "r", "p")
    await asyncio.wait_for(queue.get(), 5)
    facts = reader.warm_up("u", "r")
    assert facts is not None
    assert facts.inputs is not None
    assert facts.inputs.shapes == {"x": [1, 4]}
    assert reader.warm_up("u", "another") is None
    reader.noted("u")
    assert reader.warm_up("u", "r") is None
    assert reader.look("u", ("n", "m"), "r", "p") is not None, "the other facts stay"
