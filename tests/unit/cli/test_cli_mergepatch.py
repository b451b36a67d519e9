"""Merge patches, and the YAML that they are shown as."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.cli.mergepatch import applied, difference
from onnx_operator.cli.yamltext import to_yaml

SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5)
KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=3)


def without_nulls(value: Any) -> Any:
    """No null in a map, as a patch can write it; those in lists stay."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return value


# The table of RFC 7386, appendix A, as far as the documents are maps.
@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ],
)
def test_a_patch_does_what_the_standard_says(document: Any, patch: Any, result: Any) -> None:
    assert applied(document, patch) == result


@given(DOCUMENTS, DOCUMENTS.map(without_nulls))
def test_the_difference_makes_one_document_of_the_other(now: Any, wanted: Any) -> None:
    assert applied(now, difference(now, wanted)) == wanted


@given(DOCUMENTS)
def test_there_is_no_difference_to_itself(document: Any) -> None:
    assert difference(document, document) == {}


@given(DOCUMENTS, DOCUMENTS)
def test_the_documents_stay_as_they_were(now: Any, wanted: Any) -> None:
    before = repr((now, wanted))
    applied(now, difference(now, wanted))
    assert repr((now, wanted)) == before


@given(st.recursive(st.text() | SCALARS, lambda inner: st.dictionaries(st.text(), inner, max_size=3)))
def test_yaml_means_what_it_is_made_of_and_is_plain_ascii(value: Any) -> None:
    text = to_yaml(value)
    assert all(c == "\n" or " " <= c <= "~" for c in text)
    read = yaml.safe_load(text)
    assert read == value or value != value


@pytest.mark.parametrize(
    "text", ["1e3", "0x1F", "0o7", "1_000", "12:30:00", "y", "No", "on", "null", "~", ".inf", "=", ""]
)
def test_a_text_that_some_parser_takes_for_something_else_is_quoted(text: str) -> None:
    assert to_yaml({"version": text}) == f'version: "{text}"\n'


def test_a_script_is_shown_line_by_line() -> None:
    assert to_yaml({"script": "def init():\n    pass\n"}) == "script: |\n  def init():\n      pass\n"


def test_a_uri_is_shown_as_people_write_it() -> None:
    assert to_yaml({"uri": "s3://models/resnet50-v2-7.onnx"}) == "uri: s3://models/resnet50-v2-7.onnx\n"
