"""The API server's own form of manifests that differ from one another in nothing but names. Pure."""

from collections import OrderedDict
from typing import Any

from onnx_operator.controller.revision.render import Manifest
from onnx_operator.controller.revision.seal import fingerprint

MAX_FORMS = 64
_NAME, _NAMESPACE = "\0name", "\0namespace"
"""No text of the API's holds a zero byte."""


class Forms:
    """Forms that were found before, of what all models have alike: a Service, a budget."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Any] = OrderedDict()

    def get(self, manifest: Manifest) -> Manifest | None:
        """The form of a manifest, where one of the same content was kept, whatever its name and namespace."""
        places = _places(manifest)
        form = self._known.get(fingerprint(_replaced(manifest, places)))
        found: Manifest | None = _replaced(form, {mark: text for text, mark in places.items()}) if form else None
        return found

    def keep(self, manifest: Manifest, form: Manifest) -> None:
        """Remember the form of a manifest."""
        places = _places(manifest)
        self._known[fingerprint(_replaced(manifest, places))] = _replaced(form, places)
        while len(self._known) > MAX_FORMS:
            self._known.popitem(last=False)


def _places(manifest: Manifest) -> dict[str, str]:
    metadata = manifest["metadata"]
    return {metadata["namespace"]: _NAMESPACE, metadata["name"]: _NAME}


def _replaced(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, places) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, places) for item in value]
    return places.get(value, value) if isinstance(value, str) else value
