"""Unpacking an archive into a folder, in one pass, so that an interrupted one never looks finished."""

import os
import shutil
import zlib
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from onnx_operator.api.conditions import Reason
from onnx_operator.model.archive.base import ArchiveError, ArchiveLimits, Member, MemberReader, corrupt
from onnx_operator.model.archive.opening import Archive, FileReader
from onnx_operator.model.archive.zipped import ZipMember

_UNFINISHED = ".onnx-operator-unpacking"
_CHUNK_BYTES = 1 << 20


def extract(
    path: Path,
    destination: Path,
    limits: ArchiveLimits,
    progress: Callable[[int], None] | None = None,
    *,
    remove_archive: bool = False,
) -> None:
    """Unpack the regular files of the archive ``path`` into the existing folder ``destination``.

    Files come to lie in a hidden folder inside ``destination`` and are moved when all are there and their checksums
    are right; what lies there under the same name from an earlier try is replaced. Links and devices are passed over,
    as in :class:`Archive`. ``progress`` is called with the bytes written so far. With ``remove_archive`` the
    archive goes before the files are moved: it may then lie in ``destination`` under the name of a member.

    Raises :class:`ArchiveError` for every flaw of the archive, and OSError where the disk fails or is full.
    """
    unfinished = destination / _UNFINISHED
    _remove(unfinished)
    try:
        unfinished.mkdir(mode=0o755)
        with FileReader(path) as reader:
            archive = Archive(reader, reader.size, limits)
            written = 0
            for member, content in archive.walk():
                written = _write(member, content, unfinished, written, progress)
            archive.drain()
        tops = {member.name.partition("/")[0] for member in archive.members()}
        for top in tops:
            own = path.is_relative_to(destination / top) and not (remove_archive and path == destination / top)
            if own or top == _UNFINISHED:
                raise ArchiveError(Reason.SOURCE_REFUSED, f"The archive holds a file or folder {top}, which is in use.")
    except BaseException:
        _remove(unfinished)
        raise
    if remove_archive:
        path.unlink()
    for top in sorted(tops):
        _remove(destination / top)
        (unfinished / top).rename(destination / top)
    unfinished.rmdir()


def _write(
    member: Member, content: MemberReader, folder: Path, written: int, progress: Callable[[int], None] | None
) -> int:
    """Write one file; the sum of all bytes written is held to the limits by the listing and by the reader."""
    crc = 0
    with _create(folder, member.name) as file:
        for at in range(0, member.size, _CHUNK_BYTES):
            rest = memoryview(content.read_at(at, at + _CHUNK_BYTES))
            written += len(rest)
            if isinstance(member, ZipMember):
                crc = zlib.crc32(rest, crc)
            while rest:
                rest = rest[file.write(rest) :]
            if progress is not None:
                progress(written)
    if isinstance(member, ZipMember) and crc != member.crc:
        raise corrupt(f"The checksum of {member.name} is wrong.")
    return written


def _create(folder: Path, name: str) -> FileIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        _make_folders(folder, name)
        file = os.open(folder / name, flags, 0o644)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        # The folder is new and ours alone: only the archive itself can have put something there.
        raise ArchiveError(
            Reason.SOURCE_REFUSED, f"The archive holds {name} or its folder as a file and as a folder."
        ) from None
    os.fchmod(file, 0o644)
    return FileIO(file, "wb")


def _make_folders(root: Path, name: str) -> None:
    parts = name.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        folder = root.joinpath(*parts[:count])
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(0o755)


def _remove(path: Path) -> None:
    """Remove a file, a link (not where it leads) or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
