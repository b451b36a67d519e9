"""Makes the table of how Kubernetes merges the lists and kinds of pods, out of its own OpenAPI description.

``python -m tests.tools.merging FILE`` writes it; FILE is what ``kubectl get --raw /openapi/v2`` prints. It takes an API
server, so that ``make generate`` leaves it alone: a test compares the table with what a real one says.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[2] / "operator/onnx_operator/controller/revision/merging.json"
ROOTS = (
    "io.k8s.api.apps.v1.DeploymentSpec",
    "io.k8s.api.core.v1.ServiceSpec",
    "io.k8s.api.policy.v1.PodDisruptionBudgetSpec",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
)
"""What a model's children hold."""
SELECTOR = "LabelSelector"
ONE_OF = {
    "EnvVar": lambda fields: [name for name in fields if name.startswith("value")],
    "EnvVarSource": list,
    "LifecycleHandler": lambda fields: [name for name, kind in fields.items() if kind.endswith("Action")],
    "Probe": lambda fields: [name for name, kind in fields.items() if kind.endswith("Action")],
}
"""Types of which a field excludes others, which the description tells in words only, and how to find these fields."""

Definitions = dict[str, Any]


def _type(schema: dict[str, Any]) -> str:
    reference = schema.get("$ref") or (schema.get("items") or {}).get("$ref") or ""
    return str(reference).rpartition("/")[2]


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _fields(definitions: Definitions) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and schemas of all fields below the roots."""
    waiting, seen = [*ROOTS], set[str]()
    while waiting:
        kind = waiting.pop()
        if kind in seen:
            continue
        seen.add(kind)
        for name, schema in definitions[kind].get("properties", {}).items():
            yield name, schema
            if _type(schema):
                waiting.append(_type(schema))


def table(definitions: Definitions) -> dict[str, Any]:
    """The table, of the ``definitions`` of an OpenAPI v2 description.

    Raises:
        ValueError: two fields of a name merge in ways that the name does not tell apart.
    """
    lists: dict[str, set[tuple[str, ...]]] = {}
    merged: dict[str, set[bool]] = {}
    retained, whole, one_of = set[str](), set[str](), dict[str, set[str]]()
    for name, schema in _fields(definitions):
        strategy = schema.get("x-kubernetes-patch-strategy", "").split(",")
        if keys := schema.get("x-kubernetes-list-map-keys"):
            # As a patch merges, but by all keys that tell elements apart: of a port also by its protocol.
            if "merge" in strategy and schema["x-kubernetes-patch-merge-key"] != keys[0]:
                raise ValueError(f"{name}: a patch merges by another key than {keys}")
            lists.setdefault(name, set()).add(tuple(keys))
            merged.setdefault(name, set()).add("merge" in strategy)
        if "retainKeys" in strategy:
            retained.add(name)
        texts = (schema.get("additionalProperties") or {}).get("type") == "string"
        if (schema.get("x-kubernetes-map-type") == "atomic" and texts) or _short(_type(schema)) == SELECTOR:
            whole.add(name)
        if rule := ONE_OF.get(_short(_type(schema))):
            fields = {k: _short(_type(v)) for k, v in definitions[_type(schema)]["properties"].items()}
            one_of.setdefault(name, set()).update(rule(fields))
    if mixed := [name for name, found in merged.items() if len(found) > 1]:
        raise ValueError(f"fields of these names merge in one place and not in another: {mixed}")
    return {
        "lists": {name: sorted(map(list, keys)) for name, keys in sorted(lists.items())},
        "replaced": sorted(name for name, found in merged.items() if found == {False}),
        "retainKeys": sorted(retained),
        "whole": sorted(whole),
        "oneOf": {name: sorted(fields) for name, fields in sorted(one_of.items())},
    }


def text(definitions: Definitions) -> str:
    """The table as it is kept."""
    return json.dumps(table(definitions), indent=1) + "\n"


if __name__ == "__main__":
    TABLE.write_text(text(json.loads(Path(sys.argv[1]).read_text())["definitions"]))
