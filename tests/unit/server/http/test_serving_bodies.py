"""Bodies of the Open Inference Protocol: the quick ways of reading them see what the thorough one sees."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from onnx_operator.server.dataplane.binary import decode_raw, encode_raw
from onnx_operator.server.dataplane.tensors import DTYPES
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.openinference import Codec
from tests.unit.server.http.codeckit import read
from tests.unit.server.serving import identity, linear, load_bytes, plane, tensor

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "INT8": TensorProto.INT8,
    "UINT8": TensorProto.UINT8,
    "INT64": TensorProto.INT64,
    "UINT64": TensorProto.UINT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
    "BF16": TensorProto.BFLOAT16,
}
MODELS = {name: load_bytes(identity(kind, ["N"])) for name, kind in ONNX_TYPES.items()}
LINEAR = load_bytes(linear())


def thoroughly(codec: Codec, body: bytes) -> Any:
    codec._read_numbers = codec._read_quickly = lambda _: None  # type: ignore[method-assign]
    return read(codec, body)


numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(width=16, allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.integers(-300, 300),
)
odd = st.one_of(st.booleans(), st.none(), st.sampled_from(["NaN", "x", "[", ']"', [], [[1]]]))
spaces = st.sampled_from(["", " ", "\n\t "])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A request for an identity model of some datatype, mostly right."""
    datatype = draw(st.sampled_from(sorted(MODELS)))
    element = st.one_of(numbers, numbers, numbers, odd) if draw(st.booleans()) else numbers
    data: Any = draw(st.lists(element, max_size=5))
    shape: Any = [len(data)] if draw(st.integers(0, 4)) else draw(st.sampled_from([[2], [], [1, 2], [-1], [1.0], "x"]))
    if draw(st.integers(0, 6)) == 0:
        data = [data]
    entry = [
        ("name", draw(st.sampled_from(["x", "x", "x", "y"]))),
        ("datatype", draw(st.sampled_from([datatype, datatype, datatype, "FP32"]))),
        ("shape", shape),
        ("data", data),
    ]
    if draw(st.booleans()):
        entry = draw(st.permutations(entry))
    if draw(st.integers(0, 9)) == 0:
        entry.append(draw(st.sampled_from([("parameters", {}), ("data", [1]), ("name", "x")])))
    text = "{" + ", ".join(f"{json.dumps(name)}:{draw(spaces)}{json.dumps(value)}" for name, value in entry) + "}"
    parts = ['"inputs": [' + text + "]"]
    if draw(st.integers(0, 3)) == 0:
        parts.append('"id": ' + draw(st.sampled_from(['"a"', "7", '"[1]"', r'"\"data\":[1]"', '"]}"'])))
    if draw(st.integers(0, 3)) == 0:
        parts.append('"outputs": ' + draw(st.sampled_from(['[{"name": "y"}]', "[]", '[{"name": "z"}]', "{}"])))
    if draw(st.integers(0, 9)) == 0:
        parts.append('"inputs": []')
    return datatype, ("{" + ", ".join(draw(st.permutations(parts))) + "}").encode()


@settings(max_examples=600, deadline=None)
@given(bodies(), bodies())
def test_the_quick_ways_take_and_refuse_what_the_thorough_one_does(
    first: tuple[str, bytes], second: tuple[str, bytes]
) -> None:
    for datatype, body in (first, second):
        codec = Codec(MODELS[datatype], "m", "")
        expected = thoroughly(Codec(MODELS[datatype], "m", ""), body)
        # Twice: the second time, what was learned from the first is used.
        assert read(codec, body) == expected
        assert read(codec, body) == expected
        # And on what looks alike: other numbers between the same JSON.
        other = body.replace(b"1", b"2")
        assert read(codec, other) == thoroughly(Codec(MODELS[datatype], "m", ""), other)


