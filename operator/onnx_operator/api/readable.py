"""Specs and statuses that another version of the operator may have written. Pure.

Whoever is downgraded meets specs with values that it does not know: it still has to scale and to tell.
"""

from typing import Any

from pydantic import ValidationError

from onnx_operator.api.onnxmodel import OnnxModelSpec, OnnxModelStatus

MAX_URI_LENGTH = 2048


def readable_spec(raw: Any) -> tuple[OnnxModelSpec, str]:
    """The spec, as far as this version can read it, and what it cannot; the latter is empty where it reads all."""
    given = raw if isinstance(raw, dict) else {}
    try:
        return OnnxModelSpec.model_validate(given), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        fault = f"spec.{'.'.join(map(str, first['loc']))}: {first['msg']}"
    model = given.get("model")
    found: dict[str, Any] = {"model": model}
    if not _reads(found):
        uri = model.get("uri") if isinstance(model, dict) else None
        found = {"model": {"uri": uri[:MAX_URI_LENGTH] if isinstance(uri, str) and uri else "unknown"}}
    for name, value in given.items():
        if name != "model" and _reads({**found, name: value}):
            found[name] = value
    return OnnxModelSpec.model_validate(found), fault


def _reads(raw: dict[str, Any]) -> bool:
    try:
        OnnxModelSpec.model_validate(raw)
    except ValidationError:
        return False
    return True


def readable_status(raw: Any) -> OnnxModelStatus:
    """The status, or an empty one where this version cannot read it: it is told anew."""
    try:
        return OnnxModelStatus.model_validate(raw or {})
    except ValidationError:
        return OnnxModelStatus()
