"""How addresses of models are shown, and what their last part is called."""

import re

import pytest

from onnx_operator.api.onnxmodel import URI_FORMS
from onnx_operator.api.urls import last_name, shown_uri, taken_literally


@pytest.mark.parametrize(
    ("uri", "shown", "name"),
    [
        ("https://h/a/my%20model.onnx?sig=SECRET", "https://h/a/my%20model.onnx", "my model.onnx"),
        ("HTTPS://h/a/m.onnx?sig=SECRET", "HTTPS://h/a/m.onnx", "m.onnx"),
        ("http://h/a/", "http://h/a/", "a"),
        ("s3://b/a/what?.onnx", "s3://b/a/what?.onnx", "what?.onnx"),
        ("s3://b/a/my%20model.onnx", "s3://b/a/my%20model.onnx", "my%20model.onnx"),
        ("hf://o/m/a b#c.onnx", "hf://o/m/a b#c.onnx", "a b#c.onnx"),
        ("models:/My model/1", "models:/My model/1", "1"),
        ("folder/what?.onnx", "folder/what?.onnx", "what?.onnx"),
    ],
)
def test_only_a_query_of_the_web_is_hidden_and_only_urls_are_decoded(uri, shown, name) -> None:
    assert shown_uri(uri) == shown
    assert last_name(uri) == name


@pytest.mark.parametrize(
    ("uri", "escape"),
    [("s3://b/my%20m.onnx", "%20"), ("s3://b/100%.onnx", ""), ("https://h/my%20m.onnx", ""), ("pvc://c/a%2fb", "%2f")],
)
def test_who_quotes_a_name_where_nobody_unquotes_it_is_told(uri, escape) -> None:
    assert (f" {escape} stands for itself." in taken_literally(uri)) == bool(escape)


FORMS = re.compile(f"^({'|'.join(URI_FORMS)})$")


@pytest.mark.parametrize(
    "place", ["s3://models/", "gs://models/", "az://models/", "hf://o/m/", "mlflow://r/", "pvc://c/"]
)
@pytest.mark.parametrize(
    "name", ["a b.onnx", "a#b.onnx", "a%20b.onnx", "a+b.onnx", "a?b.onnx", "ä.onnx", "a/b c/d.onnx"]
)
def test_manifests_may_name_whatever_a_store_may_hold(place, name) -> None:
    assert FORMS.fullmatch(place + name)
    for wrong in (f" {name}", f"{name} ", f"{name}\n", f"a\n{name}", f"a\x7f{name}"):
        assert not FORMS.fullmatch(place + wrong)


@pytest.mark.parametrize("name", ["a b.onnx", "a#b.onnx"])
def test_addresses_of_the_web_are_urls(name) -> None:
    assert not FORMS.fullmatch(f"https://h/{name}")
    assert not FORMS.fullmatch(f"http://h/{name}")


def test_what_precedes_a_host_may_be_a_password_and_is_not_shown() -> None:
    assert shown_uri("https://me:secret@h/m.onnx?sig=1") == "https://h/m.onnx"
    assert shown_uri("HTTP://me:a@secret@h:80/a@b.onnx") == "HTTP://h:80/a@b.onnx"
    assert shown_uri("https://h/a@b.onnx") == "https://h/a@b.onnx"
