"""Telling by its first bytes, or by the names in it, what a file is that is no ONNX model."""

import re
from collections.abc import Iterable

from onnx_operator.model.lfs import pointer_text

_TF = "convert it with tf2onnx"
_TORCH = "export the model with torch.onnx.export"
_UNPACK = "unpack it and upload the .onnx file that is in it"
_DECRYPT = "decrypt it before the upload"
_ORT_FORMAT = "a model in ONNX Runtime's own format; upload the .onnx file it was made of"

_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", f"an HDF5 file (Keras .h5); {_TF}"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", f"a gzip file; {_UNPACK}"),
    (0, b"\x1f\x9d", f"a file packed by compress; {_UNPACK}"),
    (0, b"BZh", f"a bzip2 file; {_UNPACK}"),
    (0, b"\xfd7zXZ\x00", f"an xz file; {_UNPACK}"),
    (0, b"LZIP", f"an lzip file; {_UNPACK}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"a 7z archive; {_UNPACK}"),
    (0, b"Rar!\x1a\x07", f"a RAR archive; {_UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"a zstd file; {_UNPACK}"),
    (0, b"\x04\x22\x4d\x18", f"an LZ4 file; {_UNPACK}"),
    (257, b"ustar", "a tar archive"),
    (4, b"TFL3", f"a TensorFlow Lite model; {_TF}"),
    (4, b"ORTM", _ORT_FORMAT),
    (4, b"ODTC", "a training checkpoint of ONNX Runtime; export the model for inference"),
    (4, b"ET12", f"an ExecuTorch program; {_TORCH}"),
    (0, b"GGUF", "a GGUF model, which ONNX Runtime cannot run"),
    (0, b"lmgg", "a GGML model, which ONNX Runtime cannot run"),
    (0, b"tjgg", "a GGML model, which ONNX Runtime cannot run"),
    (0, b"ftrt", "a TensorRT engine, which runs on one kind of GPU; upload the .onnx file it was made of"),
    (0, b"ptrt", "a TensorRT engine, which runs on one kind of GPU; upload the .onnx file it was made of"),
    (0, b"RKNN", "a Rockchip NPU model; upload the .onnx file it was made of"),
    (0, b"CBM1", 'a CatBoost model; save it with save_model(…, format="onnx")'),
    (0, b"binf", "an XGBoost model; convert it with onnxmltools"),
    (0, b"{L\0\0\0\0\0\0\0\x07learner", "an XGBoost model; convert it with onnxmltools"),
    (0, b"tree\nversion=v", "a LightGBM model; convert it with onnxmltools"),
    (0, b"\x12\x01\0\0\0\0\0\0", "an MXNet parameter file; export the model to ONNX"),
    (0, b"\0\0\x06\x08\x01\x1a\x02\x08\x01", f"the index of a TensorFlow checkpoint; {_TF}"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"X\n\0\0\0", "an R object (.rds); export the model to ONNX or PMML first"),
    (0, b"RDX", "an R workspace (.RData)"),
    (0, b"age-encryption.org/", f"a file encrypted by age; {_DECRYPT}"),
    (0, b"-----BEGIN AGE ENCRYPTED", f"a file encrypted by age; {_DECRYPT}"),
    (0, b"Salted__", f"a file encrypted by OpenSSL; {_DECRYPT}"),
    (0, b"-----BEGIN PGP MESSAGE", f"a file encrypted by GPG; {_DECRYPT}"),
    (0, b"\0GITCRYPT\0", f"a file encrypted by git-crypt; {_DECRYPT}"),
    (0, b"$ANSIBLE_VAULT", f"a file encrypted by Ansible Vault; {_DECRYPT}"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"ARROW1", "an Arrow file"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\x89PNG", "an image"),
    (0, b"\xff\xd8\xff", "an image"),
    (0, b"GIF8", "an image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ\x90\0", "a program"),
    (0, b"\0asm", "a WebAssembly module"),
)
_PGP = re.compile(
    rb"(?:\x84.|[\x85\x86].{2,4}?|\xc1.{1,2}?)\x03.{8}[\x01\x10\x12\x16\x19]|(?:\x8c|\xc3)[\x0d\x2e]\x04", re.S
)
"""OpenPGP messages begin with a session key, encrypted for somebody or by a password (RFC 4880, 5.1 and 5.3)."""
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(dp0\n|ccopy_reg\n|\(i[a-z_.]+\n")
_TORCH_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_TF_OPERATORS = {
    b"Placeholder",
    b"Const",
    b"NoOp",
    b"VarHandleOp",
    b"VariableV2",
    b"Variable",
    b"PlaceholderWithDefault",
}
_ENTROPY_SAMPLE_BYTES = 4096
_RANDOM = 400.0
"""Chi-square of bytes over 256 values: 255 ± 23 of random ones, thousands of any weights."""


def name_format(head: bytes, size: int) -> str:
    """Say what a file is ("a gzip file; …"), or "" for what is not recognised.

    ``head`` is its first 64 KiB, or all of it; ``size`` its length in bytes.
    """
    if size == 0 or not head:
        return "an empty file"
    if size == len(head) and (pointer := pointer_text(head)):
        return pointer
    for offset, magic, name in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return name
    if not head.strip(b"\0"):
        return "a file of zeros; the upload or a copy probably broke off"
    if head.startswith(_TORCH_LEGACY):
        return f"a PyTorch file; {_TORCH}"
    if _PICKLE.match(head):
        return _pickle(head)
    if _PGP.match(head):
        return f"a file encrypted by GPG; {_DECRYPT}"
    if 2 <= int.from_bytes(head[:8], "little") < size and head[8:40].lstrip(b" ").startswith(b'{"'):
        return "a safetensors file, which holds weights without a graph; export the model to ONNX"
    return _protobuf(head) or _text(head, size) or _noise(head)


def name_archive(names: Iterable[str]) -> str:
    """Say what an archive is that holds no ``.onnx`` file, by the names in it."""
    every = list(names)
    bases = {name.rpartition("/")[2] for name in every}

    def ending(*suffixes: str) -> str:
        return next((name for name in every if name.lower().endswith(suffixes)), "")

    known = (
        ("data.pkl" in bases and "constants.pkl" in bases, f"a TorchScript file; {_TORCH}"),
        ("data.pkl" in bases, f"a PyTorch file; {_TORCH}"),
        (
            "serialized_exported_program.json" in bases or "archive_format" in bases,
            f"a PyTorch program (.pt2); {_TORCH}",
        ),
        ("model.weights.h5" in bases, f"a Keras file; {_TF}"),
        ("saved_model.pb" in bases, f"an archive with a TensorFlow SavedModel; {_TF}"),
        (
            "cvexport.manifest" in bases,
            "a Custom Vision export for another platform; export the iteration again and choose ONNX",
        ),
        (any(name.startswith("MAR-INF/") for name in every), f"a TorchServe archive; {_TORCH}"),
        ("[Content_Types].xml" in bases, "an Office document"),
        ("META-INF/MANIFEST.MF" in every, "a Java archive"),
        (any(name.endswith(".dist-info/METADATA") for name in every), "a Python package (wheel)"),
        ("model.ini" in every, "an H2O MOJO; export the model to ONNX"),
        (bool(every) and all(name.endswith(".npy") for name in every), "NumPy arrays (.npz)"),
    )
    for holds, what in known:
        if holds:
            return what
    for suffixes, what in _ENDINGS:
        if found := ending(*suffixes):
            return f"an archive without an .onnx file; it holds {found}, {what}"
    few = ", ".join(sorted(every)[:5])
    return f"an archive without an .onnx file ({few}{' …' if len(every) > 5 else ''})" if every else "an empty archive"


_ENDINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((".tflite",), f"a TensorFlow Lite model: {_TF}"),
    ((".ort",), _ORT_FORMAT),
    ((".onnx.gz", ".onnx.bz2", ".onnx.xz"), "packed twice: pack the .onnx file itself"),
    ((".pb", ".ckpt.index", ".keras", ".h5"), f"a TensorFlow model: {_TF}"),
    ((".pt", ".pth", ".pt2", "pytorch_model.bin"), f"a PyTorch file: {_TORCH}"),
    ((".safetensors",), "which holds weights without a graph: export the model to ONNX"),
    ((".mlmodel", "com.apple.coreml/model.mlmodel"), "a Core ML model: export the original model to ONNX"),
    ((".pkl", ".pickle", ".joblib"), "a Python pickle: convert it with skl2onnx"),
    ((".engine", ".plan", ".trt"), "a TensorRT engine: upload the .onnx file it was made of"),
    ((".zip", ".tar", ".tar.gz", ".tgz", ".7z"), "another archive: upload that one"),
)


def _pickle(head: bytes) -> str:
    for word, what in (
        (b"torch", f"a PyTorch file; {_TORCH}"),
        (b"sklearn", "a scikit-learn model (Python pickle); convert it with skl2onnx"),
        (b"xgboost", "an XGBoost model (Python pickle); convert it with onnxmltools"),
        (b"lightgbm", "a LightGBM model (Python pickle); convert it with onnxmltools"),
    ):
        if word in head:
            return what
    return "a Python pickle (PyTorch or scikit-learn); export it with torch.onnx.export or skl2onnx"


def _protobuf(head: bytes) -> str:
    """Name the messages of others: a graph of nodes (TensorFlow), or a version and a description in field 2."""
    if head[:1] == b"\x0a":
        at, end = _enter(head, 0)
        name, place = _field(head, at, b"\x0a")
        operator, _ = _field(head, place, b"\x12")
        if name and operator in _TF_OPERATORS and end:
            return f"a TensorFlow graph; {_TF}"
        if (
            at
            and b"stripped_op_list" not in head
            and head[at : at + 1] in b"\x12\x1a\x22"
            and b"tensorflow" in head.lower()
        ):
            return f"a TensorFlow graph (.meta); {_TF}"
    # An ONNX model has a version there too, but its second field is the producer's name: text.
    if head[:1] == b"\x08" and len(head) > 2 and head[1] < 0x80 and head[2:3] == b"\x12":
        at, _ = _enter(head, 2)
        if head[at : at + 1] != b"\x0a":
            return ""
        inner, _ = _enter(head, at)
        if head[inner : inner + 1] in (b"\x12", b"\x1a", b"\x22") or b"tensorflow" in head[:65536].lower():
            return f"a TensorFlow SavedModel; {_TF}"
        if head[inner : inner + 1] == b"\x0a":
            return "a Core ML model; export the original model to ONNX"
    return ""


def _enter(head: bytes, at: int) -> tuple[int, int]:
    """Where the content of the length-delimited field at ``at`` begins and ends."""
    length = shift = 0
    for place in range(at + 1, min(at + 6, len(head))):
        length |= (head[place] & 0x7F) << shift
        shift += 7
        if head[place] < 0x80:
            return place + 1, place + 1 + length
    return len(head), len(head)


def _field(head: bytes, at: int, key: bytes) -> tuple[bytes, int]:
    """Content of a short field of this key, and where the next begins."""
    if head[at : at + 1] != key:
        return b"", at
    begin, end = _enter(head, at)
    return (head[begin:end], end) if end - begin < 1024 else (b"", at)


def _text(head: bytes, size: int) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    low = text[:4096].lower()
    if low.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "an HTML page; the address probably leads to a log-in or download page instead of the file"
    try:
        # Cutting the head may have split a character.
        decoded = (head if len(head) == size else head[:-3]).decode(errors="strict" if len(head) == size else "ignore")
    except UnicodeDecodeError:
        return ""
    if len(head) != size and len(decoded.encode()) < len(head) - 6:
        return ""
    if any(c < " " and c not in "\t\n\r\f" for c in decoded):
        return ""
    for pattern, what in _TEXTS:
        if pattern.match(low):
            return what
    if low.startswith((b"<?xml", b"<")) and b">" in low:
        return "an XML file"
    return "a JSON file" if low.startswith((b"{", b"[")) else "a text file"


_TEXTS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.S), what)
    for pattern, what in (
        (rb"(?:<\?xml[^>]{0,200}>\s*)?<error[>\s]", "an error message of an object store (XML)"),
        (
            rb"(?:<\?xml[^>]{0,200}>\s*)?<net\s",
            "an OpenVINO model (.xml); upload the .onnx file it was made of",
        ),
        (
            rb"(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,999}-->\s*)?<pmml[\s>]",
            "a PMML model; export the original model to ONNX",
        ),
        (
            rb"(?:#[^\n]{0,200}\n\s*)*(?:<\s*ir_version\s*:|ir_version\s*:|\{\s*\"ir_?version\"\s*:)",
            "an ONNX model written as text; save it in the binary format with onnx.save",
        ),
        (rb"model_checkpoint_path\s*:", f"the list of a TensorFlow checkpoint; {_TF}"),
        (rb"node\s*\{.{0,400}\bop\s*:", f"a TensorFlow graph written as text; {_TF}"),
        (rb"\{\s*\"learner\"\s*:", "an XGBoost model; convert it with onnxmltools"),
        (rb"\{\s*\"name\"\s*:\s*\"tree\"", "a LightGBM model; convert it with onnxmltools"),
        (rb"\{.{0,999}\"oblivious_trees\"\s*:", 'a CatBoost model; save it with save_model(…, format="onnx")'),
        (rb"\{\s*\"nodes\"\s*:\s*\[.{0,999}\"op\"\s*:", "an MXNet graph; export the model to ONNX"),
        (rb"\{.{0,999}\"sops\"\s*:|\{.{0,999}enc\[aes256_gcm", f"a file encrypted by SOPS; {_DECRYPT}"),
        (rb"\{\s*\"(?:error|errors|message|detail|code)\"\s*:", "an error message of a server (JSON)"),
    )
)


def _noise(head: bytes) -> str:
    """Recognise bytes without any structure, as good ciphers and compressors leave them."""
    if len(head) < _ENTROPY_SAMPLE_BYTES:
        return ""
    expected = len(head) / 256
    deviation = sum((head.count(value) - expected) ** 2 for value in range(256)) / expected
    return "encrypted, or compressed by something unknown; upload the plain file" if deviation < _RANDOM else ""
