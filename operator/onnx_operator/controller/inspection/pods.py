"""Inspecting by pods: each is made, watched while it runs, heard, and deleted.

It is deleted before its result counts: so a pod that is found belongs to an inspection that nobody concluded, and
whoever finds it goes on with it.
"""

import asyncio
import logging
from collections.abc import Callable

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.onnxmodel import OnnxModelSpec
from onnx_operator.api.report import InspectionRequest, InspectionResult, shorten
from onnx_operator.api.schemes import claim_of, scheme_of
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.kinds import POD, Object
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.owners import is_controlled_by
from onnx_operator.controller.inspection.pod import (
    CONTAINER,
    FROM_SPEC,
    altered,
    inspection_pod,
    start_cause,
    started,
    terminated,
)
from onnx_operator.controller.observation.admission import Demands, advice, demands_of, of_amounts
from onnx_operator.controller.observation.observe import pod_cause
from onnx_operator.controller.observation.pods import MAX_TEXT_LENGTH
from onnx_operator.controller.revision.render import Manifest, TemplateError
from onnx_operator.controller.settings.settings import Settings
from onnx_operator.controller.telemetry import metrics
from onnx_operator.inspector.report import LOG_BYTES, ReportError, find_report
from onnx_operator.model.inspection.fair import FairPlaces
from onnx_operator.model.refusal import RefusedError

logger = logging.getLogger(__name__)

PODS = 64
"""Inspection pods at the same time."""
PODS_PER_NAMESPACE = 8
STARTING_SECONDS = 300.0
"""Longest time to the start of the container: volumes are attached and images pulled meanwhile."""
FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 2.0
GOING_SECONDS = 60.0
"""Longest wait for an earlier pod of the name to be gone."""
LOG_ATTEMPTS = 5
MAX_LESSONS = 8
"""Refusals of one pod that are learned from: a namespace has a few things to ask, not ever more."""
MAX_CAUSE = 280
"""Bytes of the API server's words on a pod for which the namespace has no room; what to do is told after them."""
_CONTAINERS = frozenset({CONTAINER})


