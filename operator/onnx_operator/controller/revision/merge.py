"""Strategic merge of ``spec.podTemplate`` over the rendered pod template.

The Python client has no strategic merge. How lists and kinds merge is read from a table that is made from Kubernetes'
own OpenAPI description (``merging.json``); where a field excludes others, such as the kind of a probe, the one that is
laid over stays alone. Directives of a patch (``$patch``, ``$retainKeys``) count as they do for ``kubectl patch``:
https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/.
"""

import json
from importlib import resources
from typing import Any

_TABLE = json.loads(resources.files(__package__).joinpath("merging.json").read_text())
LISTS: dict[str, list[tuple[str, ...]]] = {name: [tuple(k) for k in keys] for name, keys in _TABLE["lists"].items()}
"""Lists whose elements are told apart by keys: the fields that these lie in, in the order in which they are tried."""
REPLACED = frozenset(_TABLE["replaced"])
"""Of these, those that a patch replaces whole."""
RETAINED = frozenset(_TABLE["retainKeys"])
"""Fields that hold one kind of several: what a patch does not name of such a thing goes."""
WHOLE = frozenset(_TABLE["whole"])
"""Maps that have one owner: what others add to them is a change of what is ours."""
ONE_OF: dict[str, frozenset[str]] = {name: frozenset(fields) for name, fields in _TABLE["oneOf"].items()}
"""Fields that hold things of which one field excludes others."""
KEY_DEFAULTS = {"protocol": "TCP"}
APPENDED = ("tolerations",)
"""Lists without a key whose elements add up: dropping the pool's tolerations would strand the pod."""
_DIRECTIVE, _RETAIN = "$patch", "$retainKeys"

MAX_COMPARED = 10_000
"""Comparisons of elements without a key, where one list has not simply the other's elements: whoever writes a spec
may write tens of thousands, and each with each would keep the controller from everybody else for minutes."""

Identity = tuple[Any, ...]


def _identity(item: Any, field: str) -> Identity | None:
    if not isinstance(item, dict):
        return None
    keys = next((found for found in LISTS[field] if found[0] in item), None)
    if keys is None:
        return None
    values = tuple(item.get(key, KEY_DEFAULTS.get(key)) for key in keys)
    return values if all(isinstance(v, str | int | None) for v in values) else None


def _by_identity(items: list[Any], field: str) -> dict[Identity, Any] | None:
    """The items by their merge key; None where the list has none, or items without one, or two of the same."""
    if field not in LISTS:
        return None
    result: dict[Identity, Any] = {}
    for item in items:
        identity = _identity(item, field)
        if identity is None or identity in result:
            return None
        result[identity] = item
    return result


def _live_by_identity(items: list[Any], field: str) -> dict[Identity | None, Any]:
    return {_identity(item, field): item for item in items if isinstance(item, dict)}


def _frozen(item: Any) -> str:
    return json.dumps(item, sort_keys=True)


def _held(live: list[Any], desired: list[Any]) -> list[bool]:
    """Of each desired element, whether a live one holds it; work in proportion to the lists' lengths."""
    exact = {_frozen(item) for item in live}
    found = [_frozen(item) in exact or (at < len(live) and contains(live[at], item)) for at, item in enumerate(desired)]
    others = found.count(False)
    if others * len(live) > MAX_COMPARED:
        return found
    return [
        known or any(contains(candidate, item) for candidate in live)
        for known, item in zip(found, desired, strict=True)
    ]


def strategic_merge(base: Any, patch: Any, field: str = "") -> Any:
    """``base`` with ``patch`` laid over it; neither is changed.

    Maps merge by key (null removes), lists with a merge key by that, and everything else is replaced. What is new in a
    list comes after what was there.
    """
    if isinstance(patch, dict):
        return _merged_map(base if isinstance(base, dict) else {}, patch, field)
    if isinstance(patch, list):
        return _merged_list(base, patch, field)
    return patch


