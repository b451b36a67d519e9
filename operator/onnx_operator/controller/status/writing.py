"""Tells a model's status, and the Events of what is new in it. The only place that writes them."""

import time

from onnx_operator.api import names
from onnx_operator.api.conditions import ConditionType
from onnx_operator.api.onnxmodel import OnnxModelSpec, OnnxModelStatus
from onnx_operator.api.readable import readable_spec
from onnx_operator.controller.cluster import times
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.keys import ModelKey, key_of
from onnx_operator.controller.cluster.kinds import ONNX_MODEL, Object
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.revision.kept_inputs import wants_warmth
from onnx_operator.controller.rollout.revising import Revising
from onnx_operator.controller.status.events import changed_conditions, post_events
from onnx_operator.controller.status.facts import FactReader
from onnx_operator.controller.status.pace import Pace
from onnx_operator.controller.status.status import Situation, compute_status, interrupted
from onnx_operator.controller.telemetry import metrics


class StatusWriter:
    """Writes statuses, each where it differs and at its pace."""

    def __init__(self, kube: Kube, queue: KeyedQueue[ModelKey], revising: Revising, identity: str) -> None:
        self._kube = kube
        self._queue = queue
        self._revising = revising
        self._identity = identity
        self._facts = FactReader(kube, queue)
        self._pace = Pace(time.monotonic)
        self._tally = metrics.ModelTally()

    def forget(self, key: ModelKey, uid: str | None) -> None:
        """The model is gone; without ``uid`` nothing was ever told of it."""
        if uid:
            self._facts.forget(uid)
            self._pace.forget(uid)
        self._tally.forget(key)
        metrics.MODEL_STATES.forget(key)

    async def update(self, model: Object, situation: Situation, before: OnnxModelStatus) -> None:
        """Tell what is new of a model; ``before`` is its status as it stands.

        Raises:
            ApiError, OSError: the API server failed in a way that trying again may cure.
        """
        metadata, key = model["metadata"], key_of(model)
        if situation.current:
            ready = [
                p.name for p in situation.observation.live_pods() if p.ready and p.revision == situation.current.name
            ]
            told = before.started and before.started.revision == situation.current.name
            if not told or wants_warmth(situation.current):
                started = self._facts.poll(metadata["uid"], key, situation.current.name, min(ready) if ready else None)
                if warm := self._facts.warm_up(metadata["uid"], situation.current.name):
                    # Before the status, which tells that all facts are kept.
                    await self._revising.started(model, situation.current, warm)
                    self._facts.noted(metadata["uid"])
                # Servers that do not tell of it are asked at each start of the operator: that is no news.
                if (started and started.warmed is not None) or not told:
                    situation = Situation(**{**situation.__dict__, "started": started})
        after = compute_status(situation, before, times.time())
        await self.write(model, situation.spec, before, after)

    async def interrupted(self, model: Object, before: OnnxModelStatus, why: str) -> None:
        """Tell why a model could not be looked at; raises as :meth:`update` does."""
        after = interrupted(before, model["metadata"]["generation"], why, times.time())
        await self.write(model, readable_spec(model["spec"])[0], before, after)

    async def write(
        self,
        model: Object,
        spec: OnnxModelSpec,
        before: OnnxModelStatus,
        after: OnnxModelStatus,
        *,
        silent: bool = False,
    ) -> None:
        """Write a status where it differs from ``before``; ``silent`` without Events. Raises as :meth:`update` does."""
        metadata, key = model["metadata"], key_of(model)
        wanted, serving = 0 if spec.suspend else spec.replicas, after.ready_replicas or 0
        metrics.MODEL_STATES.observe(key, after.conditions, wanted, serving)
        ready_condition = next(c for c in after.conditions if c.type == ConditionType.READY)
        self._tally.observe(key, ready_condition.status, ready_condition.reason)
        if after == before:
            return
        if (wait := self._pace.wait(metadata["uid"], before, after)) > 0:
            self._queue.add_after(key, wait)
            return
        if not silent:
            await post_events(self._kube, model, changed_conditions(before, after), self._identity)
        metrics.API_WRITES.labels(kind=ONNX_MODEL.kind, verb="status").inc()
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "status": after.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        try:
            await self._kube.apply(ONNX_MODEL, manifest, manager=names.FIELD_MANAGER_STATUS, subresource="status")
        except ApiError as error:
            # Deleted in the meantime: there is nobody to tell.
            if error.status not in (404, 409):
                raise
            if error.status == 409:
                # Made anew, which the next look finds; or somebody else was faster, and it is told then.
                self._queue.retry(key)
                return
        self._pace.wrote(metadata["uid"])
