"""What each container of a pod asks for, and what it may take at most. Pure.

The server's figures follow from the model; what the namespace was found to demand bounds them, and whatever the user
gives wins. Containers that run before the server get what it gets: a pod counts as much as the larger of them, so that
it costs nothing, and the user's word holds for them too.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from onnx_operator.api.onnxmodel import Resources, Runtime
from onnx_operator.api.report import ModelReport
from onnx_operator.controller.observation.admission import RESOURCES, Demands
from onnx_operator.controller.revision.workload import cpu_request, work_of
from onnx_operator.controller.settings.quantities import MEBIBYTE, mebibytes, millicpus, parse_quantity
from onnx_operator.controller.settings.settings import Pool, ResourceSettings

MEMORY_LIMIT_FACTOR = 1.5
"""Headroom of the default memory limit over the estimate: larger batches need more than the one estimated for."""
ACTIVATION_COPIES = 2.5
"""What a request that runs beside the estimated one adds at most, in peaks of activations (measured)."""
MIN_MEMORY_LIMIT = 256 * MEBIBYTE
FETCH_MEMORY = (64 * MEBIBYTE, 256 * MEBIBYTE)
"""Bytes that ``fetch`` takes for sure, and at most."""
REQUIREMENTS_MEMORY = (64 * MEBIBYTE, 512 * MEBIBYTE)
INSPECTION_MEMORY = (192 * MEBIBYTE, 1536 * MEBIBYTE)
"""Of the pod that inspects; the child that parses may take 1 GiB."""
MIN_INSPECTION_LIMIT = 512 * MEBIBYTE
INSPECTION_CPUS = 0.05
INSPECTION_STORAGE = 128 * MEBIBYTE
"""Its volume, and its log."""

Amounts = dict[str, Any]
Amount = dict[str, Amounts]
"""``requests`` and ``limits`` of a container."""


@dataclass(frozen=True)
class Storage:
    """Bytes on the node's disk: what is sure to be used, and what there may be at most."""

    request: int
    limit: int


@dataclass(frozen=True)
class Needs:
    """What a pod's figures are made from."""

    report: ModelReport
    pool: Pool
    settings: ResourceSettings
    storage: Storage
    given: Resources | None = None
    """What the spec says."""
    measured_seconds: float | None = None
    """CPU time of a run, as an earlier pod measured it."""
    demands: Demands | None = None
    """What the namespace was found to demand."""


@dataclass(frozen=True)
class Containers:
    """``resources`` of each container, as manifests have them, and why they are so, for people."""

    server: Amount
    fetch: Amount
    requirements: Amount
    cpu_from: str
    limits_from: str


def containers(needs: Needs) -> Containers:
    """The resources of the containers of a pod that serves."""
    given, demands = needs.given or Resources(), needs.demands or Demands()
    gpu = needs.pool.runtime is Runtime.GPU
    rate = needs.pool.requests_per_second or needs.settings.requests_per_second
    work = work_of(needs.report, needs.measured_seconds, gpu=gpu)
    cpu = cpu_request(work, rate, float(parse_quantity(needs.settings.max_cpu)), gpu=gpu)
    memory = needs.report.memory
    roomy = memory.resident_bytes * MEMORY_LIMIT_FACTOR + memory.activations_bytes * ACTIVATION_COPIES
    server = _amount(
        # The limit has room for loading, which takes seconds; a node is shared by what they take afterwards.
        {"cpu": millicpus(cpu.cpus), "memory": mebibytes(memory.serving_bytes or memory.resident_bytes)},
        mebibytes(max(MIN_MEMORY_LIMIT, math.ceil(roomy))),
        needs.storage,
        needs.settings,
        given,
        demands,
        least_memory=memory.resident_bytes,
    )
    if gpu:
        # Kubernetes overcommits no devices: request and limit are the same.
        name = needs.pool.gpu_resource
        server["limits"].setdefault(name, server["requests"].get(name, 1))
        server["requests"].setdefault(name, server["limits"][name])
    return Containers(
        server=server,
        fetch=_before(server, FETCH_MEMORY, demands),
        requirements=_before(server, REQUIREMENTS_MEMORY, demands),
        cpu_from=_given_as("cpu", given) or _bounded("cpu", cpu.cpus, server, cpu.why),
        limits_from=_limits_from(needs.settings, demands),
    )


def inspection_resources(settings: ResourceSettings, given: Resources | None, demands: Demands) -> Amount:
    """The resources of the pod that inspects: the user's word counts for CPU, and for a smaller memory limit."""
    limits = (given and given.limits) or {}
    told = Resources(
        requests={k: v for k, v in ((given and given.requests) or {}).items() if k == "cpu"},
        limits={k: v for k, v in limits.items() if k == "cpu"},
    )
    least, most = INSPECTION_MEMORY
    if "memory" in limits:
        most = min(most, max(MIN_INSPECTION_LIMIT, int(parse_quantity(limits["memory"]))))
    return _amount(
        {"cpu": millicpus(INSPECTION_CPUS), "memory": mebibytes(least)},
        mebibytes(most),
        Storage(INSPECTION_STORAGE, INSPECTION_STORAGE),
        settings,
        told,
        demands,
    )


