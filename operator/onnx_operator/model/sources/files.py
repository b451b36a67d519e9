"""``file``: models on this machine's disks (for the command line), and ``pvc``: on a volume that is mounted."""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar
from urllib.parse import unquote

from onnx_operator.api.conditions import Reason
from onnx_operator.api.sources import SourcePin, SourceSettings
from onnx_operator.api.urls import taken_literally
from onnx_operator.model.sources.base import (
    BrokenStreamError,
    FileStat,
    Source,
    SourceChangedError,
    SourceError,
    Stream,
    check_name,
    is_confined,
    the_one_model,
)

_PIECE_BYTES = 1 << 20
_MAX_ENTRIES = 10_000
"""Of a folder in which the model is looked for, with all folders in it."""
_MAX_DEPTH = 8
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""Opening a pipe must not wait for somebody to write."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


class FileSource(Source):
    """A file, an archive, or a folder with one model.

    Without ``root``, ``uri`` is ``file:///PATH`` or a plain path, pinned by its time, size and inode. With ``root``,
    the folder where the claim is mounted, it is ``pvc://CLAIM/PATH``: nothing outside is reachable, links inside that
    lead to the inside are followed, and there is no pin. Raises :class:`SourceError` (``SourceRefused``).
    """

    def __init__(
        self,
        uri: str,
        *,
        credentials: Mapping[str, str],
        settings: SourceSettings,
        workload_identity: bool = False,
        root: Path | None = None,
    ) -> None:
        self.shown = uri
        self._root = None if root is None else _real(root)
        self._path = local_path(uri) if self._root is None else _path_in_claim(uri, self._root)
        self._folder: Path | None = None
        self._model = ""

    async def locate(self) -> list[str]:
        """Return the file's name, or that of the one model in the folder. Raises :class:`SourceError`."""
        return [await asyncio.to_thread(self._locate)]

    async def listing(self) -> list[str] | None:
        """Walk the folder; what is hidden, and links to folders, are left out."""
        return await asyncio.to_thread(self._listing)

    async def stat(self, name: str) -> FileStat:
        """Look at a file. Raises :class:`SourceError`."""
        return await self._call(self._root is not None, self._stat, name)

    @asynccontextmanager
    async def open(
        self, name: str, begin: int = 0, end: int | None = None, *, pin: SourcePin | None = None
    ) -> AsyncIterator[Stream]:
        """Read a range. Raises :class:`SourceChangedError` when the file is not ``pin``, or changes meanwhile."""
        # A thread costs more than a small range of a local disk; a mounted volume may lie behind a network.
        small = end is not None and end - begin <= _PIECE_BYTES
        threaded = self._root is not None or not small
        file, found = await self._call(threaded, self._open, name)
        try:
            told = FileStat(size=found.st_size, pin=self._pin(found))
            if pin is not None and pin.kind != "None" and told.pin != pin:
                raise self._changed(name, found)
            last = found.st_size if end is None else min(end, found.st_size)
            yield Stream(stat=told, begin=begin, pieces=self._pieces(name, file, found, begin, last, threaded))
        finally:
            os.close(file)

    async def aclose(self) -> None:
        """Nothing is kept open."""

    async def _call(self, threaded: bool, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        if threaded:
            return await asyncio.to_thread(function, *args, **kwargs)
        return function(*args, **kwargs)

    async def _pieces(
        self, name: str, file: int, found: os.stat_result, at: int, end: int, threaded: bool
    ) -> AsyncIterator[bytes]:
        while at < end:
            try:
                piece = await self._call(threaded, os.pread, file, min(_PIECE_BYTES, end - at), at)
                now = os.fstat(file)
            except OSError as error:
                raise BrokenStreamError(f"reading {name} failed at byte {at}: {error.strerror}") from None
            if _identity(now) != _identity(found):
                raise self._changed(name, now)
            if not piece:
                return
            at += len(piece)
            yield piece

    def _stat(self, name: str) -> FileStat:
        file, found = self._open(name)
        os.close(file)
        return FileStat(size=found.st_size, pin=self._pin(found))

    def _open(self, name: str) -> tuple[int, os.stat_result]:
        """Open a regular file inside; whoever calls closes it."""
        check_name(name, self.shown)
        path = self._place() / name
        with self._named(name):
            self._regular(name, path.stat())
            file = os.open(path, _OPEN)
        try:
            found = os.fstat(file)
            self._regular(name, found)
            self._confine(name, file, path)
        except BaseException:
            os.close(file)
            raise
        return file, found

    def _regular(self, name: str, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            kind = "folder" if stat.S_ISDIR(found.st_mode) else "device, pipe or socket"
            raise SourceError(Reason.SOURCE_REFUSED, f"{self.shown}: {name} is a {kind}, not a regular file.")

    def _confine(self, name: str, file: int, path: Path) -> None:
        """See where the opened file really lies, whatever was changed on the way there."""
        if self._root is None and name == self._model:
            return
        try:
            real = Path(f"/proc/self/fd/{file}").readlink()
        except OSError:
            real = _real(path)
        allowed = [self._root or _real(self._place())]
        if self._root is None and self._model:
            # Caches keep models as links to one folder of blobs: data may lie beside the model's real file.
            allowed.append(_real(self._place() / self._model).parent)
        if not any(real.is_relative_to(folder) for folder in allowed):
            raise self._leads_out(name)

    def _leads_out(self, name: str) -> SourceError:
        place = "the volume" if self._root is not None else "the model's folder"
        return SourceError(Reason.SOURCE_REFUSED, f"{self.shown}: {name} is a link that leads out of {place}.")

    def _place(self) -> Path:
        """The folder to which names are relative."""
        if self._folder is None:
            with self._named(self._path.name):
                is_folder = self._path.is_dir()
            if is_folder and self._root is not None and not _real(self._path).is_relative_to(self._root):
                raise self._leads_out(self._path.name)
            self._folder = self._path if is_folder else self._path.parent
            self._model = "" if is_folder else self._path.name
        return self._folder

    def _locate(self) -> str:
        folder = self._place()
        if not self._model:
            with self._named(folder.name):
                self._model = the_one_model(self._names(folder), self.shown)
        file, _ = self._open(self._model)
        os.close(file)
        return self._model

    def _listing(self) -> list[str] | None:
        folder = self._place()
        if folder != self._path:
            return None
        with self._named(folder.name):
            return self._names(folder, everything=True)

    def _names(self, folder: Path, *, everything: bool = False) -> list[str]:
        """Files of the folder, and where no model is among them, or for ``everything``, those of all folders in it."""
        names: list[str] = []
        waiting = [""]
        seen = 0
        for prefix in waiting:
            with os.scandir(folder / prefix) as entries:
                for entry in entries:
                    seen += 1
                    if seen > _MAX_ENTRIES:
                        raise SourceError(
                            Reason.SOURCE_REFUSED,
                            f"{self.shown} holds more than {_MAX_ENTRIES} files and folders; give the address of one.",
                        )
                    name = prefix + entry.name
                    if entry.name.startswith("."):
                        continue
                    if not is_confined(name) or not _is_text(name):
                        if everything:
                            raise SourceError(
                                Reason.SOURCE_REFUSED,
                                f"{self.shown} holds {name!r:.200}, which is not the name of a file.",
                            )
                        continue
                    if _is_file(entry):
                        names.append(name)
                    elif entry.is_dir(follow_symlinks=False) and name.count("/") < _MAX_DEPTH:
                        waiting.append(f"{name}/")
            if not everything and not prefix and any(name.lower().endswith(".onnx") for name in names):
                break
        return names

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Turn errors of the system into those of sources."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            hint = "" if self._root is None else taken_literally(self.shown)
            raise SourceError(Reason.SOURCE_NOT_FOUND, f"{self.shown}: there is no file {name}.{hint}") from None
        except PermissionError:
            raise SourceError(
                Reason.SOURCE_UNAUTHORIZED,
                f"{self.shown}: {name} may not be read by user {os.geteuid()}; change its owner or mode.",
            ) from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                raise SourceError(
                    Reason.SOURCE_REFUSED, f"{self.shown}: {name} leads nowhere: {error.strerror}."
                ) from None
            raise SourceError(
                Reason.SOURCE_UNREACHABLE, f"{self.shown}: {name} cannot be read: {error.strerror}.", retriable=True
            ) from None

    def _pin(self, found: os.stat_result) -> SourcePin | None:
        if self._root is not None:
            return None
        return SourcePin(kind="Conditional", value='"{}-{}-{}"'.format(*_identity(found)))

    def _changed(self, name: str, found: os.stat_result) -> SourceChangedError:
        observed = self._pin(found) or SourcePin(kind="None", value="")
        return SourceChangedError(f"{self.shown}: {name} was changed.", observed=observed)


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mtime_ns, found.st_size, found.st_ino


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False  # a link to itself


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError:
        return path  # a link to itself, which cannot be opened either


def _is_text(name: str) -> bool:
    """Tell a name that can be written down from bytes that are no UTF-8."""
    return name == name.encode(errors="replace").decode()


def local_path(uri: str) -> Path:
    """The path that ``file:///PATH`` (``file://localhost/PATH`` too) or a plain path means.

    Raises :class:`SourceError` (``SourceRefused``).
    """
    path = uri
    if uri.lower().startswith("file:"):
        rest = uri.partition(":")[2]
        host = rest.removeprefix("//").partition("/")[0] if rest.startswith("//") else ""
        path = unquote(rest[2 + len(host) :] if rest.startswith("//") else rest)
        if host.lower() not in ("", "localhost") or not path.startswith("/"):
            raise SourceError(Reason.SOURCE_REFUSED, f"{uri} is not the address of a local file; give file:///PATH.")
    if not path or "\0" in path or not _is_text(path):
        raise SourceError(Reason.SOURCE_REFUSED, f"{uri!r} is not the path of a file.")
    return Path(path).absolute()


def _path_in_claim(uri: str, root: Path) -> Path:
    scheme, _, rest = uri.partition("://")
    claim, _, path = rest.partition("/")
    path = path.strip("/")
    if scheme.lower() != "pvc" or not claim:
        raise SourceError(
            Reason.SOURCE_REFUSED, f"{uri} is not the address of a file on a claim; give pvc://CLAIM/PATH."
        )
    return root / check_name(path, uri) if path else root
