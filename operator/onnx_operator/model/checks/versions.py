"""Whether the serving runtime is new enough for a model: IR version, operator sets, operators."""

from collections.abc import Iterable

import onnx
from onnx import FunctionProto, ModelProto, NodeProto, OperatorSetIdProto

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import Capabilities
from onnx_operator.model.checks.kerneltable import defined_by_runtime
from onnx_operator.model.checks.schemas import find_schema
from onnx_operator.model.nodes import STANDARD_DOMAINS, all_nodes, domain_of, domain_text, node_text
from onnx_operator.model.refusal import RefusedError


def opsets_of(imports: Iterable[OperatorSetIdProto]) -> dict[str, int]:
    """Collect versions by domain; the default domain is the empty string."""
    return {domain_of(each.domain): each.version for each in imports}


def check_versions(model: ModelProto, capabilities: Capabilities) -> None:
    """Refuse what the runtime is too old for.

    Raises :class:`RefusedError`: ``UnsupportedIRVersion``, ``UnsupportedOpset``, ``UnknownOperator``, or
    ``InvalidGraph`` for an operator whose domain the model does not import.
    """
    runtime = f"ONNX Runtime {capabilities.onnx_runtime_version} of the server image"
    if model.ir_version > capabilities.ir_version:
        raise RefusedError(
            Reason.UNSUPPORTED_IR_VERSION,
            f"The model has IR version {model.ir_version}; {runtime} reads at most {capabilities.ir_version}. Save it"
            f" with ir_version={capabilities.ir_version} or lower, or use a newer server image.",
        )
    functions = {(domain_of(f.domain), f.name) for f in model.functions}
    _check_repeated(model)
    imports = opsets_of(model.opset_import)
    _check_opsets(imports, capabilities, runtime)
    _import_known_domains(model, imports, capabilities)
    _check_operators(model.graph.node, imports, functions, capabilities, runtime)
    for function in model.functions:
        own = opsets_of(function.opset_import)
        _check_opsets(own, capabilities, runtime)
    for function in called_functions(model):
        own = opsets_of(function.opset_import)
        _check_function(function, own)
        # The runtime puts the body in the place of the call, where the model's own versions count.
        _check_operators(function.node, own | imports, functions, capabilities, runtime)


def called_functions(model: ModelProto) -> list[FunctionProto]:
    """The local functions that nodes of the model call, directly or through others; the rest is never computed."""
    known = {(domain_of(f.domain), f.name, f.overload): f for f in model.functions}
    called: dict[tuple[str, str, str], FunctionProto] = {}
    bodies = [model.graph.node]
    while bodies and known:
        for node in all_nodes(bodies.pop()):
            key = (domain_of(node.domain), node.op_type, node.overload)
            if key in known and key not in called:
                called[key] = known[key]
                bodies.append(known[key].node)
    return list(called.values())


def _check_repeated(model: ModelProto) -> None:
    seen: set[tuple[str, str, str]] = set()
    for function in model.functions:
        key = (domain_of(function.domain), function.name, function.overload)
        if key in seen:
            raise RefusedError(
                Reason.INVALID_GRAPH,
                f"Two local functions of {domain_text(key[0])} have the name {function.name}. Remove one of them.",
            )
        seen.add(key)


def _import_known_domains(model: ModelProto, imports: dict[str, int], capabilities: Capabilities) -> None:
    """Complete the model by what the runtime takes for granted: the newest version of a domain that it knows."""
    newest = {domain_of(domain): version for domain, version in capabilities.opsets.items()}
    for domain in {domain_of(node.domain) for node in all_nodes(model.graph.node)} - imports.keys():
        if domain in newest and imports:
            imports[domain] = newest[domain]
            model.opset_import.add(domain=domain, version=newest[domain])


