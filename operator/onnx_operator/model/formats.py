"""Telling by its first bytes what a file is that is no ONNX model."""

import io
import re
import zipfile
from collections.abc import Callable

_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs.github.com/spec", "a Git LFS pointer; upload the file it stands for"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras .h5); convert it with tf2onnx"),
    (0, b"\x1f\x8b", "a gzip archive; upload the .onnx file that is in it"),
    (0, b"BZh", "a bzip2 archive; upload the .onnx file that is in it"),
    (0, b"\xfd7zXZ\x00", "an xz archive; upload the .onnx file that is in it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; upload the .onnx file that is in it"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive; upload the .onnx file that is in it"),
    (257, b"ustar", "a tar archive; upload the .onnx file that is in it"),
    (4, b"TFL3", "a TensorFlow Lite model; convert it with tf2onnx"),
    (4, b"ORTM", "a model in ONNX Runtime's own format; upload the .onnx file it was made of"),
    (0, b"GGUF", "a GGUF model, which ONNX Runtime cannot run"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89PNG", "an image"),
    (0, b"\xff\xd8\xff", "an image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x7fELF", "a program"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")


def name_format(head: bytes, size: int, read_all: Callable[[], bytes]) -> str:
    """Say what a file is ("a gzip archive; …"), or "" for what is not recognised.

    ``head`` is its first 64 KiB, ``size`` its length in bytes; ``read_all`` is called for zip archives alone.
    """
    if size == 0:
        return "an empty file"
    for offset, magic, name in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return name
    if head.startswith(b"PK\x03\x04"):
        return _zip(read_all)
    if _PICKLE.match(head):
        return "a Python pickle (PyTorch or scikit-learn); export it with torch.onnx.export or skl2onnx"
    if 0 < int.from_bytes(head[:8], "little") < size and head[8:10] == b'{"':
        return "a safetensors file, which holds weights without a graph; export the model to ONNX"
    if head.startswith(b"\x08\x01\x12") and (b"serve" in head or b"tensorflow" in head.lower()):
        return "a TensorFlow SavedModel; convert it with tf2onnx"
    if head.startswith(b"\x0a") and (b"Placeholder" in head or b"NoOp" in head) and b"\x12" in head[:64]:
        return "a TensorFlow graph; convert it with tf2onnx"
    return _text(head)


def _zip(read_all: Callable[[], bytes]) -> str:
    try:
        names = zipfile.ZipFile(io.BytesIO(read_all())).namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError):
        return "a zip archive (damaged)"
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return "a PyTorch file; export the model with torch.onnx.export"
    if "model.weights.h5" in names:
        return "a Keras file; convert it with tf2onnx"
    if any(name.endswith(".onnx") for name in names):
        return "a zip archive; upload the .onnx file that is in it"
    return "a zip archive"


def _text(head: bytes) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    low = text[:512].lower()
    if low.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page; the address probably leads to a log-in or download page instead of the file"
    if low.startswith(b"<?xml") and b"<error>" in low:
        return "an error message of an object store (XML)"
    if low.startswith((b"<?xml", b"<net ")):
        return "an XML file"
    try:
        # Cutting the head may have split a character.
        decoded = head.decode() if len(head) < 65536 else head[:-4].decode(errors="ignore")
    except UnicodeDecodeError:
        return ""
    if any(c < " " and c not in "\t\n\r\f" for c in decoded):
        return ""
    return "a JSON file" if low.startswith((b"{", b"[")) else "a text file"