def _merged_map(base: dict[str, Any], patch: dict[str, Any], field: str) -> dict[str, Any]:
    directive, retained = patch.get(_DIRECTIVE), patch.get(_RETAIN)
    if directive == "delete":
        return {}
    # What is no directive stays where it is: the API server names it.
    taken = {_DIRECTIVE} if directive in ("replace", "merge") else set()
    taken |= {_RETAIN} if isinstance(retained, list) else set()
    patch = {key: value for key, value in patch.items() if key not in taken}
    merged = {} if directive == "replace" else _left(base, patch, field)
    if isinstance(retained, list):
        merged = {key: value for key, value in merged.items() if key in retained}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = strategic_merge(merged.get(key), value, key)
    return merged


def _left(base: dict[str, Any], patch: dict[str, Any], field: str) -> dict[str, Any]:
    """What of ``base`` can go together with ``patch``: a volume, or a probe, is of one kind."""
    given = {key for key, value in patch.items() if value is not None}
    if field in RETAINED:
        keys = {key for found in LISTS.get(field, ()) for key in found}
        return {k: v for k, v in base.items() if k in keys or k in patch} if given - keys else dict(base)
    excluded = ONE_OF.get(field, frozenset())
    return {k: v for k, v in base.items() if k not in excluded or k in patch} if given & excluded else dict(base)


def _merged_list(base: Any, patch: list[Any], field: str) -> list[Any]:
    keyed = field in LISTS and field not in REPLACED
    if keyed and {_DIRECTIVE: "replace"} in patch:
        base, patch = None, [item for item in patch if item != {_DIRECTIVE: "replace"}]
    additions = [strategic_merge(None, item, field) for item in patch if not (keyed and _deletes(item))]
    if not isinstance(base, list):
        return additions
    if field in APPENDED:
        there = {_frozen(item) for item in base}
        return base + [item for item in additions if _frozen(item) not in there]
    ours, theirs = (_by_identity(base, field), _by_identity(patch, field)) if keyed else (None, None)
    if ours is None or theirs is None:
        return additions
    return [
        strategic_merge(ours.get(identity), theirs.get(identity, {}), field)
        for identity in {**ours, **theirs}
        if not _deletes(theirs.get(identity))
    ]


def _deletes(item: Any) -> bool:
    return isinstance(item, dict) and item.get(_DIRECTIVE) == "delete"


def contains(live: Any, desired: Any, field: str = "") -> bool:
    """Whether ``live`` holds everything in ``desired``; what others added does not count."""
    if field in WHOLE:
        return bool(live == desired)
    if isinstance(desired, dict):
        return isinstance(live, dict) and all(k in live and contains(live[k], v, k) for k, v in desired.items())
    if isinstance(desired, list):
        if not isinstance(live, list):
            return False
        wanted = _by_identity(desired, field)
        if wanted is not None:
            present = _live_by_identity(live, field)
            return all(key in present and contains(present[key], item) for key, item in wanted.items())
        if field in APPENDED:
            return all(_held(live, desired))
        return len(live) == len(desired) and all(contains(a, b) for a, b in zip(live, desired, strict=True))
    return bool(live == desired) and isinstance(live, bool) is isinstance(desired, bool)


def project(live: Any, desired: Any, field: str = "") -> Any:
    """The part of ``live`` that ``desired`` speaks of, in the API server's own form.

    What the server dropped (an empty map, say) is dropped; quantities come back as it writes them. Afterwards
    ``contains(live, project(live, desired))`` holds.
    """
    if field in WHOLE:
        return live
    if isinstance(desired, dict) and isinstance(live, dict):
        return {k: project(live[k], v, k) for k, v in desired.items() if k in live}
    if isinstance(desired, list) and isinstance(live, list):
        wanted = _by_identity(desired, field)
        if wanted is not None:
            present = _live_by_identity(live, field)
            return [project(present[key], item) for key, item in wanted.items() if key in present]
        if len(live) == len(desired):
            return [project(a, b) for a, b in zip(live, desired, strict=True)]
        if field in APPENDED:
            return [item for item, held in zip(desired, _held(live, desired), strict=True) if held]
    return live
