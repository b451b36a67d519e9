"""Looking up kernels: which one the runtime takes for an operator, its version and its types."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx
from onnx import NodeProto, TypeProto, helper

from onnx_operator.api.capabilities import Capabilities
from onnx_operator.model.checks.schemas import find_schema
from onnx_operator.model.nodes import STANDARD_DOMAINS, domain_of, domain_text
from onnx_operator.model.tensors import type_text

_FLOAT16, _FLOAT = "tensor(float16)", "tensor(float)"
_INNERMOST = re.compile(r"\(([^()]*)\)")
Opsets = Mapping[str, int]
Types = Mapping[str, TypeProto]


@dataclass(frozen=True)
class Parameter:
    """An input or output as an operator's definition names it."""

    name: str
    kind: str
    """A type parameter such as ``T``, or a type."""
    variadic: bool = False


@dataclass(frozen=True)
class Signature:
    """The parameters of one version of an operator."""

    since: int
    inputs: Sequence[Parameter]
    outputs: Sequence[Parameter]
    types: Mapping[str, int] = field(default_factory=dict)
    """Sets of types that the definition allows, where the capabilities tell it."""


@dataclass(frozen=True)
class Kernel:
    """One kernel: versions of the operator's definition (both included) and the types it takes."""

    first: int
    last: int
    types: Mapping[str, int]


@dataclass(frozen=True)
class Unserved:
    """Why no kernel serves a node."""

    opset: int
    types: Sequence[tuple[str, str]] = ()
    accepted: Sequence[Sequence[tuple[str, str]]] = ()
    """The types of the kernels of this version, by parameter."""
    versions: bool = False
    """Whether other versions of the definition have kernels, this one having none."""
    since: int = 0
    """The version of the domain that brought this definition."""
    newer: int = 0
    """The first newer version that has kernels, where there is one."""
    attribute: str = ""
    """What the kernel that fits the types cannot do."""


class Kernels:
    """The CPU kernels that capabilities declare."""

    def __init__(self, capabilities: Capabilities) -> None:
        table = capabilities.kernels
        self._texts = list(table.types)
        self._sets = [frozenset(_types(text)) for text in table.types]
        self._lines = {
            (domain_of(domain), operator): lines
            for domain, operators in table.operators.items()
            for operator, lines in operators.items()
        }
        self._domains = {domain for domain, _ in self._lines}
        self._kernels: dict[tuple[str, str], list[Kernel]] = {}
        self._written = {
            (domain_of(domain), operator): text
            for domain, operators in table.signatures.items()
            for operator, text in operators.items()
        }
        self._signatures: dict[tuple[str, str, int], Signature | None] = {}
        self._found: dict[tuple[object, ...], Unserved | None] = {}

    def lists(self, domain: str) -> bool:
        """Tell whether kernels of a domain are declared at all; those of custom operators are not."""
        return domain in self._domains

    def unserved(self, node: NodeProto, opsets: Opsets, types: Types) -> Unserved | None:
        """Tell why no kernel serves a node at its types; None where one does, or may, as types are unknown."""
        # The same operator at the same types makes up most of a model.
        texts = [
            "" if not name else type_text(kind) if (kind := types.get(name)) is not None else None
            for names in (node.input, node.output)
            for name in names
        ]
        use = (node.op_type, node.domain, opsets.get(domain_of(node.domain), 1), len(node.input), tuple(texts))
        if use not in self._found:
            self._found[use] = self._find(node, opsets, types, widen=False)
        return self._found[use]

    def served_in_float32(self, node: NodeProto, opsets: Opsets, types: Types) -> bool:
        """Tell whether a kernel serves a node once its float16 inputs and outputs are cast, as the runtime does."""
        if not any(name in types and type_text(types[name]) == _FLOAT16 for name in node.input):
            return False
        return self._find(node, opsets, types, widen=True) is None

    def output_types(self, node: NodeProto, opsets: Opsets, types: Types) -> Iterator[tuple[str, TypeProto]]:
        """Derive types of outputs from the definition: a type parameter has the same type at each of its uses."""
        signature = self._signature(domain_of(node.domain), node.op_type, opsets.get(domain_of(node.domain), 1))
        if signature is None:
            return
        bound = {
            parameter.kind: types[name]
            for name, parameter in _pairs(node.input, signature.inputs)
            if name in types and not parameter.variadic
        }
        for name, parameter in _pairs(node.output, signature.outputs):
            if parameter.kind in bound and not parameter.variadic:
                yield name, _without_shape(bound[parameter.kind])

    def _find(self, node: NodeProto, opsets: Opsets, types: Types, *, widen: bool) -> Unserved | None:
        domain = domain_of(node.domain)
        opset = opsets.get(domain, 1)
        signature = self._signature(domain, node.op_type, opset)
        kernels = self._of(domain, node.op_type)
        if signature is None:
            return None if kernels else Unserved(opset)
        if domain == "" and node.op_type == "Constant":
            return None
        fitting = [each for each in kernels if each.first <= signature.since <= each.last]
        if not fitting:
            newer = [each.first for each in kernels if each.first > signature.since]
            return Unserved(opset, since=signature.since, newer=min(newer, default=0), versions=bool(kernels))
        allowed = self._disallowed(node, signature, types)
        if allowed is not None:
            return Unserved(opset, [allowed[0]], [[allowed[1]]])
        wanted = {name: self._actual(node, signature, types, name) for each in fitting for name in each.types}
        if widen:
            wanted = {name: _FLOAT if kind == _FLOAT16 else kind for name, kind in wanted.items()}
        for kernel in fitting:
            if all((kind := wanted[name]) is None or kind in self._sets[n] for name, n in kernel.types.items()):
                return None
        return self._nearest(opset, wanted, fitting)

    def _nearest(self, opset: int, wanted: Mapping[str, str | None], kernels: Sequence[Kernel]) -> Unserved:
        """Name the types that are in the way, by the kernels that come nearest to what is wanted."""
        faults = [
            [name for name, number in kernel.types.items() if wanted[name] not in (None, *self._sets[number])]
            for kernel in kernels
        ]
        fewest = min(len(each) for each in faults)
        accepted = [
            tuple((name, _alike(self._texts[kernel.types[name]], wanted[name] or "")) for name in names)
            for kernel, names in zip(kernels, faults, strict=True)
            if len(names) == fewest
        ]
        named = dict.fromkeys(name for kernel in accepted for name, _ in kernel)
        return Unserved(opset, [(name, wanted[name] or "") for name in named], list(dict.fromkeys(accepted)))

    def _disallowed(
        self, node: NodeProto, signature: Signature, types: Types
    ) -> tuple[tuple[str, str], tuple[str, str]] | None:
        """A type that the definition itself does not allow, and those that it does."""
        for name, number in signature.types.items():
            kind = self._actual(node, signature, types, name)
            if kind is not None and kind not in self._sets[number]:
                return (name, kind), (name, self._texts[number])
        return None

    def _actual(self, node: NodeProto, signature: Signature, types: Types, constraint: str) -> str | None:
        """The type that a constraint is held against: of the first argument that has it."""
        uses = [*_pairs(node.input, signature.inputs), *_pairs(node.output, signature.outputs)]
        named = [name for name, parameter in uses if parameter.kind == constraint]
        named = named or [name for name, parameter in uses if parameter.name == constraint]
        kind = types.get(named[0]) if named else None
        if kind is None or not _complete(kind):
            return None
        return type_text(kind)

    def _of(self, domain: str, operator: str) -> list[Kernel]:
        key = (domain, operator)
        if key not in self._kernels:
            self._kernels[key] = [_kernel(line) for line in self._lines.get(key, ())]
        return self._kernels[key]

    def _signature(self, domain: str, operator: str, opset: int) -> Signature | None:
        key = (domain, operator, opset)
        if key not in self._signatures:
            self._signatures[key] = self._read_signature(domain, operator, opset)
        return self._signatures[key]

    def _read_signature(self, domain: str, operator: str, opset: int) -> Signature | None:
        written = _read_written(self._written.get((domain, operator), ""), opset)
        if written is not None or domain not in STANDARD_DOMAINS:
            return written
        schema = find_schema(domain, operator, opset)
        return None if schema is None else _standard(schema)