class InspectionPods:
    """Inspects by pods. Calls may overlap; a cancelled one deletes its pod."""

    def __init__(self, kube: Kube, settings: Settings) -> None:
        self._kube = kube
        self._settings = settings
        # One tenant's pods that cannot start never take all places.
        self._places = FairPlaces(PODS, PODS_PER_NAMESPACE)

    async def inspect(
        self, model: Object, spec: OnnxModelSpec, key: str, request: InspectionRequest
    ) -> InspectionResult:
        """Inspect a model in its namespace; whatever keeps the pod from telling is a refusal that is tried again.

        Args:
            model: the OnnxModel.
            spec: its spec.
            key: of the inspection; with the model's uid it names the pod.
            request: what to do, without credentials.

        Raises:
            ApiError, OSError: the API server failed in the middle. The pod stays, and the next call goes on with it.
        """
        namespace = model["metadata"]["namespace"]
        try:
            if not self._settings.inspector_image:
                raise RefusedError(
                    Reason.SOURCE_REFUSED,
                    f"{scheme_of(spec.model.uri)} sources of this kind are inspected by a pod in the model's "
                    "namespace, for which the operator's settings give no image (setting inspectorImage)",
                )
            async with self._places.hold(namespace):

                def build(demands: Demands) -> Manifest:
                    return inspection_pod(model, spec, key, request, self._settings, demands)

                return await self._carry_out(model, build, claim_of(spec.model.uri), request)
        except RefusedError as error:
            return error.result()
        except TemplateError as error:
            message = f"the operator's settings are wrong (templatesDirectory): {error}"
        except ApiError as error:
            if error.status != 403:
                raise
            message = f"the operator may not inspect by a pod: {error.message}"
        return _retried(message).result()

    async def _carry_out(
        self, model: Object, build: Callable[[Demands], Manifest], claim: str, request: InspectionRequest
    ) -> InspectionResult:
        manifest = build(Demands())
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        try:
            # An operator that was killed may have left one of an earlier key.
            await self._delete(model, lambda found: found != name)
            pod = await self._make(model, manifest, build)
            try:
                result = await self._await_report(pod, claim, request)
            except RefusedError as error:
                result = error.result()
            # First: a result that counted already would leave a pod that nobody looks for.
            await self._delete(model, lambda found: found == name)
        except asyncio.CancelledError:
            try:
                await self._delete(model, lambda found: found == name)
            except Exception as error:
                # On the way out: the next life goes on with the pod, or it goes with its model.
                logger.info("an inspection pod stays: %s", error, extra={"pod": f"{namespace}/{name}"})
            raise
        return result

    async def _delete(self, model: Object, chosen: Callable[[str], bool]) -> None:
        """Delete those of the model's inspection pods whose names are chosen."""
        metadata = model["metadata"]
        labels = {names.LABEL_INSPECTION: metadata["name"]}
        own = await self._kube.list(
            POD,
            metadata["namespace"],
            labels,
            lambda pod: {"metadata": pod["metadata"]} if is_controlled_by(pod, model) else None,
        )
        for pod in own:
            found = pod["metadata"]
            if chosen(found["name"]) and "deletionTimestamp" not in found:
                metrics.API_WRITES.labels(kind=POD.kind, verb="delete").inc()
                await self._kube.delete(POD, found["namespace"], found["name"], found["uid"])

    async def _make(self, model: Object, manifest: Manifest, build: Callable[[Demands], Manifest]) -> Object:
        """Create the pod, or find the one that an earlier life made; what the namespace demands of it, it gets.

        A pod of the name counts only where it is what would be made now: anybody who may create pods can be first,
        with this name and the model as its owner. Any other is deleted, and made anew.
        """
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        began, demands, lessons = _now(), Demands(), 0
        while True:
            try:
                metrics.API_WRITES.labels(kind=POD.kind, verb="create").inc()
                pod = await self._kube.create(POD, manifest)
            except ApiError as error:
                if error.status != 409:
                    wanted = demands.and_also(demands_of(error.message[:MAX_TEXT_LENGTH], _CONTAINERS))
                    if error.refused and wanted != demands and lessons < MAX_LESSONS:
                        demands, manifest, lessons = wanted, build(wanted), lessons + 1
                        continue
                    if error.refused:
                        raise _not_made(error) from None
                    raise
            else:
                logger.info("inspecting by a pod", extra={"model": _shown(model), "pod": name})
                return pod
            found = await self._kube.get(POD, namespace, name)
            if found and not is_controlled_by(found, model):
                raise _retried(f"there is a pod {name!r} already that is somebody else's; delete it")
            if found and "deletionTimestamp" not in found["metadata"]:
                difference = altered(await self._as_made(manifest), found)
                if not difference:
                    return found
                logger.warning(
                    "a pod is not the one that inspects, and is made anew",
                    extra={"model": _shown(model), "pod": name, "field": difference},
                )
                metrics.API_WRITES.labels(kind=POD.kind, verb="delete").inc()
                await self._kube.delete(POD, namespace, name, found["metadata"]["uid"])
            if _now() - began > GOING_SECONDS:
                raise _retried(
                    f"an earlier pod {name!r} is still there; to see why, run: "
                    f"kubectl describe pod -n {namespace} {name}"
                )
            await asyncio.sleep(FIRST_PAUSE_SECONDS)

    async def _as_made(self, manifest: Manifest) -> Object:
        """The pod as the API server would make it now, with all defaults and by all webhooks; nothing is stored."""
        metadata = {key: value for key, value in manifest["metadata"].items() if key != "name"}
        nameless = {**manifest, "metadata": metadata | {"generateName": "onnx-inspection-"}}
        return await self._kube.create(POD, nameless, dry_run=True)

    async def _await_report(self, pod: Object, claim: str, request: InspectionRequest) -> InspectionResult:
        """Wait for the pod's end and read its report."""
        namespace, name, uid = (pod["metadata"][field] for field in ("namespace", "name", "uid"))
        longest = self._settings.inspection.timeout_seconds
        began = _now()
        begun: float | None = None
        since: dict[str, float] = {}
        pause = FIRST_PAUSE_SECONDS
        while True:
            found = await self._kube.get(POD, namespace, name)
            if found is None or found["metadata"]["uid"] != uid:
                raise _retried("the pod that inspects was deleted before it reported")
            difference = altered(pod, found)
            if difference:
                raise _retried(
                    f"the pod that inspects was changed by somebody ({difference}), so its report does not count"
                )
            ended = terminated(found)
            if ended:
                return await self._conclude(found, ended, request)
            status = found.get("status", {})
            if status.get("phase") == "Failed" or "deletionTimestamp" in found["metadata"]:
                raise _retried(self._failure(status))
            now = _now()
            begun = begun or (now if started(found) else None)
            cause = start_cause(found, claim)
            if cause and now - since.setdefault(cause.kind, now) >= cause.patience:
                raise RefusedError(cause.reason, cause.message, retriable=True)
            if begun is None and now - began > STARTING_SECONDS:
                raise _retried(cause.message if cause else _unknown_cause(namespace, name))
            if begun is not None and now - begun > longest + MAX_PAUSE_SECONDS:
                raise _retried(self._too_long())
            await asyncio.sleep(pause)
            pause = min(MAX_PAUSE_SECONDS, pause * 1.2)

    async def _conclude(self, pod: Object, ended: Object, request: InspectionRequest) -> InspectionResult:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        if pod.get("status", {}).get("reason") == "DeadlineExceeded":
            raise _retried(self._too_long())
        if ended.get("reason") == "OOMKilled":
            raise RefusedError(
                Reason.TOO_LARGE, "Reading the model's structure takes more memory than its inspection may use."
            )
        if ended.get("exitCode") != 0:
            cause = pod_cause(pod)
            raise _retried(f"the pod that inspects failed: {cause.message if cause else 'it does not say why'}")
        told = ""
        for attempt in range(LOG_ATTEMPTS):
            # The log may reach the kubelet after the news that its writer has ended.
            await asyncio.sleep(attempt * FIRST_PAUSE_SECONDS)
            try:
                log = await self._kube.log(namespace, name, CONTAINER, LOG_BYTES)
                return find_report(log, request, self._settings.inspection.max_model_bytes)
            except (ApiError, OSError, TimeoutError) as error:
                told = f"the log of the pod that inspects cannot be read: {error}"
            except ReportError as error:
                told = f"the report of the pod that inspects does not count: {error}"
        raise _retried(told)

    def _too_long(self) -> str:
        longest = self._settings.inspection.timeout_seconds
        return f"the inspection took longer than {longest:g} s (setting inspection.timeoutSeconds)"

    def _failure(self, status: Object) -> str:
        if status.get("reason") == "DeadlineExceeded":
            return self._too_long()
        why = ": ".join(filter(None, (status.get("reason"), status.get("message")))) or "it was deleted"
        return f"the pod that inspects failed before it reported: {why}"


