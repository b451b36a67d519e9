"""The CustomResourceDefinition, generated from the typed API.

Kubernetes wants a *structural* schema: no ``$ref``, no ``anyOf`` that carries types, ``nullable`` instead of a null
type (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/).
"""

from typing import Any

import click
import yaml
from pydantic import BaseModel

from onnx_operator.api import names
from onnx_operator.api.onnxmodel import ROOT_RULES, SPEC_RULES, OnnxModelSpec, OnnxModelStatus

HEADER = "# Generated from onnx_operator.api by `make generate`: do not edit.\n"

_DROPPED = ("title", "$defs", "additionalProperties", "default")
_NULL = {"type": "null"}


def _structural(node: dict[str, Any], definitions: dict[str, Any], null: bool) -> dict[str, Any]:
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
        node = {**target, **{k: v for k, v in node.items() if k != "$ref"}}
    options = [o for o in node.get("anyOf", []) if o != _NULL]
    if len(options) == 1:
        rest = {k: v for k, v in node.items() if k != "anyOf"}
        found = _structural({**options[0], **rest}, definitions, null)
        return _or_null(found) if null and _NULL in node["anyOf"] else found

    result = {k: v for k, v in node.items() if k not in _DROPPED}
    if node.get("default") not in (None, [], {}, ""):
        result["default"] = node["default"]
    if "const" in result:
        result["enum"] = [result.pop("const")]
    if "properties" in node:
        result["properties"] = {k: _structural(v, definitions, null) for k, v in node["properties"].items()}
    if "items" in node:
        result["items"] = _structural(node["items"], definitions, null)
    if isinstance(node.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(node["additionalProperties"], definitions, null)
    if result.get("format") == "binary":
        result.pop("format")
    return result


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """What may be left out may be null: Helm renders an unset value so.

    The API server finds null in no enum, not even in one that lists it: the values become a pattern.
    """
    rest = {k: v for k, v in schema.items() if k != "enum"}
    values = {"pattern": f"^({'|'.join(schema['enum'])})$"} if "enum" in schema else {}
    return rest | values | {"nullable": True}


def structural_schema(model: type[BaseModel], *, null: bool = False) -> dict[str, Any]:
    """The model's JSON schema in the structural form that Kubernetes asks for.

    Args:
        model: what is described.
        null: whether fields that may be left out may be null as well.
    """
    schema = model.model_json_schema(by_alias=True)
    return _structural(schema, schema.get("$defs", {}), null)


def _without_defaults(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _without_defaults(v) for k, v in node.items() if not (k == "default" and not isinstance(v, dict))}
    return [_without_defaults(v) for v in node] if isinstance(node, list) else node


def _column(name: str, path: str, kind: str = "string", description: str = "", priority: int = 0) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
    if description:
        column["description"] = description
    if priority:
        column["priority"] = priority
    return column


def _ready(field: str) -> str:
    return f'.status.conditions[?(@.type=="Ready")].{field}'


COLUMNS = [
    _column("Ready", _ready("status")),
    _column("Reason", _ready("reason")),
    _column("Replicas", ".status.readyReplicas", "integer", "Pods that are ready"),
    _column("Runtime", ".status.runtime"),
    _column("Model", ".status.version", description="The version of the model that serves, else its digest"),
    _column("URL", ".status.url"),
    _column("Age", ".metadata.creationTimestamp", "date"),
    _column("Message", _ready("message"), priority=1),
]


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition of OnnxModel, as one manifest."""
    spec = structural_schema(OnnxModelSpec, null=True)
    spec["x-kubernetes-validations"] = SPEC_RULES
    status = _without_defaults(structural_schema(OnnxModelStatus))
    schema = {
        "type": "object",
        "description": "An ONNX model, served. The smallest manifest is spec.model.uri.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": ROOT_RULES,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": [names.SHORT_NAME],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": COLUMNS,
                }
            ],
        },
    }


def to_yaml() -> str:
    """The CRD as the file ``crds/onnxmodels.onnx-operator.dev.yaml`` holds it."""
    return HEADER + str(yaml.safe_dump(crd(), sort_keys=False, width=110))


if __name__ == "__main__":
    click.echo(to_yaml(), nl=False)
