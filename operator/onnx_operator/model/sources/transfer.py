"""Downloads from any source: parts in parallel where the store allows it, resumable, hashed on the way."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources import parts
from onnx_operator.model.sources.base import BrokenStreamError, FileStat, Source, SourceError, Stream
from onnx_operator.model.sources.parts import PartsFile

CHUNK_BYTES = 2 << 20
"""What is gathered before it is written."""
PARALLEL = 4
SLOW_WINDOW_SECONDS = 20.0
SLOW_BYTES_PER_SECOND = 1024
_ATTEMPTS = 3
"""Streams in a row that may break before the first byte of progress."""
_FIRST_DELAY_SECONDS = 0.2

Progress = Callable[[int, int | None], None]
"""Called on the event loop with the bytes that are there and the size of the whole, where it is known."""


@dataclass(frozen=True)
class Downloaded:
    """What was brought."""

    sha256: str
    size: int
    pin: SourcePin | None
    """Of what was read; None when the store tells neither version nor strong ETag."""


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
    trial = _Trial(source, name)
    while got < end - begin:
        before = got
        try:
            async with source.open(name, begin + got, end, pin=pin) as stream:
                async for piece in _clipped(stream, begin + got, end):
                    trial.pace_add(len(piece))
                    pieces.append(piece)
                    got += len(piece)
            if got < end - begin:
                raise BrokenStreamError(f"{got} of {end - begin} bytes came")
        except BrokenStreamError as broken:
            if _strong(pin) is None:
                pieces.clear()
                got = 0
            await trial.again(broken, progressed=got > before)
    return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)


async def download(
    source: Source,
    name: str,
    destination: Path,
    *,
    pin: SourcePin | None = None,
    max_bytes: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    parallel: int = PARALLEL,
) -> Downloaded:
    """Bring a file to ``destination``, always one and the same version of it, and hash it on the way.

    Without ``pin`` it is the version that is found first. Parts are fetched in parallel where the version has a
    strong pin, the size is known and the store serves ranges; else it is one stream. With ``resume``, parts that an
    earlier call brought of the same version are kept. After an error the file is incomplete, with a sidecar beside it
    (``parts.sidecar``) if it can be resumed.
    Raises :class:`SourceChangedError`, :class:`SourceError` (``TooLarge`` beyond ``max_bytes``) and OSError.
    """
    run = _Run(source, name, destination, max_bytes, progress)
    wanted, known_size = _strong(pin), None
    if pin is None:
        stat = await source.stat(name)
        wanted, known_size = stat.pin, stat.size
        run.expect(known_size)
    # Of an empty file no range can be asked for.
    if wanted is not None and known_size != 0 and max_bytes != 0:
        try:
            return await run.in_parts(wanted, resume, parallel)
        except _NoRangesError:
            pass
    return await run.in_one(wanted)


class _NoRangesError(Exception):
    """The store sends the whole file whatever is asked for, or does not tell its size."""


class _Trial:
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
            raise self._unreachable(f"the stream is too slow: {slow}") from None

    async def again(self, broken: BrokenStreamError, *, progressed: bool) -> None:
        """Wait before the next try. Raises SourceError when there were enough."""
        self._failures = 1 if progressed else self._failures + 1
        if self._failures >= _ATTEMPTS or self._pace.silence >= SLOW_WINDOW_SECONDS:
            raise self._unreachable(str(broken)) from None
        await asyncio.sleep(_FIRST_DELAY_SECONDS * self._failures)

    def _unreachable(self, why: str) -> SourceError:
        return SourceError(
            Reason.SOURCE_UNREACHABLE, f"{self._shown} could not be read: {why}. It is tried again.", retriable=True
        )


@dataclass(frozen=True)
class _Opened:
    """A stream, and what closes it."""

    stack: AsyncExitStack
    stream: Stream


class _Run:
    """One download."""

    def __init__(
        self, source: Source, name: str, destination: Path, max_bytes: int | None, progress: Progress | None
    ) -> None:
        self._source = source
        self._name = name
        self._destination = destination
        self._max_bytes = max_bytes
        self._progress = progress
        self._pace = Pace()
        self._done = 0
        self._total: int | None = None

    def expect(self, size: int | None) -> None:
        """Take note of the size that the store announces. Raises SourceError (``TooLarge``)."""
        self._total = size
        self._check(size or 0)

    async def in_parts(self, pin: SourcePin, resume: bool, parallel: int) -> Downloaded:
        """Fetch parts in parallel. Raises _NoRangesError where only one stream can do."""
        async with AsyncExitStack() as stack:
            # The first part tells the size of the version, which a look at the file would not.
            continued = resume and parts.sidecar(self._destination).exists()
            first = await self._first(stack, 1 if continued else parts.PART_BYTES, pin)
            size = first.stream.stat.size
            if size is None or first.stream.begin != 0:
                raise _NoRangesError
            self.expect(size)
            file = PartsFile(
                self._destination,
                version={
                    "uri": self._source.shown,
                    "name": self._name,
                    "kind": pin.kind,
                    "pin": pin.value,
                },
                size=size,
                part_bytes=parts.PART_BYTES,
            )
            stack.callback(file.close)
            await _in_thread(file.open, resume)
            missing = file.missing()
            self._done = size - sum(end - begin for begin, end in map(file.span, missing))
            if continued:
                await first.stack.aclose()
            await self._fill(file, pin, missing, None if continued else first, parallel)
            digest = file.digest()
        file.forget()
        return Downloaded(sha256=digest, size=size, pin=pin)

    async def _first(self, stack: AsyncExitStack, end: int, pin: SourcePin) -> "_Opened":
        trial = self._trial()
        own = await stack.enter_async_context(AsyncExitStack())
        while True:
            try:
                return _Opened(own, await own.enter_async_context(self._source.open(self._name, 0, end, pin=pin)))
            except BrokenStreamError as broken:
                await trial.again(broken, progressed=False)

    async def _fill(
        self, file: PartsFile, pin: SourcePin, missing: list[int], first: "_Opened | None", parallel: int
    ) -> None:
        ready = asyncio.Event()
        filled = False
        queue = iter(missing)

        async def hash_in_order() -> None:
            ready.set()
            while True:
                await ready.wait()
                ready.clear()
                last = filled
                await _in_thread(file.advance)
                if last:
                    return

        async def fetch(opened: _Opened | None) -> None:
            for part in queue:
                await self._part(file, part, pin, opened)
                opened = None
                ready.set()

        async def fetch_all() -> None:
            nonlocal filled
            workers = max(1, min(parallel, len(missing)))
            await _together([fetch(first if worker == 0 else None) for worker in range(workers)])
            filled = True
            ready.set()

        await _together([hash_in_order(), fetch_all()])

    async def _part(self, file: PartsFile, part: int, pin: SourcePin, opened: "_Opened | None") -> None:
        offset, end = file.span(part)
        trial = self._trial()
        while offset < end:
            before = offset
            try:
                async with opened.stack if opened else AsyncExitStack() as stack:
                    if opened:
                        stream, opened = opened.stream, None
                    else:
                        stream = await stack.enter_async_context(self._source.open(self._name, offset, end, pin=pin))
                    if stream.begin != offset:
                        raise _NoRangesError
                    self._compare(file.size, stream.stat)
                    async for buffers, size in _gathered(_clipped(stream, offset, end), trial):
                        await _in_thread(file.write, part, buffers, offset)
                        offset += size
                        self._add(size)
                if offset < end:
                    raise BrokenStreamError("the store ended the stream early")
            except BrokenStreamError as broken:
                await trial.again(broken, progressed=offset > before)
        await _in_thread(file.complete, part)

    async def in_one(self, wanted: SourcePin | None) -> Downloaded:
        """Fetch in one stream; continued where it breaks if the version has a strong pin, else begun again."""
        parts.sidecar(self._destination).unlink(missing_ok=True)
        trial = self._trial()
        found = wanted
        with self._destination.open("wb") as file:
            digest, offset = hashlib.sha256(), 0
            while True:
                before = offset
                try:
                    async with self._source.open(self._name, offset, None, pin=wanted) as stream:
                        if stream.begin not in (0, offset):
                            raise BrokenStreamError("the store began in another place than asked for")
                        if not stream.begin:
                            digest, offset = hashlib.sha256(), 0
                            self._done = 0
                            os.ftruncate(file.fileno(), 0)
                        self.expect(stream.stat.size)
                        # From here on it is this version, as far as the store can tell it from another.
                        wanted = found = stream.stat.pin or wanted
                        async for buffers, size in _gathered(_clipped(stream, offset, None), trial):
                            self._check(offset + size)
                            await _in_thread(_append, file.fileno(), digest, buffers, offset)
                            offset += size
                            self._add(size)
                        if stream.stat.size is not None and offset != stream.stat.size:
                            raise BrokenStreamError(f"the store sent {offset} of {stream.stat.size} bytes")
                        return Downloaded(sha256=digest.hexdigest(), size=offset, pin=found)
                except BrokenStreamError as broken:
                    progressed = wanted is not None and offset > before
                    if wanted is None:
                        offset = 0
                    await trial.again(broken, progressed=progressed)

    def _trial(self) -> _Trial:
        return _Trial(self._source, self._name, self._pace)

    def _compare(self, size: int, stat: FileStat) -> None:
        if stat.size is not None and stat.size != size:
            raise SourceError(
                Reason.SOURCE_REFUSED,
                f"{self._source.shown}: the store tells two sizes, {size} and {stat.size} bytes, of one version of"
                f" {self._name}.",
            )

    def _check(self, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise SourceError(
                Reason.TOO_LARGE,
                f"{self._source.shown} is larger than the {self._max_bytes} bytes that are allowed"
                + (f" ({self._total} bytes)." if self._total else "."),
            )

    def _add(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, self._total)


def _strong(pin: SourcePin | None) -> SourcePin | None:
    return None if pin is None or pin.kind == "None" else pin


def _append(descriptor: int, digest: Any, buffers: list[bytes | memoryview], offset: int) -> None:
    parts.write_at(descriptor, buffers, offset)
    for buffer in buffers:
        digest.update(buffer)


async def _clipped(stream: Stream, begin: int, end: int | None) -> AsyncIterator[memoryview]:
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


async def _gathered(pieces: AsyncIterator[memoryview], trial: _Trial) -> AsyncIterator[tuple[list[Any], int]]:
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


async def _in_thread(call: Callable[..., Any], *arguments: Any) -> None:
    """Run a blocking call; when cancelled, it is waited for: it uses a file that is closed next."""
    job = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        await asyncio.shield(job)
    except asyncio.CancelledError:
        await asyncio.wait([job])
        if not job.cancelled():
            job.exception()
        raise


async def _together(jobs: list[Coroutine[Any, Any, None]]) -> None:
    """Run all; when one fails the others are stopped before its error is raised."""
    tasks: list[asyncio.Future[None]] = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for error in _errors(tasks):
        raise error


def _errors(tasks: list[asyncio.Future[None]]) -> Iterator[BaseException]:
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            yield error
