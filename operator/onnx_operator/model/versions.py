"""Whether the serving runtime is new enough for a model: IR version, operator sets, operators."""

from collections.abc import Iterable

import onnx
from onnx import ModelProto, NodeProto, OperatorSetIdProto

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import Capabilities
from onnx_operator.model.nodes import STANDARD_DOMAINS, all_nodes, domain_of, domain_text, node_text
from onnx_operator.model.skeleton import RefusedError


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
    imports = opsets_of(model.opset_import)
    _check_opsets(imports, capabilities, runtime)
    _check_operators(model.graph.node, imports, functions, capabilities, runtime)
    for function in model.functions:
        # A function that imports nothing itself uses the model's versions.
        own = imports | opsets_of(function.opset_import)
        _check_opsets(own, capabilities, runtime)
        _check_operators(function.node, own, functions, capabilities, runtime)


def _check_opsets(imports: dict[str, int], capabilities: Capabilities, runtime: str) -> None:
    newest = {domain_of(domain): version for domain, version in capabilities.opsets.items()}
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
        if operator in functions or operator in known:
            continue
        version = imports.get(domain)
        if version is None:
            raise RefusedError(
                Reason.INVALID_GRAPH,
                f"The operator of {node_text(node)} belongs to {domain_text(domain)}, of which the model declares no"
                " operator set (opset_import).",
            )
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
