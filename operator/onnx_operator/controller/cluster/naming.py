"""Names that other people chose, held to what the API server allows before they become part of a request. Pure.

Formats: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and, for labels,
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/.
"""

import re
from collections.abc import Mapping

from onnx_operator.controller.settings.selector import ModelSelector

MAX_LABEL_LENGTH = 63
MAX_SUBDOMAIN_LENGTH = 253
MAX_MODEL_NAME_LENGTH = 52
"""Characters of an OnnxModel's name, as its CRD says."""
Labels = Mapping[str, str | None] | ModelSelector
"""What objects must carry: labels, None for any value; or whatever a selector asks for."""
SUBRESOURCES = frozenset({"log", "scale", "status"})

# Always with fullmatch: "$" would let a line feed follow.
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_1035_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")


class InvalidNameError(ValueError):
    """A name that no object of the cluster can have: asking again cannot help."""

    def __init__(self, what: str, value: object, expected: str) -> None:
        shown = repr(value[:80] if isinstance(value, str) else type(value).__name__)
        super().__init__(f"{what} {shown} is not a name that an object can have: expected {expected}")


def _matches(value: object, pattern: re.Pattern[str], longest: int) -> bool:
    # The length first: a pattern never sees a megabyte.
    return isinstance(value, str) and len(value) <= longest and pattern.fullmatch(value) is not None


def is_namespace(value: object) -> bool:
    """Whether a namespace can have this name: a DNS-1123 label."""
    return _matches(value, _DNS_LABEL, MAX_LABEL_LENGTH)


def is_object_name(value: object) -> bool:
    """Whether an object can have this name: a DNS subdomain."""
    return _matches(value, _SUBDOMAIN, MAX_SUBDOMAIN_LENGTH)


def is_model_name(value: object) -> bool:
    """Whether an OnnxModel can have this name: a DNS-1035 label of at most 52 characters."""
    return _matches(value, _DNS_1035_LABEL, MAX_MODEL_NAME_LENGTH)


def object_path(
    root: str, plural: str, namespace: str | None, name: str | None = None, subresource: str | None = None
) -> str:
    """The path of a collection, an object, or an object's subresource, below ``root`` (``/api/v1``).

    Without a namespace it is the collection of all namespaces. Only characters that no client encodes and no server
    takes apart get into it.

    Raises:
        InvalidNameError: a part is none.
    """
    if namespace is None and name is None:
        return f"{root}/{plural}"
    if not is_namespace(namespace):
        raise InvalidNameError("namespace", namespace, f"a DNS label of at most {MAX_LABEL_LENGTH} characters")
    parts = [root, "namespaces", str(namespace), plural]
    if name is not None:
        if not is_object_name(name):
            raise InvalidNameError("name", name, f"a DNS subdomain of at most {MAX_SUBDOMAIN_LENGTH} characters")
        parts.append(name)
    if subresource is not None:
        if name is None or subresource not in SUBRESOURCES:
            raise InvalidNameError(
                "subresource", subresource, f"one of {', '.join(sorted(SUBRESOURCES))}, of an object"
            )
        parts.append(subresource)
    return "/".join(parts)


def label_selector(labels: Labels) -> str:
    """Selects the objects that carry all of these labels, with any value where it is None.

    The keys are our own; the values may be anybody's.

    Raises:
        InvalidNameError: a value is none that a label can have; it could be more of the selector.
    """
    if isinstance(labels, ModelSelector):
        return labels.text()
    for key, value in labels.items():
        if value is not None and not _matches(value, _LABEL_VALUE, MAX_LABEL_LENGTH):
            raise InvalidNameError(f"label {key}", value, f"a label's value of at most {MAX_LABEL_LENGTH} characters")
    return ",".join(key if value is None else f"{key}={value}" for key, value in labels.items())
