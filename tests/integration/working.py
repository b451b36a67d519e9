"""An operator's own worker at work, and the cluster's part in having its models serve."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from onnx_operator.controller.app import _work
from onnx_operator.controller.cluster.kinds import ONNX_MODEL
from onnx_operator.controller.cluster.watches import wake
from tests.integration.test_calls import Kubelets
from tests.security.desk import Desk, Operator


@asynccontextmanager
async def at_work(operator: Operator) -> AsyncIterator[Operator]:
    """Have it look at what its store tells of, for as long as the block lasts."""
    wake(operator.queue, operator.store)
    for key in operator.store.keys(ONNX_MODEL):
        operator.queue.add(key)
    worker = asyncio.create_task(_work(operator.queue, operator.reconciler))
    try:
        yield operator
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        operator.store.changed = lambda change: None


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 60) -> Any:
    """Wait for an answer that is true in Python's sense, and return it."""
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.1)
    return found


async def status(desk: Desk, name: str = "m") -> dict[str, Any]:
    model = await desk.kube.get(ONNX_MODEL, desk.namespace, name)
    return (model or {}).get("status") or {}


async def conditions(desk: Desk, name: str = "m") -> dict[str, dict[str, Any]]:
    return {c["type"]: c for c in (await status(desk, name)).get("conditions", [])}


async def told(desk: Desk, kind: str, reason: str, name: str = "m", seconds: float = 60) -> dict[str, Any]:
    """The condition, as soon as it has this reason."""

    async def there() -> dict[str, Any] | None:
        found = (await conditions(desk, name)).get(kind)
        return found if found and found["reason"] == reason else None

    found: dict[str, Any] = await until(there, seconds)
    return found


async def serve(desk: Desk, name: str = "m") -> None:
    """Play the cluster's part until the model is Ready."""
    await until(lambda: desk.deployment(name))
    await Kubelets(desk.kube, desk.namespace).run(name)
    await told(desk, "Ready", "Complete", name)
