"""Zip archives: the directory at the end, and members by their place."""

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from onnx_operator.api.conditions import Reason
from onnx_operator.model.archive.base import (
    ArchiveError,
    Listing,
    Member,
    MemberReader,
    ReadAt,
    Window,
    corrupt,
    plain_name,
)
from onnx_operator.model.archive.inflate import Inflated

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT_LENGTH = 65535
_MAX_DIRECTORY = 32 << 20
_STORED, _DEFLATED = 0, 8
_METHODS = {1: "shrink", 6: "implode", 9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "zstd", 95: "xz", 99: "AES"}
_MAX_INFLATION = 1040
"""Deflate cannot do better than 1032 to 1."""


@dataclass(frozen=True)
class ZipMember(Member):
    """A member, and where it lies."""

    offset: int
    """Of its local header."""
    packed_size: int
    method: int
    encrypted: bool
    crc: int


class ZipReader:
    """Reads the members of a zip archive; the directory is read with the first call of ``listing``."""

    def __init__(self, reader: ReadAt, size: int) -> None:
        self._reader = reader
        self._window = Window(reader, size)
        self._size = size
        self._ends: dict[int, int] = {}

    def walk(self, listing: Listing) -> Iterator[Member]:
        """Gather what the directory names, and give it out when all is known. Raises :class:`ArchiveError`."""
        count, begin, size = self._directory()
        found = 0
        offsets = []
        for member, mode, is_folder in self._entries(begin, begin + size):
            found += 1
            listing.count()
            offsets.append(member.offset)
            if is_folder:
                continue
            if stat.S_ISLNK(mode):
                listing.refuse(member.name, "it is a symbolic link")
            elif mode and not stat.S_ISREG(mode):
                listing.refuse(member.name, "it is not a regular file")
            else:
                listing.add(member)
        if found != count:
            raise corrupt(f"The zip directory has {found} entries, not the {count} that it announces.")
        offsets.sort()
        if len(set(offsets)) != len(offsets):
            raise corrupt("Entries of the zip archive lie upon each other.")
        self._ends = dict(pairwise([*offsets, begin]))
        yield from listing.members.values()

    def open(self, member: Member) -> MemberReader:
        """Read a member of the listing. Raises :class:`ArchiveError` for what is encrypted or packed otherwise."""
        assert isinstance(member, ZipMember)
        if member.encrypted or member.method == 99:
            raise ArchiveError(
                Reason.NOT_ONNX, f"{member.name} is encrypted in the zip archive; pack it without a password."
            )
        if member.method not in (_STORED, _DEFLATED):
            method = _METHODS.get(member.method, f"method {member.method}")
            raise ArchiveError(
                Reason.NOT_ONNX,
                f"{member.name} is packed by {method} in the zip archive; pack it by deflate or stored.",
            )
        header = self._window.read_at(member.offset, member.offset + _LOCAL.size)
        if len(header) != _LOCAL.size or not header.startswith(b"PK\x03\x04"):
            raise corrupt(f"There is no zip entry at byte {member.offset}, where {member.name} should be.")
        name_size, extra_size = _LOCAL.unpack(header)[-2:]
        begin = member.offset + _LOCAL.size + name_size + extra_size
        end = begin + member.packed_size
        if end > self._ends[member.offset]:
            raise corrupt(f"{member.name} overlaps with what follows it in the zip archive.")
        if member.method == _STORED:
            if member.packed_size != member.size:
                raise corrupt(f"{member.name} has {member.packed_size} bytes stored, but claims {member.size}.")
            return MemberReader(member, self._reader, begin)
        if member.size > member.packed_size * _MAX_INFLATION:
            raise corrupt(
                f"{member.name} cannot unpack {member.packed_size} bytes to the {member.size} that it claims."
            )
        inflated = Inflated(self._reader, begin, end, gzip=False, most=member.size)
        return MemberReader(member, inflated, 0)

    def _directory(self) -> tuple[int, int, int]:
        """Find the directory: number of entries, offset, bytes."""
        tail_begin = max(0, self._size - _END.size - _MAX_COMMENT_LENGTH)
        self._window.keep(tail_begin, self._size)
        tail = self._window.read_at(tail_begin, self._size)
        at = tail.rfind(b"PK\x05\x06")
        while at >= 0:
            if at + _END.size <= len(tail):
                *found, comment = _END.unpack_from(tail, at)
                if at + _END.size + comment == len(tail):
                    return self._place(tail_begin + at, found)
            at = tail.rfind(b"PK\x05\x06", 0, at)
        raise corrupt("The zip archive has no directory at its end.")

    def _place(self, end: int, found: list[int]) -> tuple[int, int, int]:
        _, disk, directory_disk, count_here, count, size, begin = found
        if 0xFFFF in (disk, directory_disk, count_here, count) or 0xFFFFFFFF in (size, begin):
            locator = self._window.read_at(end - _END64_LOCATOR.size, end)
            if len(locator) == _END64_LOCATOR.size and locator.startswith(b"PK\x06\x07"):
                end = _END64_LOCATOR.unpack(locator)[2]
                record = self._window.read_at(end, end + _END64.size)
                if len(record) != _END64.size or not record.startswith(b"PK\x06\x06"):
                    raise corrupt("The zip archive's 64-bit directory is missing.")
                disk, directory_disk, count_here, count, size, begin = _END64.unpack(record)[4:]
        if disk or directory_disk or count_here != count:
            raise ArchiveError(
                Reason.NOT_ONNX, "The file is one part of a zip archive that is split into several; upload it in one."
            )
        if begin + size > end:
            raise corrupt(f"The zip directory of {size} bytes at byte {begin} does not end before byte {end}.")
        if size > _MAX_DIRECTORY:
            raise ArchiveError(Reason.TOO_LARGE, f"The zip directory takes {size} bytes, of {_MAX_DIRECTORY} allowed.")
        return count, begin, size

    def _entries(self, at: int, end: int) -> Iterator[tuple[ZipMember, int, bool]]:
        """Walk the directory: member, file mode (0: unknown), whether it is a folder."""
        while at < end:
            head = self._window.read_at(at, at + _ENTRY.size)
            if len(head) != _ENTRY.size or not head.startswith(b"PK\x01\x02"):
                raise corrupt(f"The zip directory is broken at byte {at}.")
            fields = _ENTRY.unpack(head)
            made_by, flags, method, crc = fields[2], fields[5], fields[6], fields[9]
            packed_size, size, name_size, extra_size, comment_size = fields[10:15]
            attributes, offset = fields[17:19]
            rest = self._window.read_at(at + _ENTRY.size, at + _ENTRY.size + name_size + extra_size)
            if len(rest) != name_size + extra_size:
                raise corrupt(f"The zip directory is broken at byte {at}.")
            size, packed_size, offset = _wide(rest[name_size:], size, packed_size, offset)
            raw = rest[:name_size].decode("utf-8" if flags & 0x800 else "cp437", errors="replace")
            # Some Windows tools write backslashes, against the specification.
            name = plain_name(raw.replace("\\", "/"))
            mode = attributes >> 16 if made_by in (3, 19) else 0
            mode = mode if stat.S_IFMT(mode) else 0
            member = ZipMember(name, size, offset, packed_size, method, bool(flags & 1), crc)
            yield member, mode, name.endswith("/") or stat.S_ISDIR(mode)
            at += _ENTRY.size + name_size + extra_size + comment_size
        if at != end:
            raise corrupt("The zip directory's last entry is cut off.")


def _wide(extra: bytes, size: int, packed_size: int, offset: int) -> tuple[int, int, int]:
    """Take from the zip64 field what does not fit into 32 bits."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            data = extra[at + 4 : at + 4 + length]
            values = []
            for value in (size, packed_size, offset):
                if value == 0xFFFFFFFF:
                    if len(data) < 8:
                        raise corrupt("A 64-bit field of the zip directory is cut off.")
                    value, data = int.from_bytes(data[:8], "little"), data[8:]
                values.append(value)
            return values[0], values[1], values[2]
        at += 4 + length
    return size, packed_size, offset
