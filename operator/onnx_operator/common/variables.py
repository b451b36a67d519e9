"""Long texts in the environment of a process: in ``NAME``, ``NAME_2``, ``NAME_3`` … Pure."""

import itertools
from collections.abc import Mapping

MAX_VARIABLE_LENGTH = 96 * 1024
"""Bytes. Linux takes 128 KiB of one variable, its name included (MAX_ARG_STRLEN of execve(2))."""


def to_variables(name: str, text: str) -> dict[str, str]:
    """Variables that hold a text of ASCII characters: of those a character is a byte, wherever the text is cut."""
    parts = [text[at : at + MAX_VARIABLE_LENGTH] for at in range(0, len(text), MAX_VARIABLE_LENGTH)]
    return {_numbered(name, number): part for number, part in enumerate(parts, 1)}


def variables_of(name: str, environment: Mapping[str, str]) -> list[str]:
    """The names of the variables that hold the text, in the order of its parts; none where there is no text."""
    numbered = (_numbered(name, number) for number in itertools.count(1))
    return list(itertools.takewhile(environment.__contains__, numbered))


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"
