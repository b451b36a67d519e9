"""How many nodes a model comes to, when each local function is put in the place of its calls."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onnx import FunctionProto, ModelProto, NodeProto

from onnx_operator.api.conditions import Reason
from onnx_operator.model.checks.bodies import has_definition
from onnx_operator.model.nodes import all_nodes, domain_of
from onnx_operator.model.refusal import RefusedError

_MAX_CALLS = 100_000
"""Inference goes through the body at each, and so does the runtime, which puts the body there."""
_MOST = 1 << 62
"""No count goes beyond it."""
_Key = tuple[str, str, str]


def check_size(model: ModelProto, max_nodes: int) -> None:
    """Refuse what nothing could go through in time, before anything goes through it. Takes time by the model's bytes.

    Nodes of subgraphs count, and those of a local function at each of its calls. Raises :class:`RefusedError`:
    ``TooLarge``, and ``InvalidGraph`` for a function that calls itself.
    """
    opsets = {domain_of(each.domain): each.version for each in model.opset_import}
    # An operator of the standard is never a call, whatever functions there are.
    called = [each for each in model.functions if not has_definition(_call(each), opsets)]
    bodies = {_key(function): _read(function.node) for function in called}
    main = _read(model.graph.node)
    times = _times_called(main, bodies)
    calls = min(_MOST, sum(times.values()))
    own = {key: min(_MOST, count * bodies[key].nodes) for key, count in times.items()}
    total = min(_MOST, main.nodes + sum(own.values()))
    if total <= max_nodes and calls <= _MAX_CALLS:
        return
    if not own or main.nodes > max_nodes:
        raise RefusedError(
            Reason.TOO_LARGE,
            f"The model has {main.nodes} nodes; the setting inspection.maxNodes allows {max_nodes}. Export a smaller"
            " model (a loop that was unrolled is often the cause), or have the setting raised.",
        )
    largest = max(own, key=lambda key: (own[key], times[key]))
    name = ".".join(filter(None, largest[:2]))
    grown = f"{_number(total)} nodes" if total > max_nodes else f"{_number(calls)} calls"
    allowed = f"expected at most {_MAX_CALLS}"
    if total > max_nodes:
        allowed = f"the setting inspection.maxNodes allows {max_nodes}"
    raise RefusedError(
        Reason.TOO_LARGE,
        f"The model's functions call each other so often that it comes to {grown} when each call is replaced by the"
        f" nodes of its function; {allowed}. Most are of the function {name}, which is called"
        f" {_number(times[largest])} times. Export the model without functions that call functions.",
    )


@dataclass(frozen=True)
class _Nodes:
    nodes: int
    calls: Counter[_Key]
    """Operators by how often they are used; those that are functions are calls."""


def _read(nodes: Iterable[NodeProto]) -> _Nodes:
    used = Counter(map(_called, all_nodes(nodes)))
    return _Nodes(used.total(), used)


def _times_called(main: _Nodes, bodies: Mapping[_Key, _Nodes]) -> dict[_Key, int]:
    """How often each function is called in all, those that are never called left out."""
    inner = {key: {c: n for c, n in body.calls.items() if c in bodies} for key, body in bodies.items()}
    first = {key: count for key, count in main.calls.items() if key in bodies}
    # Of what the model reaches: a function comes after all that call it.
    callers: Counter[_Key] = Counter()
    reached = set(first)
    waiting = list(first)
    while waiting:
        for key in inner[waiting.pop()]:
            callers[key] += 1
            if key not in reached:
                reached.add(key)
                waiting.append(key)
    times = dict(first)
    waiting = [key for key in first if not callers[key]]
    done = 0
    while waiting:
        caller = waiting.pop()
        done += 1
        for key, count in inner[caller].items():
            times[key] = min(_MOST, times.get(key, 0) + times[caller] * count)
            callers[key] -= 1
            if not callers[key]:
                waiting.append(key)
    if done < len(reached):
        looped = next(key for key in reached if callers[key])
        raise RefusedError(
            Reason.INVALID_GRAPH,
            f"The function {'.'.join(filter(None, looped[:2]))} is part of a circle of functions that call each other,"
            " or itself, so that no computation ends. Export the model again.",
        )
    return times


def _number(count: int) -> str:
    return f"more than {_MOST}" if count >= _MOST else str(count)


def _key(function: FunctionProto) -> _Key:
    return domain_of(function.domain), function.name, function.overload


def _call(function: FunctionProto) -> NodeProto:
    return NodeProto(domain=function.domain, op_type=function.name, overload=function.overload)


def _called(node: NodeProto) -> _Key:
    return domain_of(node.domain), node.op_type, node.overload
