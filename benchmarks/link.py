"""A link of a given speed and round trip, as a proxy in a process of its own: ``python -m benchmarks.link PORT …``.

The kernel here has no netem. Both directions are delayed by half the round trip; what comes back shares one speed over
all connections.
"""

import asyncio
import json
import subprocess
import sys
from types import TracebackType
from typing import Self

import uvloop

from benchmarks import machine

BYTES_PER_SECOND = 100e6
ROUND_TRIP_SECONDS = 0.010
_PIECE = 64 << 10
_QUEUED_SECONDS = 0.02
"""How far the sender may run ahead of the link, as a buffer in a router lets it."""


class Link:
    """The proxy as its parent sees it. Use it as ``with``; ``port`` leads through it."""

    def __init__(self, core: int, target: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.link", str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: machine.pin(core),
        )
        self.port = int(self._answer())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process as process:
            process.kill()

    def received(self) -> int:
        """Bytes that came back through the link since this was asked last."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return int(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return str(json.loads(self._process.stdout.readline()))


class _Shaper:
    def __init__(self, target: int) -> None:
        self._target = target
        self._free = 0.0
        self.received = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        pumps = [
            asyncio.create_task(self._pump(reader, forth, False)),
            asyncio.create_task(self._pump(back, writer, True)),
        ]
        await asyncio.wait(pumps)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, shaped: bool) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await queue.get()
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                if not data:
                    writer.close()
                    return
                writer.write(data)
                await writer.drain()

        delivery = asyncio.create_task(deliver())
        try:
            while True:
                data = await reader.read(_PIECE)
                sent = loop.time()
                if shaped:
                    self.received += len(data)
                    sent = self._free = max(sent, self._free) + len(data) / BYTES_PER_SECOND
                queue.put_nowait((sent + ROUND_TRIP_SECONDS / 2, data))
                if not data:
                    break
                if (ahead := sent - loop.time()) > _QUEUED_SECONDS:
                    await asyncio.sleep(ahead - _QUEUED_SECONDS)
            await delivery
        except OSError:
            delivery.cancel()
            writer.close()


async def _serve(target: int) -> None:
    shaper = _Shaper(target)
    server = await asyncio.start_server(shaper.connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(shaper.received, flush=True)
        shaper.received = 0


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
