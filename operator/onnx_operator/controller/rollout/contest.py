"""Who else scales a model's Deployment, and how often that is undone.

Replicas are the model's: whoever changes them on the Deployment has it undone at once. An autoscaler does it again
each few seconds; two who never give in would write for ever, and replace pods each time.
"""

from collections.abc import Callable
from dataclasses import dataclass

from onnx_operator.api import names
from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import shorten
from onnx_operator.common.backoff import Backoff
from onnx_operator.controller.cluster.kinds import DEPLOYMENT, Object
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.observation.observe import Cause
from onnx_operator.controller.observation.pods import mapping, mappings, text
from onnx_operator.controller.revision.merge import contains
from onnx_operator.controller.revision.render import Manifest

AT_ONCE = 2
"""Times that replicas are restored without a pause: somebody tried it by hand."""
_BACKOFF = Backoff(first=30.0, longest=600.0, spread=0.0)
OVER_SECONDS = 1800.0
"""After so long without another change it is forgotten."""
MAX_MANAGERS = 3
MAX_NAME_BYTES = 64


def only_scaled(live: Object, manifest: Manifest) -> bool:
    """Whether a Deployment is as it was applied but for its replicas.

    The annotation with the hash of what was applied tells a change by the model's owner from one by somebody else.
    """
    replicas = mapping(live.get("spec")).get("replicas")
    unscaled = {**manifest, "spec": {**manifest["spec"], "replicas": replicas}}
    return replicas != manifest["spec"].get("replicas") and contains(live, unscaled)


def scalers(live: Object) -> str:
    """Who has set the replicas of an object, by its managed fields, for people; empty where nobody else has."""
    metadata, found = mapping(live.get("metadata")), []
    for entry in mappings(metadata.get("managedFields"), 64):
        manager = text(entry.get("manager"), 128)
        sets = "f:replicas" in mapping(mapping(entry.get("fieldsV1")).get("f:spec"))
        if sets and manager and manager != names.FIELD_MANAGER:
            through = " through /scale" if entry.get("subresource") == "scale" else ""
            found.append(shorten(manager, MAX_NAME_BYTES) + through)
    return ", ".join(found[:MAX_MANAGERS])


@dataclass(frozen=True)
class Settled:
    """What is applied, and what is told of others who scale."""

    desired: list[Manifest]
    cause: Cause | None = None
    wait: float = 0.0
    """Seconds after which replicas are restored, where they are left now."""
    restores: bool = False
    """Whether applying it restores replicas: :meth:`Contests.restored` is told once that is done."""


@dataclass
class _Contest:
    restored: int = 0
    last: float = 0.0
    who: str = ""
    """Who else scales, once it has been asked for."""


class Contests:
    """How often the replicas of each model were restored, by its UID."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock`` tells seconds."""
        self._clock = clock
        self._known: dict[str, _Contest] = {}

    def wait(self, uid: str) -> float:
        """Seconds until replicas that somebody else has changed are restored; 0 where they are now."""
        known = self._known.get(uid)
        if known is None or known.restored < AT_ONCE:
            return 0.0
        since = self._clock() - known.last
        if since > OVER_SECONDS:
            del self._known[uid]
            return 0.0
        return max(0.0, _BACKOFF.after(known.restored - AT_ONCE + 1) - since)

    def restored(self, uid: str) -> None:
        """They have just been restored."""
        known = self._known.setdefault(uid, _Contest())
        known.restored, known.last = known.restored + 1, self._clock()

    def forget(self, uid: str) -> None:
        """The model is gone."""
        self._known.pop(uid, None)

    async def settled(self, kube: Kube, model: Object, desired: list[Manifest], live: Object | None) -> Settled:
        """The children as they are to be applied, where somebody else has scaled the Deployment.

        Args:
            kube: asked who it was, once a contest: managed fields are not kept.
            model: the OnnxModel.
            desired: its children, as it asks for them.
            live: the Deployment.
        """
        uid, manifest = model["metadata"]["uid"], next((m for m in desired if m["kind"] == DEPLOYMENT.kind), None)
        if live is None or manifest is None or not only_scaled(live, manifest):
            return Settled(desired)
        wait = self.wait(uid)
        if wait <= 0:
            return Settled(desired, restores=True)
        known = self._known[uid]
        if not known.who:
            found = await kube.get(DEPLOYMENT, live["metadata"]["namespace"], live["metadata"]["name"])
            known.who = scalers(found or live) or "somebody else"
        theirs = mapping(live.get("spec")).get("replicas")
        left = {**manifest, "spec": {**manifest["spec"], "replicas": theirs}}
        message = (
            f"{known.who} scales the Deployment to {theirs} again and again, the model asks for "
            f"{manifest['spec']['replicas']}: have it scale the OnnxModel, which has /scale; replicas are restored "
            "ever less often meanwhile"
        )
        return Settled([left if m is manifest else m for m in desired], Cause(Reason.SCALED_BY_OTHERS, message), wait)
