"""Takes single files out of archives of strangers: names are checked, sizes bounded, nothing else is written."""

from __future__ import annotations

import fnmatch
import gzip
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO

MAX_MEMBERS = 100_000
MAX_FILES = 500
MAX_BYTES = 1 << 30
"""Of all files taken out of one archive."""
_CHUNK = 1 << 20


class ArchiveError(Exception):
    """An archive that is not as the list says, or that asks for more than it may."""


def take(archive: Path, patterns: Sequence[str], target: Path, most_bytes: int = MAX_BYTES) -> list[Path]:
    """Write the regular files of ``archive`` that match a pattern below ``target``; return their paths in it.

    ``archive`` is a wheel, another zip or a tar. A file named ``*.onnx.gz`` is written as what it holds. Raises
    :class:`ArchiveError`; what was written until then is left to the caller to remove.
    """
    taken: list[Path] = []
    left = most_bytes
    try:
        for name, stream in _members(archive, patterns):
            with closing(stream):
                if len(taken) == MAX_FILES:
                    raise ArchiveError(f"{archive.name}: more than {MAX_FILES} files match {list(patterns)}")
                inner = _safe(archive.name, name)
                if inner.suffix == ".gz":
                    inner, stream = inner.with_suffix(""), gzip.GzipFile(fileobj=stream)  # type: ignore[arg-type]
                path = target / inner
                if path.exists():
                    raise ArchiveError(f"{archive.name}: two members are named {name!r}")
                path.parent.mkdir(parents=True, exist_ok=True)
                left -= _copy(archive.name, stream, path, left)
                taken.append(Path(inner))
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, ValueError) as error:
        raise ArchiveError(f"{archive.name} cannot be unpacked: {error}") from error
    if not taken:
        raise ArchiveError(f"{archive.name}: no file in it matches {list(patterns)}")
    return sorted(taken)


def _members(archive: Path, patterns: Sequence[str]) -> Iterator[tuple[str, IO[bytes]]]:
    def wanted(name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            listed = opened.infolist()
            _count(archive, len(listed))
            for entry in listed:
                # A link would be a file of the link's text: its kind is in the upper half of the attributes.
                link = (entry.external_attr >> 28) == 0xA
                if not entry.is_dir() and not link and wanted(entry.filename):
                    yield entry.filename, opened.open(entry)
        return
    with tarfile.open(archive) as opened:
        for count, member in enumerate(opened, 1):
            _count(archive, count)
            if member.isreg() and wanted(member.name):
                stream = opened.extractfile(member)
                assert stream is not None
                yield member.name, stream


def _count(archive: Path, members: int) -> None:
    if members > MAX_MEMBERS:
        raise ArchiveError(f"{archive.name}: more than {MAX_MEMBERS} members")


def _safe(archive: str, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    odd = "\\" in name or any(ord(character) < 32 for character in name) or len(name.encode(errors="replace")) > 240
    if path.is_absolute() or ".." in path.parts or odd:
        raise ArchiveError(f"{archive}: the member {name[:240]!r} has no plain name within the archive")
    return path


def _copy(archive: str, stream: IO[bytes], path: Path, most: int) -> int:
    written = 0
    with path.open("xb") as file:
        while chunk := stream.read(_CHUNK):
            written += len(chunk)
            if written > most:
                raise ArchiveError(f"{archive}: the files that match take more than the {most} bytes that are left")
            file.write(chunk)
    return written
