"""How an update moves through a Deployment's pods: by the spec, else the pool, else the number of pods. Pure.

None of it reaches the pods. It is laid over a revision's manifest whenever that is applied, as replicas are, so that a
change of it restarts nothing and makes no revision.
"""

from typing import Any

from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.rollout import Steps, is_none

Spec = dict[str, Any]

ONE_BY_ONE = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
"""What our own template says. One of the platform team's may say otherwise, and is then taken at its word."""
FEW = 4
"""Up to so many replicas go one by one: a quarter of them is one pod."""
SHARE = "25%"


def with_rollout(deployment: Spec, spec: OnnxModelSpec, pool: Steps | None, replicas: int) -> Spec:
    """The spec of a Deployment that moves as the model, its pool or the number of its replicas asks for.

    Args:
        deployment: the Deployment's spec, as the revision holds it.
        spec: of the model.
        pool: what the pool says, where there is one.
        replicas: pods that are wanted.
    """
    asked = spec.rollout
    said = Steps(max_surge=asked.max_surge, max_unavailable=asked.max_unavailable) if asked else Steps()
    deadline = asked.progress_deadline_seconds if asked else None
    found = {**deployment, "strategy": _strategy(deployment.get("strategy"), said, pool or Steps(), replicas)}
    if found["strategy"] is None:
        del found["strategy"]
    least = deployment.get("progressDeadlineSeconds")
    if deadline is not None:
        # Never given up before a pod may have started: its image, its download and its start have their own limits.
        found["progressDeadlineSeconds"] = max(deadline, least) if type(least) is int else deadline
    return found


def _strategy(rendered: Any, said: Steps, pool: Steps, replicas: int) -> Any:
    surge = said.max_surge if said.max_surge is not None else pool.max_surge
    unavailable = said.max_unavailable if said.max_unavailable is not None else pool.max_unavailable
    share: int | str = 1 if replicas <= FEW else SHARE
    if surge is None and unavailable is None:
        if rendered != ONE_BY_ONE or share == 1:
            return rendered
        return _rolling(share, 0)
    if surge is None:
        surge = share
    if unavailable is None:
        unavailable = share if is_none(surge) else 0
    if is_none(surge) and is_none(unavailable):
        # The spec forbids one of the two, the pool the other: the spec's word stands.
        if said.max_unavailable is not None:
            surge = share
        else:
            unavailable = share
    return _rolling(surge, unavailable)


def _rolling(surge: int | str, unavailable: int | str) -> Any:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
