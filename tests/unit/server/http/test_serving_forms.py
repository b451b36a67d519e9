"""The same rows, however they are sent, reach the model as the same bits; or each way is refused."""

import csv
import io
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.openinference import Codec
from onnx_operator.server.http.predictions import read_prediction
from onnx_operator.server.http.score import read_score_body
from onnx_operator.server.runtime.session import Model
from tests.unit.server.serving import load_bytes, model_bytes, node, tensor, value

KINDS = {
    "f": ("FP32", TensorProto.FLOAT, np.float32),
    "d": ("FP64", TensorProto.DOUBLE, np.float64),
    "i": ("INT64", TensorProto.INT64, np.int64),
    "u": ("UINT64", TensorProto.UINT64, np.uint64),
    "b": ("BOOL", TensorProto.BOOL, np.bool_),
    "s": ("BYTES", TensorProto.STRING, object),
}
MODEL: Model = load_bytes(
    model_bytes(
        [node("Identity", [name], [f"{name}_out"]) for name in KINDS],
        [value(name, kind, ["N", 1]) for name, (_, kind, _) in KINDS.items()],
        [value(f"{name}_out", kind, ["N", 1]) for name, (_, kind, _) in KINDS.items()],
    )
)
JSON, CSV = b"application/json", b"Text/CSV; Charset=UTF-8"


def infer(columns: dict[str, list[Any]], rows: int) -> Any:
    entries = [tensor(name, KINDS[name][0], [rows, 1], cells) for name, cells in columns.items()]
    return Codec(MODEL, "m", "").read(json.dumps({"inputs": entries}).encode(), None)[0]


def binary(columns: dict[str, list[Any]], rows: int) -> Any:
    entries, parts = [], []
    for name, cells in columns.items():
        datatype, _, dtype = KINDS[name]
        numbers = [float(cell) if name in "fd" else cell for cell in cells]
        if name == "s":
            raw = b"".join(struct.pack("<I", len(cell.encode())) + cell.encode() for cell in cells)
        else:
            raw = np.array(numbers, dtype).tobytes()
        parts.append(raw)
        entry = {"name": name, "datatype": datatype, "shape": [rows, 1], "parameters": {"binary_data_size": len(raw)}}
        entries.append(entry)
    head = json.dumps({"inputs": entries}).encode()
    return Codec(MODEL, "m", "").read(head + b"".join(parts), b"%d" % len(head))[0]


def records(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def text(columns: dict[str, list[Any]], newline: str = "\n") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator=newline)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue().encode()


def forms(columns: dict[str, list[Any]], rows: int) -> dict[str, Any]:
    """By form, what reads the rows in it."""
    listed = {name: [[cell] for cell in cells] for name, cells in columns.items()}
    split = {"columns": list(columns), "data": [list(row) for row in zip(*columns.values(), strict=True)]}
    by_row = {name: {str(row): cell for row, cell in enumerate(cells)} for name, cells in columns.items()}

    def score(body: Any, media: bytes = JSON) -> Any:
        return lambda: read_score_body(MODEL, body if isinstance(body, bytes) else json.dumps(body).encode(), media)

    def predict(body: Any, media: bytes = JSON) -> Any:
        return lambda: read_prediction(MODEL, body if isinstance(body, bytes) else json.dumps(body).encode(), media)

    return {
        "infer": lambda: infer(columns, rows),
        "binary": lambda: binary(columns, rows),
        "tensors": score(listed),
        "data": score({"data": listed}),
        "lists": score(columns),
        "records": score(records(columns)),
        "split": score(split),
        "columns": score(by_row),
        "instances": predict({"instances": records(columns)}),
        "inputs": predict({"inputs": listed}),
        "dataframe_split": predict({"dataframe_split": split}),
        "dataframe_records": predict({"dataframe_records": records(columns)}),
        "csv": score(text(columns), CSV),
        "csv of Windows": score(b"\xef\xbb\xbf" + text(columns, "\r\n"), b"application/CSV"),
        "csv of MLflow": predict(text(columns), CSV),
        "utf-8 as it is": score(json.dumps(records(columns), ensure_ascii=False).encode()),
    }


