"""What all kinds of archives share: limits, errors, names, and readers of a range."""

from dataclasses import dataclass, field
from typing import Protocol

from onnx_operator.api.conditions import Reason
from onnx_operator.model.refusal import RefusedError
from onnx_operator.model.sources.base import is_confined

MAX_PART_BYTES = 255
"""Of one part of a name: what Linux file systems take."""
_WINDOW_BYTES = 64 * 1024


class ArchiveError(RefusedError):
    """An archive cannot be used."""


def corrupt(message: str) -> ArchiveError:
    """Make the error of an archive that is damaged or cut off."""
    return ArchiveError(Reason.CORRUPT, f"{message} The archive is damaged or incomplete: upload it again.")


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold."""

    unpacked_bytes: int = 16 << 30
    """Of all its files together."""
    members: int = 10_000
    """Files, folders and links together."""


class ReadAt(Protocol):
    """Bytes by their place."""

    def read_at(self, begin: int, end: int) -> bytes:
        """Return the bytes from ``begin`` up to ``end``; fewer only where they end before."""


@dataclass(frozen=True)
class Member:
    """A regular file of an archive."""

    name: str
    """Confined, without a leading ``./``."""
    size: int
    """Bytes, as the archive claims."""


class MemberReader:
    """Reads one member: cheap forwards, and anywhere at once where the member is not compressed."""

    def __init__(self, member: Member, source: ReadAt, begin: int) -> None:
        self.member = member
        self.size = member.size
        self._source = source
        self._begin = begin

    def read_at(self, begin: int, end: int) -> bytes:
        """Return the bytes from ``begin`` up to ``end`` or to the member's end. Raises :class:`ArchiveError`."""
        end = min(end, self.size)
        if not 0 <= begin < end:
            return b""
        data = self._source.read_at(self._begin + begin, self._begin + end)
        if len(data) != end - begin:
            raise corrupt(f"{self.member.name} ends after {begin + len(data)} of its {self.size} bytes.")
        return data


@dataclass
class Listing:
    """What lies in an archive, gathered entry by entry and held to the limits."""

    limits: ArchiveLimits
    members: dict[str, Member] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Names that cannot be read, and why; a bounded number of them."""
    entries: int = 0
    unpacked_bytes: int = 0

    def count(self) -> None:
        """Count an entry of whatever kind. Raises :class:`ArchiveError` (``TooLarge``)."""
        self.entries += 1
        if self.entries > self.limits.members:
            raise ArchiveError(
                Reason.TOO_LARGE, f"The archive has more than the {self.limits.members} entries allowed."
            )

    def refuse(self, name: str, why: str) -> None:
        """Remember a name that is not to be read."""
        if not _is_junk(name):
            self.refused.setdefault(name[:MAX_PART_BYTES], why)

    def add(self, member: Member) -> bool:
        """Take a file; False for one that is passed over. Raises :class:`ArchiveError`."""
        name = member.name
        if not is_confined(name):
            self.refuse(name, "its name leads out of the archive, or is none")
            return False
        if any(len(part.encode()) > MAX_PART_BYTES for part in name.split("/")):
            self.refuse(name, "its name is too long")
            return False
        if _is_junk(name):
            return False
        if name in self.members:
            raise ArchiveError(Reason.SOURCE_REFUSED, f"The archive holds {name} twice; pack it anew with one of them.")
        self.unpacked_bytes += member.size
        if self.unpacked_bytes > self.limits.unpacked_bytes:
            raise ArchiveError(
                Reason.TOO_LARGE,
                f"The archive unpacks to more than the {self.limits.unpacked_bytes} bytes that are allowed"
                f" (with {name}: {self.unpacked_bytes}).",
            )
        self.members[name] = member
        return True

    def check(self) -> None:
        """Raise :class:`ArchiveError` (``SourceRefused``) where a file is the folder of another."""
        for name in self.members:
            folder = name.rpartition("/")[0]
            while folder:
                if folder in self.members:
                    raise ArchiveError(
                        Reason.SOURCE_REFUSED, f"The archive holds {folder} as a file and as the folder of {name}."
                    )
                folder = folder.rpartition("/")[0]


def plain_name(name: str) -> str:
    """Drop leading ``./``, as ``tar`` writes them when it packs the folder it stands in."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _is_junk(name: str) -> bool:
    """Tell what macOS strews into archives."""
    base = name.rpartition("/")[2]
    return name.startswith("__MACOSX/") or base.startswith("._") or base == ".DS_Store"


class Window:
    """Reads small pieces that lie close to each other with few reads, and large ones as they are."""

    def __init__(self, reader: ReadAt, size: int) -> None:
        self._reader = reader
        self.size = size
        self._begin = 0
        self._data = b""

    def read_at(self, begin: int, end: int) -> bytes:
        """Return the bytes from ``begin`` up to ``end`` or to the end of the file."""
        end = min(end, self.size)
        if not 0 <= begin < end:
            return b""
        if begin < self._begin or end > self._begin + len(self._data):
            self.keep(begin, min(max(end, begin + _WINDOW_BYTES), self.size))
        return self._data[begin - self._begin : end - self._begin]

    def keep(self, begin: int, end: int) -> None:
        """Read a range and keep it for later reads. Raises :class:`ArchiveError` (``Corrupt``)."""
        self._begin, self._data = begin, self._reader.read_at(begin, end)
        if len(self._data) != end - begin:
            raise corrupt(f"The archive ends at byte {begin + len(self._data)}, before its {self.size} bytes.")
