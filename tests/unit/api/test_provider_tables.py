import datetime
import struct
import zipfile
from pathlib import Path

import pytest
from click import ClickException

from onnx_operator.api import providers
from onnx_operator.api.providers import PROVIDERS, Rule, load_tables
from tests.tools.providers import page, tensorrt
from tests.tools.wheels import operator_lists, version

FOLDER = Path(providers.__file__).parent


def table(name):
    return next(each for each in load_tables() if each.provider == name)


def test_every_provider_has_a_table_with_its_source_and_date():
    assert tuple(each.provider for each in load_tables()) == PROVIDERS
    for each in load_tables():
        assert datetime.date.fromisoformat(each.date) >= datetime.date(2026, 11, 1)
        assert each.source
        assert each.release
        assert each.approximate
        assert each.known > 100


def test_the_tables_are_small_enough_to_travel_with_the_package():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.json")) < 150_000


def test_indices_lead_to_types():
    for each in load_tables():
        assert all(0 <= number < len(each.types) for number in each.operators.values())
        known = each.kernels.types if each.kernels else []
        lines = [
            line
            for ops in (each.kernels.operators if each.kernels else {}).values()
            for op in ops.values()
            for line in op
        ]
        assert all(int(part.split("=")[1]) < len(known) for line in lines for part in line.split()[1:])


def test_the_tables_know_what_is_widely_known():
    cuda = table("CUDA").kernels
    assert cuda is not None
    assert {"Conv", "MatMul", "LayerNormalization"} <= set(cuda.operators["ai.onnx"])
    assert "Attention" in cuda.operators["com.microsoft"]
    assert "TreeEnsembleRegressor" not in str(cuda.operators)
    assert "1.22" in table("ROCm").release
    assert "NonMaxSuppression" in table("TensorRT").operators
    assert "StringNormalizer" not in table("TensorRT").operators
    assert table("TensorRT").rules["MaxPool"] == Rule(attributes={"dilations": [1]}, max_outputs=1, ranks=[4, 5])
    assert {"Conv", "GroupQueryAttention"} <= set(table("MIGraphX").operators)
    assert {"Conv", "If"} <= set(table("OpenVINO").operators)


def test_the_page_names_each_provider_with_source_and_date():
    text = page()
    for each in load_tables():
        assert f"| {each.provider} | {each.release} | {each.known} | {each.source} | {each.date} |" in text


def _document(tmp_path, *rows):
    filling = [f"| Filling{n} | Y | FP32 |" for n in range(100)]
    head = [
        "TensorRT 10.99 supports operators.",
        "| Operator | Supported | Supported Types | Restrictions |",
        "|---|---|---|",
    ]
    path = tmp_path / "operators.md"
    path.write_text("\n".join([*head, *rows, *filling]))
    return path


def test_tensorrts_document_gives_types_and_what_can_be_checked_of_its_restrictions(tmp_path):
    made = tensorrt(
        _document(
            tmp_path,
            "| Relu | Y | FP32, FP16, INT64 |",
            "| Det | N |",
            "| ReduceSum | Y | FP32 | `axes` must be an initializer |",
            "| MaxPool | Y | FP32 | 2D or 3D pooling only. `Indices` output tensor unsupported |",
            "| LSTM | Y | FP32 | `layout` attribute must be 0. |",
            "| Resize | Y | FP32 | Supported resize modes: `nearest`, `linear`. |",
            "| Attention | Y | FP32 | `past_key`, `past_value` and `nonpad_kv_seqlen` inputs are unsupported. |",
        )
    )
    assert made.release == "TensorRT 10.99"
    assert made.types[made.operators["Relu"]] == ["double", "float", "float16", "int64"]
    assert "Det" not in made.operators
    assert made.rules == {
        "ReduceSum": Rule(known_inputs=[1]),
        "MaxPool": Rule(max_outputs=1, ranks=[4, 5]),
        "LSTM": Rule(attributes={"layout": [0]}),
        "Resize": Rule(attributes={"mode": ["nearest", "linear"]}),
        "Attention": Rule(max_inputs=4),
    }


def test_another_document_is_refused(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("# TensorRT 10.1\n")
    with pytest.raises(ClickException, match=r"README.md is not docs/operators.md of onnx/onnx-tensorrt"):
        tensorrt(path)


def _library(names: list[str]) -> bytes:
    """An ELF file whose code takes the address of each name in turn."""
    texts, places = b"\0", []
    for name in names:
        places.append(len(texts))
        texts += name.encode() + b"\0"
    code_at, texts_at = 0x1000, 0x2000 + 7 * len(names)
    code = b"".join(
        b"\x48\x8d\x35" + struct.pack("<i", texts_at + place - (code_at + 7 * (index + 1)))
        for index, place in enumerate(places)
    )
    header = b"\x7fELF".ljust(32, b"\0") + struct.pack("<Q", 64) + b"\0" * 14 + struct.pack("<HH", 56, 2)
    segments = [(5, 176, code_at, len(code)), (4, 176 + len(code), texts_at, len(texts))]
    table = b"".join(struct.pack("<IIQQQQQQ", 1, flags, at, to, to, n, n, 1) for flags, at, to, n in segments)
    return header.ljust(64, b"\0") + table + code + texts


def _wheel(tmp_path, names) -> Path:
    path = tmp_path / "onnxruntime_thing-1.2.3-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("onnxruntime/capi/lib.so", _library(names))
    return path


def test_lists_of_operators_are_read_from_the_code_of_a_wheel(tmp_path):
    first = ["Abs", *(f"Op{n}" for n in range(40)), "CPU", "Xor"]
    second = ["Add", *(f"Other{n}" for n in range(40)), "Where"]
    wheel = _wheel(tmp_path, ["Abs", "status", *first, "message", *second])
    assert version(wheel) == "1.2.3"
    found = operator_lists(wheel, "lib.so", ("Abs", "Xor"), ("Add", "Where"))
    assert found == [sorted(set(first) - {"CPU"}), sorted(second)]


def test_a_wheel_without_a_list_is_refused(tmp_path):
    wheel = _wheel(tmp_path, ["Abs", "Add", "Xor"])
    with pytest.raises(ValueError, match=r"lib.so holds no list of operators from Abs to Xor"):
        operator_lists(wheel, "lib.so", ("Abs", "Xor"))
