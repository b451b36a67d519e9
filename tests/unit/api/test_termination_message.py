"""The termination message: always JSON, never longer than its limit, and never without the cause's kind."""

import json
import re
import subprocess
import sys
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_operator.api.conditions import Reason
from onnx_operator.api.contract import (
    TERMINATION_MESSAGE_LIMIT,
    FetchPlan,
    Phase,
    TerminationMessage,
)
from onnx_operator.api.schemes import SCHEMES, claim_of, scheme_of
from onnx_operator.api.sources import ModelFiles, SourceFile, SourcePin, SourceSettings

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


def plan(count: int = 1, **source) -> FetchPlan:
    """A plan of ``count`` files."""
    pin = SourcePin(kind="Immutable", value="v1")
    return FetchPlan(
        uri="s3://b/k",
        model=ModelFiles(
            files=[SourceFile(name=f"poids-{n}-é漢🚀", pin=pin, size_bytes=5, sha256="a" * 64) for n in range(count)],
            model="poids-0-é漢🚀",
        ),
        directory="/models",
        sources=SourceSettings(**source),
    )


@pytest.mark.parametrize("count", [1, 400, 1500])
def test_a_fetch_plan_survives_the_environment(count):
    original = plan(count, allowed_networks=["10.0.0.0/8"])
    variables = original.to_variables()
    assert next(iter(variables)) == "ONNX_FETCH_PLAN"
    assert FetchPlan.from_variables({"PATH": "/bin", **variables}) == original
    # MAX_ARG_STRLEN of execve(2), with name, sign and end.
    assert all(len(f"{name}={value}".encode()) < 128 * 1024 for name, value in variables.items())


def test_the_longest_plan_reaches_a_process(tmp_path):
    original = plan(1500)
    script = "import os; print(sum(len(v) for k, v in os.environ.items() if k.startswith('ONNX_FETCH_PLAN')))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=original.to_variables(), capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == sum(map(len, original.to_variables().values()))


def test_a_plan_that_fits_no_environment_says_how_long_it_is():
    with pytest.raises(ValueError, match="bytes"):
        plan(5000).to_variables()


def test_a_plan_of_which_a_part_is_missing_is_no_plan():
    variables = plan(400).to_variables()
    variables.popitem()
    with pytest.raises(ValueError):
        FetchPlan.from_variables(variables)


@pytest.mark.parametrize(
    ("uri", "scheme", "claim"),
    [
        ("s3://b/k", "s3", ""),
        ("HTTPS://h/m", "https", ""),
        ("models:/name/7", "models", ""),
        ("models:/name@champion", "models", ""),
        ("pvc://claim/a/b.onnx", "pvc", "claim"),
    ],
)
def test_schemes_and_claims_are_read_from_uris(uri, scheme, claim):
    assert (scheme_of(uri), claim_of(uri)) == (scheme, claim)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_every_scheme_is_written_as_its_pattern_says_and_has_a_source_that_can_be_made(scheme):
    assert all(form.startswith(scheme.prefix) for form in scheme.forms)
    assert re.match(scheme.pattern.partition(":")[0] + ":", scheme.prefix)
    assert set(scheme.settings) <= SourceSettings.model_fields.keys(), "settings of a store: a field of SourceSettings"
    module, name = scheme.source
    source = getattr(import_module(f"onnx_operator.model.sources.{module}"), name)
    assert {"locate", "stat", "open"} <= set(dir(source))
