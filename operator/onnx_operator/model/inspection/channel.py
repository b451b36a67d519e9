"""The socket to a parsing child."""

import asyncio
import socket
from contextlib import suppress
from types import TracebackType
from typing import Self

from onnx_operator.model.inspection.faults import ParserError

_LINE_LIMIT = 4 << 20
"""Of a line that a child says; an answer has about 200 bytes for each file of the model."""


class Channel:
    """Bytes to a child, lines from it. A stream of asyncio's would drop what the child's end left to be read."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    async def send(self, data: bytes) -> None:
        """Send all; to a child that is gone nothing, since the process that reaps it says why."""
        with suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def receive_line(self) -> bytes:
        """One line; empty at the end. Raises :class:`ParserError` for one without end."""
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > _LINE_LIMIT:
                raise ParserError("the parsing child does not stop talking")
            try:
                data = await asyncio.get_running_loop().sock_recv(self._socket, 1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                return b""
            self._received += data
        line = bytes(self._received[: end + 1])
        del self._received[: end + 1]
        return line
