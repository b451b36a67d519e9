"""A model as onnx's checker has to be given it, where the runtime is broader than the standard's letter."""

from collections.abc import Iterator, Sequence

import onnx
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from onnx_operator.model.checks.versions import called_functions, opsets_of
from onnx_operator.model.nodes import all_nodes, domain_of

_HIDDEN = "only.the.runtime.defines"
"""Domain for operators of the standard's domains that the onnx package does not know; it minds no foreign domain."""


_ALL_CONSTANTS = 9
"""The opset since which a Constant may be of any type (https://onnx.ai/onnx/operators/onnx__Constant.html)."""


_UNLISTED_INITIALIZERS = 4
"""The IR version since which initializers need not be inputs (https://github.com/onnx/onnx/blob/main/docs/IR.md)."""


def adapted(model: ModelProto) -> ModelProto:
    """Copy a model, its operators that only the runtime defines moved to a domain that the checker skips.

    Functions that nothing calls are left out: the runtime never looks at their nodes.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    opsets = opsets_of(copy.opset_import)
    called = called_functions(copy)
    del copy.functions[:]
    copy.functions.extend(called)
    owners: list[ModelProto | FunctionProto] = [copy, *copy.functions]
    for owner in owners:
        for each in owner.opset_import:
            each.domain = domain_of(each.domain)
    if opsets.get("", 1) < _ALL_CONSTANTS:
        _turn_into_initializers(copy.graph, listed=copy.ir_version < _UNLISTED_INITIALIZERS)
    hidden = False
    for node in _nodes(copy):
        domain = node.domain = domain_of(node.domain)
        if not domain and not onnx.defs.has(node.op_type, opsets.get(domain, 1), domain):
            node.domain = _HIDDEN
            hidden = True
    if hidden:
        for owner in owners:
            owner.opset_import.add(domain=_HIDDEN, version=1)
    return copy


def _turn_into_initializers(graph: GraphProto, listed: bool) -> None:
    """Turn Constant nodes whose type came to Constant later into initializers, as the runtime does when it loads.

    ``listed``: the format wants initializers among the inputs too.
    """
    for node in list(graph.node):
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _turn_into_initializers(inner, listed)
        value = next((a.t for a in node.attribute if a.name == "value" and a.HasField("t")), None)
        if node.op_type != "Constant" or domain_of(node.domain) or value is None or len(node.output) != 1:
            continue
        if value.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            graph.initializer.add().CopyFrom(value)
            graph.initializer[-1].name = node.output[0]
            if listed:
                graph.input.append(helper.make_tensor_value_info(node.output[0], value.data_type, value.dims))
            graph.node.remove(node)


def with_own_opsets(model: ModelProto) -> ModelProto:
    """Copy a model, its functions written for the operator sets of the model: there the runtime puts their bodies."""
    copy = ModelProto()
    copy.CopyFrom(model)
    opsets = opsets_of(copy.opset_import)
    for function in copy.functions:
        for each in function.opset_import:
            each.version = opsets.get(domain_of(each.domain), each.version)
    return copy


def restore(checked: ModelProto, functions: Sequence[onnx.FunctionProto]) -> ModelProto:
    """Undo in a checked model what :func:`adapted` changed; ``functions`` are the model's own."""
    for node in _nodes(checked):
        if node.domain == _HIDDEN:
            node.domain = ""
    kept = [each for each in checked.opset_import if each.domain != _HIDDEN]
    if len(kept) < len(checked.opset_import):
        copies = [onnx.OperatorSetIdProto(domain=each.domain, version=each.version) for each in kept]
        del checked.opset_import[:]
        checked.opset_import.extend(copies)
    del checked.functions[:]
    checked.functions.extend(functions)
    return checked


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    yield from all_nodes(model.graph.node)
    for function in model.functions:
        yield from all_nodes(function.node)
