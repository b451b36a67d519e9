"""What the operator watches: every event only puts the model's key on the queue.

No handler here makes kopf write anything: no finalizer, no annotation, no timer.
"""

from typing import Any

import kopf

from onnx_operator.api import names
from onnx_operator.controller.inspections import ModelKey
from onnx_operator.controller.kube import CHILD_KINDS, CONTROLLER_REVISION, ONNX_MODEL, POD, Kind
from onnx_operator.controller.queue import KeyedQueue

CHILD_DELAY_SECONDS = 0.1
"""Children change in bursts (a rollout touches a pod several times within moments): one look serves them all."""
WATCHED_CHILDREN = (*CHILD_KINDS, CONTROLLER_REVISION, POD)


def _resource(kind: Kind) -> tuple[str, str, str]:
    group, _, version = kind.api_version.rpartition("/")
    return group, version, kind.plural


def build_registry(queue: KeyedQueue[ModelKey], kubeconfig: str | None) -> kopf.OperatorRegistry:
    """The kopf handlers: log in, and turn events into keys."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**kwargs) if kubeconfig else kopf.login_with_service_account(**kwargs)

    async def model_changed(namespace: str | None, name: str | None, **_: Any) -> None:
        if namespace and name:
            queue.add((namespace, name))

    async def child_changed(namespace: str | None, labels: Any, **_: Any) -> None:
        model = labels.get(names.LABEL_MODEL)
        if namespace and model:
            queue.add_after((namespace, model), CHILD_DELAY_SECONDS)

    kopf.on.event(*_resource(ONNX_MODEL), registry=registry, id="model")(model_changed)
    for kind in WATCHED_CHILDREN:
        kopf.on.event(*_resource(kind), registry=registry, id=kind.plural)(child_changed)
    return registry


def build_settings() -> kopf.OperatorSettings:
    """Kopf's settings: watch what is ours, notice a stalled watch, write nothing."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 300
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    for kind in WATCHED_CHILDREN:
        settings.watching.label_selectors[_resource(kind)] = names.LABEL_MODEL
    return settings
