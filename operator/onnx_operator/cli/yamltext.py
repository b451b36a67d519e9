"""YAML that means the same to every parser, and holds nothing that steers a terminal. Pure."""

import re
from typing import Any

import yaml

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*(:[A-Za-z0-9_./-]+)*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""What some version of YAML takes for something else than a text."""


class _Dumper(yaml.SafeDumper):
    pass


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    quoted = "|" if "\n" in value else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else quoted)


_Dumper.add_representer(str, _text)


def to_yaml(document: Any) -> str:
    """The document as YAML in ASCII; texts that could be taken for numbers are quoted, lines are not folded."""
    text: str = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=float("inf"), default_flow_style=False
    )
    return text
