"""From bytes to an archive, and to the model in it."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from onnx_operator.api.conditions import Reason
from onnx_operator.model import formats
from onnx_operator.model.archive.base import (
    ArchiveError,
    ArchiveLimits,
    Listing,
    Member,
    MemberReader,
    ReadAt,
    Window,
)
from onnx_operator.model.archive.inflate import Inflated
from onnx_operator.model.archive.tarred import BLOCK, TarReader, is_header
from onnx_operator.model.archive.zipped import ZipReader

HEAD_BYTES = 64 * 1024
_FEW = 5


def kind_of(head: bytes) -> str:
    """Tell by its first bytes (512 or more) what an archive is: ``zip``, ``tar``, ``gzip``, or "" for none.

    A ``gzip`` file is an archive only where a tar archive lies in it: :class:`Archive` finds out.
    """
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    return "tar" if is_header(head[:BLOCK]) else ""


def is_archive(head: bytes) -> bool:
    """Tell whether a file that begins like this is one that :class:`Archive` takes: gzip files always are."""
    return kind_of(head) != ""


class Archive:
    """An archive that is read where it lies, never unpacked.

    ``kind`` is ``zip``, ``tar`` or ``tar.gz``. Memory is bounded by windows of some hundred KiB besides the listing.
    Every flaw of the archive raises :class:`ArchiveError`; what ``reader`` raises goes through unchanged.
    """

    def __init__(self, reader: ReadAt, size: int, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._listing: Listing | None = None
        self._inflated: Inflated | None = None
        self._reader: ZipReader | TarReader
        head = Window(reader, size)
        found = kind_of(head.read_at(0, BLOCK))
        if found == "zip":
            self.kind = "zip"
            self._reader = ZipReader(reader, size)
        elif found == "tar":
            self.kind = "tar"
            self._reader = TarReader(head, reader, size)
        elif found == "gzip":
            self.kind = "tar.gz"
            self._inflated = Inflated(reader, 0, size, gzip=True, most=_tar_bytes(limits))
            self._reader = TarReader(self._inflated, self._inflated, None)
            beginning = self._inflated.read_at(0, BLOCK)
            if not is_header(beginning):
                what = formats.name_format(self._inflated.read_at(0, HEAD_BYTES), max(size, len(beginning)))
                raise ArchiveError(
                    Reason.NOT_ONNX,
                    "The file is a gzip file" + (f" that holds {what}" if what else "") + "; unpack it and upload the"
                    " .onnx file itself, or an archive (.zip, .tar, .tar.gz).",
                )
        else:
            raise ArchiveError(Reason.NOT_ONNX, "The file is not an archive (.zip, .tar, .tar.gz).")

    def members(self) -> list[Member]:
        """Regular files in the archive's order. Reads a tar archive once through. Raises :class:`ArchiveError`."""
        return list(self._list().members.values())

    @property
    def refused(self) -> dict[str, str]:
        """Names that are never read (links, devices, names that lead out), and why."""
        return self._list().refused

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of all members together."""
        return self._list().unpacked_bytes

    @property
    def restarts(self) -> int:
        """How often reading a gzip'ed archive went back."""
        return self._inflated.restarts if self._inflated else 0

    def model_member(self) -> str:
        """Name of the one ``.onnx`` file. Raises :class:`ArchiveError` where there is none, or several."""
        listing = self._list()
        found = [name for name in listing.members if name.lower().endswith(".onnx")]
        if len(found) == 1:
            return found[0]
        if found:
            few = ", ".join(sorted(found)[:_FEW])
            raise ArchiveError(
                Reason.SOURCE_REFUSED,
                f"The archive holds {len(found)} .onnx files ({few}{' …' if len(found) > _FEW else ''}); pack one,"
                " alone.",
            )
        for name, why in listing.refused.items():
            if name.lower().endswith(".onnx"):
                raise ArchiveError(Reason.SOURCE_REFUSED, f"{name} in the archive cannot be read: {why}.")
        what = formats.name_archive(list(listing.members))
        raise ArchiveError(Reason.NOT_ONNX, f"The file is not an ONNX model: it is {what}.")

    def open(self, name: str) -> MemberReader:
        """Read a member. Raises :class:`ArchiveError` (``ExternalDataMissing`` where there is none of this name)."""
        listing = self._list()
        if name in listing.members:
            return self._reader.open(listing.members[name])
        if name in listing.refused:
            raise ArchiveError(Reason.SOURCE_REFUSED, f"{name} in the archive cannot be read: {listing.refused[name]}.")
        raise ArchiveError(Reason.EXTERNAL_DATA_MISSING, f"There is no {name} in the archive.")

    def drain(self) -> None:
        """Read what is left of a gzip'ed archive, so that its checksum is compared. Raises :class:`ArchiveError`."""
        if self._inflated is not None:
            self._inflated.read_at(1 << 62, (1 << 62) + 1)

    def walk(self) -> Iterator[tuple[Member, MemberReader]]:
        """Give out the members in the archive's order: read at once, they take a single pass over it.

        What only the whole listing tells is told at the end. Raises :class:`ArchiveError`.
        """
        listing = Listing(self._limits)
        for member in self._reader.walk(listing):
            yield member, self._reader.open(member)
        listing.check()
        self._listing = listing

    def _list(self) -> Listing:
        if self._listing is None:
            listing = Listing(self._limits)
            for _ in self._reader.walk(listing):
                pass
            listing.check()
            self._listing = listing
        return self._listing


def _tar_bytes(limits: ArchiveLimits) -> int:
    """Bytes of the largest tar archive within the limits: headers, padding, and the zeros at its end."""
    return limits.unpacked_bytes + limits.members * 4 * BLOCK + (1 << 20)


class FileReader:
    """A local file as :class:`ReadAt`. Use as ``with``; raises OSError."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._file).st_size

    def read_at(self, begin: int, end: int) -> bytes:
        """Return the bytes from ``begin`` up to ``end``; fewer where the file ends."""
        pieces = []
        while begin < end and (piece := os.pread(self._file, end - begin, begin)):
            pieces.append(piece)
            begin += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
