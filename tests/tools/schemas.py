"""The resource in the forms that tools without a cluster read: JSON Schema for kubeconform, OpenAPI for Kustomize."""

import json
from pathlib import Path
from typing import Any

from onnx_operator.api import crd, names
from onnx_operator.controller.revision.merge import LISTS

JSON_SCHEMA = Path("deploy/schemas") / names.GROUP / f"{names.SINGULAR}_{names.VERSION}.json"
"""``{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json``, as kubeconform is mostly told to look."""
OPENAPI = Path("deploy/kustomize/production/onnxmodel-openapi.json")
Schema = dict[str, Any]

OF_CONTAINERS = ("env", "ports", "volumeMounts", "volumeDevices")
OF_PODS: dict[str, tuple[str, ...]] = {
    "containers": OF_CONTAINERS,
    "initContainers": OF_CONTAINERS,
    "volumes": (),
    "imagePullSecrets": (),
    "hostAliases": (),
    "topologySpreadConstraints": (),
    "resourceClaims": (),
}
"""Lists of a PodSpec that merge by a key, and those within their elements."""


def _openapi() -> Schema:
    found: Schema = crd.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def _json_schema(node: Schema) -> Schema:
    """A schema of the CRD as plain JSON Schema; rules in CEL are the API server's alone."""
    result = {k: v for k, v in node.items() if not k.startswith("x-kubernetes-") and k not in ("nullable", "default")}
    if "properties" in node:
        result["properties"] = {k: _json_schema(v) for k, v in node["properties"].items()}
        result["additionalProperties"] = False
    for inner in ("items", "additionalProperties"):
        if isinstance(node.get(inner), dict):
            result[inner] = _json_schema(node[inner])
    if node.get("nullable") and "type" in node:
        result["type"] = [node["type"], "null"]
    return result


def json_schema() -> str:
    """For kubeconform and editors. What is unknown is refused, as ``kubectl apply`` does."""
    schema = _json_schema(_openapi())
    properties = schema["properties"]
    properties["apiVersion"] = {"type": "string", "enum": [names.API_VERSION]}
    properties["kind"] = {"type": "string", "enum": [names.KIND]}
    properties["metadata"] = {"type": "object"}
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", **schema}, indent=2) + "\n"


def _list(field: str, within: tuple[str, ...] = ()) -> Schema:
    keys = LISTS[field][0]
    item: Schema = {"type": "object"}
    if within:
        item["properties"] = {name: _list(name) for name in within}
    return {
        "type": "array",
        "items": item,
        "x-kubernetes-patch-strategy": "merge",
        "x-kubernetes-patch-merge-key": keys[0],
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": list(keys),
    }


def openapi() -> str:
    """For Kustomize: what lists of ``spec.podTemplate.spec`` merge by, as the operator merges them."""
    pod_spec = {"type": "object", "properties": {name: _list(name, within) for name, within in OF_PODS.items()}}
    template = {"type": "object", "properties": {"metadata": {"type": "object"}, "spec": pod_spec}}
    model = {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": {"podTemplate": template}},
        },
        "x-kubernetes-group-version-kind": [{"group": names.GROUP, "kind": names.KIND, "version": names.VERSION}],
    }
    definition = ".".join((*reversed(names.GROUP.split(".")), names.VERSION, names.KIND))
    return json.dumps({"definitions": {definition: model}}, indent=2) + "\n"
