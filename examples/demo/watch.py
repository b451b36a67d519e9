"""Following models until they are Ready or refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from examples.demo.console import timed
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError

KIND = "onnxmodels.onnx-operator.dev"


def condition(model: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """A condition that speaks of the present spec; None while there is none."""
    for seen in model.get("status", {}).get("conditions", []):
        if seen["type"] == kind and seen.get("observedGeneration") in (None, model["metadata"]["generation"]):
            return dict(seen)
    return None


def is_ready(model: dict[str, Any]) -> bool:
    """Whether the desired model serves."""
    return _is(model, "Ready", "True")


def is_refused(model: dict[str, Any]) -> bool:
    """Whether the model was looked at and found to be no good."""
    return _is(model, "ModelValid", "False")


def _is(model: dict[str, Any], kind: str, status: str) -> bool:
    current = model.get("status", {}).get("observedGeneration") == model["metadata"]["generation"]
    seen = condition(model, kind)
    return current and seen is not None and seen["status"] == status


def follow(
    cluster: Cluster,
    namespace: str,
    names: Collection[str],
    done: Callable[[dict[str, Any]], bool],
    timeout: float,
) -> dict[str, dict[str, Any]]:
    """Say every change of a reason until `done` holds for all models, and return them by name."""
    started = time.monotonic()
    said: dict[str, str] = {}
    while True:
        models = {m["metadata"]["name"]: m for m in cluster.list(KIND, namespace)}
        for name in names:
            news = _news(models.get(name))
            if news and said.get(name) != news[0]:
                said[name] = news[0]
                timed(f"{name:<11} {news[1]}", started)
        waiting = [name for name in names if name not in models or not done(models[name])]
        if not waiting:
            return {name: models[name] for name in names}
        if time.monotonic() - started > timeout:
            raise ClusterError(_explain(cluster, namespace, waiting, timeout))
        time.sleep(0.3)


def _news(model: dict[str, Any] | None) -> tuple[str, str] | None:
    """What makes a change, and the line that tells it."""
    ready = condition(model, "Ready") if model else None
    if ready is None:
        return None
    key = f"{ready['status']} {ready['reason']}"
    message = ready.get("message", "")
    state = "Ready" if ready["status"] == "True" else "not ready"
    return key, f"{state}, {ready['reason']}{f': {message}' if message else ''}"


def _explain(cluster: Cluster, namespace: str, waiting: Collection[str], timeout: float) -> str:
    described = cluster.run_kubectl("describe", KIND, *waiting, "--namespace", namespace, check=False)
    return "\n\n".join(
        [
            f"not in {timeout:g} s: {', '.join(waiting)}",
            (described.stdout + described.stderr).rstrip(),
            cluster.diagnose(namespace),
        ]
    )
