"""A client without any thought: creates objects, and notes when watches tell of others'."""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

Object = dict[str, Any]
CONCURRENCY = 8
"""Calls at a time where many objects are made: as many as the operator has workers."""


class RawClient:
    """Calls to the API server; raises ``aiohttp.ClientError`` where one is refused."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cadata=base64.b64decode(server["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as chain:
            for part in ("client-certificate-data", "client-key-data"):
                chain.write(base64.b64decode(user[part]))
            chain.flush()
            context.load_cert_chain(chain.name)
        self._server = server["server"]
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def get(self, path: str) -> Object:
        """An object, or a list."""
        return await self._call("GET", path)

    async def create(self, path: str, manifest: Object) -> Object:
        """Create an object; gives it as it is then."""
        return await self._call("POST", path, manifest)

    async def delete(self, path: str) -> None:
        """Delete an object, and then what it owns."""
        await self._call("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1"})

    async def create_all(self, items: Iterable[tuple[str, Object]]) -> None:
        """Create objects, each given with its path, as fast as ``CONCURRENCY`` calls at a time can."""
        waiting = iter(items)

        async def some() -> None:
            for path, manifest in waiting:
                await self._call("POST", path, manifest)

        await asyncio.gather(*(some() for _ in range(CONCURRENCY)))

    async def _call(self, method: str, path: str, body: Object | None = None) -> Object:
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        async with self._session.request(method, self._server + path, data=data, headers=headers) as response:
            text = await response.read()
            if response.status >= 300:
                raise aiohttp.ClientError(f"{method} {path}: {response.status} {text[:500]!r}")
            found: Object = orjson.loads(text)
            return found

    async def follow(self, path: str, see: Callable[[str, Object, float], None]) -> asyncio.Task[None]:
        """Begin to tell of each event of a collection: its type, the object, and when it came (``perf_counter``)."""
        version = (await self.get(f"{path}?limit=1"))["metadata"]["resourceVersion"]

        async def watch() -> None:
            nonlocal version
            while True:
                query = f"?watch=1&allowWatchBookmarks=true&timeoutSeconds=3000&resourceVersion={version}"
                async with self._session.get(self._server + path + query) as response:
                    rest = b""
                    async for chunk in response.content.iter_any():
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            now, event = time.perf_counter(), orjson.loads(line)
                            if event["type"] == "ERROR":
                                raise aiohttp.ClientError(f"the watch of {path} ended: {event['object']}")
                            version = event["object"]["metadata"]["resourceVersion"]
                            if event["type"] != "BOOKMARK":
                                see(event["type"], event["object"], now)

        return asyncio.create_task(watch())
