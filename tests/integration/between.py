"""Stands between a client and the API server, and answers in its place where a test says so."""

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "keep-alive"}


@dataclass
class Fault:
    """What is answered to requests of a method whose paths match, instead of what the API server would answer."""

    method: str
    path: str
    status: int
    """0: the connection breaks off."""
    times: int = 1_000_000
    met: int = 0


@dataclass
class Between:
    """A proxy; ``faults`` may change at any time."""

    url: str
    kubeconfig: Path
    faults: list[Fault] = field(default_factory=list)

    def fail(self, method: str, path: str, status: int, times: int = 1_000_000) -> Fault:
        """From now on; ``path`` is a pattern of path and query."""
        self.faults.append(Fault(method, path, status, times))
        return self.faults[-1]

    def fault(self, method: str, path: str) -> Fault | None:
        for each in self.faults:
            if each.method == method and re.search(each.path, path) and each.met < each.times:
                each.met += 1
                return each
        return None


def _upstream(kubeconfig: Path, folder: Path) -> tuple[str, ssl.SSLContext]:
    loaded = yaml.safe_load(kubeconfig.read_text())
    cluster, user = loaded["clusters"][0]["cluster"], loaded["users"][0]["user"]
    files = {"ca": cluster["certificate-authority-data"]}
    files |= {"crt": user["client-certificate-data"], "key": user["client-key-data"]}
    for name, text in files.items():
        (folder / f"upstream.{name}").write_bytes(base64.b64decode(text))
    context = ssl.create_default_context(cafile=str(folder / "upstream.ca"))
    context.load_cert_chain(folder / "upstream.crt", folder / "upstream.key")
    return cluster["server"], context


def _own(folder: Path, url: str) -> Path:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "between",
        "clusters": [{"name": "between", "cluster": {"server": url}}],
        "users": [{"name": "between", "user": {"token": "unused"}}],
        "contexts": [{"name": "between", "context": {"cluster": "between", "user": "between"}}],
    }
    file = folder / "between.kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


@asynccontextmanager
async def between(kubeconfig: Path, folder: Path) -> AsyncIterator[Between]:
    """A proxy to the API server of ``kubeconfig``, with a kubeconfig of its own."""
    server, context = _upstream(kubeconfig, folder)
    made = Between("", folder)
    session = aiohttp.ClientSession(
        server, connector=aiohttp.TCPConnector(ssl=context, limit=0), auto_decompress=False, read_bufsize=2**20
    )

    async def handle(request: web.Request) -> web.StreamResponse:
        fault = made.fault(request.method, request.path_qs)
        if fault and not fault.status:
            assert request.transport
            request.transport.abort()
            raise asyncio.CancelledError
        if fault:
            words = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.status}
            return web.json_response({**words, "message": f"test fault {fault.status}"}, status=fault.status)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in {*_HOP, "authorization"}}
        timeout = aiohttp.ClientTimeout(total=None)
        async with session.request(
            request.method, request.rel_url, data=await request.read(), headers=headers, timeout=timeout
        ) as answer:
            told = web.StreamResponse(status=answer.status, reason=answer.reason)
            told.headers.update({k: v for k, v in answer.headers.items() if k.lower() not in _HOP})
            await told.prepare(request)
            async for chunk in answer.content.iter_any():
                await told.write(chunk)
            return told

    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server
    port = site._server.sockets[0].getsockname()[1]
    made.url = f"http://127.0.0.1:{port}"
    made.kubeconfig = _own(folder, made.url)
    try:
        yield made
    finally:
        await runner.cleanup()
        await session.close()
