"""No object of a stranger is nested so deeply that the operator stops looking after everybody else's models.

Whoever may create a Pod or a Service may write ``metadata.managedFields`` of any depth on it, which the API server
keeps; and a ControllerRevision's data is whatever its author likes. Lists and watches carry them to the operator.
"""

import json

import pytest

from onnx_operator.controller.cluster.nesting import LEVELS, shallow
from tests.cluster.fixtures import _fresh_namespace
from tests.integration.test_controller_process import MODEL, Operator

ANOTHER_SOURCE = json.dumps({"spec": {"model": {"uri": "https://127.0.0.1/m.onnx", "credentials": None}}})
DEEP = 9000
"""Levels; the API server takes up to 10,000."""


def nested(levels: int) -> str:
    return '{"f:a":' * levels + "{}" + "}" * levels


@pytest.fixture
def strangers(apiserver, request):
    yield from _fresh_namespace(apiserver, request)


@pytest.fixture
def operator(apiserver, crd, api_namespace, strangers, tmp_path):
    running = Operator(apiserver, api_namespace, tmp_path, namespaces=[api_namespace, strangers])
    yield running
    running.stop()


def deep(kind: str, version: str, name: str, rest: str) -> str:
    fields = (
        '[{"manager":"m","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z",'
        f'"fieldsType":"FieldsV1","fieldsV1":{nested(DEEP)}}}]'
    )
    labels = '{"onnx-operator.dev/model":"resnet50","onnx-operator.dev/scoring":"true"}'
    metadata = f'{{"name":"{name}","labels":{labels},"managedFields":{fields}}}'
    return f'{{"apiVersion":"{version}","kind":"{kind}","metadata":{metadata},{rest}}}'


OBJECTS = {
    "pods": deep("Pod", "v1", "deep", '"spec":{"containers":[{"name":"c","image":"i"}]}'),
    "services": deep("Service", "v1", "deep", '"spec":{"ports":[{"port":80}]}'),
    "configmaps": deep("ConfigMap", "v1", "deep", '"data":{"a":"b"}'),
    "controllerrevisions": deep("ControllerRevision", "apps/v1", "deep", f'"revision":1,"data":{nested(DEEP)}'),
}


ODD = {
    "half-a-character": '{"a":"\\ud800"}',
    "a-number-without-end": '{"a":' + "9" * 5000 + "}",
    "beyond-a-float": '{"a":1e999}',
    "a-key-twice": '{"inputs":"a","inputs":["b"]}',
    "nothing": "null",
    "text": '"a"',
}
"""What a ControllerRevision's data may be, and no parser of ours reads or expects."""


def odd(name: str, uid: str) -> str:
    owner = f'{{"apiVersion":"onnx-operator.dev/v1alpha1","kind":"OnnxModel","name":"resnet50","uid":"{uid}",' + (
        '"controller":true}'
    )
    metadata = f'{{"name":"{name}","labels":{{"onnx-operator.dev/model":"resnet50"}},"ownerReferences":[{owner}]}}'
    return (
        f'{{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{metadata},"revision":1,"data":{ODD[name]}}}'
    )


def create(apiserver, namespace: str, plural: str, body: str, folder, *, check: bool = True) -> None:
    file = folder / f"{plural}.json"
    file.write_text(body)
    root = "/apis/apps/v1" if plural == "controllerrevisions" else "/api/v1"
    command = ("create", "--raw", f"{root}/namespaces/{namespace}/{plural}", "-f", str(file))
    apiserver.run_kubectl(*command, check=check)


@pytest.mark.parametrize("first", [True, False], ids=["listed", "watched"])
def test_objects_nested_without_end_keep_nobody_from_a_verdict(
    apiserver, api_namespace, strangers, tmp_path, request, first
):
    if first:
        for plural, body in OBJECTS.items():
            create(apiserver, strangers, plural, body, tmp_path)
            create(apiserver, api_namespace, plural, body, tmp_path)
    operator = request.getfixturevalue("operator")
    apiserver.wait(lambda: json.loads(operator.get("/readyz"))["leading"], 60, "the controller to lead")
    if not first:
        for plural, body in OBJECTS.items():
            create(apiserver, strangers, plural, body, tmp_path)
            create(apiserver, api_namespace, plural, body, tmp_path)
    apiserver.apply(MODEL, api_namespace)

    def verdict():
        conditions = apiserver.get("onnx", "resnet50", api_namespace).get("status", {}).get("conditions", [])
        return {c["type"]: c["reason"] for c in conditions}.get("ModelValid")

    apiserver.wait(lambda: verdict() == "CredentialsNotFound", 30, "a verdict")
    # What the model itself seems to own is passed over as well.
    uid = apiserver.get("onnx", "resnet50", api_namespace)["metadata"]["uid"]
    for name in ODD:
        # Some the API server does not take either.
        create(apiserver, api_namespace, "controllerrevisions", odd(name, uid), tmp_path, check=False)
    apiserver.kubectl(
        "patch", "onnx", "resnet50", "--type=merge", "--patch", ANOTHER_SOURCE, "--namespace", api_namespace
    )
    apiserver.wait(lambda: verdict() == "SourceRefused", 30, "another verdict")
    assert operator.controller.poll() is None
    assert "Traceback" not in operator.log.read_text()


def test_what_is_deep_is_left_out_and_nothing_else():
    for levels in (1, LEVELS - 2, LEVELS - 1):
        document = nested(levels).encode()
        assert shallow(document) == document
    text = {"a": ['["{', "\\", '\\"[', {"b": [1, {"c": "]}"}]}], "d": {"e": None}}
    assert json.loads(shallow(json.dumps(text).encode())) == text
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        deep = opening * DEEP + "1" + closing * DEEP
        found = json.loads(shallow(f'{{"before": "[[", "deep": {deep}, "after": [{deep}, 2]}}'.encode()))
        assert found["before"] == "[["
        assert found["after"][1] == 2
        assert len(json.dumps(found)) < 3000
