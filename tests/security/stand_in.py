"""A stand-in for the API server that answers what no real one would, and keeps the lines that it was asked with."""

import asyncio
import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

from onnx_operator.controller.cluster.kube import Kube

Answer = tuple[int, bytes]
Handler = Callable[[str, dict[str, str]], Answer]


def found(body: Any, status: int = 200) -> Answer:
    """An answer of JSON."""
    return status, json.dumps(body).encode()


def nothing(target: str, headers: dict[str, str]) -> Answer:
    """There is nothing of any name."""
    return found({"kind": "Status", "reason": "NotFound", "message": "not found", "code": 404}, 404)


class StandIn:
    """What was asked, byte for byte, and how it is answered."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.asked: list[tuple[str, str]] = []

    @property
    def paths(self) -> list[str]:
        """The paths that were asked for, as they came, without what follows '?'."""
        return [target.partition("?")[0] for _, target in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer on one connection until it ends."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *rest = head.split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (field.partition(":") for field in rest if field)}
                await reader.readexactly(int(headers.get("content-length", 0)))
                method, target, _ = line.split(" ")
                self.asked.append((method, target))
                status, body = self.handler(target, headers)
                extra = b"Location: /elsewhere\r\n" if 300 <= status < 400 else b""
                writer.write(
                    b"HTTP/1.1 %d Told\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"
                    % (status, len(body), extra)
                )
                writer.write(body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def stand_in(folder: Any, handler: Handler = nothing):
    """A connection of the operator's to a stand-in, and the stand-in."""
    server = StandIn(handler)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {"name": "c", "cluster": {"server": f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"}}
                ],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    kube = await Kube.connect(str(kubeconfig))
    try:
        yield kube, server
    finally:
        await kube.close()
        listening.close()
