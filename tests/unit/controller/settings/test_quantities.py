"""Quantities, as Kubernetes writes them."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.api.crd import crd
from onnx_operator.controller.settings.quantities import mebibytes, parse_quantity

SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
PATTERN = SCHEMA["resources"]["properties"]["limits"]["additionalProperties"]["pattern"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", "1"),
        (1, "1"),
        ("500m", "0.5"),
        ("1000m", "1"),
        ("0.5", "0.5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("+2", "2"),
        ("1k", "1000"),
        ("1Ki", "1024"),
        ("16Gi", str(16 * 2**30)),
        ("1E", str(10**18)),
        ("1Ei", str(2**60)),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("1e-3", "0.001"),
        ("12e+2", "1200"),
        ("1u", "0.000001"),
        ("1n", "0.000000001"),
    ],
)
def test_a_quantity_means_what_kubernetes_says(text, value):
    assert parse_quantity(text) == Decimal(value)


@settings(deadline=None)
@given(
    text=st.from_regex(PATTERN.replace("[0-9]", "[0-9]").replace("([0-9]+)))?$", "([0-9]{1,2})))?$"), fullmatch=True)
)
def test_every_quantity_that_the_crd_lets_in_can_be_read(text):
    assert parse_quantity(text) >= 0


@pytest.mark.parametrize("text", ["", "Gi", "1GiB", "one", "--1"])
def test_what_is_no_quantity_is_an_error(text):
    with pytest.raises(ValueError):
        parse_quantity(text)


@settings(deadline=None)
@given(count=st.floats(0, 2**50))
def test_whole_mebibytes_are_rounded_up(count):
    value = parse_quantity(mebibytes(count))
    assert int(count) <= value < int(count) + 2**20
    assert value % 2**20 == 0
