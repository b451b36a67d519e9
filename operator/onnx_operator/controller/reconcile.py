"""Reconciling one model: read what is, decide, make it so, tell. May run twice, late, or after a crash at any line."""

import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable

from onnx_operator.api.capabilities import Capabilities
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec, OnnxModelStatus
from onnx_operator.api.readable import readable_spec, readable_status
from onnx_operator.controller.cluster import times
from onnx_operator.controller.cluster.answers import API_FAILURES, ApiError, failure
from onnx_operator.controller.cluster.keys import ModelKey, key_of
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, ONNX_MODEL, Object
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.cluster.sight import ModelChangedError, Sight
from onnx_operator.controller.inspection.asking import Asking
from onnx_operator.controller.inspection.conclusions import changed_source, inspection_key, persisted_result
from onnx_operator.controller.inspection.inspections import Inspections, Poll
from onnx_operator.controller.observation.observe import Cause, Observation, observe, replica_failure
from onnx_operator.controller.revision.fetching import needs_pod
from onnx_operator.controller.revision.permissions import forbidden
from onnx_operator.controller.revision.revisions import pod_spec
from onnx_operator.controller.revision.seal import digest
from onnx_operator.controller.rollout.alterations import altered
from onnx_operator.controller.rollout.children import (
    Children,
    ChildrenError,
    apply_children,
    check_names,
    desired_children,
    list_children,
    list_replica_sets,
    prune,
    prune_revisions,
    scale,
)
from onnx_operator.controller.rollout.contest import Contests
from onnx_operator.controller.rollout.deciding import Deciding, Decision
from onnx_operator.controller.rollout.history import History, settings_cause
from onnx_operator.controller.rollout.holding import holds
from onnx_operator.controller.rollout.keeping import keep, newer_version
from onnx_operator.controller.rollout.outcome import heed, with_good
from onnx_operator.controller.rollout.revising import Revising
from onnx_operator.controller.settings.settings import Settings
from onnx_operator.controller.status.hands_off import PAUSED, hands_off_status, is_paused
from onnx_operator.controller.status.status import Situation
from onnx_operator.controller.status.writing import StatusWriter
from onnx_operator.inspector import InspectorClient

logger = logging.getLogger(__name__)

CHANGED_SECONDS = 1.0
"""A model that was another than expected is looked at again; mostly its change has woken it before."""
NOT_SEALED_MESSAGE = (
    "revision {name} carries no seal of this operator's (it was written by another installation or by somebody else, "
    "or the Secret with the key was lost), and this operator would make other pods of the same spec: what runs is left "
    "as it is, apart from replicas; the next change of the spec rolls out a revision of this operator's"
)