def _amount(
    requests: Amounts,
    memory_limit: str,
    storage: Storage,
    settings: ResourceSettings,
    given: Resources,
    demands: Demands,
    least_memory: int = 0,
) -> Amount:
    """A container's resources: its own, what all have, and what the user and the namespace say.

    ``least_memory``: bytes below which no memory limit is cut to fit the namespace.
    """
    always = settings.limits == "Always"
    if settings.ephemeral_storage:
        requests["ephemeral-storage"] = mebibytes(storage.request)
    requests, limits = _with_given(requests, {"memory": memory_limit}, given)
    wanted = {*demands.limits, *demands.maximum, *demands.ratio, *(RESOURCES if always else ())}
    if "cpu" in wanted:
        # Whole ones: what is throttled in the middle of a run helps nobody.
        limits.setdefault("cpu", str(max(1, math.ceil(parse_quantity(requests["cpu"])))))
    if "ephemeral-storage" in wanted:
        limits.setdefault("ephemeral-storage", _larger(mebibytes(storage.limit), requests.get("ephemeral-storage", 0)))
    return _within({"requests": requests, "limits": limits}, given, demands, least_memory)


def _with_given(requests: Amounts, limits: Amounts, given: Resources) -> tuple[Amounts, Amounts]:
    limits = limits | (given.limits or {})
    # As Kubernetes does: a limit without a request is the request.
    requests = requests | {k: v for k, v in (given.limits or {}).items() if k in requests} | (given.requests or {})
    for name, value in (given.requests or {}).items():
        # A default limit must not forbid a larger request of the user's.
        if name in limits and name not in (given.limits or {}):
            limits[name] = _larger(limits[name], value)
    return requests, limits


def _within(amount: Amount, given: Resources, demands: Demands, least_memory: int = 0) -> Amount:
    """The same, as far as nobody gave it, within what the namespace demands.

    Memory and disk are never cut below what the model is estimated to take, while it is loaded too: a pod that is
    killed tells less than one that is refused.
    """
    requests, limits = dict(amount["requests"]), dict(amount["limits"])
    ours = _ours(RESOURCES, given.requests, given.limits)
    own_limit = _ours(RESOURCES, given.limits)
    for name, least in demands.minimum.items():
        if name in ours:
            requests[name] = _larger(requests.get(name, 0), least)
        if name in own_limit and name in limits:
            limits[name] = _larger(limits[name], requests.get(name, least))
    for name, most in demands.maximum.items():
        if name == "cpu" and name in ours:
            requests[name] = _smaller(requests[name], most)
        taken = _larger(requests.get(name, 0), least_memory if name == "memory" else 0)
        if name in own_limit and name in limits and parse_quantity(taken) <= parse_quantity(most):
            limits[name] = _smaller(limits[name], most)
    for name, ratio in demands.ratio.items():
        if name in ours and name in limits:
            requests[name] = _larger(requests.get(name, 0), _share(limits[name], ratio, name))
    for name in own_limit & limits.keys() & requests.keys():
        limits[name] = _larger(limits[name], requests[name])
    return {"requests": requests, "limits": limits}


def _before(server: Amount, memory: tuple[int, int], demands: Demands) -> Amount:
    """Resources of a container that runs before the server, which takes so many bytes for sure, and at most."""
    requests, limits = ({k: v for k, v in server[kind].items() if k in RESOURCES} for kind in ("requests", "limits"))
    guaranteed = requests.get("memory") == limits.get("memory")
    limits["memory"] = _larger(limits.get("memory", 0), mebibytes(memory[1]))
    requests["memory"] = limits["memory"] if guaranteed else _larger(requests.get("memory", 0), mebibytes(memory[0]))
    return _within({"requests": requests, "limits": limits}, Resources(), demands)


def _ours(names: Iterable[str], *given: Mapping[str, Any] | None) -> set[str]:
    return set(names) - {name for each in given for name in each or {}}


def _larger(first: Any, second: Any) -> Any:
    return first if parse_quantity(first) >= parse_quantity(second) else second


def _smaller(first: Any, second: Any) -> Any:
    return first if parse_quantity(first) <= parse_quantity(second) else second


def _share(limit: Any, ratio: str, name: str) -> str:
    share = float(parse_quantity(limit) / parse_quantity(ratio))
    return millicpus(share) if name == "cpu" else mebibytes(math.ceil(share))


def _given_as(name: str, given: Resources) -> str:
    for kind, amounts in (("requests", given.requests), ("limits", given.limits)):
        if name in (amounts or {}):
            return f"spec.resources.{kind}.{name}"
    return ""


def _bounded(name: str, own: float, server: Amount, why: str) -> str:
    changed = parse_quantity(server["requests"][name]) != parse_quantity(millicpus(own))
    return f"{why}; changed to what the namespace allows" if changed else why


def _limits_from(settings: ResourceSettings, demands: Demands) -> str:
    told = ["setting resources.limits: Always"] if settings.limits == "Always" else []
    if demands:
        told.append(f"the namespace refused pods without: {demands.text()}")
    return "; ".join(told)
