"""A window over a file that is far away: few round trips, few bytes, little memory.

A model's structure lies in small pieces between large weights. Reading on is cheap while pieces follow each other;
behind a weight only as much is read as the link brings in the time that asking again would take.
"""

import mmap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

MIN_BYTES = 4 << 10
_MAX_JUMP_BYTES = 32 << 10
"""Read behind a skipped weight at most: 300 such reads are 1 % of a gigabyte."""
_MAX_RUN_BYTES = 2 << 20
_AHEAD = 6
"""Reads that are foreseen at a time."""
_SLACK_BYTES = 128
"""By which foreseen places may be off: names and shapes take a byte more or less."""


class ReadAt(Protocol):
    """Bytes by their offsets."""

    def read_at(self, begin: int, end: int) -> bytes:
        """Return exactly the bytes from ``begin`` up to ``end``. Whatever it raises ends the reading."""


class Window:
    """A file of ``size`` bytes, seen through a buffer that moves with the reader.

    Meant for walking forward; going back costs a read. The buffer holds at most 4 MiB, but for single requests that
    are larger. ``expect`` is told ranges that will probably be read soon.
    """

    def __init__(
        self,
        file: ReadAt,
        size: int,
        clock: Callable[[], float] = time.perf_counter,
        expect: Callable[[int, int], None] = lambda begin, end: None,
    ) -> None:
        self.size = size
        self.reads = 0
        self.bytes_read = 0
        self._file = file
        self._clock = clock
        self._expect = expect
        self._jumped_to = 0
        self._recent = (0, 0)
        self._followed: dict[tuple[int, int], int] = {}
        """The jump that came after two others: layers of a network repeat."""
        self._foreseen = 0
        self._buffer = b""
        self._begin = 0
        self._run = MIN_BYTES
        self._quickest: tuple[float, int] | None = None
        """Seconds and bytes of the read that took least: close to the latency."""
        self._speed = 0.0

    def around(self, at: int, count: int) -> tuple[bytes, int]:
        """Return a buffer and the offset of its first byte; it holds ``count`` bytes from ``at``, or up to the end."""
        if at < self._begin or at + count > self._begin + len(self._buffer):
            self._move(at, min(count, self.size - at))
        return self._buffer, self._begin

    def slice(self, begin: int, end: int) -> bytes:
        """Copy bytes that are expected to fit into memory."""
        out = bytearray()
        self.append_to(out, begin, end)
        return bytes(out)

    def append_to(self, out: bytearray, begin: int, end: int) -> None:
        """Append the bytes between two offsets, a buffer at a time."""
        while begin < end:
            buffer, first = self.around(begin, 1)
            part = min(end, first + len(buffer))
            out += memoryview(buffer)[begin - first : part - first]
            begin = part

    def _move(self, at: int, count: int) -> None:
        end = self._begin + len(self._buffer)
        kept = b""
        if self._begin <= at <= end:
            # On a straight run each read may be twice the last.
            self._run = min(2 * self._run, _MAX_RUN_BYTES)
            kept = self._buffer[at - self._begin :]
        else:
            self._run = self._after_jump(at - end)
            self._foresee(at)
        begin = at + len(kept)
        until = min(self.size, max(at + count, begin + self._run))
        data = self._read(begin, until, foreseen=begin <= self._foreseen)
        self._buffer = kept + data if kept else data
        self._begin = at

    def _after_jump(self, gap: int) -> int:
        in_flight = int(self._quickest[0] * self._speed) if self._quickest else 0
        if 0 < gap < max(in_flight // 4, min(self._run, _MAX_JUMP_BYTES)):
            # Where the gaps are this small, reading through several of them is quicker than asking for each.
            return min(max(2 * in_flight, 2 * self._run), _MAX_RUN_BYTES)
        return min(max(in_flight // 16, MIN_BYTES), _MAX_JUMP_BYTES)

    def _foresee(self, at: int) -> None:
        """Announce where the next reads will be, where jumps like the last ones have been followed by others before."""
        stride = at - self._jumped_to
        self._jumped_to = at
        self._followed[self._recent] = stride
        self._recent = (self._recent[1], stride // _SLACK_BYTES)
        recent, where = self._recent, at
        for _ in range(_AHEAD):
            stride = self._followed.get(recent, self.size)
            where += stride
            if stride <= 0 or where >= self.size:
                return
            recent = (recent[1], stride // _SLACK_BYTES)
            if where > self._foreseen + _SLACK_BYTES:
                self._foreseen = where
                self._expect(where - _SLACK_BYTES, min(self.size, where + self._run + _SLACK_BYTES))

    def _read(self, begin: int, end: int, *, foreseen: bool) -> bytes:
        started = self._clock()
        data = self._file.read_at(begin, end)
        elapsed = self._clock() - started
        self.reads += 1
        self.bytes_read += len(data)
        if foreseen:
            # It was on its way already: its time tells nothing of the link.
            return self._checked(data, begin, end)
        if self._quickest is None or elapsed < self._quickest[0]:
            self._quickest = (elapsed, len(data))
        least, few = self._quickest
        # Of reads of about the same size the difference is but noise.
        if len(data) > 4 * few and elapsed > least:
            self._speed = max(self._speed, (len(data) - few) / (elapsed - least))
        return self._checked(data, begin, end)

    @staticmethod
    def _checked(data: bytes, begin: int, end: int) -> bytes:
        if len(data) != end - begin:
            raise ValueError(f"{len(data)} bytes came instead of {end - begin}")
        return data


class Memory(Window):
    """A file that is in memory already, or mapped into it: all of it is the buffer, and nothing moves."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.size = len(data)
        # A mapped file is indexed, cut and searched like bytes.
        self._buffer = cast("bytes", data)

    def around(self, at: int, count: int) -> tuple[bytes, int]:
        """Return the file, and 0."""
        if at >= self.size:
            raise ValueError(f"there is no byte {at}, the file has {self.size}")
        return self._buffer, 0

    def slice(self, begin: int, end: int) -> bytes:
        """Copy bytes."""
        return self._buffer[begin:end]

    def append_to(self, out: bytearray, begin: int, end: int) -> None:
        """Append the bytes between two offsets."""
        out += self._buffer[begin:end]


@contextmanager
def mapped(path: Path) -> Iterator[Memory]:
    """A file of this machine, read where it is looked at. Raises OSError, and ValueError for one that is empty."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield Memory(content)
