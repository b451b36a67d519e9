"""Whoever refuses a model, its owner reads it in one form."""

import pytest

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import Refusal
from onnx_operator.api.sources import SourcePin
from onnx_operator.model.archive import ArchiveError
from onnx_operator.model.refusal import RefusedError
from onnx_operator.model.sources import SourceChangedError, SourceError

PIN = SourcePin(kind="None", value="found")


@pytest.mark.parametrize(
    ("refused", "refusal"),
    [
        (RefusedError(Reason.TOO_LARGE, "m"), Refusal(reason=Reason.TOO_LARGE, message="m")),
        (ArchiveError(Reason.CORRUPT, "m"), Refusal(reason=Reason.CORRUPT, message="m")),
        (
            SourceError(Reason.SOURCE_UNREACHABLE, "m", retriable=True),
            Refusal(reason=Reason.SOURCE_UNREACHABLE, message="m", retriable=True),
        ),
        (SourceChangedError("m", observed=PIN), Refusal(reason=Reason.SOURCE_CHANGED, message="m")),
    ],
)
def test_a_refusal_becomes_the_result_of_an_inspection(refused: RefusedError, refusal: Refusal) -> None:
    result = refused.result(PIN)
    assert (result.outcome, result.source, result.refusal) == ("Refused", PIN, refusal)
    assert str(refused) == "m"


def test_a_name_of_any_length_makes_no_message_of_any_length() -> None:
    refusal = RefusedError(Reason.INVALID_GRAPH, "x" * 1_000_000).refusal
    assert len(refusal.message) < 3000
