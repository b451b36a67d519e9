"""Whether an execution provider computes a node, by the table of what it computes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnx import AttributeProto, NodeProto, TypeProto

from onnx_operator.api.capabilities import Capabilities
from onnx_operator.api.providers import ProviderTable, Rule
from onnx_operator.model.checks.bodies import find_schema
from onnx_operator.model.checks.kerneltable import Kernels
from onnx_operator.model.nodes import STANDARD_DOMAINS, domain_of
from onnx_operator.model.tensors import type_text


@dataclass(frozen=True)
class Use:
    """A node, and what is known of its arguments."""

    node: NodeProto
    opsets: Mapping[str, int]
    types: Mapping[str, TypeProto]
    is_known: Callable[[str], bool]
    """Whether a value is known while the model is loaded, or follows from shapes alone."""

    @cached_property
    def kind(self) -> tuple[object, ...]:
        """All that support depends on but attributes: nodes of one kind are computed by the same providers."""
        node = self.node
        inputs = tuple(
            (_type(self, name), _rank(self, name), self.is_known(name)) if name else None for name in node.input
        )
        outputs = tuple(_type(self, name) if name else "" for name in node.output)
        return node.domain, node.op_type, self.opsets.get(domain_of(node.domain), 1), inputs, outputs


class Support:
    """What one provider computes."""

    def __init__(self, table: ProviderTable) -> None:
        self.table = table
        self.kernels: Kernels | None = None
        if table.kernels is not None:
            self.kernels = Kernels(
                Capabilities(
                    onnx_runtime_version=table.release, ir_version=0, opsets={}, operators={}, kernels=table.kernels
                )
            )
        self._sets = [frozenset(f"tensor({name})" for name in names) for names in table.types]
        self._scalars = None if table.scalars is None else frozenset(table.scalars)
        self.defined = frozenset(table.defined)
        self._known: dict[tuple[object, ...], bool] = {}

    def computes(self, use: Use) -> bool:
        """Tell whether the provider computes a node; types that are unknown are taken to fit."""
        rule = self.table.rules.get(use.node.op_type) if not domain_of(use.node.domain) else None
        if rule is not None and not _meets(use, rule):
            return False
        # The same operator at the same types makes up most of a model.
        if use.kind not in self._known:
            self._known[use.kind] = (
                self.kernels.unserved(use.node, use.opsets, use.types) is None
                if self.kernels is not None
                else self._listed(use)
            )
        return self._known[use.kind]

    def _listed(self, use: Use) -> bool:
        node = use.node
        number = self.table.operators.get(node.op_type)
        if number is None or domain_of(node.domain) not in self.table.domains:
            return False
        names = [name for name in (*node.input, *node.output) if name]
        if self.table.typed == "FirstInput":
            names = names[:1]
        texts = (_type(use, name) for name in names)
        if any(text is not None and text not in self._sets[number] for text in texts):
            return False
        if self._scalars is None or node.op_type in self._scalars:
            return True
        return all(_rank(use, name) != 0 or use.is_known(name) for name in node.input if name)


def _meets(use: Use, rule: Rule) -> bool:
    node = use.node
    if rule.max_inputs is not None and any(node.input[rule.max_inputs :]):
        return False
    if rule.max_outputs is not None and any(node.output[rule.max_outputs :]):
        return False
    for place in rule.known_inputs:
        name = node.input[place] if place < len(node.input) else ""
        if name and not use.is_known(name):
            return False
    first = next(iter(node.input), "")
    rank, kind = _rank(use, first), _type(use, first)
    if rule.ranks and rank is not None and rank not in rule.ranks:
        return False
    if rule.types and kind is not None and kind not in {f"tensor({name})" for name in rule.types}:
        return False
    given = {each.name: each for each in node.attribute}
    if any(name in given for name in rule.absent):
        return False
    if any(name in given and not _symmetric(given[name].ints) for name in rule.symmetric):
        return False
    return all(
        str(value).lower() in {str(each).lower() for each in allowed}
        for name, allowed in rule.attributes.items()
        for value in _values(given.get(name) or _default(use, name))
    )


def _symmetric(values: Sequence[int]) -> bool:
    half = len(values) // 2
    return list(values[:half]) == list(values[half:])


def _values(attribute: AttributeProto | None) -> list[int | str]:
    if attribute is None:
        return []
    match attribute.type:
        case AttributeProto.INT:
            return [attribute.i]
        case AttributeProto.INTS:
            return list(attribute.ints)
        case AttributeProto.STRING:
            return [attribute.s.decode(errors="replace")]
        case AttributeProto.STRINGS:
            return [each.decode(errors="replace") for each in attribute.strings]
    return []


def _default(use: Use, name: str) -> AttributeProto | None:
    domain = domain_of(use.node.domain)
    schema = find_schema(domain, use.node.op_type, use.opsets.get(domain, 1)) if domain in STANDARD_DOMAINS else None
    known = schema.attributes.get(name) if schema is not None else None
    return None if known is None else known.default_value


def _type(use: Use, name: str) -> str | None:
    kind = use.types.get(name)
    text = "unknown" if kind is None else type_text(kind)
    return None if "unknown" in text or "undefined" in text else text


def _rank(use: Use, name: str) -> int | None:
    kind = use.types.get(name)
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    return len(kind.tensor_type.shape.dim)
