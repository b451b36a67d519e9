"""JSON merge patches (RFC 7386): what changes one document into another, and what a patch makes of one. Pure."""

from typing import Any

from onnx_operator.controller.revision.seal import fingerprint

Document = dict[str, Any]


def difference(now: Document, wanted: Document) -> Document:
    """The merge patch that makes ``wanted`` of ``now``; empty where they are the same.

    A patch cannot write a null into a map: where ``wanted`` has one, :func:`applied` gives another document.
    """
    patch: Document = {name: None for name in now if name not in wanted}
    for name, value in wanted.items():
        held = now.get(name)
        if name in now and fingerprint(held) == fingerprint(value):
            continue
        if isinstance(held, dict) and isinstance(value, dict):
            patch[name] = difference(held, value)
        else:
            patch[name] = value
    return patch


def applied(document: Any, patch: Any) -> Any:
    """What a merge patch makes of a document, as RFC 7386 says."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = applied(result.get(name), value)
    return result
