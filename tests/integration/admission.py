"""A real admission webhook, which the API server asks over TLS: slow, or of changing mind, as a test says."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.cluster.cluster import Cluster
from tests.unit.model.webkit import Authority

Verdict = tuple[bool, str]


@dataclass
class Webhook:
    """What it was asked, and what it answers."""

    decide: Callable[[dict[str, Any]], Awaitable[Verdict]]
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Requests for admission, as they came."""

    async def answer(self, request: web.Request) -> web.Response:
        """The API server's question."""
        review = json.loads(await request.read())
        self.asked.append(review["request"])
        allowed, message = await self.decide(review["request"])
        body = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {"uid": review["request"]["uid"], "allowed": allowed, "status": {"message": message}},
        }
        return web.json_response(body)


@asynccontextmanager
async def admission(
    cluster: Cluster,
    authority: Authority,
    namespace: str,
    decide: Callable[[dict[str, Any]], Awaitable[Verdict]],
    *,
    failure_policy: str = "Fail",
) -> AsyncIterator[Webhook]:
    """A webhook for the Deployments of a namespace, for as long as the block lasts."""
    hook = Webhook(decide)
    app = web.Application()
    app.router.add_post("/review", hook.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.server)
    await site.start()
    port = runner.addresses[0][1]
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": [
            {
                "name": "deployments.example.com",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 30,
                "failurePolicy": failure_policy,
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "rules": [
                    {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]}
                ],
                "clientConfig": {"url": f"https://127.0.0.1:{port}/review", "caBundle": _base64(authority.pem)},
            }
        ],
    }
    try:
        await asyncio.to_thread(cluster.apply, configuration)
        # The API server takes a moment to know of it.
        async with asyncio.timeout(30):
            while not hook.asked:
                probing = asyncio.create_task(asyncio.to_thread(_probe, cluster, namespace))
                while not hook.asked and not probing.done():
                    await asyncio.sleep(0.05)
                await asyncio.wait({probing})
        hook.asked.clear()
        yield hook
    finally:
        await asyncio.to_thread(
            cluster.run_kubectl, "delete", "validatingwebhookconfiguration", namespace, "--ignore-not-found"
        )
        await runner.cleanup()


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _probe(cluster: Cluster, namespace: str) -> None:
    arguments = ["create", "deployment", "probe", "--image=i", "--dry-run=server", "--request-timeout=1s"]
    cluster.run_kubectl(*arguments, "-n", namespace, check=False)