def defined_by_runtime(capabilities: Capabilities, domain: str, operator: str, opset: int) -> bool:
    """Tell whether the runtime has an operator in a version of a domain of the standard, which does not have it."""
    text = capabilities.kernels.signatures.get(domain_text(domain), {}).get(operator, "")
    return _read_written(text, opset) is not None


def _read_written(text: str, opset: int) -> Signature | None:
    versions, _, parameters = text.partition(" ")
    first, _, last = versions.partition("-")
    if not first or not int(first) <= opset <= int(last or opset):
        return None
    inputs, _, rest = parameters.partition(">")
    words = rest.split()
    types = _numbers(each for each in words if "=" in each)
    return Signature(
        int(first), _parameters(inputs.split()), _parameters(each for each in words if "=" not in each), types
    )


def _standard(schema: onnx.defs.OpSchema) -> Signature:
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    inputs, outputs = (
        [Parameter(each.name, each.type_str, each.option == variadic) for each in side]
        for side in (schema.inputs, schema.outputs)
    )
    return Signature(schema.since_version, inputs, outputs)


def _parameters(words: Iterable[str]) -> list[Parameter]:
    out = []
    for word in words:
        name, _, kind = word.partition(":")
        out.append(Parameter(name, kind.removesuffix("*"), kind.endswith("*")))
    return out


def _pairs(names: Sequence[str], parameters: Sequence[Parameter]) -> Iterator[tuple[str, Parameter]]:
    """Match arguments to parameters; the last parameter takes all that are left where it is variadic."""
    for index, name in enumerate(names):
        if index >= len(parameters) and not (parameters and parameters[-1].variadic):
            return
        if name:
            yield name, parameters[min(index, len(parameters) - 1)]


def _kernel(line: str) -> Kernel:
    versions, *constraints = line.split()
    first, _, last = versions.partition("-")
    return Kernel(int(first), int(last or first), _numbers(constraints))


def _numbers(constraints: Iterable[str]) -> dict[str, int]:
    return {name: int(number) for name, _, number in (each.partition("=") for each in constraints)}


def _alike(text: str, wanted: str) -> str:
    """Those of a set of types that have the form of another type: tensors for a tensor."""
    form = wanted[: wanted.rfind("(") + 1]
    return " ".join(each for each in text.split() if each[: each.rfind("(") + 1] == form) or text


def _types(text: str) -> Iterator[str]:
    for form in text.split():
        found = _INNERMOST.search(form)
        if found is None:
            yield form
            continue
        for each in found[1].split("|"):
            yield f"{form[: found.start(1)]}{each}{form[found.end(1) :]}"


def _complete(kind: TypeProto) -> bool:
    return "unknown" not in (text := type_text(kind)) and "undefined" not in text


def _without_shape(kind: TypeProto) -> TypeProto:
    if not kind.HasField("tensor_type"):
        return kind
    return helper.make_tensor_type_proto(kind.tensor_type.elem_type, None)
