"""What a parsing child asks for, out of a folder in memory."""

from onnx_operator.model.reading.folder import Folder, MemoryFolder


class FolderFeed:
    """A folder, and whoever asks for it."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    async def size(self, name: str) -> int | None:
        return self.folder.size(name)

    async def read(self, name: str, begin: int, end: int) -> bytes:
        return self.folder.read_at(name, begin, end)

    def expect(self, name: str, begin: int, end: int) -> None:
        pass


class ModelFeed(FolderFeed):
    """A model, and a file of zeros beside it where it has one."""

    def __init__(self, model: bytes, beside: int | None = None) -> None:
        super().__init__(MemoryFolder({"m.onnx": model} | ({} if beside is None else {"w.bin": bytes(beside)})))
