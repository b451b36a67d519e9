"""Amounts of resources as people write them: 500m, 2, and 0.5 without quotes."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from onnx_operator.api.onnxmodel import Resources
from onnx_operator.controller.settings.quantities import parse_quantity


def amount(value):
    limits = Resources.model_validate({"limits": {"cpu": value}}).limits
    assert limits is not None
    return limits["cpu"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [(0.05, "0.05"), (0.5, "0.5"), (1.0, "1.0"), (1e-7, "0.0000001"), (2, 2), ("500m", "500m"), ("1.5Gi", "1.5Gi")],
)
def test_a_fraction_means_what_it_says(written, meant):
    assert amount(written) == meant


@given(st.floats(min_value=0, max_value=2**53, allow_nan=False))
def test_no_fraction_changes_its_value(value):
    assert parse_quantity(amount(value)) == Decimal(repr(value))


@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), [], {}])
def test_what_is_no_amount_is_refused(value):
    with pytest.raises(ValidationError):
        amount(value)
