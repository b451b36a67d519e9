"""What a namespace asks of containers, learned from its refusals of pods: quotas and limit ranges. Pure.

Nobody looks quotas and limit ranges up: what they ask is read where a pod was refused, in the API server's words. The
texts are those of Kubernetes 1.24 to 1.35: pkg/quota/v1/evaluator/core/pods.go (quota), plugin/pkg/admission/
limitranger/admission.go (limit range) and pkg/apis/core/validation (a limit that a limit range put below a request).
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, Field

from onnx_operator.api.sources import ApiModel
from onnx_operator.controller.settings.quantities import parse_quantity
from onnx_operator.controller.settings.settings import MAX_CPUS

RESOURCES = ("cpu", "memory", "ephemeral-storage")
"""What is ever learned of."""
MIN_QUANTITY, MAX_QUANTITY = Decimal("1e-9"), 2**53
"""Of any amount that is kept; beyond them it is no quantity."""
_BYTES = (Decimal(2**20), Decimal(2**50))
BELIEVED = {"cpu": (Decimal("0.001"), Decimal(MAX_CPUS)), "memory": _BYTES, "ephemeral-storage": _BYTES}
"""The least and the greatest bound that a pod is made to keep: no node offers more, no server runs with less."""
_RESOURCE = "(" + "|".join(RESOURCES) + ")"
_QUANTITY = r"([0-9.eEkKMGTPmunµi+-]{1,32}?)"
# How the API server itself begins. What a webhook or a policy says, which others write, comes after other words.
_REFUSED = r"(?s)(?:pods are|[Pp]ods? \"[^\"]*\" is) "
_FORBIDDEN = re.compile(
    _REFUSED + r"forbidden: (?:failed quota: |\[?(?:minimum|maximum) |\[?[\w./-]{1,316} max limit to request ratio )"
)
_INVALID = re.compile(_REFUSED + r"invalid: ")
_QUOTA = re.compile(rf"\blimits\.{_RESOURCE} for: ([a-z0-9,-]{{1,512}})")
_BOUND = re.compile(
    rf"\b(minimum|maximum) {_RESOURCE} usage per (?:Container|Pod) is {_QUANTITY}(?:, but |\.  No (?:limit|request) is)"
)
_RATIO = re.compile(rf"\b{_RESOURCE} max limit to request ratio per (?:Container|Pod) is {_QUANTITY}, but ")
_BELOW = re.compile(rf"must be less than or equal to {_RESOURCE} limit\b")


def _resource(name: str) -> str:
    if name not in RESOURCES:
        raise ValueError(f"must be one of {', '.join(RESOURCES)}")
    return name


def _positive(text: str) -> str:
    try:
        amount = parse_quantity(text)
    except ArithmeticError:
        raise ValueError("must be a quantity") from None
    if not MIN_QUANTITY <= amount <= MAX_QUANTITY:
        raise ValueError("must be a quantity above 0")
    return text


def _at_least_one(text: str) -> str:
    if parse_quantity(_positive(text)) < 1:
        raise ValueError("must be at least 1")
    return text


_Resource = Annotated[str, AfterValidator(_resource)]
_Amounts = dict[_Resource, Annotated[str, AfterValidator(_positive)]]
_Ratios = dict[_Resource, Annotated[str, AfterValidator(_at_least_one)]]


class Demands(ApiModel):
    """What each container must have. Quantities by resource."""

    limits: list[_Resource] = Field(default_factory=list, description="resources that need a limit")
    minimum: _Amounts = Field(default_factory=dict, description="the least that may be asked for")
    maximum: _Amounts = Field(default_factory=dict, description="the greatest limit")
    ratio: _Ratios = Field(default_factory=dict, description="the most that a limit may be, in requests")

    def __bool__(self) -> bool:
        """Whether anything is asked."""
        return self != Demands()

    def and_also(self, other: "Demands") -> "Demands":
        """Both: the stricter of each. What was learned once stays, so that no two refusals undo each other."""
        return Demands(
            limits=sorted({*self.limits, *other.limits}),
            minimum=_stricter(self.minimum, other.minimum, max),
            maximum=_stricter(self.maximum, other.maximum, min),
            ratio=_stricter(self.ratio, other.ratio, min),
        )

    def text(self) -> str:
        """The same for people."""
        parts = [f"limits of {' and '.join(self.limits)}"] if self.limits else []
        for amounts, words in ((self.minimum, "at least"), (self.maximum, "at most"), (self.ratio, "limits up to")):
            unit = " requests" if amounts is self.ratio else ""
            parts += [f"{words} {amount}{unit} of {resource}" for resource, amount in sorted(amounts.items())]
        return ", ".join(parts)


def _stricter(ours: Mapping[str, str], theirs: Mapping[str, str], choose: Callable[..., str]) -> dict[str, str]:
    both = {name: choose(ours[name], theirs[name], key=parse_quantity) for name in ours.keys() & theirs.keys()}
    return dict(sorted((dict(ours) | dict(theirs) | both).items()))


def demands_of(message: str, containers: frozenset[str]) -> Demands:
    """What a refusal says that containers must have; nothing where it is about something else.

    Args:
        message: of the API server, of a bounded length.
        containers: names of those that may be changed: what a quota says of others counts for nothing.
    """
    if _INVALID.match(message):
        return Demands(limits=sorted(set(_BELOW.findall(message))))
    if not _FORBIDDEN.match(message):
        return Demands()
    limits = {resource for resource, named in _QUOTA.findall(message) if containers & set(named.split(","))}
    bounds = _BOUND.findall(message)
    found = Demands()
    for known in (
        {"limits": sorted(limits)},
        *({kind: {resource: amount}} for kind, resource, amount in bounds if _is_believed(resource, amount)),
        *({"ratio": {resource: amount}} for resource, amount in _RATIO.findall(message)),
    ):
        try:
            found = found.and_also(Demands.model_validate(known))
        except ValueError:
            continue
    return found


def _is_believed(resource: str, amount: str) -> bool:
    least, most = BELIEVED[resource]
    try:
        return least <= parse_quantity(amount) <= most
    except (ArithmeticError, ValueError):
        return False


_AMOUNTS = re.compile(
    r"exceeded quota|must specify .* for|usage per \w+ is|limit to request ratio per|"
    r"must be less than or equal to \S+ limit"
)


def of_amounts(message: str) -> bool:
    """Whether a refusal is a quota's or a limit range's: what is asked for is too much, too little or not said."""
    return bool(_AMOUNTS.search(message))


def advice(message: str, containers: frozenset[str]) -> str:
    """What to do about a refusal that stays, for people; empty where nothing is known."""
    others = sorted({name for _, named in _QUOTA.findall(message) for name in named.split(",")} - containers)
    if "exceeded quota" in message:
        return "the namespace's quota has no room: free some, lower spec.resources, or ask the platform team for more"
    if others:
        return f"container {', '.join(others)} is not the operator's: give it limits where it is added to pods"
    if _BOUND.search(message) or _RATIO.search(message):
        return (
            "a LimitRange of the namespace forbids what the model is estimated to need, or what spec.resources says: "
            "set spec.resources to what it allows, or ask the platform team to change it"
        )
    if _BELOW.search(message):
        return "a LimitRange of the namespace sets a limit below the request: set spec.resources.limits"
    return ""
