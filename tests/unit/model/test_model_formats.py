"""A file that is no ONNX model is called what it is, with what to do about it."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import struct
import sys
import types
import zipfile
from pathlib import Path

import joblib
import numpy as np
import onnx
import onnxruntime
import pytest
from archivekit import tarred, zipped
from hypothesis import given, settings
from hypothesis import strategies as st
from modelkit import model, tensor
from onnx import helper
from sklearn.linear_model import LogisticRegression

from onnx_operator.model.formats import name_archive, name_format


def name(data: bytes) -> str:
    return name_format(data[:65536], len(data))


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    length, out = len(data), bytearray([number << 3 | 2])
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(out) + bytes([length]) + data


# ---- TensorFlow

FLOAT = field(5, field(1, b"dtype") + field(2, b"\x30\x01"))
FROZEN = field(1, field(1, b"input") + field(2, b"Placeholder") + FLOAT) + field(
    1, field(1, b"w") + field(2, b"Const") + FLOAT
)
OPERATORS = field(2, b"".join(field(1, field(1, name)) for name in (b"AddV2", b"MatMul", b"NoOp")))
META = field(1, OPERATORS + field(4, b"serve") + field(5, b"2.17.0")) + field(2, FROZEN)


def test_a_tensorflow_saved_model_is_told_from_an_onnx_model_of_the_first_version():
    assert "SavedModel" in name(b"\x08\x01" + field(2, META))
    assert name(b"\x08\x01" + field(2, b"tensorflow-onnx") + field(7, b"")) == ""


def test_a_frozen_tensorflow_graph_is_named():
    assert "TensorFlow graph" in name(FROZEN)


def test_a_tensorflow_checkpoint_is_named():
    assert "checkpoint" in name(b"\x00\x00\x06\x08\x01\x1a\x02\x08\x01\x00\x0c\x0a_CHECKPOINTABLE" + bytes(200))
    assert "checkpoint" in name(b'model_checkpoint_path: "model.ckpt-100"\n')
    assert "TensorFlow graph" in name(META + b"tensorflow")


def test_a_tensorflow_graph_as_text_is_named():
    assert "TensorFlow" in name(b'node {\n  name: "x"\n  op: "Placeholder"\n}\n')


def test_a_lite_model_is_named():
    assert "TensorFlow Lite" in name(b"\x1c\x00\x00\x00TFL3" + bytes(100))


# ---- PyTorch and pickles


def torch_legacy() -> bytes:
    """As torch.save wrote before 1.6: five pickles, the first a magic number."""
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, [])
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


def test_a_pytorch_file_of_the_old_kind_is_named():
    assert "PyTorch" in name(torch_legacy())


def test_a_pickle_tells_which_library_made_it():
    assert "scikit-learn" in name(pickle.dumps(LogisticRegression()))
    out = io.BytesIO()
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), out)
    assert "scikit-learn" in name(out.getvalue())
    assert "pickle" in name(pickle.dumps({"a": 1}))
    assert "pickle" in name(pickle.dumps({"a": 1}, protocol=0))


def test_a_pickle_is_only_looked_at():
    module = types.ModuleType("trap")
    module.spring = lambda: pytest.fail("the pickle was loaded")  # type: ignore[attr-defined]
    sys.modules["trap"] = module
    try:
        assert "pickle" in name(b"\x80\x02ctrap\nspring\n)R.")
    finally:
        del sys.modules["trap"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["archive/data.pkl", "archive/version", "archive/data/0"], "a PyTorch file"),
        (["m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"], "TorchScript"),
        (["data.pkl"], "a PyTorch file"),
        (["m/serialized_exported_program.json"], "PyTorch program"),
        (["config.json", "metadata.json", "model.weights.h5"], "Keras"),
        (["saved/saved_model.pb", "saved/variables/variables.index"], "SavedModel"),
        (["cvexport.manifest", "labels.txt", "model.pb"], "Custom Vision export for another platform"),
        (["MAR-INF/MANIFEST.json", "model.pt"], "TorchServe"),
        (["[Content_Types].xml", "word/document.xml"], "Office"),
        (["META-INF/MANIFEST.MF", "A.class"], "Java"),
        (["p/__init__.py", "p-1.dist-info/METADATA"], "Python package"),
        (["model.ini", "domains/d000.txt"], "MOJO"),
        (["arr_0.npy", "arr_1.npy"], "NumPy"),
        (["m/model.tflite"], "m/model.tflite, a TensorFlow Lite model"),
        (["m/pytorch_model.bin", "config.json"], "PyTorch"),
        (["model.safetensors"], "weights without a graph"),
        (["m.mlpackage/Data/com.apple.CoreML/model.mlmodel"], "Core ML"),
        (["model.pkl"], "pickle"),
        (["model.ort"], "ONNX Runtime's own format"),
        (["inner.zip"], "another archive"),
        (["readme.txt", "a", "b", "c", "d", "e"], "without an .onnx file (a, b, c, d, e …)"),
        ([], "an empty archive"),
    ],
)
def test_an_archive_is_told_by_the_names_in_it(names, said):
    assert said in name_archive(names)


# ---- other formats of models


def saved_as(tmp_path: Path, form: str) -> bytes:
    path = tmp_path / f"model.{form}"
    onnx.save(model([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[tensor("w", 4)]), path, format=form)
    return path.read_bytes()


@pytest.mark.parametrize("form", ["onnxtxt", "textproto", "json"])
def test_an_onnx_model_saved_as_text_is_named_and_how_to_save_it(tmp_path, form):
    said = name(saved_as(tmp_path, form))
    assert "ONNX model written as text" in said
    assert "onnx.save" in said


def test_a_model_in_the_format_of_onnxruntime_is_named(tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "m.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    data = model([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[tensor("w", 4)]).SerializeToString()
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    assert "ONNX Runtime's own format" in name((tmp_path / "m.ort").read_bytes())


def test_a_core_ml_model_is_told_from_an_onnx_model_and_from_tensorflow():
    image = field(1, field(1, b"image") + field(3, b"\x22\x04\x08\x20\x10\x20"))
    assert "Core ML" in name(b"\x08\x01" + field(2, image) + field(5, bytes(100)))
    assert "Core ML" in name(b"\x08\x07" + field(2, image * 30))


def test_a_safetensors_file_is_named():
    head = json.dumps({"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    for padding in ("", " " * 8):
        text = (padding + head).encode()
        assert "safetensors" in name(struct.pack("<Q", len(text)) + text + bytes(4))


OPENVINO = b'<?xml version="1.0"?>\n<net name="m" version="11">\n<layers/></net>'


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"GGUF\x03\x00\x00\x00" + bytes(16), "GGUF"),
        (b"ftrt" + bytes(200), "TensorRT engine"),
        (OPENVINO, "OpenVINO"),
        (b'<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"/>', "PMML"),
        (b'<?xml version="1.0" encoding="UTF-8"?>\n<!-- made by r -->\n<PMML version="4.4"/>', "PMML"),
        (b'{"learner":{"attributes":{},"feature_names":[]}}', "XGBoost"),
        (b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{L", "XGBoost"),
        (b"tree\nversion=v4\nnum_class=1\n", "LightGBM"),
        (b"CBM1" + bytes(20), "CatBoost"),
        (b"RKNN" + bytes(20), "Rockchip"),
        (b"X\n\x00\x00\x00\x03\x00\x04\x03\x00", "R object"),
        (b"\x14\x00\x00\x00ODTC" + bytes(20), "training checkpoint"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
        (b'{"nodes": [{"op": "null", "name": "data", "inputs": []}]}', "MXNet"),
    ],
)
def test_other_models_are_named(data, said):
    assert said in name(data)


def test_numpy_arrays_are_named():
    out = io.BytesIO()
    np.save(out, np.ones(5))
    assert "NumPy" in name(out.getvalue())


# ---- packed and encrypted


def test_packed_files_are_named(tmp_path):
    data = b"\x08\x08\x12\x07pytorch" * 100
    assert "gzip file; unpack it" in name(gzip.compress(data))
    assert "bzip2" in name(bz2.compress(data))
    assert "xz" in name(lzma.compress(data))
    assert "zip archive" in name(zipped({"model.onnx": data}))
    assert "tar archive" in name(tarred({"model.onnx": data}))
    assert "empty zip" in name(zipped({}))


NOISE = random.Random(7).randbytes(200_000)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"Salted__" + NOISE[:100], "OpenSSL"),
        (b"age-encryption.org/v1\n-> X25519 abc\n" + NOISE[:100], "age"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n", "age"),
        (b"-----BEGIN PGP MESSAGE-----\n\nhQEM\n", "GPG"),
        (b"\x8c\x0d\x04\x09\x03\x02" + NOISE[:100], "GPG"),
        (b"\x85\x01\x0c\x03" + NOISE[:8] + b"\x01" + NOISE[:300], "GPG"),
        (b"\x84\x5e\x03" + NOISE[:8] + b"\x12" + NOISE[:300], "GPG"),
        (b"\x00GITCRYPT\x00" + NOISE[:100], "git-crypt"),
        (b"$ANSIBLE_VAULT;1.1;AES256\n6162", "Ansible"),
        (b'{"data": "ENC[AES256_GCM,data:abc,iv:x]", "sops": {}}', "SOPS"),
    ],
)
def test_encrypted_files_are_named(data, said):
    assert said in name(data)
    assert "decrypt" in name(data)


def test_noise_is_called_encrypted_but_weights_are_not():
    assert "encrypted" in name(b"\xfd" + NOISE)
    rng = np.random.default_rng(0)
    for weights in (
        rng.standard_normal(20_000).astype(np.float32),
        rng.standard_normal(40_000).astype(np.float16),
        (rng.standard_normal(80_000) * 40).clip(-128, 127).astype(np.int8),
    ):
        assert name(weights.tobytes()) == ""


# ---- answers of servers, and other mistakes


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "HTML page"),
        (b"\n  <html lang='en'>", "HTML page"),
        (
            b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>',
            "error message of an object",
        ),
        ('\ufeff<?xml version="1.0"?><Error><Code>x</Code></Error>'.encode(), "error message of an object store"),
        (b"<?xml version='1.0'?><project/>", "an XML file"),
        (b'{"error": "Repository not found"}', "error message of a server"),
        (b'{"errors":[{"code":"UNAUTHORIZED"}]}', "error message of a server"),
        (b'{"a": 1}', "a JSON file"),
        (b"[1, 2]", "a JSON file"),
        ("größe: 1\n".encode() * 20_000, "a text file"),
        (b"import onnx\n", "a text file"),
        (b"", "an empty file"),
        (bytes(5000), "a file of zeros"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (b"%PDF-1.7", "PDF"),
        (b"\x7fELF\x02", "a program"),
        (b"PAR1" + bytes(9), "Parquet"),
    ],
)
def test_mistakes_are_named(data, said):
    assert said in name(data)


def test_a_head_that_ends_within_a_character_is_still_text():
    data = b"x" + "ß".encode() * 40_000
    assert name(data) == "a text file"


def test_no_onnx_model_is_called_something_else():
    folder = Path(onnx.__file__).parent / "backend/test/data"
    models = sorted(folder.rglob("*.onnx"))
    assert len(models) > 50
    for path in models:
        data = path.read_bytes()
        assert name(data) == "", path
        assert name(data[:100]) == "", path


@given(st.binary(max_size=400), st.sampled_from([b"", b"\x0a", b"\x08\x01\x12", b"{", b"<?xml", b"\x84", b"\x80\x02"]))
@settings(max_examples=500, deadline=None)
def test_no_bytes_are_too_strange_to_be_looked_at(data, beginning):
    assert isinstance(name(beginning + data), str)


def test_large_hostile_texts_are_looked_at_quickly():
    """Each would keep a pattern that goes back and forth busy for minutes."""
    for data in (b"#\n" * 32_768, b"<?xml " + b" " * 65_000, b"{" * 65_536, b'{"a"' * 16_000, b"node {" * 10_000):
        assert name(data)


def test_zip_archives_of_real_programs_are_not_models():
    out = io.BytesIO()
    np.savez(out, a=np.ones(3))
    assert "NumPy" in name_archive(zipfile.ZipFile(out).namelist())
