"""A closed loop of keep-alive clients on raw sockets: each sends its next request when it has its answer."""

import asyncio
import itertools
import time
from dataclasses import dataclass, field

import uvloop


@dataclass
class Tally:
    """What the clients saw: a latency for each answer."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    last_answer: bytes = b""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """A latency in seconds; with few answers this is the slowest one."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def post(path: str, body: bytes) -> bytes:
    """A whole request, ready for the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def get(path: str) -> bytes:
    """The same without a body."""
    return f"GET {path} HTTP/1.1\r\nHost: m\r\n\r\n".encode()


def load(port: int, requests: list[bytes], clients: int, seconds: float) -> Tally:
    """Send for this long and count; whatever was begun is waited for. Raises RuntimeError on any failure."""
    return uvloop.run(_load(port, requests, clients, seconds))


async def _load(port: int, requests: list[bytes], clients: int, seconds: float) -> Tally:
    loop = asyncio.get_running_loop()
    tally = Tally()
    connected = [
        await loop.create_connection(lambda start=start: _Client(requests, start, tally), "127.0.0.1", port)
        for start in range(clients)
    ]
    began = time.perf_counter()
    for _, client in connected:
        client.begin(began + seconds)
    async with asyncio.timeout(seconds + 60):
        await asyncio.gather(*(client.done for _, client in connected))
    tally.seconds = time.perf_counter() - began
    return tally


class _Client(asyncio.Protocol):
    def __init__(self, requests: list[bytes], start: int, tally: Tally) -> None:
        self._requests = itertools.cycle(requests[start % len(requests) :] + requests[: start % len(requests)])
        self._tally = tally
        self._buffer = b""
        self._needed = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError("the server closed a connection"))

    def begin(self, deadline: float) -> None:
        self._deadline = deadline
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._needed:
            head, found, _ = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._needed = len(head) + 4 + int(length)
        if len(self._buffer) < self._needed:
            return
        answer, self._buffer, self._needed = self._buffer, b"", 0
        now = time.perf_counter()
        self._tally.latencies.append(now - self._sent)
        if not answer.startswith(b"HTTP/1.1 200"):
            self.done.set_exception(RuntimeError(answer.decode(errors="replace")[:500]))
        elif now < self._deadline:
            self._send()
            return
        else:
            self._tally.last_answer = answer.partition(b"\r\n\r\n")[2]
            self.done.set_result(None)
        self._transport.close()
