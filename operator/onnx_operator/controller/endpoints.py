"""The operator's own endpoints: ``/healthz``, ``/readyz``, ``/metrics``."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from onnx_operator.common.listening import listen
from onnx_operator.controller.telemetry import metrics
from onnx_operator.inspector import InspectorClient


@dataclass
class Health:
    """What the endpoints tell of this replica."""

    connected: bool = False
    leading: bool = False
    watching: bool = False
    inspector: InspectorClient | None = field(default=None)
    degraded: Callable[[], dict[str, list[str]]] = dict
    """By namespace, the kinds that cannot be followed there: its models suffer, and those of others go on."""

    async def problem(self) -> str | None:
        """Why this replica is not ready; None when it is. A replica that stands by is ready to take over."""
        if not self.connected:
            return "not connected to the API server yet"
        if self.leading and not self.watching:
            return "holding the lease, not watching yet"
        if self.inspector and not await self.inspector.healthy():
            return "the inspector does not answer on its socket"
        return None

    async def count(self) -> None:
        """Ask the inspector what it counts; while it does not say, what it said last stands."""
        if self.inspector and (counts := await self.inspector.counts()):
            metrics.INSPECTOR.update(
                forbidden_calls=counts.forbidden_calls,
                exceeded_limits=counts.exceeded_limits,
            )


async def start_endpoints(health: Health, host: str, port: int) -> web.AppRunner:
    """Serve the endpoints until the runner is cleaned up."""

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        problem = await health.problem()
        body = {"status": problem or "ok", "leading": health.leading, "notFollowed": health.degraded()}
        return web.json_response(body, status=503 if problem else 200)

    async def metrics_page(_: web.Request) -> web.Response:
        metrics.LEADER.set(int(health.leading))
        await health.count()
        text = await asyncio.to_thread(generate_latest, metrics.REGISTRY)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics_page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listen(host, port)).start()
    return runner
