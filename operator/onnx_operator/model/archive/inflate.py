"""Deflated bytes by their place: forwards in one pass, back from the nearest of a few remembered states."""

import zlib
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from onnx_operator.api.conditions import Reason
from onnx_operator.model.archive.base import ArchiveError, ReadAt, corrupt

_INPUT_BYTES = 256 * 1024
_FIRST_INPUT_BYTES = 4 * 1024
_PIECE_BYTES = 128 * 1024
_STATES = 64
"""Each takes some 45 KiB: the decompressor's 32 KiB window and tables."""
_FIRST_SPACING = 4 << 20
_GZIP_PARTS = 1000
_GZIP_PART_BYTES = 1024
"""On the average, from so many parts on: gzip files may be concatenated, but not to waste the reader's time."""


@dataclass(frozen=True)
class _State:
    position: int
    """Of the decompressed bytes."""
    offset: int
    """Of the compressed ones."""
    inflater: Any


class Inflated:
    """The decompressed bytes of ``reader`` from ``begin`` up to ``end``: a gzip file, or bare deflate.

    Memory stays bounded whatever the bytes say. Going back decompresses again from a remembered state at most one
    64th of the way before; ``restarts`` counts it. More than ``most`` bytes are refused.
    """

    def __init__(self, reader: ReadAt, begin: int, end: int, *, gzip: bool, most: int) -> None:
        self._reader = reader
        self._end = end
        self._gzip = gzip
        self._most = most
        self._states = [_State(0, begin, self._new())]
        self._spacing = _FIRST_SPACING
        self._parts = 1
        self.restarts = 0
        self._go_to(self._states[0])

    def read_at(self, begin: int, end: int) -> bytes:
        """Return the bytes from ``begin`` up to ``end``; fewer only where they end. Raises :class:`ArchiveError`."""
        if not 0 <= begin < end:
            return b""
        nearest = self._states[bisect_right(self._states, begin, key=lambda state: state.position) - 1]
        if begin < self._piece_at:
            self.restarts += 1
            self._go_to(nearest)
        elif nearest.position > self._position:
            self._go_to(nearest)
        while self._position <= begin:
            if not self._advance():
                return b""
        found = [self._piece[begin - self._piece_at : end - self._piece_at]]
        while self._position < end and self._advance():
            found.append(self._piece[: end - self._piece_at])
        return found[0] if len(found) == 1 else b"".join(found)

    @property
    def _position(self) -> int:
        return self._piece_at + len(self._piece)

    def _new(self) -> Any:
        return zlib.decompressobj(16 + zlib.MAX_WBITS if self._gzip else -zlib.MAX_WBITS)

    def _go_to(self, state: _State) -> None:
        self._inflater = state.inflater.copy()
        self._offset = state.offset
        self._input = b""
        self._step = _FIRST_INPUT_BYTES
        self._full = False
        self._piece_at, self._piece = state.position, b""

    def _advance(self) -> bool:
        """Make the next piece; False at the end."""
        while True:
            if self._inflater.eof and not self._next_part():
                return False
            if not self._input and not self._full:
                self._remember()
                self._feed()
            try:
                piece = self._inflater.decompress(self._input, _PIECE_BYTES)
            except zlib.error as error:
                raise corrupt(f"Its compressed data cannot be read up to byte {self._offset} ({error}).") from None
            self._input = self._inflater.unconsumed_tail
            self._full = len(piece) == _PIECE_BYTES
            if piece:
                self._piece_at, self._piece = self._position, piece
                if self._position > self._most:
                    if self._gzip:
                        raise ArchiveError(Reason.TOO_LARGE, f"The archive unpacks to more than {self._most} bytes.")
                    raise corrupt(f"A member unpacks to more than the {self._most} bytes that it claims.")
                return True

    def _feed(self) -> None:
        if self._offset >= self._end:
            raise corrupt(f"Its compressed data ends early, after {self._position} bytes unpacked.")
        end = min(self._offset + self._step, self._end)
        self._input = self._reader.read_at(self._offset, end)
        if len(self._input) != end - self._offset:
            raise corrupt(f"The archive ends at byte {self._offset + len(self._input)}.")
        self._offset = end
        self._step = min(self._step * 2, _INPUT_BYTES)

    def _next_part(self) -> bool:
        """Go on with the next of several concatenated gzip files; what else follows is padding."""
        if not self._gzip:
            return False
        start = self._offset - len(self._inflater.unused_data)
        if self._end - start < 18 or self._reader.read_at(start, start + 2) != b"\x1f\x8b":
            return False
        self._parts += 1
        if self._parts > _GZIP_PARTS and self._position < self._parts * _GZIP_PART_BYTES:
            raise corrupt(f"It is made of {self._parts} gzip files that hold next to nothing.")
        self._inflater = self._new()
        # Small first steps: what was read beyond the end of a short part is read and copied again.
        self._offset, self._input, self._step, self._full = start, b"", _FIRST_INPUT_BYTES, False
        return True

    def _remember(self) -> None:
        # Only between two inputs: a copied decompressor would keep the rest of its input alive.
        if self._position < self._states[-1].position + self._spacing:
            return
        self._states.append(_State(self._position, self._offset, self._inflater.copy()))
        if len(self._states) > _STATES:
            self._states = self._states[::2]
            self._spacing *= 2
