"""A file that is filled in any order, hashed in order, and continued by another process."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

PART_BYTES = 16 << 20
"""What one request of a parallel download asks for, and what is lost at most of a part when a process dies."""
_READ_BACK_BYTES = 256 << 10
_MAX_BUFFERS = 512


def sidecar(destination: Path) -> Path:
    """Where the state of an unfinished download lies: beside its file."""
    return destination.with_name(destination.name + ".parts")


def write_at(descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> None:
    """Write all of the buffers, one after the other. Raises OSError."""
    views = [memoryview(buffer) for buffer in buffers if len(buffer)]
    while views:
        written = os.pwritev(descriptor, views[:_MAX_BUFFERS], offset)
        offset += written
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


class PartsFile:
    """The file of a download whose size and version are known, with a sidecar that tells which parts are complete.

    All calls block; they may come from several threads, but :meth:`advance` from one at a time. A process may die at
    any moment: the file then counts only together with a sidecar that was written before its first part, and a part
    only once its line is there. What was written before the machine went down is not trusted either: it may never
    have reached the disk.
    """

    def __init__(self, destination: Path, *, version: dict[str, str], size: int, part_bytes: int) -> None:
        self.size = size
        self.part_bytes = part_bytes
        self.count = -(-size // part_bytes)
        self._path = destination
        self._head = json.dumps(
            {**version, "size": size, "partBytes": part_bytes, "boot": _boot_id()}, sort_keys=True
        ).encode()
        self._complete: set[int] = set()
        self._hash = hashlib.sha256()
        self._hashed_parts = 0
        self._file = -1
        self._state = -1

    def open(self, resume: bool) -> None:
        """Take over what an earlier process left of the same version if ``resume``, else begin anew. Raises OSError."""
        state = sidecar(self._path)
        self._complete = self._known(state) if resume else set()
        if not self._complete:
            # In this order: a file without a sidecar never counts, a fresh sidecar knows no part.
            state.unlink(missing_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._file, self.size)
        self._state = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if not self._complete:
            os.write(self._state, self._head + b"\n")

    def close(self) -> None:
        """Close the files and leave both there."""
        for descriptor in (self._file, self._state):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._state = -1

    def forget(self) -> None:
        """Remove the sidecar."""
        sidecar(self._path).unlink(missing_ok=True)

    def span(self, part: int) -> tuple[int, int]:
        """Offsets of a part."""
        begin = part * self.part_bytes
        return begin, min(begin + self.part_bytes, self.size)

    def missing(self) -> list[int]:
        """Parts that are still to be fetched, in order."""
        return [part for part in range(self.count) if part not in self._complete]

    def write(self, buffers: Sequence[bytes | memoryview], offset: int) -> None:
        """Write bytes of a part. Raises OSError."""
        write_at(self._file, buffers, offset)

    def complete(self, part: int) -> None:
        """Note that all of a part was written. Raises OSError."""
        os.write(self._state, b"%d\n" % part)
        self._complete.add(part)

    def advance(self) -> None:
        """Hash the complete parts that follow what was hashed before. Raises OSError."""
        # Read back rather than kept in memory until its turn: fresh memory costs as much as this copy.
        while self._hashed_parts in self._complete:
            for piece in self._read_back(self._hashed_parts):
                self._hash.update(piece)
            self._hashed_parts += 1

    def digest(self) -> str:
        """SHA-256 of the file as hex, once all parts are complete and hashed."""
        return self._hash.hexdigest()

    def _read_back(self, part: int) -> Iterator[memoryview]:
        offset, end = self.span(part)
        view = memoryview(bytearray(_READ_BACK_BYTES))
        while offset < end:
            got = os.preadv(self._file, [view[: min(len(view), end - offset)]], offset)
            if not got:
                raise OSError(f"{self._path} became shorter while it was being filled")
            yield view[:got]
            offset += got

    def _known(self, state: Path) -> set[int]:
        try:
            head, *lines = state.read_bytes().split(b"\n")
            if head != self._head or self._path.stat().st_size != self.size:
                return set()
        except OSError:
            return set()
        # The last line has no end where the process died in the middle of writing it.
        return {int(line) for line in lines[:-1] if line.isdigit() and int(line) < self.count}


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
