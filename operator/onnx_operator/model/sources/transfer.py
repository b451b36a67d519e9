"""Downloads from any source: parts in parallel where the store allows it, resumable, hashed on the way."""

import asyncio
import hashlib
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.sources import parts
from onnx_operator.model.sources.base import BrokenStreamError, FileStat, Source, SourceError, Stream
from onnx_operator.model.sources.parts import PartsFile
from onnx_operator.model.sources.streams import Pace, Trial, clipped, gathered, read, strong

__all__ = ["Downloaded", "Progress", "download", "read"]

PARALLEL = 4
Progress = Callable[[int, int | None], None]
"""Called on the event loop with the bytes that are there and the size of the whole, where it is known."""


@dataclass(frozen=True)
class Downloaded:
    """What was brought."""

    sha256: str
    size: int
    pin: SourcePin | None
    """Of what was read; None when the store tells neither version nor strong ETag."""


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
    wanted, known_size = strong(pin), None
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
                    async for buffers, size in gathered(clipped(stream, offset, end), trial):
                        await _in_thread(file.write, buffers, offset)
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
                        async for buffers, size in gathered(clipped(stream, offset, None), trial):
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

    def _trial(self) -> Trial:
        return Trial(self._source, self._name, self._pace)

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


def _append(descriptor: int, digest: Any, buffers: list[bytes | memoryview], offset: int) -> None:
    parts.write_at(descriptor, buffers, offset)
    for buffer in buffers:
        digest.update(buffer)


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
