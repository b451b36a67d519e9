"""Numbers, strings and truth values survive JSON exactly, or are refused in words."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from onnx_operator.server.dataplane.tensors import DTYPES, datatype_of, decode, encode, encode_nested
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.jsonbody import parse_object

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    datatype = draw(st.sampled_from(sorted(DTYPES)))
    if datatype == "BYTES":
        texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
        return datatype, draw(arrays.arrays(np.object_, SHAPES, elements=texts))
    return datatype, draw(arrays.arrays(DTYPES[datatype], SHAPES))


@given(tensors(), st.booleans())
@settings(deadline=None)
def test_every_value_of_every_type_comes_back_as_it_was(case: tuple[str, np.ndarray], nested: bool) -> None:
    datatype, array = case
    sent = json.dumps(encode_nested(array) if nested else encode(array), allow_nan=False)
    back = decode(json.loads(sent), datatype, array.shape, "x")
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    if array.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(back[~np.isnan(back)]), np.signbit(array[~np.isnan(array)]))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=8,
)


@given(JSON_VALUES, st.sampled_from(sorted(DTYPES)), st.booleans())
@settings(deadline=None)
def test_whatever_is_sent_becomes_an_array_of_the_type_or_a_refusal(data: Any, datatype: str, lenient: bool) -> None:
    try:
        array = decode(data, datatype, None, "x", lenient=lenient)
    except RequestError as refused:
        refusal = refused
    else:
        assert array.dtype == DTYPES[datatype]
        return
    assert refusal.status == 400
    assert refusal.message.startswith("x: ")


@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode(errors="ignore")))
@settings(deadline=None)
def test_any_bytes_are_an_object_or_a_refusal(body: bytes) -> None:
    try:
        parsed: object = parse_object(body)
    except RequestError as refused:
        parsed = refused
    assert isinstance(parsed, dict) or (isinstance(parsed, RequestError) and parsed.status == 400)


@pytest.mark.parametrize(
    ("datatype", "data", "message"),
    [
        ("UINT8", [1, 300], "x: element 1 is 300, expected an integer from 0 to 255 (UINT8)"),
        ("UINT8", [-1], "x: element 0 is -1, expected an integer from 0 to 255 (UINT8)"),
        ("INT64", [1, 1.5], "x: element 1 is 1.5, expected an integer"),
        ("INT64", [0, True], "x: element 1 is true, expected an integer"),
        ("INT64", [2**63], "x: element 0 is 9223372036854775808, expected an integer"),
        ("INT64", [10**3000], "x: element 0 is a number of more than 150 digits"),
        ("INT32", ["7"], "x: element 0 is '7', expected an integer"),
        ("FP32", [None], "x: element 0 is null, expected a number"),
        ("FP32", [False], "x: element 0 is false, expected a number"),
        ("FP32", ["nan"], 'x: element 0 is \'nan\', expected a number, "NaN", "Infinity"'),
        ("FP32", [0, 1e39], "x: element 1 is 1e+39, expected a number in the range of FP32"),
        ("FP16", [65520], "x: element 0 is 65520, expected a number in the range of FP16"),
        ("FP64", [10**400], "x: element 0 is a number of more than 150 digits, expected a number in the range"),
        ("BOOL", [1], "x: element 0 is 1, expected true or false (BOOL)"),
        ("BYTES", [3], "x: element 0 is 3, expected a string (BYTES)"),
        ("BYTES", ["a", "\ud800"], "x: element 1 is '\\ud800', expected a string of whole Unicode characters"),
        ("FP32", [{"a": 1}], "x: element 0 is an object"),
        ("FP32", [[1, 2], [3]], "x: data is ragged: lists of 1 and of 2 elements at depth 1"),
        ("FP32", [[1], 2], "x: data mixes lists and values at depth 1"),
    ],
)
def test_what_does_not_fit_the_type_is_named_with_its_place(datatype: str, data: Any, message: str) -> None:
    with pytest.raises(RequestError) as refusal:
        decode(data, datatype, None, "x")
    assert message in refusal.value.message


def test_an_overflowing_json_number_is_no_infinity() -> None:
    with pytest.raises(RequestError, match="in the range of FP64"):
        decode(json.loads("[1e400]"), "FP64", [1], "x")


def test_integral_floats_are_integers() -> None:
    assert decode([2.0, -3.0], "INT32", [2], "x").tolist() == [2, -3]


@pytest.mark.parametrize(
    ("shape", "data", "message"),
    [
        ([2, 2], [1, 2, 3], "x: shape [2, 2] needs 4 elements, data holds 3"),
        ([2, 2], [[1, 2, 3, 4]], "x: data is nested as [1, 4], shape says [2, 2]"),
        ([], [1, 2], "x: shape [] needs 1 elements, data holds 2"),
        ([10**9, 10**9], [], "needs 1000000000000000000 elements, data holds 0"),
        ([0, 10**30], [], "is beyond what an array can have"),
        ([1] * 100, [1], "is beyond what an array can have"),
    ],
)
def test_shape_and_data_must_agree(shape: list[int], data: Any, message: str) -> None:
    with pytest.raises(RequestError) as refusal:
        decode(data, "FP32", shape, "x")
    assert message in refusal.value.message


@pytest.mark.parametrize("data", [5, [5]])
def test_a_scalar_may_be_bare_or_in_a_list(data: Any) -> None:
    assert decode(data, "FP32", [], "x").shape == ()


def test_score_takes_truth_values_as_numbers_and_null_as_nan() -> None:
    assert decode([True, 2], "INT64", None, "x", lenient=True).tolist() == [1, 2]
    assert decode([0, 1.0, True], "BOOL", None, "x", lenient=True).tolist() == [False, True, True]
    assert np.isnan(decode([None], "FP32", None, "x", lenient=True)[0])
    with pytest.raises(RequestError):
        decode([2], "BOOL", None, "x", lenient=True)


@pytest.mark.parametrize(
    ("onnx_type", "datatype"),
    [
        ("tensor(float)", "FP32"),
        ("tensor(string)", "BYTES"),
        ("tensor(bfloat16)", "BF16"),
        ("tensor(float8e4m3fn)", "FLOAT8E4M3FN"),
        ("seq(tensor(float))", None),
    ],
)
def test_types_have_the_protocols_names(onnx_type: str, datatype: str | None) -> None:
    assert datatype_of(onnx_type) == datatype


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"a": ]}', "line 1 column 7 (character 6)"),
        (b"", "line 1 column 1"),
        (b"\xff", "byte 0 is invalid"),
        (b"[1]", "must be a JSON object"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b'{"a": ' + b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "too many digits"),
    ],
)
def test_a_bad_body_is_refused_with_the_position(body: bytes, message: str) -> None:
    with pytest.raises(RequestError) as refusal:
        parse_object(body)
    assert message in refusal.value.message
