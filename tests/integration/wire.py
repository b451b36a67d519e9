"""A wire between a client and an API server, that a test can cut, or through which nothing comes any more."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


class Wire:
    """Passes bytes on, both ways, for as long as it is let."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends: set[asyncio.StreamWriter] = set()
        self.open = asyncio.Event()
        """Cleared, bytes wait."""
        self.open.set()
        self.refusing = False
        self.count = 0
        """Connections so far."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.close()
            return
        self.count += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        self._ends |= {writer, back}
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        self._ends -= {writer, back}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self.open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        """End every connection at once."""
        for end in list(self._ends):
            end.transport.abort()


@asynccontextmanager
async def wired(kubeconfig: Path, folder: Path) -> AsyncIterator[tuple[Wire, Path]]:
    """A wire to the API server of a kubeconfig, and a kubeconfig that leads through it."""
    text = kubeconfig.read_text()
    port = re.search(r"server: \S+:(\d+)", text)
    assert port
    wire = Wire(int(port[1]))
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    led = folder / "wired"
    led.write_text(text.replace(f":{port[1]}", f":{server.sockets[0].getsockname()[1]}"))
    try:
        yield wire, led
    finally:
        server.close()
        wire.open.set()
        wire.cut()
