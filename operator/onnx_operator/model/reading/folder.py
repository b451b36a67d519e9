"""The files of a model's folder, as the verdict sees them: sizes and ranges, wherever they come from."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable


class Folder(Protocol):
    """Files by their names relative to the folder, with ``/`` between the parts."""

    def size(self, name: str) -> int | None:
        """Bytes of a file; None when it is not there."""

    def read_at(self, name: str, begin: int, end: int) -> bytes:
        """Return exactly the bytes from ``begin`` up to ``end``. Whatever it raises ends the reading."""


@runtime_checkable
class ForeseeingFolder(Folder, Protocol):
    """A folder that can bring bytes before they are asked for."""

    def expect(self, name: str, begin: int, end: int) -> None:
        """These bytes will probably be read soon."""


class FileOf:
    """One file of a folder, for whoever reads just one."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name

    def read_at(self, begin: int, end: int) -> bytes:
        """Return the bytes between two offsets."""
        return self._folder.read_at(self._name, begin, end)

    def expect(self, begin: int, end: int) -> None:
        """Pass on that these bytes will probably be read soon."""
        if isinstance(self._folder, ForeseeingFolder):
            self._folder.expect(self._name, begin, end)


class MemoryFolder:
    """Files that are in memory already."""

    def __init__(self, files: Mapping[str, bytes | memoryview]) -> None:
        self._files = {name: memoryview(content) for name, content in files.items()}

    def size(self, name: str) -> int | None:
        """Bytes of a file."""
        content = self._files.get(name)
        return None if content is None else len(content)

    def read_at(self, name: str, begin: int, end: int) -> bytes:
        """Copy a part of a file."""
        return bytes(self._files[name][begin:end])


class Beside:
    """The folder of a model's own file, within the folder that the model's path is relative to."""

    def __init__(self, folder: Folder, model: str) -> None:
        self._folder = folder
        self._path = beside(model)

    def size(self, name: str) -> int | None:
        """Bytes of a file beside the model's."""
        return self._folder.size(self._path(name))

    def read_at(self, name: str, begin: int, end: int) -> bytes:
        """Return a part of a file beside the model's."""
        return self._folder.read_at(self._path(name), begin, end)


def beside(model: str) -> Callable[[str], str]:
    """How files of the model's own folder are called in the folder that the model's path ``model`` is relative to."""
    folder, separator, _ = model.rpartition("/")
    return lambda name: f"{folder}{separator}{name}"
