"""Reading a source's streams: exactly the bytes asked for, together enough to be worth a step, and not too slowly."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources.base import BrokenStreamError, Source, Stream, unreachable

CHUNK_BYTES = 2 << 20
"""What is gathered before it is written."""
SLOW_WINDOW_SECONDS = 20.0
SLOW_BYTES_PER_SECOND = 1024
_ATTEMPTS = 3
"""Streams in a row that may break before the first byte of progress."""
_FIRST_DELAY_SECONDS = 0.2


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


async def read(source: Source, name: str, begin: int, end: int, *, pin: SourcePin | None) -> bytes:
    """Read exactly the bytes from ``begin`` up to ``end``.

    A stream that breaks is continued under a strong pin and begun again without one. Raises :class:`SourceError`:
    ``SourceUnreachable`` also where the file ends before ``end``.
    """
    pieces: list[bytes | memoryview] = []
    got = 0
    trial = Trial(source, name)
    while got < end - begin:
        before = got
        try:
            async with source.open(name, begin + got, end, pin=pin) as stream:
                async for piece in clipped(stream, begin + got, end):
                    trial.pace_add(len(piece))
                    pieces.append(piece)
                    got += len(piece)
            if got < end - begin:
                raise BrokenStreamError(f"{got} of {end - begin} bytes came")
        except BrokenStreamError as broken:
            if strong(pin) is None:
                pieces.clear()
                got = 0
            await trial.again(broken, progressed=got > before)
    return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)


class Trial:
    """Counts failures in a row of one stream, and waits between them."""

    def __init__(self, source: Source, name: str, pace: Pace | None = None) -> None:
        self._shown = source.shown if source.shown.endswith(name) else f"{name} of {source.shown}"
        self._pace = pace or Pace()
        self._failures = 0

    def pace_add(self, size: int) -> None:
        """Count bytes. Raises SourceError where too few come."""
        try:
            self._pace.add(size)
        except TimeoutError as slow:
            raise unreachable(self._shown, f"the stream is too slow: {slow}") from None

    async def again(self, broken: BrokenStreamError, *, progressed: bool) -> None:
        """Wait before the next try. Raises SourceError when there were enough."""
        self._failures = 1 if progressed else self._failures + 1
        if self._failures >= _ATTEMPTS or self._pace.silence >= SLOW_WINDOW_SECONDS:
            raise unreachable(self._shown, str(broken)) from None
        await asyncio.sleep(_FIRST_DELAY_SECONDS * self._failures)


def strong(pin: SourcePin | None) -> SourcePin | None:
    """The pin, if it ties reads to one version; None otherwise."""
    return None if pin is None or pin.kind == "None" else pin


async def clipped(stream: Stream, begin: int, end: int | None) -> AsyncIterator[memoryview]:
    """Yield the bytes of a stream from ``begin`` up to ``end``, wherever the store chose to begin."""
    offset = stream.begin
    async with aclosing(cast("Any", stream.pieces)) as pieces:
        async for piece in pieces:
            view = memoryview(piece)
            lower = max(begin - offset, 0)
            upper = len(view) if end is None else end - offset
            offset += len(view)
            if lower < upper and lower < len(view):
                yield view[lower:upper]
            if end is not None and offset >= end:
                return


async def gathered(pieces: AsyncIterator[memoryview], trial: Trial) -> AsyncIterator[tuple[list[Any], int]]:
    """Yield pieces together, ``CHUNK_BYTES`` at least; also what came before the stream broke."""
    buffers: list[memoryview] = []
    size = 0
    broken: BrokenStreamError | None = None
    async with aclosing(cast("Any", pieces)) as opened:
        try:
            async for piece in opened:
                trial.pace_add(len(piece))
                buffers.append(piece)
                size += len(piece)
                if size >= CHUNK_BYTES:
                    yield buffers, size
                    buffers, size = [], 0
        except BrokenStreamError as error:
            broken = error
    if buffers:
        yield buffers, size
    if broken is not None:
        raise broken