ids = st.one_of(
    st.sampled_from(
        [b"", b"a", b"b", b"[", b"]", b"{", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80", rb"\u0041", rb"\"", b"\x00"]
    ),
    st.text(max_size=4).map(lambda text: json.dumps(text)[1:-1].encode()),
)
"""Ids as they are written; some of them are no text, and no JSON."""
members = st.sampled_from(
    [
        b'"inputs": [%b]',
        b'"inputs": [%b], "id": "z"',
        b'"id": null, "inputs": [%b]',
        b'"inputs": [%b], "\\u0069d": "z"',
        b'"inputs": [%b], "outputs": [{"name": "Y"}]',
        b'"inputs": [%b], ',
        b"%b",
        b"",
    ]
)
"""What follows the id, around the input; not all of it is right."""


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), ids), members, st.sampled_from([b", ", b",", b" , ", b""])),
        min_size=2,
        max_size=6,
    ),
    st.booleans(),
)
def test_an_id_changes_nothing_but_itself_whatever_came_before(
    asked: list[tuple[bytes | None, bytes, bytes]], binary: bool
) -> None:
    codec = Codec(LINEAR, "m", "")
    for number, (request_id, rest, comma) in enumerate(asked):
        row = np.arange(4, dtype=np.float32) + number
        entry: dict[str, Any] = {"name": "X", "datatype": "FP32", "shape": [1, 4]}
        entry |= {"parameters": {"binary_data_size": 16}} if binary else {"data": row.tolist()}
        text = rest.replace(b"%b", json.dumps(entry).encode())
        text = b"{" + (b'"id": "%b"%b' % (request_id, comma) if request_id is not None else b"") + text + b"}"
        length = str(len(text)).encode() if binary else None
        body = text + row.tobytes() if binary else text
        # Of one that has read nothing else.
        expected = (read if binary else _thoroughly_read)(Codec(LINEAR, "m", ""), body, length)
        assert read(codec, body, length) == expected
        assert read(codec, body, length) == expected


def _thoroughly_read(codec: Codec, body: bytes, _: bytes | None) -> Any:
    return thoroughly(codec, body)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=12), max_size=6), st.data())
def test_a_body_that_was_cut_or_changed_is_read_alike(junk: list[bytes], data: st.DataObject) -> None:
    body = json.dumps({"inputs": [tensor("X", "FP32", [1, 4], [1, 0.5, 2, 3])]}).encode()
    codec = Codec(LINEAR, "m", "")
    read(codec, body)
    for piece in junk:
        at = data.draw(st.integers(0, len(body)))
        changed = body[:at] + piece + body[at + data.draw(st.integers(0, 5)) :]
        assert read(codec, changed) == thoroughly(Codec(LINEAR, "m", ""), changed)


@pytest.mark.parametrize("number", [1e200, -1e300, 1e39, 3e38, 5e-324])
def test_the_largest_and_smallest_numbers_are_taken_or_refused_without_a_warning(number: float) -> None:
    body = json.dumps({"inputs": [tensor("X", "FP32", [1, 4], [number, 2, 3, 4])]}).encode()
    codec = Codec(LINEAR, "m", "")
    expected = thoroughly(Codec(LINEAR, "m", ""), body)
    assert read(codec, body) == expected
    assert read(codec, body) == expected


def test_text_that_looks_like_the_data_is_not_taken_for_it() -> None:
    codec = Codec(LINEAR, "m", "")
    body = json.dumps({"inputs": [tensor("X", "FP32", [1, 4], [1, 2, 3, 4])], "id": '"data":[9,9,9,9]'}).encode()
    for _ in range(2):
        inference, form = codec.read(body, None)
        assert inference.feed["X"].tolist() == [[1, 2, 3, 4]]
        assert form.id == '"data":[9,9,9,9]'


