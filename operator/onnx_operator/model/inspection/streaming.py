"""A file that can only be read from its beginning: looked into on the way, and hashed."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources.base import BrokenStreamError, Source, SourceError, unreachable

_PASSES = 4
"""How often the beginning may be gone back to: an archive lists its contents at its end, and streams break."""
_PAUSE_SECONDS = 0.3
_HEAD_BYTES = 64 << 10
"""The beginning is kept: what a file is shows there, and it is looked at more than once."""


class SequentialFile:
    """One pass over a file; going back begins another. Close it with :meth:`aclose`.

    ``count`` is called with the size of all that comes.
    """

    def __init__(self, source: Source, name: str, pin: SourcePin | None, count: Callable[[int], None]) -> None:
        self._source = source
        self._name = name
        self._pin = pin
        self._count = count
        self._passes = 0
        self._stack = AsyncExitStack()
        self._pieces: AsyncIterator[bytes | memoryview] | None = None
        self._buffer = bytearray()
        self._head = bytearray()
        self._hash = hashlib.sha256()
        self.position = 0
        """Bytes of this pass that came."""

    async def aclose(self) -> None:
        """Let go of the connection."""
        self._pieces = None
        await self._stack.aclose()

    async def read(self, begin: int, end: int) -> bytes:
        """The bytes between two offsets, fewer where the file ends. Raises :class:`SourceError`."""
        if end <= len(self._head):
            return bytes(self._head[begin:end])
        while True:
            if self._pieces is None or begin < self.position - len(self._buffer):
                await self._start()
            try:
                while self.position < end and await self._next(begin):
                    pass
            except BrokenStreamError as broken:
                await self._pause(broken)
                continue
            first = self.position - len(self._buffer)
            if begin > first:
                del self._buffer[: begin - first]
                first = min(begin, self.position)
            return bytes(self._buffer[: max(0, end - first)])

    async def finish(self, size: int | None, *, limit: int | None = None) -> str:
        """Read what is left, and return the SHA-256 of the whole file as hex.

        Raises :class:`SourceError`: ``SourceUnreachable`` where not exactly ``size`` bytes come, ``TooLarge`` above
        ``limit``.
        """
        while True:
            if self._pieces is None:
                await self._start()
            try:
                while await self._next(self.position):
                    if limit is not None and self.position > limit:
                        raise SourceError(
                            Reason.TOO_LARGE,
                            f"{self._source.shown} is larger than the {limit} bytes that the setting"
                            " inspection.maxModelBytes allows.",
                        )
                    if size is not None and self.position > size:
                        raise BrokenStreamError(f"it sent more than the {size} bytes that it has")
                if size is not None and self.position < size:
                    raise BrokenStreamError(f"it sent {self.position} of {size} bytes")
            except BrokenStreamError as broken:
                await self._pause(broken)
                continue
            return self._hash.hexdigest()

    async def _next(self, needed_from: int) -> bool:
        assert self._pieces is not None
        piece = await anext(self._pieces, None)
        if piece is None:
            return False
        # Hashing a large piece would hold up everybody else.
        if len(piece) >= 1 << 18:
            await asyncio.to_thread(self._hash.update, piece)
        else:
            self._hash.update(piece)
        self._count(len(piece))
        if self.position < _HEAD_BYTES:
            self._head += piece[: _HEAD_BYTES - self.position]
        self.position += len(piece)
        if self.position <= needed_from:
            self._buffer.clear()
        else:
            self._buffer += piece
            surplus = needed_from - (self.position - len(self._buffer))
            if surplus > 0:
                del self._buffer[:surplus]
        return True

    async def _start(self) -> None:
        await self.aclose()
        self._passes += 1
        if self._passes > _PASSES:
            raise unreachable(self._source.shown, "its stream broke again and again")
        self._buffer.clear()
        self._head.clear()
        self._hash = hashlib.sha256()
        self.position = 0
        stream = await self._stack.enter_async_context(self._source.open(self._name, pin=self._pin))
        self._pieces = aiter(stream.pieces)

    async def _pause(self, broken: BrokenStreamError) -> None:
        await self.aclose()
        if self._passes >= _PASSES:
            raise unreachable(self._source.shown, str(broken)) from None
        await asyncio.sleep(_PAUSE_SECONDS * self._passes)