def _check_function(function: FunctionProto, imports: dict[str, int]) -> None:
    """Hold a body against the operator sets that the function itself declares."""
    for node in all_nodes(function.node):
        domain = domain_of(node.domain)
        if domain not in imports:
            raise _no_import(node, f"its function {function.name}")
        schema = find_schema(domain, node.op_type, imports[domain]) if domain in STANDARD_DOMAINS else None
        if schema is not None and not schema.min_input <= len(node.input) <= schema.max_input:
            raise RefusedError(
                Reason.INVALID_GRAPH,
                f"{node_text(node)[:1].upper()}{node_text(node)[1:]} in the function {function.name} has"
                f" {len(node.input)} inputs; {node.op_type} of opset {imports[domain]}, which the function declares,"
                f" takes {schema.min_input} to {schema.max_input}. Export the model again with a current exporter.",
            )


def _no_import(node: NodeProto, owner: str) -> RefusedError:
    return RefusedError(
        Reason.INVALID_GRAPH,
        f"The operator of {node_text(node)} belongs to {domain_text(domain_of(node.domain))}, of which {owner} declares"
        " no operator set (opset_import).",
    )


def _check_opsets(imports: dict[str, int], capabilities: Capabilities, runtime: str) -> None:
    newest = {domain_of(domain): version for domain, version in capabilities.opsets.items()}
    for domain, version in imports.items():
        if not 0 <= version < 1 << 31:
            raise RefusedError(
                Reason.UNSUPPORTED_OPSET,
                f"The model uses version {version} of {domain_text(domain)}, which does not exist. Export it again.",
            )
    for domain, version in imports.items():
        if domain in newest and version > newest[domain]:
            raise RefusedError(
                Reason.UNSUPPORTED_OPSET,
                f"The model uses opset {version} of {domain_text(domain)}; {runtime} supports at most"
                f" {newest[domain]}. Export it with opset {newest[domain]} or lower, or use a newer server image.",
            )


def _check_operators(
    nodes: Iterable[NodeProto],
    imports: dict[str, int],
    functions: set[tuple[str, str]],
    capabilities: Capabilities,
    runtime: str,
) -> None:
    known = {(domain_of(domain), name) for domain, names in capabilities.operators.items() for name in names}
    for node in all_nodes(nodes):
        domain = domain_of(node.domain)
        operator = (domain, node.op_type)
        version = imports.get(domain)
        if version is None:
            raise _no_import(node, "the model")
        if operator in functions or operator in known or defined_by_runtime(capabilities, *operator, version):
            continue
        if domain not in STANDARD_DOMAINS:
            raise RefusedError(
                Reason.UNKNOWN_OPERATOR,
                f"The operator {node.op_type} of {node_text(node)} belongs to the domain {domain}, which is neither a"
                f" function of the model nor known to {runtime}. Export the model without custom operators, or"
                " use a server image that brings them.",
            )
        _check_standard(node, domain, version, runtime)


def _check_standard(node: NodeProto, domain: str, version: int, runtime: str) -> None:
    where = f"opset {version} of {domain_text(domain)}"
    try:
        schema = onnx.defs.get_schema(node.op_type, version, domain)
    except onnx.defs.SchemaError:
        newer = [
            s.since_version
            for s in onnx.defs.get_all_schemas_with_history()
            if s.name == node.op_type and s.domain == domain
        ]
        advice = (
            f"It exists since opset {min(newer)}: export the model with that opset or a newer one."
            if newer
            else f"No version of {domain_text(domain)} has it, and {runtime} does not either: export the model without"
            " it."
        )
        raise RefusedError(
            Reason.UNKNOWN_OPERATOR,
            f"The operator {node.op_type} of {node_text(node)} is not part of {where}. {advice}",
        ) from None
    if schema.deprecated:
        raise RefusedError(
            Reason.UNKNOWN_OPERATOR,
            f"The operator {node.op_type} of {node_text(node)} was removed in opset {schema.since_version} of"
            f" {domain_text(domain)}, and the model uses opset {version}. Export it again with a current"
            " exporter, or with an older opset.",
        )
