"""What a script's requirements say: pinned packages, from the command line, a requirements file or a conda file."""

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

PROVIDED = frozenset({"azureml-core", "azureml-defaults", "azureml-sdk", "azureml-contrib-services"})
"""Packages of Azure ML of which a scoring script needs what the server has anyway."""

_PYTHON = re.compile(r"python\s*={1,2}\s*([0-9]+(?:\.[0-9]+)?)")


class PinError(Exception):
    """A requirement that cannot be installed as it is written; the message says how to write it."""


@dataclass(frozen=True)
class Pins:
    """What to install, sorted, and what was left out and why."""

    pins: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_pins(
    requirements: Iterable[str] = (),
    files: Iterable[Path] = (),
    conda_files: Iterable[Path] = (),
    installed: Callable[[str], str | None] = lambda name: None,
) -> Pins:
    """Read everything that was given. Raises :class:`PinError` and OSError.

    ``installed`` tells the version of a package that the server image has: a conda file may name such a package
    without a version, as Azure ML's examples do.
    """
    pins: dict[str, str] = {}
    notes: list[str] = []
    for text in requirements:
        _add(pins, _pin(text, text))
    for path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            text = re.sub(r"(^|\s)#.*$", "", line).strip()
            if text:
                _add(pins, _pin(text, f"{path.name}, line {number}"))
    for path in conda_files:
        for text in _conda(path, notes):
            _from_conda(pins, text, path.name, installed, notes)
    return Pins(tuple(sorted(pins.values())), tuple(notes))


def _from_conda(
    pins: dict[str, str], text: str, where: str, installed: Callable[[str], str | None], notes: list[str]
) -> None:
    requirement = _parse(text, where)
    name = canonicalize_name(requirement.name)
    if name in PROVIDED:
        notes.append(f"{text}: left out, the server has what a scoring script needs of it")
    elif not requirement.specifier and (version := installed(name)):
        notes.append(f"{text}: not pinned, the server's {version} is used")
    else:
        _add(pins, _pin(text, where))


def _parse(text: str, where: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement:
        raise PinError(
            f"{where}: {text!r} is not a requirement; expected NAME==VERSION, as in pillow==11.0.0"
        ) from None


def _pin(text: str, where: str) -> tuple[str, str]:
    requirement = _parse(text, where)
    specifiers = list(requirement.specifier)
    exact = len(specifiers) == 1 and specifiers[0].operator == "==" and not specifiers[0].version.endswith(".*")
    if requirement.url or not exact:
        raise PinError(f"{where}: {text!r} may mean another version tomorrow; expected NAME==VERSION")
    return canonicalize_name(requirement.name), str(requirement)


def _add(pins: dict[str, str], pin: tuple[str, str]) -> None:
    name, text = pin
    if pins.setdefault(name, text) != text:
        raise PinError(f"{name} is required twice: {pins[name]} and {text}")


def _conda(path: Path, notes: list[str]) -> list[str]:
    """The pip part of a conda environment; its other part is checked (Python) or told of (everything else)."""
    found: list[str] = []
    for entry in _dependencies(path):
        if isinstance(entry, dict):
            found += [str(text) for text in entry.get("pip") or []]
        elif match := _PYTHON.match(str(entry)):
            ours = f"{sys.version_info.major}.{sys.version_info.minor}"
            if not (match[1] == ours or ("." not in match[1] and ours.startswith(f"{match[1]}."))):
                notes.append(f"{entry}: the script runs on Python {ours}")
        elif str(entry).partition("=")[0].strip() not in ("pip", "python"):
            notes.append(f"{entry}: left out, a conda package; name it in the pip part if the script imports it")
    return found


def _dependencies(path: Path) -> list[Any]:
    """``dependencies`` of the file: a list of texts, with a list ``pip`` in it.

    The little YAML that such files use is read here: the server image has no YAML library.
    """
    found: list[Any] = []
    inside = False
    pip: list[str] | None = None
    pip_indent = 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        indent, text = len(text) - len(text.lstrip()), text.strip()
        if not text or text == "---":
            continue
        if not text.startswith("-"):
            if indent:
                raise PinError(f"{path.name}, line {number}: expected a list entry, found {text!r}")
            inside, pip = text.replace(" ", "").startswith("dependencies:"), None
            if inside and text.partition(":")[2].strip():
                raise PinError(f"{path.name}, line {number}: expected one dependency a line, after `dependencies:`")
        elif inside:
            value = text[1:].strip()
            if pip is not None and indent > pip_indent:
                pip.append(value.strip("'\""))
            elif value.replace(" ", "") == "pip:":
                pip, pip_indent = [], indent
                found.append({"pip": pip})
            else:
                pip = None
                found.append(value.strip("'\""))
    return found