def _retried(message: str) -> RefusedError:
    return RefusedError(Reason.SOURCE_UNREACHABLE, message, retriable=True)


def _not_made(error: ApiError) -> RefusedError:
    """Why the API server takes no pod that inspects; none of it says anything about the model or its source."""
    refusal = error.message[:MAX_TEXT_LENGTH]
    message = f"the pod that inspects cannot be made: {error.message}"
    if of_amounts(refusal):
        told = "; ".join(filter(None, (advice(refusal, _CONTAINERS), FROM_SPEC)))
        # What to do is told after it, and must not be cut off.
        cause = shorten(message, MAX_CAUSE)
        return RefusedError(Reason.QUOTA_EXCEEDED, f"{cause}; {told}", retriable=True)
    reason = Reason.CREATION_FAILED if error.by_admission else Reason.SOURCE_UNREACHABLE
    return RefusedError(reason, message, retriable=True)


def _unknown_cause(namespace: str, name: str) -> str:
    return (
        f"the pod that inspects did not start within {STARTING_SECONDS:g} s; to see why, run: "
        f"kubectl get events -n {namespace} --field-selector involvedObject.name={name}"
    )


def _shown(model: Object) -> str:
    return f"{model['metadata']['namespace']}/{model['metadata']['name']}"


def _now() -> float:
    return asyncio.get_running_loop().time()
