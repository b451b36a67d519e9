"""Plugins of pydantic: the server has none, and a script may have some."""

from collections.abc import Mapping, MutableMapping

_VARIABLE = "PYDANTIC_DISABLE_PLUGINS"
_ALL = "__all__"


def keep_out(environment: MutableMapping[str, str]) -> None:
    """Let pydantic not look for any, unless ``environment`` says which: before a class of it is made.

    It would look into the metadata of every installed package, which takes some 30 ms of each start.
    """
    environment.setdefault(_VARIABLE, _ALL)


def let_in(environment: Mapping[str, str]) -> dict[str, str]:
    """The same environment for a process that may have plugins."""
    return {name: value for name, value in environment.items() if (name, value) != (_VARIABLE, _ALL)}
