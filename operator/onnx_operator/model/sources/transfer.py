"""The receiving end of a download: file, hash, limits and pace."""

import asyncio
import hashlib
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from onnx_operator.api.conditions import Reason
from onnx_operator.model.sources.base import Progress, SourceError

CHUNK_BYTES = 1 << 20
SLOW_WINDOW_SECONDS = 20.0
SLOW_BYTES_PER_SECOND = 1024


class Sink:
    """Writes a stream to a file and hashes it on the way, off the event loop.

    ``offset`` is the number of bytes on disk. Use as ``async with``; it closes the file and leaves it there.
    """

    def __init__(self, destination: Path, *, shown_uri: str, max_bytes: int | None, progress: Progress | None) -> None:
        self._destination = destination
        self._shown_uri = shown_uri
        self._max_bytes = max_bytes
        self._progress = progress
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._pending = bytearray()
        self._on_disk = 0
        self._total: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def offset(self) -> int:
        """Bytes received of the current version, including those still in memory."""
        return self._on_disk + len(self._pending)

    async def restart(self) -> None:
        """Begin an empty file."""
        await asyncio.to_thread(self._reopen, False)

    async def continue_existing(self) -> None:
        """Take over what lies at the destination already; begin an empty file when nothing does."""
        await asyncio.to_thread(self._reopen, self._destination.exists())

    def expect(self, total: int | None) -> None:
        """Announce the size of the whole object. Raises SourceError (``TooLarge``)."""
        self._total = total
        self._check(total or 0)

    async def write(self, data: bytes | memoryview) -> None:
        """Append. Raises SourceError (``TooLarge``) before the limit is passed, and OSError."""
        self._check(self.offset + len(data))
        self._pending += data
        if len(self._pending) >= CHUNK_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Bring what is in memory to the file."""
        if self._pending:
            await asyncio.to_thread(self._flush)
            if self._progress is not None:
                self._progress(self._on_disk, self._total)

    async def digest(self) -> str:
        """Finish the file and return its SHA-256 as hex."""
        await self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None
        return self._hash.hexdigest()

    def _check(self, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise SourceError(
                Reason.TOO_LARGE,
                f"{self._shown_uri} is larger than the {self._max_bytes} bytes that are allowed"
                + (f" ({self._total} bytes)." if self._total else "."),
            )

    def _reopen(self, keep: bool) -> None:
        if self._file is not None:
            self._file.close()
        self._hash = hashlib.sha256()
        self._pending.clear()
        self._on_disk = 0
        self._file = self._destination.open("r+b" if keep else "wb")
        if keep:
            while block := self._file.read(CHUNK_BYTES):
                self._hash.update(block)
                self._on_disk += len(block)

    def _flush(self) -> None:
        assert self._file is not None
        self._file.write(self._pending)
        self._hash.update(self._pending)
        self._on_disk += len(self._pending)
        self._pending.clear()


class Pace:
    """Notices a download that trickles, over all its streams: under 1 KiB/s over 20 s."""

    def __init__(self) -> None:
        self._window = self._last = time.monotonic()
        self._received = 0

    @property
    def silence(self) -> float:
        """Seconds since the last byte."""
        return time.monotonic() - self._last

    def add(self, size: int) -> None:
        """Count bytes. Raises TimeoutError when the last 20 s brought too few."""
        now = time.monotonic()
        if size:
            self._last = now
        self._received += size
        elapsed = now - self._window
        if elapsed >= SLOW_WINDOW_SECONDS:
            if self._received < SLOW_BYTES_PER_SECOND * elapsed:
                raise TimeoutError(f"only {self._received} bytes came in {elapsed:.0f} s")
            self._window, self._received = now, 0
