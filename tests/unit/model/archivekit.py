"""Archives to read, good and bad."""

import gzip
import io
import tarfile
import zipfile

from onnx_operator.model.archive import Archive, ArchiveLimits

LIMITS = ArchiveLimits(unpacked_bytes=64 << 20, members=1000)


class Bytes:
    """Bytes by their place, counting what was read of them."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read = 0
        self.most = 0

    def read_at(self, begin: int, end: int) -> bytes:
        piece = self.data[begin:end]
        self.read += len(piece)
        self.most = max(self.most, len(piece))
        return piece


def opened(data: bytes, limits: ArchiveLimits = LIMITS) -> Archive:
    return Archive(Bytes(data), len(data), limits)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return out.getvalue()


def tarred(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT, extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info in extra:
            archive.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def targz(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    return gzip.compress(tarred(files, form), 6, mtime=0)


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def header(name: bytes = b"model.onnx", size: bytes = b"00000000010\0", kind: bytes = b"0") -> bytes:
    """A tar header with a right checksum, whatever its fields say."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = size
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
