"""Seals: what they bind, who can make one, and what a change of keys does."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.controller.revision.seal import Key, Sealer, Subject, Trust, fingerprint

KEY, OTHER = Key(b"a" * 32), Key(b"b" * 32)
SEALER = Sealer(KEY)
SUBJECT = Subject("ns", "model", "model-0123456789", 3, fingerprint({"a": 1}), {"good": "true"})
TEXT = st.text(max_size=20)
SUBJECTS = st.builds(Subject, TEXT, TEXT, TEXT, st.integers(0, 2**62), TEXT, st.dictionaries(TEXT, TEXT, max_size=3))


def test_a_seal_holds_for_what_it_was_made_for():
    assert SEALER.trust(SUBJECT, SEALER.seal(SUBJECT)) is Trust.SEALED


@pytest.mark.parametrize(
    "change",
    [
        {"namespace": "other"},
        {"model": "other"},
        {"name": "model-9876543210"},
        {"number": 4},
        {"content": fingerprint({"a": 2})},
        {"notes": {}},
        {"notes": {"good": "false"}},
        {"notes": {"good": "true", "failed": ""}},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_seal_holds_for_nothing_else(change):
    assert SEALER.trust(replace(SUBJECT, **change), SEALER.seal(SUBJECT)) is Trust.FOREIGN


@given(SUBJECTS, SUBJECTS)
def test_no_two_revisions_share_a_seal(one, two):
    # However names and notes are chosen: where one field ends and the next begins is part of what is sealed.
    assert (SEALER.seal(one) == SEALER.seal(two)) == (one == two)


def test_a_seal_of_the_previous_key_holds_until_it_is_made_anew():
    seal = SEALER.seal(SUBJECT)
    assert Sealer(OTHER, KEY).trust(SUBJECT, seal) is Trust.AGED
    assert Sealer(OTHER).trust(SUBJECT, seal) is Trust.FOREIGN
    assert Trust.AGED.holds
    assert not Trust.FOREIGN.holds
    assert not Trust.UNSEALED.holds


@pytest.mark.parametrize("seal", [None, ""])
def test_no_seal_is_no_seal(seal):
    assert SEALER.trust(SUBJECT, seal) is Trust.UNSEALED


@given(st.text())
def test_a_guessed_seal_never_holds(text):
    assert not SEALER.trust(SUBJECT, text).holds
    assert not SEALER.trust(SUBJECT, f"{KEY.id}:{text}").holds


def test_the_name_of_a_key_tells_nothing_of_it():
    assert KEY.id not in KEY.secret.hex()
    assert KEY.id != OTHER.id
    assert len(Key.new().secret) == 32


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_fingerprint_survives_the_way_through_json(value):
    assert fingerprint(json.loads(json.dumps(value))) == fingerprint(value)


def test_a_fingerprint_does_not_depend_on_spelling():
    assert fingerprint({"a": 1.0, "b": [2]}) == fingerprint({"b": [2.0], "a": 1})
    assert fingerprint({"a": 1.5}) != fingerprint({"a": 1})
    assert fingerprint({"a": True}) != fingerprint({"a": 1})
