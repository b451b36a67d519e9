"""The termination message: always JSON, never longer than its limit, and never without the cause's kind."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import (
    CREDENTIAL_VARIABLES,
    TERMINATION_MESSAGE_LIMIT,
    FetchPlan,
    Phase,
    TerminationMessage,
)
from onnx_operator.api.sources import SourcePin, SourceSettings

NASTY = st.one_of(
    st.text(max_size=400),
    st.text(alphabet='\x00\x01\x1f"\\<>&é漢🚀\u2028', min_size=600, max_size=5000),
    st.integers(1, 3000).map(lambda n: "x" * n),
)


@settings(deadline=None)
@given(message=NASTY, observed=st.none() | NASTY)
def test_any_text_fits_the_limit_and_is_read_back(message, observed):
    pin = None if observed is None else SourcePin(kind="Conditional", value=observed)
    original = TerminationMessage(phase=Phase.LOADING, reason=Reason.SOURCE_CHANGED, message=message, observed=pin)

    text = original.to_json()

    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT
    back = TerminationMessage.model_validate_json(text)
    assert (back.phase, back.reason) == (original.phase, original.reason)
    assert (back.observed is None) == (pin is None)
    json.loads(text)


@settings(deadline=None)
@given(message=st.text(max_size=300))
def test_what_is_short_enough_stays_as_it_was(message):
    original = TerminationMessage(phase=Phase.LOADING, reason=Reason.LOAD_FAILED, message=message)
    assert TerminationMessage.model_validate_json(original.to_json()) == original


@pytest.mark.parametrize("letter", ["x", "é", "🚀", "\x01"])
def test_a_long_message_keeps_its_beginning_and_says_that_it_was_cut(letter):
    text = TerminationMessage(phase=Phase.LOADING, reason=Reason.LOAD_FAILED, message=letter * 10_000).to_json()
    message = TerminationMessage.model_validate_json(text).message
    assert message.endswith("…")
    assert message.startswith(letter * 100)


def test_before_anything_failed_only_the_phase_is_told():
    assert json.loads(TerminationMessage(phase=Phase.WARMING_UP).to_json()) == {"phase": "WarmingUp", "message": ""}


def test_an_older_reader_understands_a_newer_writers_message():
    newer = '{"phase": "Loading", "reason": "LoadFailed", "message": "m", "somethingNew": {"a": 1}}'
    assert TerminationMessage.model_validate_json(newer).reason is Reason.LOAD_FAILED


def test_a_fetch_plan_survives_the_environment():
    plan = FetchPlan(
        uri="s3://b/k",
        pin=SourcePin(kind="Immutable", value="v1"),
        sha256="a" * 64,
        size_bytes=5,
        destination="/models/model.onnx",
        sources=SourceSettings(allowed_networks=["10.0.0.0/8"]),
    )
    assert FetchPlan.model_validate_json(plan.model_dump_json(by_alias=True)) == plan


def test_every_scheme_that_a_uri_may_have_knows_its_credentials():
    assert set(CREDENTIAL_VARIABLES) == {"s3", "https"}