def binary_request(datatype: str, shape: list[int], raw: bytes, **extra: Any) -> tuple[bytes, bytes]:
    entry = {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    text = json.dumps({"inputs": [entry], **extra}).encode()
    return text + raw, str(len(text)).encode()


@pytest.mark.parametrize("datatype", sorted(MODELS))
def test_binary_tensors_pass_in_both_directions(datatype: str) -> None:
    if datatype == "BYTES":
        raw = b"".join(struct.pack("<I", len(part)) + part for part in (b"", "ü".encode(), b"abc"))
    elif datatype == "BOOL":
        raw = b"\x00\x01\x01"
    else:
        size = 2 if datatype == "BF16" else DTYPES[datatype].itemsize
        raw = bytes(range(1, 3 * size + 1))
    served = plane(identity(ONNX_TYPES[datatype], ["N"]))
    for length in (3, 0):
        sent = raw if length else b""
        body, header_length = binary_request(datatype, [length], sent, parameters={"binary_data_output": True})
        for _ in range(2):
            inference, form = served.codec.read(body, header_length)
            answer, json_length = served.codec.write(form, served.model.run_plain(inference.outputs, inference.feed))
            assert json_length is not None
            (output,) = json.loads(answer[:json_length])["outputs"]
            assert output["parameters"] == {"binary_data_size": len(sent)}
            assert answer[json_length:] == sent


def test_each_output_may_be_asked_for_in_its_own_form() -> None:
    served = plane(linear())
    raw = np.array([1, 0, 0, 0], np.float32).tobytes()
    entry = {"name": "X", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    outputs = [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "label"}]
    text = json.dumps({"inputs": [entry], "outputs": outputs, "id": "q"}).encode()
    inference, form = served.codec.read(text + raw, str(len(text)).encode())
    answer, length = served.codec.write(form, served.model.run_plain(inference.outputs, inference.feed))
    head = json.loads(answer[:length])
    assert [output["name"] for output in head["outputs"]] == ["logits", "label"]
    assert head["outputs"][1]["data"] == [2]
    assert head["id"] == "q"
    assert np.frombuffer(answer[length:], np.float32).tolist() == pytest.approx([0, 0.1, 0.2])


@pytest.mark.parametrize(
    ("body", "header_length", "words"),
    [
        (b"{}", b"3", "0 to 2; got '3'"),
        (b"{}", b"-1", "got '-1'"),
        (b"{}", b"1e1", "got '1e1'"),
        (b"{}", b"9" * 40, "Inference-Header-Content-Length must be the number of bytes"),
        (b"", b"0", "not valid JSON"),
        (*binary_request("FP32", [4], b"x" * 15), "input x: FP32 of shape [4] takes 16 bytes, got 15"),
        (
            *binary_request("FP32", [10**30], b""),
            "the size 1000000000000000000000000000000 is beyond what an array can have",
        ),
        (*binary_request("FP64", [2], b"x" * 16), "expected datatype FP32, got 'FP64'"),
        (
            binary_request("FP32", [1], b"1234")[0] + b"more",
            binary_request("FP32", [1], b"1234")[1],
            "make 4 bytes, but 8 follow the JSON part",
        ),
    ],
)
def test_binary_requests_that_do_not_fit_are_told_why(body: bytes, header_length: bytes, words: str) -> None:
    with pytest.raises(RequestError) as refusal:
        Codec(MODELS["FP32"], "m", "").read(body, header_length)
    assert refusal.value.status == 400
    assert words in refusal.value.message


@pytest.mark.parametrize(
    ("datatype", "raw", "words"),
    [
        ("BOOL", b"\x02", "element 0 is the byte 2, expected 0 or 1 (BOOL)"),
        ("BYTES", b"\x05\x00\x00\x00abc", "element 0 should have 5 bytes, but only 3 are left"),
        ("BYTES", b"\x01\x00\x00\x00\xff", "element 0 is not UTF-8"),
        ("BYTES", b"\x00\x00\x00\x00\x00", "1 bytes are left after the last of 1 elements"),
        ("BYTES", b"\x00\x00", "take at least 4 bytes, got 2"),
    ],
)
def test_raw_elements_are_checked(datatype: str, raw: bytes, words: str) -> None:
    with pytest.raises(RequestError) as refusal:
        decode_raw(raw, datatype, (1,), "input x")
    assert words in refusal.value.message


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=8))
def test_strings_survive_the_raw_form(strings: list[str]) -> None:
    strings = [text.encode("utf-8", "ignore").decode() for text in strings]
    array = np.array([*strings, None], dtype=object)[:-1]
    assert decode_raw(encode_raw(array, "BYTES"), "BYTES", (len(strings),), "x").tolist() == strings
