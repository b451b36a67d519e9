"""Conditions and reasons: the words that alerts, scripts and documentation build on."""

import re

import pytest

from onnx_operator.api.conditions import ConditionType, Reason
from onnx_operator.api.contract import Phase, TerminationMessage
from onnx_operator.api.reasons import REASONS, VERDICTS

PROMISED = [
    "Inspected",
    "NotReproducible",
    "SourceNotFound",
    "SourceUnauthorized",
    "SourceRefused",
    "CredentialsNotFound",
    "DigestMismatch",
    "NotOnnx",
    "Corrupt",
    "UnsupportedIRVersion",
    "UnsupportedOpset",
    "UnknownOperator",
    "InvalidGraph",
    "ExternalDataMissing",
    "TooLarge",
    "NoMatchingPool",
    "PodTemplateRejected",
    "SourceUnreachable",
    "Inspecting",
    "SourceChanged",
    "RollingOut",
    "Downloading",
    "Loading",
    "Unschedulable",
    "QuotaExceeded",
    "ImagePullFailed",
    "DownloadFailed",
    "Complete",
    "OutOfMemory",
    "LoadFailed",
    "TestFailed",
    "CrashLoop",
    "DeadlineExceeded",
    "MinimumReplicasReady",
    "NoReplicasReady",
    "Suspended",
    "ScaledToZero",
    "OnGPU",
    "FallbackToCPU",
    "NotReported",
]


@pytest.mark.parametrize("reason", PROMISED)
def test_every_promised_reason_exists(reason):
    assert reason in set(Reason)


def test_every_reason_is_a_word_that_the_api_accepts_as_a_condition_reason():
    for reason in Reason:
        assert re.fullmatch(r"[A-Z][A-Za-z]{0,127}", reason)


def test_what_an_earlier_version_said_is_still_understood():
    told = TerminationMessage(phase=Phase.TESTING, reason="GoldenTestFailed", message="m")
    assert told.reason is Reason.TEST_FAILED


def test_everything_is_known_of_every_reason():
    assert set(Reason) - set(REASONS) == set(), "each member of Reason has a record in api/reasons.py"
    assert list(REASONS) == list(Reason), "the records of api/reasons.py are in the order of Reason"
    assert all(facts.meaning.endswith(".") for facts in REASONS.values())
    claimed = [facts for facts in REASONS.values() if facts.claimable]
    assert all(facts.precedence is not None for facts in claimed), "what a container claims has a place among causes"


def test_what_looking_at_a_model_ends_with_is_told_by_model_valid():
    assert {REASONS[reason].condition for reason in VERDICTS} == {ConditionType.MODEL_VALID}


def test_the_conditions_are_the_promised_ones():
    assert set(ConditionType) == {
        "Ready",
        "ModelValid",
        "Progressing",
        "Available",
        "Accelerated",
        "Outdated",
        "WarmedUp",
        "Reconciling",
        "Stalled",
    }
