"""The API server as users, and the cluster's own programs, see it: beside the faults that the operator meets."""

import asyncio
import base64
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

from onnx_operator.controller.cluster.kinds import (
    CONTROLLER_REVISION,
    DEPLOYMENT,
    ONNX_MODEL,
    POD,
    POD_DISRUPTION_BUDGET,
    REPLICA_SET,
    SERVICE,
    Kind,
)

Object = dict[str, Any]
KINDS = {
    kind.plural: kind
    for kind in (ONNX_MODEL, DEPLOYMENT, REPLICA_SET, POD, SERVICE, POD_DISRUPTION_BUDGET, CONTROLLER_REVISION)
}
MERGE = "application/merge-patch+json"
PATIENT_SECONDS = 120.0
"""How long somebody tries again who is told that the API server is not there."""


class RefusedError(Exception):
    """The API server refused, and goes on doing so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """Calls that are made again for as long as the API server is away, as patient users make them."""

    def __init__(self, url: str, tls: ssl.SSLContext) -> None:
        self.url, self.tls = url, tls
        self._session = aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(ssl=tls, limit=0), read_bufsize=2**20)

    @classmethod
    def connect(cls, kubeconfig: Path, folder: Path) -> Self:
        """By a kubeconfig with a client certificate; its parts are written to ``folder``."""
        loaded = yaml.safe_load(kubeconfig.read_text())
        cluster, user = loaded["clusters"][0]["cluster"], loaded["users"][0]["user"]
        parts = {"ca": cluster["certificate-authority-data"]}
        parts |= {"crt": user["client-certificate-data"], "key": user["client-key-data"]}
        for name, text in parts.items():
            (folder / f"api.{name}").write_bytes(base64.b64decode(text))
        context = ssl.create_default_context(cafile=str(folder / "api.ca"))
        context.load_cert_chain(folder / "api.crt", folder / "api.key")
        return cls(cluster["server"], context)

    async def close(self) -> None:
        await self._session.close()

    async def call(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json", **query: str
    ) -> Object | None:
        """The answer; None where there is nothing of this name, or where it is there already."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENT_SECONDS
        while True:
            try:
                async with self._session.request(
                    method,
                    path,
                    data=None if body is None else json.dumps(body),
                    params=query,
                    headers={"Content-Type": content_type},
                    timeout=aiohttp.ClientTimeout(total=30),
                ) as answer:
                    text = await answer.text()
                    if answer.status < 300:
                        found: Object = json.loads(text) if text.startswith("{") else {}
                        return found
                    if answer.status == 404 or (answer.status == 409 and method == "POST"):
                        return None
                    error = RefusedError(answer.status, text[:500])
                    if answer.status < 500 and answer.status != 429:
                        raise error
            except (aiohttp.ClientError, OSError) as failure:
                error = RefusedError(0, repr(failure))
            if loop.time() > deadline:
                raise error
            await asyncio.sleep(0.3)

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return await self.call("GET", kind.path(namespace, name))

    async def list(self, kind: Kind, namespace: str | None = None) -> list[Object]:
        found = await self.call("GET", kind.path(namespace))
        return (found or {}).get("items") or []

    async def create(self, kind: Kind, namespace: str, manifest: Object) -> Object | None:
        body = {"apiVersion": kind.api_version, "kind": kind.kind, **manifest}
        return await self.call("POST", kind.path(namespace), body)

    async def patch(self, kind: Kind, namespace: str, name: str, body: Object, sub: str | None = None) -> Object | None:
        return await self.call("PATCH", kind.path(namespace, name, sub), body, MERGE, fieldManager="meddler")

    async def delete(self, kind: Kind, namespace: str, name: str, policy: str = "Background") -> None:
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy}
        await self.call("DELETE", kind.path(namespace, name), body)

    async def change(self, kind: Kind, namespace: str, name: str, edit: Callable[[Object], None]) -> Object | None:
        """Read, change and write an object, again where somebody else was faster; None where there is none."""
        while True:
            found = await self.get(kind, namespace, name)
            if found is None:
                return None
            edit(found)
            try:
                return await self.call("PUT", kind.path(namespace, name), found)
            except RefusedError as error:
                if error.status != 409:
                    raise

    async def watch(self, kind: Kind, version: str, see: Callable[[str, Object], None], **query: str) -> None:
        """Show what happens everywhere after a version, until the watch ends."""
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", **query}
        async with self._session.get(
            kind.path(None), params=query, timeout=aiohttp.ClientTimeout(total=None, sock_read=120)
        ) as answer:
            if answer.status != 200:
                raise RefusedError(answer.status, "no watch")
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise RefusedError(int(event["object"].get("code") or 0), "the watch failed")
                    see(event["type"], event["object"])
