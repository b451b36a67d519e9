"""A real HTTP proxy: tunnels, and requests for plain http; it leads every name to this machine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Proxy:
    """Counts what it is asked for."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    """HOST:PORT of each request."""
    authorizations: list[str] = field(default_factory=list)
    refusal: int = 0
    """A status to answer everything with."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.partition("\r\n")[0].split(" ")
        host = target if method == "CONNECT" else urlsplit(target).netloc
        self.asked.append(host)
        lines = head.split("\r\n")
        self.authorizations += [line for line in lines if line.lower().startswith("proxy-authorization")]
        if self.refusal:
            writer.write(f"HTTP/1.1 {self.refusal} X\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            return
        there, back = await asyncio.open_connection("127.0.0.1", int(host.rpartition(":")[2]))
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            parts = urlsplit(target)
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            back.write("\r\n".join([f"{method} {path} HTTP/1.1", *lines[1:]]).encode())
        try:
            await asyncio.gather(_pass(reader, back), _pass(there, writer))
        finally:
            back.transport.abort()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def proxied() -> AsyncIterator[Proxy]:
    """A proxy on this machine."""
    proxy = Proxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
