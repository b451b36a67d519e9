"""What the API server makes of a Service is asked for once, and right for every model."""

from onnx_operator.controller.rollout import forms as module
from onnx_operator.controller.rollout.forms import Forms


def service(name, namespace, port=80, **more):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {"model": name}},
        "spec": {"ports": [{"port": port, "name": "http"}], "selector": {"model": name}, **more},
    }


def test_another_model_has_the_same_form_under_its_own_name():
    forms = Forms()
    assert forms.get(service("a", "x", empty={})) is None
    forms.keep(service("a", "x", empty={}), service("a", "x"))
    assert forms.get(service("b", "y", empty={})) == service("b", "y")
    assert forms.get(service("x", "a", empty={})) == service("x", "a")
    assert forms.get(service("same", "same", empty={})) is None, "what cannot be told apart is asked for"


def test_what_differs_in_anything_else_is_asked_for():
    forms = Forms()
    forms.keep(service("a", "x"), service("a", "x"))
    assert forms.get(service("b", "y", port=81)) is None
    assert forms.get(service("b", "y", type="NodePort")) is None
    # A model whose name stands for something else, too.
    assert forms.get(service("http", "y")) is None


def test_of_many_forms_the_newest_are_kept():
    forms = Forms()
    for port in range(module.MAX_FORMS + 5):
        forms.keep(service("a", "x", port=port), service("a", "x", port=port))
    assert forms.get(service("a", "x", port=0)) is None
    assert forms.get(service("a", "x", port=module.MAX_FORMS)) is not None
