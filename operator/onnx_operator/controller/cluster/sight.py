"""Reads what the operator looks at: from the store where that knows it, otherwise from the API server.

What is in the store may be some moments old. Where that could hurt, the API server is asked: before anything is made
for a model (:meth:`Sight.confirm`), or an object taken over that is not known to be the model's.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from onnx_operator.api import names
from onnx_operator.controller.cluster.kinds import ONNX_MODEL, Kind, Object
from onnx_operator.controller.cluster.kube import LIST_ITEMS, Kube
from onnx_operator.controller.cluster.store import Handle, Large, Store

_AT_ONCE = 100
"""Objects that are unpacked before others have their turn."""


class ModelChangedError(Exception):
    """The model is gone, on its way out, or another than what was looked at: it is to be looked at again."""


class Sight:
    """What is there, by name and by model."""

    def __init__(self, kube: Kube, store: Store | None = None) -> None:
        """Look through ``store``; without one, always at the API server."""
        self._kube = kube
        self._store = store or Store({})

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, or None where there is none; raises as :meth:`~.kube.Kube.get` does.

        An OnnxModel that is not selected is another installation's: there is none.
        """
        if self._store.knows(kind, namespace):
            found = self._store.find(kind, namespace, name)
            # One without the labels that its kind is followed by may be there all the same.
            absent = found is None and (kind == ONNX_MODEL or not self._store.shapes[kind].labels)
            if absent or isinstance(found, dict):
                return found if isinstance(found, dict) else None
        live = await self._kube.get(kind, namespace, name)
        return live if live is None or kind != ONNX_MODEL or self._selects(live) else None

    def _selects(self, model: Object) -> bool:
        """Whether a model is one of this installation's."""
        shape = self._store.shapes.get(ONNX_MODEL)
        return shape is None or shape.selects(model)

    async def list(
        self,
        kind: Kind,
        namespace: str,
        labels: Mapping[str, str],
        keep: Callable[[Object], Any] = lambda item: item,
        *,
        in_part: bool = False,
        recall: Callable[[Handle], Any] = lambda handle: None,
    ) -> list[Any]:
        """What ``keep`` makes of the objects that carry these labels, as :meth:`~.kube.Kube.list` does.

        ``recall`` may know it of an object that need not be unpacked for it.
        """
        if set(labels) != {names.LABEL_MODEL} or not self._store.knows(kind, namespace):
            return await self._kube.list(kind, namespace, labels, keep, in_part=in_part)
        found: list[Any] = []
        model = labels[names.LABEL_MODEL]
        for number, handle in enumerate(self._store.handles(kind, namespace, model)):
            if number % _AT_ONCE == _AT_ONCE - 1:
                # Strangers may have labelled thousands.
                await asyncio.sleep(0)
            if not handle.large and (kept := recall(handle)) is not None:
                found.append(kept)
                continue
            item = handle.load()
            shown = await self._kube.get(kind, namespace, item.name) if isinstance(item, Large) else item
            # By now it may have lost its label.
            carried = (shown["metadata"].get("labels") or {}).get(names.LABEL_MODEL) if shown else None
            if shown is not None and carried == model and (kept := keep(shown)) is not None:
                found.append(kept)
                if in_part and len(found) >= LIST_ITEMS:
                    break
        return found

    async def confirm(self, model: Object, *, same_spec: bool = True) -> None:
        """See that the model is there at this moment, so that nothing is made for one that is gone.

        Args:
            model: as it was looked at.
            same_spec: whether it must still ask for the same.

        Raises:
            ModelChangedError: it is not; what is there instead is in the store.
            ApiError, OSError: the API server cannot be asked.
        """
        metadata = model["metadata"]
        key = (metadata["namespace"], metadata["name"])
        live = await self._kube.get(ONNX_MODEL, *key)
        if live is None or live["metadata"]["uid"] != metadata["uid"]:
            self._store.missed(ONNX_MODEL, *key, metadata["uid"])
        if live is None:
            raise ModelChangedError("it is gone")
        self._store.heard(ONNX_MODEL, live)
        now = live["metadata"]
        if now["uid"] != metadata["uid"] or "deletionTimestamp" in now:
            raise ModelChangedError("it is gone, or on its way out")
        if not self._selects(live):
            raise ModelChangedError("it is left to another installation by now")
        paused = [(m.get("annotations") or {}).get(names.ANNOTATION_PAUSED) for m in (now, metadata)]
        if paused[0] != paused[1]:
            raise ModelChangedError("it has been paused, or goes on, by now")
        if same_spec and now.get("generation") != metadata.get("generation"):
            raise ModelChangedError(f"it is at generation {now.get('generation')} by now")
