"""From a source to the child that parses: just the ranges it asks for, each file read in the way its store allows.

Small files are read whole, and hashed on the way. Of larger ones with a strong pin only ranges are read. What the
store cannot pin is streamed from beginning to end, once, with the child looking on: its hash is then its pin.
"""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourceFile, SourcePin
from onnx_operator.model.inspection.streaming import SequentialFile
from onnx_operator.model.sources.base import BrokenStreamError, FileStat, Source, SourceError, is_confined, unreachable

WHOLE_BYTES = 4 << 20
"""Files up to this size are read in one request."""
_MAX_AHEAD = 8
_MAX_AHEAD_BYTES = 8 << 20
"""Of all ranges of a source that are read before they are asked for."""
_MAX_KEPT = 2
"""Small files that are kept whole at a time."""
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.2
Progress = Callable[[int, int | None], None]
"""Called with the bytes that came so far, and the bytes of the model's file (None: not known)."""


@dataclass
class _Ahead:
    begin: int
    end: int
    task: asyncio.Task[bytes]


@dataclass
class _File:
    stat: FileStat
    size: int
    pin: SourcePin | None
    sha256: str | None = None
    whole: bytes | None = None
    stream: SequentialFile | None = None
    ranges: bool = True
    ahead: list[_Ahead] = field(default_factory=list)
    """Ranges that are being read before they are asked for."""