def bits(inference: Any) -> dict[str, Any]:
    return {
        name: (array.dtype.str, array.shape, array.tolist() if array.dtype.hasobject else array.tobytes())
        for name, array in inference.feed.items()
    }


cells = st.tuples(
    st.floats(width=32, allow_infinity=False, allow_nan=False) | st.sampled_from(["NaN", "Infinity", "-Infinity"]),
    st.floats(allow_infinity=False, allow_nan=False) | st.sampled_from(["NaN", "Infinity", "-Infinity"]),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**64 - 1),
    st.booleans(),
    # An empty text is missing in CSV.
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(cells, min_size=1, max_size=4))
@example([(-0.0, -0.0, -(2**63), 2**64 - 1, True, 'a,"b"\r\n\x00')])
@example([("NaN", 5e-324, 2**53 + 1, 2**53 + 1, False, "\ufeffNaN\u2028\x85")])
def test_every_form_gives_the_model_the_same_bits(rows: list[tuple[Any, ...]]) -> None:
    columns = {name: list(column) for name, column in zip(KINDS, zip(*rows, strict=True), strict=True)}
    found = {form: bits(read()) for form, read in forms(columns, len(rows)).items()}
    assert found == dict.fromkeys(found, found["binary"])


WRONG: list[tuple[str, Any]] = [
    ("f", "1e400"),
    ("f", "inf"),
    ("f", "x"),
    ("f", "1_0"),
    ("f", "\u0663"),
    ("i", "0x10"),
    ("i", 1.5),
    ("i", 2**63),
    ("u", -1),
    ("i", "NaN"),
    ("b", "yes"),
    ("b", 2),
]


@pytest.mark.parametrize(("name", "cell"), WRONG)
def test_what_no_column_takes_is_refused_in_every_form(name: str, cell: Any) -> None:
    row = {"f": 1.5, "d": 2.5, "i": 3, "u": 4, "b": True, "s": "x"} | {name: cell}
    for form, read in forms({key: [each] for key, each in row.items()}, 1).items():
        # A text that is a number is one in CSV; bytes have no texts in them.
        if form == "binary" or (form.startswith("csv") and cell == "inf"):
            continue
        with pytest.raises(RequestError) as refusal:
            read()
        assert refusal.value.status == 400, form
        assert "expected" in refusal.value.message, form


@pytest.mark.parametrize(
    ("body", "media", "words"),
    [
        (b'{"columns": ["f", "f"], "data": [[1, 2]]}', JSON, "the column 'f' comes twice"),
        (b"f,f\n1,2\n", CSV, "the column 'f' comes twice"),
        (b'[{"f": 1, "f": 2}]', JSON, "the key 'f' comes twice"),
        (b'[{"s": "\\ud800"}]', JSON, "a string of whole Unicode characters"),
        (b'[{"s": "\xed\xa0\x80"}]', JSON, "is not UTF-8"),
        (b"s\n\xed\xa0\x80\n", CSV, "is not UTF-8"),
        ("f\n1\n".encode("utf-16"), CSV, "is not UTF-8"),
        (b'[{"f": NaN}]', JSON, "NaN is not a JSON value"),
        (b"[" * 5000 + b"]" * 5000, JSON, "nested too deeply"),
        (b'{"columns": ["f", "d"], "data": [[1, 2], [3]]}', JSON, "row 1 has 1 values for 2 columns"),
        (b"f,d\n1,2\n3\n", CSV, "row 1 has 1 values for 2 columns"),
        (b'f,s\n1,"a', CSV, "not valid CSV"),
        (b'f,s\n1,"a"b\n', CSV, "not valid CSV"),
        (b"f\n1\x00\n", CSV, "expected a number"),
        (b'{"f": {"0": 1}, "d": {"1": 1}}', JSON, "differ in the row '0'"),
    ],
)
def test_what_is_malformed_is_told_in_words(body: bytes, media: bytes, words: str) -> None:
    with pytest.raises(RequestError) as refusal:
        read_score_body(MODEL, body, media)
    assert words in refusal.value.message
