"""Node pools: which one a model lands on, and how models without a GPU stay off the expensive nodes."""

from itertools import product
from typing import Any

from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec, Runtime
from onnx_operator.api.report import ModelReport
from onnx_operator.controller.settings.quantities import mebibytes
from onnx_operator.controller.settings.settings import Pool
from onnx_operator.model.refusal import RefusedError

MAX_AFFINITY_TERMS = 64


def _misfit(pool: Pool, runtime: Runtime, namespace: str, needed_bytes: int) -> str | None:
    if pool.runtime is not runtime:
        return f"it is for runtime {pool.runtime}, the model asks for {runtime}"
    if not pool.allows(namespace):
        return f"it is not open to namespace {namespace!r} (allowed: {', '.join(pool.allowed_namespaces)})"
    memory = pool.accelerator_memory_bytes if runtime is Runtime.GPU else None
    if memory is not None and memory < needed_bytes:
        return f"its accelerators have {pool.accelerator_memory}, the model needs about {mebibytes(needed_bytes)}"
    return None


def choose_pool(spec: OnnxModelSpec, namespace: str, report: ModelReport, pools: list[Pool]) -> Pool:
    """The pool that was asked for, or the smallest one that fits.

    Raises:
        RefusedError: ``NoMatchingPool``, the pool does not exist or does not fit, or none fits.
    """
    return _choose(spec, namespace, report.memory.weights_bytes + report.memory.activations_bytes, pools)


def check_pools(spec: OnnxModelSpec, namespace: str, pools: list[Pool]) -> None:
    """See that some pool is open to the model, or the one that it names, however much memory it will need.

    Raises:
        RefusedError: ``NoMatchingPool``, none is.
    """
    _choose(spec, namespace, 0, pools)


def _choose(spec: OnnxModelSpec, namespace: str, needed: int, pools: list[Pool]) -> Pool:
    runtime = spec.effective_runtime
    if spec.node_pool:
        named = next((p for p in pools if p.name == spec.node_pool), None)
        if named is None:
            known = ", ".join(p.name for p in pools if p.allows(namespace)) or "none"
            raise _no_pool(f"spec.nodePool: there is no pool {spec.node_pool!r}; pools open to this namespace: {known}")
        misfit = _misfit(named, runtime, namespace, needed)
        if misfit:
            raise _no_pool(f"spec.nodePool: pool {named.name!r} does not fit: {misfit}")
        return named

    misfits = {p.name: _misfit(p, runtime, namespace, needed) for p in pools}
    fitting = [p for p in pools if misfits[p.name] is None]
    if not fitting:
        detail = "; ".join(f"{name}: {why}" for name, why in misfits.items()) or "no pool is defined"
        raise _no_pool(
            f"no node pool fits runtime {runtime} in namespace {namespace!r} ({detail}); "
            "ask the platform team for a pool, or set spec.nodePool or spec.runtime"
        )
    return min(fitting, key=lambda p: p.accelerator_memory_bytes or float("inf"))


def _no_pool(message: str) -> RefusedError:
    return RefusedError(Reason.NO_MATCHING_POOL, message)


def avoid_pools(pools: list[Pool]) -> list[dict[str, Any]]:
    """Node selector terms that keep a pod off the nodes of these pools.

    A node belongs to a pool when it carries *all* labels of the pool's selector, so staying off means that at least
    one differs. Terms are alternatives, and expressions within one must all hold: one term for each way to pick a
    differing label from each pool. A pool without a selector cannot be told from other nodes and is left to its taints.

    Returns:
        ``nodeSelectorTerms``; empty when there is nothing to stay off.
    """
    choices = [sorted(p.node_selector.items()) for p in pools if p.node_selector]
    if not choices:
        return []
    count = 1
    for options in choices:
        count *= len(options)
    if count > MAX_AFFINITY_TERMS:
        # One label a pool is stricter than needed, but never lets a pod onto a GPU node.
        choices = [options[:1] for options in choices]
    terms = []
    for pick in product(*choices):
        excluded: dict[str, set[str]] = {}
        for key, value in pick:
            excluded.setdefault(key, set()).add(value)
        terms.append(
            {
                "matchExpressions": [
                    {"key": key, "operator": "NotIn", "values": sorted(values)}
                    for key, values in sorted(excluded.items())
                ]
            }
        )
    unique: list[dict[str, Any]] = []
    for term in terms:
        if term not in unique:
            unique.append(term)
    return unique
