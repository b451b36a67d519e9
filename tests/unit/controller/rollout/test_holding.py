"""Other bytes at the source: whose word counts, which bytes are the same, and what is told of those that wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.api.report import InspectionResult
from onnx_operator.api.sources import SourcePin
from onnx_operator.controller.revision.revisions import NOTE_INSPECTION, Revision, noted
from onnx_operator.controller.rollout.holding import held_back, held_cause, holds, same_bytes
from tests.unit.controller.samples import files, report, settings, spec
from tests.unit.controller.situations import revision

OTHER = "cd" * 32


def pinned(etag: str, digest: str = "ab" * 32):
    return report(source=SourcePin(kind="Conditional", value=etag), digest=f"sha256:{digest}" if digest else "")


def accepted(etag: str, digest: str = "ab" * 32) -> InspectionResult:
    found = pinned(etag, digest)
    return InspectionResult(outcome="Accepted", source=found.source, report=found, files=files(found))


def of(etag: str, digest: str = "ab" * 32, key: str = "key") -> Revision:
    found = pinned(etag, digest)
    return noted(revision(1, report=found, files=files(found)), {NOTE_INSPECTION: key})


@pytest.mark.parametrize(
    ("word", "patterns", "held"),
    [
        (None, [], False),
        ("Hold", [], True),
        (None, ["prod-*"], True),
        (None, ["test-*", "prod-eu"], True),
        (None, ["prod"], False),
        ("Follow", ["prod-*"], False),
        (None, ["*"], True),
    ],
)
def test_the_models_word_counts_before_the_settings(word, patterns, held):
    model = {"onChange": word} if word else {}
    assert holds(spec(model=model), "prod-eu", settings(holdSourceChanges=patterns)) is held


@pytest.mark.parametrize(
    ("had", "found", "same"),
    [
        (of('"1"'), accepted('"1"'), True),
        (of('"1"'), accepted('"2"', OTHER), False),
        (of('"1"'), accepted('"2"'), True),
        (of('"1"'), accepted('"1"', OTHER), False),
        (of('"1"', ""), accepted('"1"', ""), True),
        (of('"1"', ""), accepted('"2"', ""), False),
        (of('"1"'), accepted('"2"', ""), False),
    ],
    ids=[
        "nothing new",
        "other bytes",
        "the same, uploaded again",
        "other bytes of the same ETag",
        "no digest",
        "",
        "?",
    ],
)
def test_the_digest_says_which_bytes_are_the_same_and_the_pin_where_there_is_none(had, found, same):
    assert same_bytes(had, found) is same
    assert held_back(had, "key", found) is not same


def test_whoever_asks_for_something_else_has_consented():
    assert held_back(of('"1"'), "key", accepted('"2"', OTHER))
    assert not held_back(of('"1"'), "after a refresh", accepted('"2"', OTHER))
    assert held_back(of('"1"'), "key.other signatures", accepted('"2"', OTHER)), "the platform consents to nothing"
    assert not held_back(None, "key", accepted('"2"', OTHER)), "a first version is what was asked for"


def test_what_an_old_revision_does_not_say_holds_nothing_back():
    assert not held_back(noted(revision(1), {NOTE_INSPECTION: "key"}), "key", accepted('"2"', OTHER))


@given(st.text(min_size=1, max_size=900), st.sampled_from(["", OTHER]))
def test_what_is_told_is_short_and_says_how_to_go_on(etag, digest):
    told = held_cause(of('"1"'), accepted(etag, digest))
    assert len(told.message.encode()) < 600
    assert "onnx-operator.dev/refresh" in told.message
    assert digest in told.message
