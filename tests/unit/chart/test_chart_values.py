"""Every value of the chart is described, checked and used, and nothing else is."""

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.tools import chart_page, chart_schema
from tests.tools.chart_values import values

CHART = Path(__file__).parents[3] / "charts" / "onnx-operator"
TEXT = (CHART / "values.yaml").read_text()
FOUND = values(TEXT)
LEAVES = {value.path for value in FOUND if not value.is_group}
SCHEMA = chart_schema.schema(CHART)
ASKED = set(
    re.findall(r"\.Values((?:\.\w+)+)", "".join(p.read_text() for p in (CHART / "templates").rglob("*") if p.is_file()))
)


def _of_schema(node: dict[str, Any], path: str = "") -> set[str]:
    """Paths of what a schema describes, as deep as values.yaml goes."""
    if path in LEAVES or "properties" not in node:
        return {path}
    return {
        found
        for name, inner in node["properties"].items()
        for found in _of_schema(inner, f"{path}.{name}" if path else name)
    }


def test_schema_and_values_name_the_same() -> None:
    assert _of_schema(SCHEMA) - {"global"} == LEAVES


@pytest.mark.parametrize("value", FOUND, ids=lambda value: value.path)
def test_every_value_says_what_it_is(value: Any) -> None:
    assert value.comment.endswith((".", "…")), "a sentence above the value, in values.yaml"


def test_every_value_and_nothing_else_stands_in_the_charts_page() -> None:
    page = chart_page.page(CHART)
    assert re.findall(r"^\| `([\w.]+)` \|", page.partition("## Pools")[0], re.MULTILINE) == [
        *(v.path for v in FOUND if not v.is_group and not v.path.startswith("settings.")),
        *(v.path for v in FOUND if not v.is_group and v.path.startswith("settings.")),
    ]


def test_no_object_of_the_schema_is_open_by_oversight() -> None:
    def opened(node: Any, path: str) -> set[str]:
        if not isinstance(node, dict):
            return set()
        found = {path} if "properties" in node and node.get("additionalProperties") is not False else set()
        for name, inner in node.get("properties", {}).items():
            found |= opened(inner, f"{path}.{name}")
        for inner in (node.get("items"), *node.get("anyOf", [])):
            found |= opened(inner, path)
        return found

    # The API server knows the many kinds of volumes.
    assert opened(SCHEMA, "") <= {".extraVolumes"}


def test_every_rule_holds_for_something() -> None:
    def paths(node: dict[str, Any], path: str) -> set[str]:
        inner = {f"{path}.{name}" if path else name: field for name, field in node.get("properties", {}).items()}
        found = {path} | {each for where, field in inner.items() for each in paths(field, where)}
        return found | (paths(node["items"], f"{path}[]") if "items" in node else set())

    known = paths(SCHEMA, "")
    idle = [wanted for wanted in chart_schema.RULES if not any(p == wanted or fnmatchcase(p, wanted) for p in known)]
    assert not idle


def test_templates_ask_for_no_value_that_is_not_there() -> None:
    known = {value.path for value in FOUND}
    assert not [path for path in ASKED if path[1:] not in known]


def test_every_value_is_used() -> None:
    used = [path[1:] for path in ASKED]
    assert not [leaf for leaf in LEAVES if not any(leaf == path or leaf.startswith(f"{path}.") for path in used)]
