"""The CRD that is generated from the typed API: structural, complete, and the same as the file in ``crds/``."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from onnx_operator.api import names
from onnx_operator.api.crd import crd, to_yaml
from onnx_operator.api.onnxmodel import MAX_REPLICAS
from onnx_operator.api.schemes import ALL_CREDENTIALS, SCHEMES, secret_key

ROOT = Path(__file__).resolve().parents[3]
VERSION = crd()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
SPEC, STATUS = SCHEMA["properties"]["spec"], SCHEMA["properties"]["status"]


def schemas(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema in the tree, with the path of its field."""
    yield path or "root", node
    for name, child in node.get("properties", {}).items():
        yield from schemas(child, f"{path}.{name}")
    if "items" in node:
        yield from schemas(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from schemas(node["additionalProperties"], f"{path}.*")


ALL = list(schemas(SCHEMA))


def at(path: str) -> dict[str, Any]:
    return dict(ALL)[path]


QUANTITIES = [".spec.resources.requests.*", ".spec.resources.limits.*"]


@pytest.mark.parametrize("word", ["$ref", "$defs", "title", "allOf", "anyOf", "oneOf", "const", "examples"])
def test_the_schema_is_structural(word):
    assert [path for path, node in ALL if word in node] == []


def test_every_field_but_quantities_and_dimensions_has_one_type():
    # A quantity is 500m, 2 or 0.5, and a CRD has no type for that.
    untyped = [path for path, node in ALL if not isinstance(node.get("type"), str)]
    dimensions = [path for path, node in ALL if node.get("x-kubernetes-int-or-string")]
    assert untyped == [*QUANTITIES, *dimensions]
    steps = {".spec.rollout.maxSurge", ".spec.rollout.maxUnavailable"}
    assert all(path.startswith(".status.model.") or path in steps for path in dimensions)


def test_what_may_be_left_out_of_the_spec_may_be_null_and_nothing_else():
    nullable = {path for path, node in ALL if node.get("nullable")}
    optional = {
        f"{path}.{name}"
        for path, node in ALL
        if path.startswith(".spec")
        for name in node.get("properties", {}).keys() - set(node.get("required", []))
    }
    assert nullable == optional - {".spec.replicas"}, "null replicas are the default"


def test_replicas_is_the_only_field_with_a_default():
    assert [(path, node["default"]) for path, node in ALL if "default" in node] == [(".spec.replicas", 1)]


def test_the_smallest_manifest_is_a_uri():
    assert SCHEMA["required"] == ["spec"]
    assert SPEC["required"] == ["model"]
    assert SPEC["properties"]["model"]["required"] == ["uri"]


def test_the_status_requires_nothing_so_that_a_part_of_it_can_be_written():
    assert "required" not in STATUS


def test_the_spec_holds_the_fields_whose_behaviour_exists_and_no_others():
    # A new field is named here when the tests of its behaviour are there.
    assert set(SPEC["properties"]) == {
        "model",
        "runtime",
        "nodePool",
        "replicas",
        "resources",
        "session",
        "batching",
        "warmUp",
        "scoring",
        "endpoint",
        "serviceAccountName",
        "podTemplate",
        "rollout",
        "suspend",
    }
    assert set(at(".spec.model")["properties"]) == {
        *("uri", "sha256", "credentials", "testData", "onChange", "version", "tags", "description")
    }
    assert set(at(".spec.session")["properties"]) == {
        *("executionProviders", "intraOpThreads", "interOpThreads", "onFallback")
    }


def test_every_field_of_the_spec_is_explained_or_self_evident():
    evident = {".spec.model.credentials.secretName"}
    unexplained = [
        path
        for path, node in ALL
        if path.startswith(".spec.") and path.count(".") == 2 and not node.get("description") and path not in evident
    ]
    assert unexplained == []


@pytest.mark.parametrize("store", SCHEMES)
def test_the_uri_and_the_credentials_are_explained_for_every_store(store):
    words = at(".spec.model.uri")["description"]
    (rule,) = at(".spec.model.uri")["x-kubernetes-validations"]
    form = SCHEMES[store].prefix
    assert form in words
    assert form in rule["message"]
    assert form in rule["rule"]
    assert store in at(".spec.model.credentials.secretName")["description"]


def test_every_key_that_a_credentials_secret_may_hold_is_named():
    words = at(".spec.model.credentials.secretName")["description"]
    variables = {secret_key(name) for name in ALL_CREDENTIALS}
    assert {name for name in variables if name not in words} == set()


def test_replicas_are_zero_to_a_thousand():
    replicas = at(".spec.replicas")
    assert (replicas["type"], replicas["minimum"], replicas["maximum"]) == ("integer", 0, 1000)
    assert MAX_REPLICAS == 1000


def test_only_a_pod_spec_accepts_unknown_fields():
    # Elsewhere an unknown name must be refused, not kept.
    open_ = {p: n for p, n in ALL if n.get("x-kubernetes-preserve-unknown-fields")}
    assert set(open_) == {".spec.podTemplate.spec", *QUANTITIES}
    assert {open_[path]["maxProperties"] for path in QUANTITIES} == {0}


def test_everything_that_cel_walks_through_is_bounded():
    # An unbounded string, list or map makes the API server refuse the CRD for the cost of its rules.
    for path, node in ALL:
        if not node.get("x-kubernetes-validations") or path in ("root", ".spec", ".spec.scoring", ".spec.rollout"):
            continue
        assert {"maxLength", "maxItems", "maxProperties"} & set(node), path


def test_conditions_are_a_map_by_type():
    conditions = at(".status.conditions")
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["items"]["required"]) == {
        "type",
        "status",
        "reason",
        "message",
        "lastTransitionTime",
        "observedGeneration",
    }


def test_scale_and_status_are_subresources():
    assert VERSION["subresources"] == {
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    }
    assert at(".status.selector")["type"] == "string"
    assert at(".status.replicas")["type"] == "integer"


def test_kubectl_get_prints_the_promised_columns():
    shown = [c["name"] for c in VERSION["additionalPrinterColumns"] if not c.get("priority")]
    assert shown == ["Ready", "Reason", "Replicas", "Runtime", "Model", "URL", "Age"]


def test_every_column_shows_a_field_that_exists():
    paths = {path for path, _ in ALL} | {".metadata.creationTimestamp"}
    for column in VERSION["additionalPrinterColumns"]:
        path = re.sub(r"\[\?\(.*?\)\]", "[]", column["jsonPath"])
        assert path in paths, column


def test_the_names_are_those_that_scripts_rely_on():
    spec = crd()["spec"]
    assert (spec["group"], VERSION["name"], spec["scope"]) == ("onnx-operator.dev", "v1alpha1", "Namespaced")
    assert spec["names"]["plural"] == "onnxmodels"
    assert spec["names"]["shortNames"] == ["onnx"]
    assert crd()["metadata"]["name"] == f"{names.PLURAL}.{names.GROUP}"


def test_the_file_in_crds_is_what_the_api_generates():
    path = ROOT / "crds" / "onnxmodels.onnx-operator.dev.yaml"
    if not path.exists():
        pytest.fail(f"{path} is missing: run make generate")
    assert path.read_text() == to_yaml(), "run make generate"


def test_the_text_of_the_crd_is_its_yaml():
    assert yaml.safe_load(to_yaml()) == crd()
    assert to_yaml() == to_yaml()
