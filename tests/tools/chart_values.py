"""The chart's values with the comments above them: the one source of their descriptions in schema and reference."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

OPAQUE = ("resources", "securityContext", "podSecurityContext")
"""Names of values that are one Kubernetes object, whatever of it the default fills in."""


@dataclass(frozen=True)
class Value:
    """One value: its dotted path, its default, and the comment above it ("" for none)."""

    path: str
    default: Any
    comment: str
    is_group: bool


def _comment_above(lines: list[str], line: int, column: int) -> str:
    """The comment lines that stand right above a key, at its own indentation."""
    found: list[str] = []
    start = " " * column + "#"
    while line > 0 and lines[line - 1].startswith(start):
        line -= 1
        found.insert(0, lines[line].strip())
    # What is indented within the comment is an example in YAML.
    return " ".join(text.removeprefix("#").strip() for text in found if not text.startswith("#  "))


def is_group(name: str, default: Any, path: str = "") -> bool:
    """Whether a default holds values of its own, and is not one value that happens to be a mapping."""
    # What pods of models ask for has settings under the same name.
    return isinstance(default, dict) and bool(default) and (name not in OPAQUE or path == "settings.resources")


def _walk(node: yaml.MappingNode, default: dict[str, Any], lines: list[str], above: str) -> Iterator[Value]:
    for key, inner in node.value:
        name, mark = str(key.value), key.start_mark
        path = f"{above}.{name}" if above else name
        group = is_group(name, default[name], path)
        yield Value(path, default[name], _comment_above(lines, mark.line, mark.column), group)
        if group:
            yield from _walk(inner, default[name], lines, path)


def values(text: str) -> list[Value]:
    """Every value of a values file, groups before what they hold, in the file's order."""
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode), "values are a mapping"
    return list(_walk(root, yaml.safe_load(text), text.splitlines(), ""))
