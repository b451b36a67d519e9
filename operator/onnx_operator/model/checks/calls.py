"""How much the calls of a model's functions come to, when each is put in the place of its call."""

from collections import Counter

from onnx import FunctionProto, ModelProto, NodeProto

from onnx_operator.api.conditions import Reason
from onnx_operator.model.nodes import all_nodes, domain_of
from onnx_operator.model.refusal import RefusedError

_LARGEST = 100_000
"""Calls. Inference goes through the body at each, and so does the runtime, which puts the body there."""
_Key = tuple[str, str, str]


def check_calls(model: ModelProto) -> None:
    """Refuse functions that call functions so often that nothing could go through all of them.

    Raises :class:`RefusedError` (``TooLarge``). A cycle is not followed: it is for others to refuse.
    """
    called = {_key(function): _calls(function) for function in model.functions}
    waiting = Counter(key for key in map(_called, all_nodes(model.graph.node)) if key in called)
    total = sum(waiting.values())
    for _ in called:
        # One level of calls after the other; more levels than functions is a cycle.
        following: Counter[_Key] = Counter()
        for key, times in waiting.items():
            for inner, count in called[key].items():
                if inner in called:
                    following[inner] += times * count
        waiting = following
        total += sum(waiting.values())
        if total > _LARGEST:
            raise RefusedError(
                Reason.TOO_LARGE,
                f"The model's functions call each other so often that their nodes would be computed more than"
                f" {_LARGEST} times over. Export the model without functions that call functions.",
            )
        if not waiting:
            return


def _calls(function: FunctionProto) -> Counter[_Key]:
    return Counter(map(_called, all_nodes(function.node)))


def _key(function: FunctionProto) -> _Key:
    return domain_of(function.domain), function.name, function.overload


def _called(node: NodeProto) -> _Key:
    return domain_of(node.domain), node.op_type, node.overload