def _once(call: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """The same, done once, unless it failed."""
    done = False

    async def again() -> None:
        nonlocal done
        if not done:
            await call()
            done = True

    return again


def failed_cause(error: Exception, generation: int) -> Cause:
    """Why the children of a model are not as a generation of its spec asks for, where calls failed."""
    refused = isinstance(error, ApiError) and error.refused
    return Cause(
        Reason.CREATION_FAILED if refused else Reason.API_UNAVAILABLE,
        f"what generation {generation} asks for is not all in place, and is tried again: {failure(error)}",
    )


class _LeftOverError(Exception):
    """What is not wanted any more cannot be deleted; all that is wanted is in place."""

    def __init__(self, told: Cause | None, error: Exception) -> None:
        super().__init__(f"what is not wanted any more cannot be deleted: {failure(error)}")
        self.told = told
        self.error = error


class Reconciler:
    """Brings models to what they ask for, one call a model."""

    def __init__(
        self,
        kube: Kube,
        settings: Settings,
        capabilities: Capabilities,
        inspector: InspectorClient,
        queue: KeyedQueue[ModelKey],
        identity: str,
        revising: Revising,
        sight: Sight | None = None,
    ) -> None:
        """Begin without any memory; without ``sight`` all is read from the API server."""
        self._kube = kube
        self._sight = sight or Sight(kube)
        self._settings = settings
        self._revising = revising
        self._queue = queue
        self._inspections = Inspections(queue)
        self._asking = Asking(kube, self._sight, settings, capabilities, inspector)
        self._deciding = Deciding(self._sight, revising, queue)
        self._statuses = StatusWriter(kube, queue, revising, identity)
        self._contests = Contests(time.monotonic)
        self._uids: dict[ModelKey, str] = {}
        self._failing: set[str] = set()
        """UIDs of models whose last look failed."""

    def _forget(self, key: ModelKey) -> None:
        uid = self._uids.pop(key, None)
        if uid:
            self._inspections.forget(uid)
            self._deciding.forget(uid)
            self._contests.forget(uid)
            self._failing.discard(uid)
        self._statuses.forget(key, uid)
        self._queue.forget(key)

    async def reconcile(self, key: ModelKey) -> None:
        """Look at one model and do what is due.

        Raises:
            ApiError: the API server failed in a way that trying again may cure.
        """
        model = await self._sight.get(ONNX_MODEL, *key)
        if model is None or "deletionTimestamp" in model["metadata"]:
            # Children go by their owner references.
            self._forget(key)
            return
        uid = model["metadata"]["uid"]
        if self._uids.get(key) not in (None, uid):
            self._forget(key)
        self._uids[key] = uid
        try:
            await self._look(key, model)
        except ModelChangedError as error:
            logger.info("looked at in vain: %s", error, extra={"model": "/".join(key)})
            self._queue.add_after(key, CHANGED_SECONDS)

    async def _look(self, key: ModelKey, model: Object) -> None:
        uid, generation = model["metadata"]["uid"], model["metadata"]["generation"]
        confirm = _once(lambda: self._sight.confirm(model))
        spec, fault = readable_spec(model["spec"])
        status = readable_status(model.get("status"))
        try:
            children, observation = await self._read(model)
            if is_paused(model):
                await self._hands_off(model, PAUSED, spec, observation, status, silent=True)
                return
            children = await self._revising.adopt(model, children, confirm)
            known = await self._revising.read(model, children, observation.revision)
            if newer := newer_version(fault, known):
                await self._keep(model, newer, spec, known, observation, children, status, confirm)
                return
        except API_FAILURES as error:
            if self._is_told(model, status, error):
                with contextlib.suppress(*API_FAILURES):
                    await self._statuses.interrupted(model, status, failure(error))
            raise
        known = await with_good(self._revising, self._queue, model, known, observation)
        current = known.current

        inspection = inspection_key(spec, model, self._settings.signatures)
        refusal = forbidden(spec, key[0], self._settings)
        poll, decision = Poll(None, inspecting=False), Decision(current, refusal)
        cause: Cause | None = None
        outdated: Cause | None = None
        failed: Exception | None = None
        try:
            if refusal:
                # Nothing is read, and no pod made, for what may not run; what is under way ends.
                self._inspections.forget(uid)
            else:
                poll = self._inspections.poll(
                    uid,
                    key,
                    inspection,
                    # Many may wait for their turn: none keeps more than its name meanwhile.
                    run=functools.partial(
                        self._asking.inspect, key, uid, inspection, by_pod=needs_pod(spec, self._settings)
                    ),
                    persisted=persisted_result(inspection, spec, status, known.own),
                    changed=changed_source(observation, current)
                    if current and current.data.uri == spec.model.uri
                    else None,
                    asked=digest(pod_spec(spec)),
                )
                serving = status.serving.revision if status.serving else ""
                decision = await self._deciding.decide(
                    model,
                    spec,
                    inspection,
                    poll.result,
                    known,
                    children,
                    serving,
                    observation,
                    confirm,
                    hold=holds(spec, key[0], self._settings),
                )
            decision = await heed(self._revising, model, spec, inspection, decision, known, observation, self._settings)
            cause = decision.cause
            if decision.current and cause is None:
                outdated = await self._apply(model, spec, decision, observation, known, children, confirm)
        except ChildrenError as error:
            cause = error.cause
        except _LeftOverError as error:
            outdated, failed = error.told, error.error
        except API_FAILURES as error:
            if not self._is_told(model, status, error):
                raise
            failed, cause = error, failed_cause(error, generation)
        if failed is None:
            self._failing.discard(uid)
            if cause or replica_failure(observation.deployment):
                # What a ReplicaSet tells, the Deployment may not: that is no news to anybody who watches.
                self._queue.retry(key)
            else:
                self._queue.succeeded(key)

        others = [r for r in known.own if not decision.current or r.name != decision.current.name]
        situation = Situation(
            name=key[1],
            namespace=key[0],
            generation=generation,
            spec=spec,
            inspection_key=inspection,
            inspecting=poll.inspecting,
            source_changed=poll.source_changed,
            result=poll.result,
            refusal=decision.refusal,
            current=decision.current,
            revisions=tuple([*others, decision.current] if decision.current else others),
            observation=observation,
            cause=cause,
            withheld=decision.withheld,
            alone=decision.alone,
            outdated=outdated,
            started=status.started,
            trouble=poll.trouble,
        )
        if failed is None:
            await self._statuses.update(model, situation, status)
            return
        with contextlib.suppress(*API_FAILURES):
            await self._statuses.update(model, situation, status)
        raise failed

    async def _hands_off(
        self,
        model: Object,
        cause: Cause,
        spec: OnnxModelSpec,
        observation: Observation,
        before: OnnxModelStatus,
        *,
        silent: bool = False,
    ) -> None:
        """Tell of a model of which nothing is changed; ``silent`` without Events."""
        self._inspections.forget(model["metadata"]["uid"])
        generation = model["metadata"]["generation"]
        after = hands_off_status(cause, spec, generation, observation, before, times.time())
        await self._statuses.write(model, spec, before, after, silent=silent)

    async def _keep(
        self,
        model: Object,
        cause: Cause,
        spec: OnnxModelSpec,
        known: History,
        observation: Observation,
        children: Children,
        before: OnnxModelStatus,
        confirm: Callable[[], Awaitable[None]],
    ) -> None:
        """Repair and scale what a newer version made, and tell so."""
        try:
            await keep(self._kube, model, spec, known, observation, children, self._settings, confirm)
        except ChildrenError as error:
            cause = Cause(cause.reason, f"{cause.message}. {error.cause.message}")
            self._queue.retry(key_of(model))
        else:
            self._queue.succeeded(key_of(model))
        await self._hands_off(model, cause, spec, observation, before)

    async def _read(self, model: Object) -> tuple[Children, Observation]:
        """What there is of a model."""
        children = await list_children(self._sight, model, self._revising.reader(model), self._revising.recall(model))
        deployment = children.find(DEPLOYMENT.kind, model["metadata"]["name"])
        refused = deployment is not None and replica_failure(deployment) is not None
        replica_sets = await list_replica_sets(self._kube, deployment) if deployment and refused else None
        return children, observe(deployment, list(children.pods), replica_sets)

    def _is_told(self, model: Object, status: OnnxModelStatus, error: Exception) -> bool:
        """Whether people are to know of calls that failed.

        Where the status speaks of this generation already, most failures pass before the next try.
        """
        uid = model["metadata"]["uid"]
        lasts, passes = uid in self._failing, isinstance(error, ApiError) and error.status == 409
        self._failing.add(uid)
        return lasts or not (passes or status.observed_generation == model["metadata"]["generation"])

    async def _apply(
        self,
        model: Object,
        spec: OnnxModelSpec,
        decision: Decision,
        observation: Observation,
        known: History,
        children: Children,
        confirm: Callable[[], Awaitable[None]],
    ) -> Cause | None:
        """Make the children what they should be, or leave them running; the cause why they are left, if told.

        Raises:
            ChildrenError: there is nothing to be left running, or the API server refuses a child.
        """
        current, live = decision.current, observation.deployment
        if current is None:
            return None
        cause = settings_cause(current, spec, model["metadata"]["namespace"], self._settings)
        # Until spec and source have confirmed it, a revision is not rolled out that does not run already; nor is one
        # that an earlier model of the name left behind, which may have been of anything.
        running = observation.revision
        inherited = not running and current.created < model["metadata"].get("creationTimestamp", "")
        unsure = not decision.confirmed and (inherited or running not in ("", current.name))
        if cause or unsure or not current.trust.holds:
            if live:
                await scale(self._kube, live, spec)
            elif cause:
                raise ChildrenError(
                    Cause(Reason.CREATION_FAILED, f"revision {current.name} is not run: {cause.message}")
                )
            if cause:
                return Cause(Reason.SETTINGS_CHANGED, f"revision {current.name} is left as it is: {cause.message}")
            if not current.trust.holds:
                return Cause(Reason.NOT_SEALED, NOT_SEALED_MESSAGE.format(name=current.name))
            return None
        pool = next((p for p in self._settings.effective_pools() if p.name == current.data.pool), None)
        wanted = desired_children(model, spec, current, pool.rollout if pool else None)
        settled = await self._contests.settled(self._kube, model, wanted, live)
        if settled.cause:
            self._queue.add_after(key_of(model), settled.wait)
        desired = settled.desired
        await check_names(self._kube, model, desired, children)
        await apply_children(self._kube, desired, children, confirm)
        if settled.restores:
            self._contests.restored(model["metadata"]["uid"])
        told = settled.cause or altered(desired, children.find)
        try:
            await prune(self._kube, desired, children)
            namespace = model["metadata"]["namespace"]
            await prune_revisions(self._kube, namespace, known.own, current, children, decision.wanted)
        except API_FAILURES as error:
            raise _LeftOverError(told, error) from error
        return told
