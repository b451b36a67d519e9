"""A large body holds up nobody else of the process: it is read, and what was made of it is freed, in small pieces."""

import contextlib
import gc
import json
import random
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from onnx_operator.server.dataplane import pieces
from onnx_operator.server.dataplane.pieces import PIECE, keep, working
from onnx_operator.server.dataplane.tensors import DTYPES, decode, encode_nested
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http import jsonbody, jsonpieces
from onnx_operator.server.http.jsonbody import encode_in_pieces, parse_value
from onnx_operator.server.http.openinference import Codec
from onnx_operator.server.http.score import read_score_body
from onnx_operator.server.http.tables.csvtext import MAX_LINE, read_csv
from tests.unit.server.serving import identity, linear, load_bytes, serving

LINEAR = load_bytes(linear())
CSV = b"text/csv"
SIZE = 1 << 20


def body_of(start: bytes, member: bytes, end: bytes) -> bytes:
    """JSON or CSV of about a megabyte."""
    return start + member * (SIZE // len(member)) + member.rstrip(b",") + end


LARGE = {
    "numbers": body_of(b'{"data": [', b"1,", b"]}"),
    "rows": body_of(b'{"data": [', b"[1,2,3,4],", b"]}"),
    "empty lists": body_of(b'{"data": [', b"[],", b"]}"),
    "ragged": body_of(b'{"data": [', b"[1,2],", b",[1]]}"),
    "objects": body_of(b"[", b"{},", b"]"),
    "records": body_of(b"[", b'{"a":1,"b":2,"c":3,"d":4},', b"]"),
    "split": body_of(b'{"columns":["a","b","c","d"],"data":[', b"[1,2,3,4],", b"]}"),
    "columns": b'{"X":{' + b",".join(b'"%d":[1,2,3,4]' % row for row in range(60_000)) + b"}}",
    "keys": b"{" + b",".join(b'"%d":1' % row for row in range(100_000)) + b"}",
    "broken": body_of(b'{"data": [', b"1,", b"x]}"),
    "blanks": b'{"data": [' + b" " * SIZE + b"]}",
    "a text": b'{"data": ["' + b"\\n" * (SIZE // 2) + b'"]}',
    "deep": b"[" * SIZE,
    "nested": b'{"data": [' * 50 + b"1," * (SIZE // 2) + b"1" + b"]}" * 50,
}
LINES = {
    "commas": b"," * SIZE,
    "lines": body_of(b"a,b,c,d\n", b"1,2,3,4\n", b""),
    "returns": body_of(b"a,b,c,d\r", b"1,2,3,4\r", b""),
    "quotes": body_of(b"a,b,c,d\n", b'"","","",""\n', b""),
    "long cells": b"a,b\n" + (b'"' + b"x\n" * 60_000 + b'",1\n') * 9,
    "empty lines": b"a\n" + b"\n" * SIZE,
}


class Watched:
    """Counts what single calls into the parser are given, and the turns that others have."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.turns = 0
        self.longest = 0
        decode_text = json.JSONDecoder.decode

        def watch(decoder: json.JSONDecoder, text: str, *rest: Any) -> Any:
            self.longest = max(self.longest, len(text))
            return decode_text(decoder, text, *rest)

        def pause(_: float) -> None:
            self.turns += 1

        monkeypatch.setattr(json.JSONDecoder, "decode", watch)
        monkeypatch.setattr(pieces, "sleep", pause)
        # However quick the work between two of them is.
        monkeypatch.setattr(pieces, "_STINT", 0.0)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


@pytest.mark.parametrize("name", LARGE)
def test_no_call_of_the_parser_gets_more_than_a_piece(name: str, watched: Watched) -> None:
    with working(), contextlib.suppress(RequestError):
        read_score_body(LINEAR, LARGE[name], b"")
    assert watched.longest <= PIECE + 2
    assert name == "deep" or watched.turns >= SIZE // PIECE // 2


def test_members_in_many_lists_take_not_many_times_as_long() -> None:
    text = b'"%b"' % (b"a" * PIECE)
    deep = b"[" * 98 + text + b"]" * 98

    def seconds(member: bytes) -> float:
        body = b"[" + b",".join([member] * (SIZE // len(member))) + b"]"
        began = time.process_time()
        with working():
            parse_value(body)
        return time.process_time() - began

    seconds(text)
    assert min(seconds(deep) for _ in range(3)) < 10 * max(seconds(text) for _ in range(3))


@pytest.mark.parametrize("name", LINES)
def test_nor_is_more_than_a_line_of_csv_read_at_once(name: str, watched: Watched) -> None:
    with working(), contextlib.suppress(RequestError):
        read_score_body(LINEAR, LINES[name], CSV)
    assert name == "commas" or watched.turns >= SIZE // PIECE // 2


def test_a_line_of_csv_that_would_take_too_long_is_refused_before_it_is_read() -> None:
    for body, line in ((b"," * (MAX_LINE + 2), 1), (b"a,b\n1,2\n" + b"x" * (MAX_LINE + 2) + b"\n", 3)):
        with pytest.raises(
            RequestError, match=f"line {line} of the CSV has more than {MAX_LINE} bytes; send it as JSON"
        ):
            read_csv(body)
    rows = read_csv(b"a,b\r\n" + b'"x\r\ny",2\r\n' * 50_000).rows
    assert len(rows) == 50_000
    assert set(map(tuple, rows)) == {("x\r\ny", "2")}


@pytest.mark.parametrize("data", ["flat", "nested"])
def test_numbers_of_the_protocol_are_read_in_pieces_too(data: str, watched: Watched) -> None:
    rows = 100_000
    numbers = ",".join(["[1,2,3,4]" if data == "nested" else "1,2,3,4"] * rows)
    entry = f'{{"name": "X", "datatype": "FP32", "shape": [{rows}, 4], "data": [{numbers}]}}'
    with working():
        inference, _ = Codec(LINEAR, "m", "").read_large(b'{"inputs": [%b]}' % entry.encode(), None, lambda _: None)
    np.testing.assert_array_equal(inference.feed["X"], np.tile(np.arange(1, 5, dtype=np.float32), (rows, 1)))
    assert watched.longest <= PIECE + 2
    assert watched.turns >= len(numbers) // PIECE


def test_what_was_made_is_freed_in_pieces_also_where_the_body_is_refused(watched: Watched) -> None:
    values: list[Any] = list(range(10 * PIECE))
    grouped = [[0] * 1000 for _ in range(1000)]
    mapping = dict.fromkeys(range(3 * PIECE))

    def read() -> None:
        with working():
            keep(values)
            keep(grouped, 1000)
            keep(mapping)
            raise RequestError("no")

    with pytest.raises(RequestError):
        read()
    assert (values, grouped, mapping) == ([], [], {})
    assert watched.turns >= 10 + 1000 * 1000 // PIECE + 3


def test_outside_of_a_large_body_nobody_pauses_and_nothing_is_emptied(watched: Watched) -> None:
    values: list[Any] = list(range(3 * PIECE))
    keep(values)
    decode(values, "INT64", None, "x")
    assert (len(values), watched.turns) == (3 * PIECE, 0)


def test_full_collections_wait_until_the_last_one_has_read() -> None:
    before = gc.get_threshold()
    with working():
        with working():
            assert gc.get_threshold()[2] > 1_000_000
        assert gc.get_threshold()[2] > 1_000_000
    assert gc.get_threshold() == before


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=6), inner, max_size=8),
    max_leaves=40,
)
changes = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from([*'[]{},:"\\ \n1eu', "NaN", "\xff", ""])), max_size=2
)


def parsed(body: bytes) -> str | None:
    try:
        return repr(jsonbody.parse_value(body))
    except RequestError as refusal:
        return None if refusal.status == 400 else "?"


@settings(max_examples=200, deadline=None)
@given(values, st.booleans(), st.sampled_from([None, 1]), changes, st.sampled_from([24, 40, 100]))
@example([" " * 50, {}], False, 1, [], 24)
@example("\U0001f600" * 40, True, None, [], 24)
@example({"a" * 50: ["\ud83d", "\\" * 60]}, True, None, [], 24)
def test_pieces_are_read_as_the_whole_is(
    value: Any, escaped: bool, indent: int | None, changed: list[tuple[int, str]], size: int
) -> None:
    body = json.dumps(value, ensure_ascii=escaped, indent=indent).encode("utf-8", "surrogatepass")
    for at, text in changed:
        at %= len(body) + 1
        body = body[:at] + text.encode("latin-1") + body[at + 1 :]
    expected = parsed(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonbody, "PIECE", 0)
        patch.setattr(jsonpieces, "PIECE", size)
        found = parsed(body)
    # Numbers that are longer than a piece are refused.
    assert found == expected or (found is None and max(map(len, body.split(b","))) >= size)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            body_of(b'{"data": [', b"1,", b"x]}"),
            f"Expecting ',' delimiter at line 1 column {SIZE + 12} (character {SIZE + 11})",
        ),
        (body_of(b'{"d\xc3\xa9": [\n', b"1,\n", b"x]}"), f"Expecting value at line {SIZE // 3 + 3} column 1"),
        (body_of(b'{"data": [', b"1,", b"]} 1"), "Extra data"),
        (body_of(b'{"data": [', b"1,", b",]}"), "Expecting value"),
        (body_of(b'{"data": [', b"1,", b""), "Expecting ',' delimiter"),
        (body_of(b'{"data": [', b"1,", b'], "data": 1}'), "the key 'data' comes twice"),
        (body_of(b'{"data": [', b'"a",', b'"\xff"]}'), "the body is not UTF-8: byte "),
        (body_of(b"{", b'"a":1,', b"}"), "the key 'a' comes twice"),
        (b'{"data": [' + b"1" * SIZE + b"]}", "a number with too many digits"),
        (b'{"data": ["' + b"x" * SIZE + b"]}", "Unterminated string starting at at line 1 column 11"),
    ],
)
def test_what_is_wrong_in_a_large_body_is_told_by_its_place(body: bytes, words: str) -> None:
    with pytest.raises(RequestError) as refusal:
        read_score_body(LINEAR, body, b"")
    assert words in refusal.value.message


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_an_array_of_many_pieces_is_that_of_its_elements(datatype: str) -> None:
    random.seed(1)
    length = 2 * PIECE + 7
    one: Any = {"BYTES": "x", "BOOL": True}.get(datatype, 1)
    zero: Any = {"BYTES": "", "BOOL": False}.get(datatype, 0)
    flat = [random.choice([zero, one]) for _ in range(length)]
    expected = np.array(flat, DTYPES[datatype])
    assert (decode(flat, datatype, None, "x") == expected).all()
    assert (decode([[each] for each in flat], datatype, None, "x") == expected[:, None]).all()
    flat[length - 2] = {}
    with pytest.raises(RequestError, match=f"x: element {length - 2} is an object"):
        decode(flat, datatype, None, "x")


def test_places_of_a_large_table_are_told_by_row_and_column() -> None:
    rows = ["1,2,3,4"] * 50_000
    rows[40_000] = "1,2,x,4"
    with pytest.raises(RequestError, match="column 'c', row 40000 is 'x', expected a number"):
        read_score_body(LINEAR, "\n".join(["a,b,c,d", *rows]).encode(), CSV)
    frame = {"columns": list("abcd"), "data": [json.loads(f"[{row.replace('x', 'true')}]") for row in rows]}
    frame["data"][40_000][2] = "x"
    with pytest.raises(RequestError, match="column 'c', row 40000 is 'x', expected a number"):
        read_score_body(LINEAR, json.dumps(frame).encode(), b"")


def test_only_numbers_behind_a_key_of_the_data_are_cut_out() -> None:
    texts = load_bytes(identity(TensorProto.INT64, ["N"]))
    numbers = ",".join(map(str, range(30_000)))
    start = '{"name": "x", "datatype": "INT64", "shape": [30000], '
    for entry in (
        start + f'"parameters": {{"data": [{numbers}]}}, "data": [{numbers}]}}',
        start + f'"data": [{numbers}]}}], "id": "\\"data\\": [{numbers}]", "outputs": [{{"name": "y"}}',
        start + f'"data": [{numbers.replace(",", " , ")}]}}',
    ):
        inference, _ = Codec(texts, "m", "").read_large(f'{{"inputs": [{entry}]}}'.encode(), None, lambda _: None)
        np.testing.assert_array_equal(inference.feed["x"], np.arange(30_000))
    for wrong in (
        f'"data": [{numbers},]',
        f'"data": [{numbers},1]',
        f'"data": [{numbers[:-1]}.5]',
        f'"data": [,{numbers}]',
    ):
        with pytest.raises(RequestError):
            Codec(texts, "m", "").read_large(f'{{"inputs": [{start}{wrong}}}]}}'.encode(), None, lambda _: None)


def test_large_bodies_are_answered_by_the_server_as_small_ones_are() -> None:
    with serving(linear()) as process:
        small = process.post("/score", b'{"data": [[1,2,3,4]]}').json
        rows = 20_000
        answer = process.post(
            "/score", body_of(b'{"data": [', b"[1,2,3,4],", b"]}")[: 10 * rows + 10].rstrip(b",") + b"]}"
        )
        assert answer.json == {name: value * rows for name, value in small.items()}
        answer = process.post("/score", b"a,b,c,d\n" + b"1,2,3,4\n" * rows, Content_Type="text/csv")
        assert answer.json == {name: value * rows for name, value in small.items()}


@pytest.mark.parametrize(
    ("path", "start", "end"),
    [
        ("/score", b'{"data":[', b"]}"),
        ("/invocations", b'{"inputs":[', b"]}"),
        ("/v1/models/m:predict", b'{"instances":[', b"]}"),
        ("/v2/models/m/infer", b'{"inputs":[{"name":"X","datatype":"FP32","shape":[0,4],"data":[', b"]}]}"),
    ],
)
def test_what_makes_objects_is_counted_before_it_makes_them_and_not_read_on_the_loop(
    path: str, start: bytes, end: bytes
) -> None:
    with serving(linear(), "--memory-budget", str(8 << 20)) as process:
        answer = process.post(path, start + b"[]," * 80_000 + b"[]" + end)
        assert answer.status == 413
        assert "memory to answer" in answer.json["error"]
        assert process.post(path, start + b"[]," * 12_000 + b"[]" + end).status == 400


def test_numbers_of_the_protocol_are_read_at_once_while_they_are_not_large() -> None:
    codec = Codec(LINEAR, "m", "")
    for data, quickly in (("1,2,3,4", True), ("[1,2,3,4]", False)):
        entry = f'{{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [{data}]}}'
        assert (codec.read_quickly(f'{{"inputs": [{entry}]}}'.encode()) is not None) == quickly


def test_large_answers_are_written_in_pieces_and_are_the_same(watched: Watched) -> None:
    rows = 3 * PIECE
    numbers = np.arange(rows, dtype=np.float32)
    odd = np.where(numbers % 5000 == 0, np.float32(np.nan), numbers)
    texts = np.array([f"t{number}" for number in range(rows)], dtype=object)
    for array in (numbers, odd, texts, numbers.reshape(-1, 2, 3), numbers.reshape(1, 2, -1), numbers[:0].reshape(3, 0)):
        written = {"a": array, "b": 1, "c": [{"x": 1.5}] * (2 * PIECE)}
        with working():
            found = encode_in_pieces(written)
        assert json.loads(found) == {**written, "a": encode_nested(array)}
    codec = Codec(load_bytes(identity(TensorProto.FLOAT, None)), "m", "")
    with working():
        before = watched.turns
        body, _ = codec.write(codec.read_form(["y"]), [odd])
    assert json.loads(body)["outputs"][0]["data"] == encode_nested(odd)
    assert watched.turns >= before + 2
