"""The JSON Schema that kubeconform and editors check manifests by, without a cluster."""

import copy
import json
from pathlib import Path

import fastjsonschema
import pytest
import yaml

from tests.tools.argocd import CASES, recorded
from tests.tools.schemas import JSON_SCHEMA, OF_PODS, OPENAPI, json_schema

ROOT = Path(__file__).resolve().parents[3]
CHECK = fastjsonschema.compile(json.loads((ROOT / JSON_SCHEMA).read_text()))
SMALLEST = {
    "apiVersion": "onnx-operator.dev/v1alpha1",
    "kind": "OnnxModel",
    "metadata": {"name": "resnet50", "labels": {"a": "b"}},
    "spec": {"model": {"uri": "s3://models/resnet50.onnx"}},
}


def manifests():
    for path in sorted([*ROOT.glob("deploy/**/*.yaml"), *ROOT.glob("examples/*.yaml")]):
        if "resource_customizations" in path.parts:
            continue
        for document in yaml.safe_load_all(path.read_text()):
            if document.get("kind") == "OnnxModel" and "model" in document["spec"]:
                yield pytest.param(document, id=f"{path.relative_to(ROOT)}-{document['metadata']['name']}")


@pytest.mark.parametrize("manifest", [*manifests()])
def test_our_own_manifests_are_right(manifest):
    CHECK(manifest)


@pytest.mark.parametrize("name", CASES)
def test_what_the_cluster_shows_is_right(name):
    CHECK(recorded(CASES[name]))


@pytest.mark.parametrize(
    "spec",
    [
        {"nodePool": None, "replicas": 2, "runtime": None},
        {"resources": {"requests": {"cpu": 0.05, "memory": "1Gi", "x.io/y": 1}}},
        {"podTemplate": {"spec": {"whatever": [{"a": 1}]}}},
        {"session": {"executionProviders": ["CPU"]}},
    ],
    ids=["unset", "quantities", "pod", "session"],
)
def test_what_the_api_server_takes_is_right(spec):
    manifest = copy.deepcopy(SMALLEST)
    manifest["spec"] |= spec
    CHECK(manifest)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"replica": 1}, "replica"),
        ({"model": {"url": "x", "uri": "s3://a/b"}}, "url"),
        ({"model": {}}, "uri"),
        ({"runtime": "TPU"}, "runtime"),
        ({"replicas": -1}, "replicas"),
        ({"resources": {"limits": {"cpu": "two"}}}, "cpu"),
        ({"resources": {"limits": {"cpu": True}}}, "cpu"),
        ({"resources": {"limits": {"cpu": {}}}}, "cpu"),
    ],
)
def test_what_is_wrong_is_refused_and_named(spec, word):
    manifest = copy.deepcopy(SMALLEST)
    manifest["spec"] |= spec
    with pytest.raises(fastjsonschema.JsonSchemaException, match=word):
        CHECK(manifest)


@pytest.mark.parametrize("field", ["apiVersion", "kind", "metadata", "spec"])
def test_a_manifest_is_whole(field):
    with pytest.raises(fastjsonschema.JsonSchemaException, match=field):
        CHECK({key: value for key, value in SMALLEST.items() if key != field})


def test_the_files_are_where_the_tools_look_for_them():
    assert JSON_SCHEMA.parts[-2:] == ("onnx-operator.dev", "onnxmodel_v1alpha1.json")
    assert "x-kubernetes" not in json_schema()


def test_kustomize_is_told_of_every_list_that_the_operator_merges():
    definitions = json.loads((ROOT / OPENAPI).read_text())["definitions"]
    (model,) = definitions.values()
    assert model["x-kubernetes-group-version-kind"] == [
        {"group": "onnx-operator.dev", "kind": "OnnxModel", "version": "v1alpha1"}
    ]
    pod = model["properties"]["spec"]["properties"]["podTemplate"]["properties"]["spec"]["properties"]
    assert set(pod) == set(OF_PODS)
    assert pod["containers"]["x-kubernetes-patch-merge-key"] == "name"
    assert pod["containers"]["items"]["properties"]["volumeMounts"]["x-kubernetes-patch-merge-key"] == "mountPath"
