"""Which models an installation looks after, by labels as Kubernetes has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_operator.controller.settings.selector import ModelSelector
from onnx_operator.controller.settings.settings import SettingsError
from tests.unit.controller.samples import settings

BLUE = {"matchLabels": {"example.com/operator": "blue"}}


def selector(**fields):
    return ModelSelector.model_validate(fields)


def test_without_labels_all_models_are_selected():
    assert not settings().model_selector
    assert settings().model_selector.matches({})
    assert settings().model_selector.text() == ""


def test_the_settings_file_takes_a_selector_as_kubernetes_writes_it():
    found = settings(modelSelector={**BLUE, "matchExpressions": [{"key": "old", "operator": "DoesNotExist"}]})
    assert found.model_selector.matches({"example.com/operator": "blue"})
    assert not found.model_selector.matches({"example.com/operator": "blue", "old": ""})
    assert not found.model_selector.matches({"example.com/operator": "green"})
    assert found.model_selector.text() == "example.com/operator=blue,!old"


@pytest.mark.parametrize(
    ("expression", "text", "selected", "others"),
    [
        ({"operator": "In", "values": ["a", "b"]}, "k in (a,b)", [{"k": "a"}, {"k": "b"}], [{"k": "c"}, {}]),
        ({"operator": "NotIn", "values": ["a"]}, "k notin (a)", [{"k": "c"}, {}], [{"k": "a"}]),
        ({"operator": "Exists"}, "k", [{"k": ""}], [{}]),
        ({"operator": "DoesNotExist"}, "!k", [{}], [{"k": ""}]),
    ],
)
def test_each_operator_selects_as_it_says(expression, text, selected, others):
    found = selector(matchExpressions=[{"key": "k", **expression}])
    assert found.text() == text
    assert all(found.matches(labels) for labels in selected)
    assert not any(found.matches(labels) for labels in others)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"matchLabels": {"a b": "c"}}, "a label's key"),
        ({"matchLabels": {"a": "b,c"}}, "a label's value"),
        ({"matchLabels": {"a": "x" * 64}}, "at most 63"),
        ({"matchExpressions": [{"key": "a", "operator": "In"}]}, "need some"),
        ({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}, "take none"),
        ({"matchExpressions": [{"key": "a", "operator": "Equals", "values": ["b"]}]}, "operator"),
        ({"matchlabels": {}}, "matchlabels"),
    ],
)
def test_a_wrong_selector_is_refused_by_name(fields, named):
    with pytest.raises(SettingsError, match=named) as caught:
        settings(modelSelector=fields)
    assert "modelSelector" in str(caught.value)


@given(text=st.text(max_size=80))
def test_nothing_but_a_label_gets_into_a_query(text):
    for fields in ({"matchLabels": {text: "v"}}, {"matchLabels": {"k": text}}):
        try:
            found = selector(**fields)
        except ValueError:
            continue
        assert "," not in found.text()
        assert found.text().isascii()