@dataclass
class SourceFeed:
    """The files of one source. Use it as ``async with``; ``source`` belongs to the caller.

    Every file is read as one version throughout. Methods raise :class:`SourceError`.
    """

    source: Source
    max_bytes: int
    progress: Progress | None = None
    bytes_read: int = 0
    _files: dict[str, _File | None] = field(default_factory=dict)
    _kept: list[_File] = field(default_factory=list)

    async def __aenter__(self) -> "SourceFeed":
        return self

    async def __aexit__(self, *_: object) -> None:
        guesses = [ahead.task for file in self._files.values() if file is not None for ahead in file.ahead]
        for task in guesses:
            task.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)
        for file in self._files.values():
            if file is not None and file.stream is not None:
                await file.stream.aclose()

    async def find(self, name: str) -> FileStat:
        """Look at a file that must be there."""
        return (await self._find(name)).stat

    async def size(self, name: str) -> int | None:
        """Bytes of a file; None for one that is not there, or outside the folder."""
        if not is_confined(name):
            return None
        try:
            return (await self._find(name)).size
        except SourceError as error:
            if error.reason is Reason.SOURCE_NOT_FOUND:
                return None
            raise

    async def read(self, name: str, begin: int, end: int) -> bytes:
        """Exactly these bytes, which must lie in the file."""
        file = await self._find(name)
        data = await self._read(name, file, begin, end)
        if len(data) != end - begin:
            raise unreachable(self.source.shown, f"{name} ends at byte {begin + len(data)} of {file.size}")
        return data

    async def _read(self, name: str, file: _File, begin: int, end: int) -> bytes:
        if file.whole is None and file.stream is None and file.size <= WHOLE_BYTES:
            file.whole = await self._ranged(name, file, 0, file.size) if file.size else b""
            file.sha256 = hashlib.sha256(file.whole).hexdigest()
            self._kept.append(file)
            if len(self._kept) > _MAX_KEPT:
                self._kept.pop(0).whole = None
        if file.whole is not None:
            return file.whole[begin:end]
        if file.stream is None and file.pin is not None and file.ranges:
            data = await self._foreseen(file, begin, end) or await self._ranged(name, file, begin, end)
            if file.ranges:
                return data
        if file.stream is None:
            file.stream = SequentialFile(self.source, name, file.pin, self._count)
        return await file.stream.read(begin, end)

    def expect(self, name: str, begin: int, end: int) -> None:
        """Read a range before it is asked for, where ranges are what is read of the file."""
        file = self._files.get(name)
        if file is None or file.pin is None or file.stream or file.size <= WHOLE_BYTES or not file.ranges:
            return
        end = min(end, file.size)
        if begin < end and len(file.ahead) < _MAX_AHEAD and self._ahead_bytes() + end - begin <= _MAX_AHEAD_BYTES:
            task = asyncio.create_task(self._ranged(name, file, begin, end))
            # What a guess runs into is told when the same bytes are asked for.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            file.ahead.append(_Ahead(begin, end, task))

    def _ahead_bytes(self) -> int:
        files = [file for file in self._files.values() if file is not None and file.ahead]
        return sum(ahead.end - ahead.begin for file in files for ahead in file.ahead)

    @staticmethod
    async def _foreseen(file: _File, begin: int, end: int) -> bytes:
        """A range that is part of an expected one; nothing where none is, or where reading it failed."""
        for ahead in list(file.ahead):
            if ahead.begin <= begin and end <= ahead.end:
                file.ahead.remove(ahead)
                with suppress(SourceError):
                    return (await ahead.task)[begin - ahead.begin : end - ahead.begin]
                return b""
            if ahead.end <= begin:
                file.ahead.remove(ahead)
                ahead.task.cancel()
        return b""

    def hashed(self, name: str) -> str | None:
        """The digest of a file that was read whole."""
        file = self._files.get(name)
        return file.sha256 if file is not None else None

    async def finish(self, name: str) -> SourceFile:
        """Describe a file as it was read: what nothing else pins is read to its end, for its hash."""
        file = await self._find(name)
        if file.sha256 is None and (file.stream is not None or (file.pin is None and file.size > WHOLE_BYTES)):
            file.stream = file.stream or SequentialFile(self.source, name, file.pin, self._count)
            file.sha256 = await file.stream.finish(file.size)
        elif file.sha256 is None and file.size <= WHOLE_BYTES:
            file.sha256 = hashlib.sha256(await self._ranged(name, file, 0, file.size)).hexdigest()
        sha256 = file.sha256 or file.stat.sha256 or ""
        pin = file.pin or SourcePin(kind="None", value=f"sha256:{sha256}")
        return SourceFile(name=name, pin=pin, size_bytes=file.size, sha256=sha256)

    async def describe(self, name: str) -> SourceFile:
        """Describe a file that was not read: only what nothing pins is read now, for its hash."""
        file = await self._find(name)
        if file.pin is None:
            return await self.finish(name)
        return SourceFile(name=name, pin=file.pin, size_bytes=file.size, sha256=file.sha256 or file.stat.sha256 or "")

    async def _find(self, name: str) -> _File:
        if name not in self._files:
            try:
                stat = await self.source.stat(name)
            except SourceError as error:
                if error.reason is Reason.SOURCE_NOT_FOUND:
                    self._files[name] = None
                raise
            size = stat.size if stat.size is not None else await self._measure(name, stat)
            total = size + sum(file.size for file in self._files.values() if file is not None)
            if total > self.max_bytes:
                raise SourceError(
                    Reason.TOO_LARGE,
                    f"{self.source.shown} is larger than the {self.max_bytes} bytes that the setting"
                    f" inspection.maxModelBytes allows ({total} bytes).",
                )
            self._files[name] = _File(stat, size, stat.pin)
        file = self._files[name]
        if file is None:
            raise SourceError(Reason.SOURCE_NOT_FOUND, f"{self.source.shown} has no file {name}.")
        return file

    async def _measure(self, name: str, stat: FileStat) -> int:
        """Size of a file whose store does not tell it: by reading it."""
        stream = SequentialFile(self.source, name, stat.pin, self._count)
        try:
            await stream.finish(None, limit=self.max_bytes)
        finally:
            await stream.aclose()
        return stream.position

    async def _ranged(self, name: str, file: _File, begin: int, end: int) -> bytes:
        """These bytes; none of them where the store turns out to serve no ranges."""
        data = bytearray()
        failures = 0
        while begin + len(data) < end:
            try:
                async with self.source.open(name, begin + len(data), end, pin=file.pin) as stream:
                    if stream.begin != begin + len(data):
                        file.ranges = False
                        if stream.begin != begin:
                            return b""
                        data.clear()
                    async for piece in stream.pieces:
                        data += piece[: end - begin - len(data)]
                        self._count(len(piece))
                        if begin + len(data) >= end:
                            break
                if begin + len(data) < end:
                    raise BrokenStreamError(f"it sent {len(data)} of {end - begin} bytes")
            except BrokenStreamError as broken:
                failures += 1
                if failures == _ATTEMPTS:
                    raise unreachable(self.source.shown, str(broken)) from None
                await asyncio.sleep(_PAUSE_SECONDS * failures)
                if file.pin is None:
                    # Nothing promises that the rest belongs to the same version.
                    data.clear()
        return bytes(data)

    def _count(self, size: int) -> None:
        self.bytes_read += size
        if self.progress is not None:
            known = [file.size for file in self._files.values() if file is not None]
            self.progress(self.bytes_read, known[0] if known else None)
