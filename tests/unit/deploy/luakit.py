"""Runs scripts as Argo CD does: Lua 5.1 with its basic functions, ``table``, ``require`` and two functions of ``os``.

What Argo CD does around the scripts is here too: an empty table is a list, unless there was an object before.
"""

from typing import Any

from lupa.lua51 import LuaRuntime, lua_type

Object = dict[str, Any]
_CLOSED = """
local kept = { date = os.date, time = os.time }
for _, name in ipairs({ "io", "debug", "coroutine", "math", "string", "os", "python" }) do
  _G[name] = nil
  package.loaded[name] = nil
end
os, package.loaded.os = kept, kept
getmetatable("").__index = nil
"""


def _encoded(lua: Any, value: Any) -> Any:
    if isinstance(value, dict):
        table = lua.table()
        for key, item in value.items():
            table[key] = _encoded(lua, item)
        return table
    if isinstance(value, list):
        return lua.table(*(_encoded(lua, item) for item in value))
    return value


def _decoded(value: Any) -> Any:
    if lua_type(value) != "table":
        return value
    items = dict(value.items())
    if list(items) == list(range(1, len(items) + 1)):
        return [_decoded(item) for item in items.values()]
    return {key: _decoded(item) for key, item in items.items()}


def _cleaned(new: Any, old: Any) -> Any:
    if new == [] and old == {}:
        return {}
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: _cleaned(item, old.get(key)) for key, item in new.items()}
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [_cleaned(item, before) for item, before in zip(new, old, strict=True)]
    return new


def run(script: str, obj: Object) -> Any:
    """What a script returns for an object.

    Raises:
        lupa.LuaError: the script failed.
    """
    lua = LuaRuntime(register_eval=False, register_builtins=False, unpack_returned_tuples=True)
    lua.execute(_CLOSED)
    lua.globals()["obj"] = _encoded(lua, obj)
    return _cleaned(_decoded(lua.execute(script)), obj)


def merge_patch(before: Object, after: Object) -> Object:
    """The JSON merge patch (RFC 7396) that Argo CD sends for what an action changed."""
    patch: Object = {}
    for key in before.keys() | after.keys():
        if key not in after:
            patch[key] = None
        elif isinstance(before.get(key), dict) and isinstance(after[key], dict):
            if inner := merge_patch(before[key], after[key]):
                patch[key] = inner
        elif key not in before or before[key] != after[key]:
            patch[key] = after[key]
    return patch
