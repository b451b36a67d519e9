"""Tar archives, plain or gzip'ed: one pass tells what lies where."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from onnx_operator.api.conditions import Reason
from onnx_operator.model.archive.base import ArchiveError, Listing, Member, MemberReader, ReadAt, corrupt, plain_name

BLOCK = 512
_MAX_EXTRA_LENGTH = 1 << 20
"""Bytes of one extended header: names, and what macOS keeps of extended attributes."""
_EXTRA_HEADERS = 4
"""Of these, for each entry allowed."""
_OCTAL = re.compile(rb"[ \x00]*+([0-7]*+)[ \x00]*+")
_KINDS = {
    b"1": "it is a hard link",
    b"2": "it is a symbolic link",
    b"3": "it is a device",
    b"4": "it is a device",
    b"6": "it is a pipe",
}


@dataclass(frozen=True)
class TarMember(Member):
    """A member, and where it lies."""

    begin: int


class TarReader:
    """Reads the members of a tar archive. ``size`` is its length, None where only the end will tell."""

    def __init__(self, source: ReadAt, data: ReadAt, size: int | None) -> None:
        self._source = source
        self._data = data
        self._size = size

    def walk(self, listing: Listing) -> Iterator[Member]:
        """Gather the members in one pass, giving each out where its data begins. Raises :class:`ArchiveError`."""
        at = 0
        name: str | None = None
        wide: int | None = None
        extras = 0
        while True:
            header = self._source.read_at(at, at + BLOCK)
            if header == bytes(BLOCK):
                break
            if not is_header(header):
                raise corrupt(f"There is no tar header at byte {at}.")
            kind = header[156:157]
            size = _number(header[124:136], at)
            at += BLOCK
            if kind in b"xgLKX":
                extras += 1
                if extras > listing.limits.members * _EXTRA_HEADERS or size > _MAX_EXTRA_LENGTH:
                    raise ArchiveError(Reason.TOO_LARGE, f"The tar archive's extended headers are too large (at {at}).")
                if kind in b"xX":
                    name, wide = self._extended(at, size, name, wide)
                elif kind == b"L":
                    name = self._bytes(at, size).partition(b"\0")[0].decode(errors="replace")
                at += _padded(size)
                continue
            listing.count()
            size = size if wide is None else wide
            name = plain_name(_name(header) if name is None else name)
            if kind == b"S":
                raise _sparse(name)
            begin = at
            is_folder = kind == b"5" or (kind in (b"0", b"\0", b"7") and name.endswith("/"))
            if kind in _KINDS:
                listing.refuse(name, _KINDS[kind])
            elif not is_folder:
                at += _padded(size)
                if self._size is not None and begin + size > self._size:
                    raise corrupt(f"{name[:200]} should take {size} bytes, but the archive ends before.")
                if kind in (b"0", b"\0", b"7"):
                    member = TarMember(name, size, begin)
                    if listing.add(member):
                        yield member
                else:
                    listing.refuse(name, "it is not a regular file")
                    if size > listing.limits.unpacked_bytes:
                        raise ArchiveError(Reason.TOO_LARGE, f"The tar archive has an entry of {size} bytes.")
            name = wide = None

    def open(self, member: Member) -> MemberReader:
        """Read a member of the listing."""
        assert isinstance(member, TarMember)
        return MemberReader(member, self._data, member.begin)

    def _bytes(self, at: int, size: int) -> bytes:
        data = self._source.read_at(at, at + size)
        if len(data) != size:
            raise corrupt(f"The tar archive's extended header at byte {at} is cut off.")
        return data

    def _extended(self, at: int, size: int, name: str | None, wide: int | None) -> tuple[str | None, int | None]:
        """Read a pax header: records of ``LENGTH KEY=VALUE`` and a line end."""
        data = self._bytes(at, size)
        place = 0
        while place < size and data[place]:
            digits = data[place : place + 20].partition(b" ")[0]
            length = int(digits) if digits.isdigit() else 0
            record = data[place + len(digits) + 1 : place + length]
            key, equals, value = record.removesuffix(b"\n").partition(b"=")
            if not equals or place + length > size:
                raise corrupt(f"The tar archive's extended header at byte {at} is malformed.")
            if key.startswith(b"GNU.sparse"):
                raise _sparse(name or "a file")
            if key == b"path":
                name = value.partition(b"\0")[0].decode(errors="replace")
            elif key == b"size":
                if not value.isdigit() or len(value) > 20:
                    raise corrupt(f"The tar archive's extended header at byte {at} has a malformed size.")
                wide = int(value)
            place += length
        return name, wide


def is_header(block: bytes) -> bool:
    """Tell a tar header by its checksum, which old archives have too."""
    if len(block) != BLOCK:
        return False
    found = _OCTAL.fullmatch(block[148:156])
    return found is not None and found[1] != b"" and int(found[1], 8) == sum(block) - sum(block[148:156]) + 8 * 32


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode(errors="replace")


def _number(text: bytes, at: int) -> int:
    if text[0] == 0x80:
        return int.from_bytes(text[1:], "big")
    found = _OCTAL.fullmatch(text)
    if not found:
        raise corrupt(f"The tar header at byte {at} has a malformed size.")
    return int(found[1] or b"0", 8)


def _sparse(name: str) -> ArchiveError:
    return ArchiveError(
        Reason.SOURCE_REFUSED, f"The tar archive holds {name[:200]} as a sparse file; pack it without --sparse."
    )
