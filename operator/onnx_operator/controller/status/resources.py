"""What pods ask for and why, as the status tells it. Pure."""

import math
from collections.abc import Mapping
from typing import Any

from onnx_operator.api import names
from onnx_operator.api.onnxmodel import EffectiveResources, Started
from onnx_operator.api.report import shorten
from onnx_operator.controller.cluster.kinds import DEPLOYMENT
from onnx_operator.controller.revision.revisions import RevisionData, Sizing
from onnx_operator.controller.settings.quantities import parse_quantity

MAX_AMOUNTS = 4
"""Of requests, and of limits: CPU, memory, disk, and a GPU."""
MAX_NAME_BYTES = 40
MAX_AMOUNT_BYTES = 16
MAX_WHY_BYTES = 144
_FIRST = ("cpu", "memory", "ephemeral-storage")


def effective_resources(data: RevisionData, started: Started | None) -> EffectiveResources | None:
    """What the server of a revision asks for; None where its manifests do not say.

    Args:
        data: of the revision, which anybody may have written.
        started: what one of its pods told, if one has.
    """
    container = _server(data)
    if container is None:
        return None
    given = container.get("resources")
    resources = given if isinstance(given, dict) else {}
    sizing = data.sizing or Sizing()
    requests, limits = _amounts(resources.get("requests")), _amounts(resources.get("limits"))
    return EffectiveResources(
        requests=requests,
        limits=limits,
        cpu_from=shorten(sizing.cpu, MAX_WHY_BYTES),
        limits_from=shorten(sizing.limits, MAX_WHY_BYTES),
        threads=started.intra_op_threads if started else None,
        threads_from=_threads_from(data, requests, limits, started),
    )


def _server(data: RevisionData) -> Mapping[str, Any] | None:
    for manifest in data.manifests:
        if manifest["kind"] == DEPLOYMENT.kind:
            spec = manifest["spec"].get("template", {}).get("spec")
            containers = spec.get("containers") if isinstance(spec, dict) else None
            for container in containers if isinstance(containers, list) else []:
                if isinstance(container, dict) and container.get("name") == names.CONTAINER_SERVER:
                    return container
    return None


def _amounts(given: Any) -> dict[str, str]:
    amounts = given if isinstance(given, dict) else {}
    ordered = sorted(amounts, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), str(name)))
    return {
        shorten(str(name), MAX_NAME_BYTES): shorten(str(amounts[name]), MAX_AMOUNT_BYTES)
        for name in ordered[:MAX_AMOUNTS]
    }


def _threads_from(
    data: RevisionData, requests: Mapping[str, str], limits: Mapping[str, str], started: Started | None
) -> str:
    session = data.spec.get("session") or {}
    if session.get("intraOpThreads"):
        return "spec.session.intraOpThreads"
    if started is None or started.intra_op_threads is None:
        return ""
    if started.processes and started.processes > 1:
        return f"one in each of {started.processes} processes"
    for amounts, word in ((limits, "limit"), (requests, "request")):
        if "cpu" in amounts:
            if started.intra_op_threads == _rounded_up(amounts["cpu"]):
                return f"the CPU {word}, rounded up"
            break
    # A LimitRange's default limit, say, or a node of fewer cores.
    return "what the namespace or the node gives the container"


def _rounded_up(cpus: str) -> int | None:
    try:
        return max(1, math.ceil(parse_quantity(cpus)))
    except (ArithmeticError, ValueError):
        return None
