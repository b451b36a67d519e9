"""The kernels that this build of ONNX Runtime has on the CPU: which operators, versions and types it computes."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema, get_all_opkernel_def

from onnx_operator.api.capabilities import KernelTable

_OWN_SOURCES = "/onnxruntime/core/"
"""In the path of the source file of definitions that are the runtime's own, not onnx's."""
_INTERNAL = ("com.microsoft.nchwc", "com.ms.internal.nhwc")
"""Domains that models get only while they are loaded."""
_OPEN_END = 2**31 - 1
_PROVIDER = "CPUExecutionProvider"

Constraints = dict[str, frozenset[str]]
Versions = tuple[int, int]


def list_kernels(provider: str = _PROVIDER) -> KernelTable:
    """Ask the runtime for its kernels, those of the CPU unless told otherwise."""
    found: dict[tuple[str, str], dict[Versions, list[Constraints]]] = defaultdict(lambda: defaultdict(list))
    for kernel in get_all_opkernel_def():
        if kernel.provider != provider:
            continue
        first, last = kernel.version_range
        # A kernel without an end serves the version it names and no later one: those may mean something else.
        versions = (first, first if last == _OPEN_END else last)
        types = {name: frozenset(types) for name, types in kernel.type_constraints.items()}
        found[kernel.domain, kernel.op_name][versions].append(types)
    merged = {key: _join_versions(kernels) for key, kernels in sorted(found.items())}
    own = _own_operators()
    used = [types for kernels in merged.values() for _, types in kernels] + [each.types for each in own]
    sets = sorted({_text(types) for constraints in used for types in constraints.values()})
    numbers = {text: number for number, text in enumerate(sets)}
    operators: dict[str, dict[str, list[str]]] = {}
    for (domain, operator), kernels in merged.items():
        lines = [" ".join([_versions_text(versions), *_types_text(types, numbers)]) for versions, types in kernels]
        operators.setdefault(domain or "ai.onnx", {})[operator] = lines
    return KernelTable(types=sets, operators=operators, signatures=_signatures(own, numbers))


def _join_versions(kernels: dict[Versions, list[Constraints]]) -> list[tuple[Versions, Constraints]]:
    """Join kernels of versions that follow one another, where they serve the same types."""
    out: list[tuple[Versions, Constraints]] = []
    for (first, last), same_versions in sorted(kernels.items()):
        for types in _merge(same_versions):
            before = next((n for n, ((_, end), known) in enumerate(out) if known == types and end == first - 1), None)
            if before is None:
                out.append(((first, last), types))
            else:
                out[before] = ((out[before][0][0], last), types)
    return out


def _merge(kernels: list[Constraints]) -> list[Constraints]:
    """Join kernels that differ in the types of one parameter only; the types they serve stay the same."""
    unique = sorted({tuple(sorted(each.items())) for each in kernels}, key=_order)
    kept = [dict(each) for each in unique]
    at = 0
    while at < len(kept):
        for other in range(at + 1, len(kept)):
            joined = _joined(kept[at], kept[other])
            if joined is not None:
                kept[at] = joined
                del kept[other]
                at = -1
                break
        at += 1
    return kept


def _order(kernel: tuple[tuple[str, frozenset[str]], ...]) -> list[tuple[str, list[str]]]:
    return [(name, sorted(types)) for name, types in kernel]


def _joined(one: Constraints, other: Constraints) -> Constraints | None:
    if one.keys() != other.keys():
        return None
    differing = [name for name in one if one[name] != other[name]]
    if len(differing) > 1:
        return None
    return one | {name: one[name] | other[name] for name in differing}


def _versions_text(versions: Versions) -> str:
    first, last = versions
    return str(first) if first == last else f"{first}-{last}"


def _types_text(types: Constraints, numbers: dict[str, int]) -> list[str]:
    return [f"{name}={numbers[_text(types[name])]}" for name in sorted(types)]


def _text(types: Iterable[str]) -> str:
    """Write a set of types, those of one form together: ``tensor(bool|float) seq(tensor(float))``."""
    forms: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in sorted(types):
        start, end = each.rfind("(") + 1, each.find(")")
        forms[each[:start], each[end:]].append(each[start:end])
    return " ".join(f"{before}{'|'.join(inner)}{after}" for (before, after), inner in sorted(forms.items()))


@dataclass(frozen=True)
class _Operator:
    """An operator that only the runtime defines."""

    domain: str
    name: str
    versions: str
    inputs: str
    outputs: str
    types: Constraints


def _own_operators() -> list[_Operator]:
    schemas = defaultdict(list)
    for schema in get_all_operator_schema():
        if schema.domain not in _INTERNAL:
            schemas[schema.domain, schema.name].append(schema)
    found = []
    for (domain, name), versions in sorted(schemas.items()):
        own = [each for each in versions if _OWN_SOURCES in each.file and not each.deprecated]
        if not own:
            continue
        schema = max(own, key=lambda each: each.since_version)
        later = [each.since_version for each in versions if each.since_version > schema.since_version]
        parameters = [*schema.inputs, *schema.outputs]
        found.append(
            _Operator(
                domain or "ai.onnx",
                name,
                f"{schema.since_version}-{min(later) - 1 if later else ''}",
                " ".join(_parameter_text(each) for each in schema.inputs),
                " ".join(_parameter_text(each) for each in schema.outputs),
                {each.typeStr: frozenset(each.types) for each in parameters if "(" not in each.typeStr},
            )
        )
    return found


def _parameter_text(parameter: Any) -> str:
    return f"{parameter.name}:{parameter.typeStr}{'*' if 'Variadic' in str(parameter.option) else ''}"


def _signatures(operators: Iterable[_Operator], numbers: dict[str, int]) -> dict[str, dict[str, str]]:
    out: dict[str, dict[str, str]] = {}
    for each in operators:
        words = [each.versions, each.inputs, ">", each.outputs, *_types_text(each.types, numbers)]
        out.setdefault(each.domain, {})[each.name] = " ".join(word for word in words if word)
    return out
