"""An integer is taken to its last digit or refused by its own text, however it is written and in whatever form."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from onnx_operator.server.dataplane.exact import doubtful, exact
from onnx_operator.server.dataplane.tensors import DTYPES
from onnx_operator.server.errors import RequestError
from onnx_operator.server.http.openinference import Codec
from onnx_operator.server.http.predictions import read_prediction
from onnx_operator.server.http.score import read_score_body
from tests.unit.server.serving import identity, load_bytes

TYPES = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "BOOL")
ONNX = {"BOOL": TensorProto.BOOL, **{name: getattr(TensorProto, name) for name in TYPES[:-1]}}
MODELS = {name: load_bytes(identity(kind, ["N", 1])) for name, kind in ONNX.items()}
FLOATS = load_bytes(identity(TensorProto.DOUBLE, ["N", 1]))
FORMS: dict[str, Any] = {
    "infer": lambda model, kind, number: Codec(model, "m", "").read(
        b'{"inputs":[{"name":"x","datatype":"%b","shape":[1,1],"data":[%b]}]}' % (kind, number), None
    )[0],
    "score": lambda model, _, number: read_score_body(model, b'{"data": [[%b]]}' % number, b""),
    "records": lambda model, _, number: read_score_body(model, b'[{"x": %b}]' % number, b""),
    "split": lambda model, _, number: read_score_body(model, b'{"columns": ["x"], "data": [[%b]]}' % number, b""),
    "columns": lambda model, _, number: read_score_body(model, b'{"x": {"0": %b}}' % number, b""),
    "instances": lambda model, _, number: read_prediction(model, b'{"instances": [[%b]]}' % number, b""),
    "csv": lambda model, _, number: read_score_body(model, b"x\n%b\n" % number, b"text/csv"),
}


def read(form: str, datatype: str, number: str) -> Any:
    """The number that the model gets, or why it gets none."""
    try:
        inference = FORMS[form](MODELS[datatype], datatype.encode(), number.encode())
    except RequestError as refusal:
        return refusal.message if refusal.status == 400 else refusal
    (array,) = inference.feed.values()
    return array.tolist()[0][0]


EXACT = {
    "9007199254740993.0": ("INT64", 9007199254740993),
    "-9007199254740993.00": ("INT64", -9007199254740993),
    "9223372036854775807.0": ("INT64", 2**63 - 1),
    "18446744073709551615.0": ("UINT64", 2**64 - 1),
    "1e19": ("UINT64", 10**19),
    "999999999999999e4": ("UINT64", 9999999999999990000),
    "1E2": ("INT8", 100),
    "0.1e1": ("UINT16", 1),
    "12.5e+1": ("INT32", 125),
    "-0.0": ("INT64", 0),
    "0e5": ("INT8", 0),
    "2.0": ("UINT8", 2),
    "9223372036854775808": ("UINT64", 2**63),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("number", EXACT)
def test_no_digit_is_lost(form: str, number: str) -> None:
    datatype, value = EXACT[number]
    assert read(form, datatype, number) == value


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("datatype", "number"),
    [
        ("INT64", "1.00000000000000000001"),
        ("INT64", "4503599627370497.2"),
        ("INT64", "9223372036854775808.0"),
        ("INT64", "1e19"),
        ("INT64", "1e-400"),
        ("INT64", "1e400"),
        ("UINT64", "18446744073709551616.0"),
        ("UINT64", "-1e0"),
        ("INT8", "1.28e2"),
        ("INT32", "2.5"),
    ],
)
def test_what_is_no_integer_of_the_type_is_refused_by_what_was_sent(form: str, datatype: str, number: str) -> None:
    message = read(form, datatype, number)
    written = (number, str(exact(number)))
    assert any(f"is {each}, expected an integer from" in message for each in written), message
    assert f"({datatype})" in message


@pytest.mark.parametrize("form", FORMS)
def test_a_truth_value_may_be_a_number_but_none_that_only_rounds_to_one(form: str) -> None:
    if form == "infer":
        assert "expected true or false" in read(form, "BOOL", "1.0")
        return
    assert read(form, "BOOL", "1.0") is True
    assert read(form, "BOOL", "0e0") is False
    assert "expected true or false" in read(form, "BOOL", "1.00000000000000000001")


@pytest.mark.parametrize("form", FORMS)
def test_a_float_is_the_nearest_one_whatever_is_beside_it(form: str) -> None:
    for text in ("9007199254740993.0", "1e23", "-0.0", "5e-324", "0.1", "1e-400", "1.00000000000000000001"):
        array = next(iter(FORMS[form](FLOATS, b"FP64", text.encode()).feed.values()))
        assert array.tobytes() == np.float64(text).tobytes()
    with pytest.raises(RequestError, match="expected a number in the range of FP64"):
        FORMS[form](FLOATS, b"FP64", b"1e400")


digits = st.text("0123456789", min_size=1, max_size=25)
texts = st.builds(
    lambda sign, whole, rest, power: f"{sign}{int(whole)}{rest}{power}",
    st.sampled_from(["", "-"]),
    digits,
    st.one_of(st.just(""), digits.map(lambda text: "." + text), st.just(".0")),
    st.one_of(st.just(""), st.integers(-30, 30).map(lambda power: f"e{power}")),
)


@settings(max_examples=300, deadline=None)
@given(texts, st.sampled_from(TYPES[:-1]))
@example("9007199254740993.0", "INT64")
@example("999999999999999e4", "UINT64")
def test_every_form_takes_the_integers_of_a_type_and_nothing_else(number: str, datatype: str) -> None:
    value = Fraction(number)
    bounds = np.iinfo(DTYPES[datatype])
    found = {form: read(form, datatype, number) for form in FORMS}
    if value.denominator == 1 and bounds.min <= value <= bounds.max:
        assert found == dict.fromkeys(FORMS, int(value))
    else:
        assert all(isinstance(each, str) for each in found.values()), found


@settings(max_examples=300, deadline=None)
@given(texts.filter(lambda text: "." in text or "e" in text))
def test_what_is_in_no_doubt_is_told_by_a_double(number: str) -> None:
    if not doubtful(number.encode()):
        assert Fraction(number) == Fraction(float(number)) or not float(number).is_integer()
