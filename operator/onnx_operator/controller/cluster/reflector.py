"""Follows objects of one kind in one namespace, or in all: a scan, then a watch from there on, for ever.

What goes wrong in one namespace is that namespace's own: it is told, tried again later each time, and keeps no other
from being followed. https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import asyncio
import logging
from collections.abc import Iterable

from onnx_operator.common.backoff import Backoff
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.kinds import Kind, Object
from onnx_operator.controller.cluster.kube import GONE, Kube
from onnx_operator.controller.cluster.store import Store
from onnx_operator.controller.telemetry import metrics

logger = logging.getLogger(__name__)

_BACKOFF = Backoff(first=0.5, longest=30.0)
SHORT_SECONDS = 5.0
"""A watch that ends sooner has failed, whatever it says: it is not asked for again and again."""
MAX_FAILURES = 3
"""Failures in a row after which what was missed is not waited for, but all is scanned anew."""
LOST_SECONDS = 30.0
"""How long what is known still counts while it cannot be followed: an API server takes seconds to restart."""
_REFUSED = (401, 403, 404)


class Reflector:
    """Tells a store of one kind in one namespace (None: in all)."""

    def __init__(self, kube: Kube, store: Store, kind: Kind, scope: str | None) -> None:
        self.kind = kind
        self.scope = scope
        self.tried = asyncio.Event()
        """Set once the first scan is over, or has failed."""
        self._kube = kube
        self._store = store
        self._labels = store.shapes[kind].labels
        self._version = ""
        """Up to which everything was told; empty where all has to be scanned."""
        self._opened: float | None = None
        self._failures = 0
        self._failing_since: float | None = None
        self._lost = False

    @property
    def lost(self) -> bool:
        """Whether its objects cannot be followed for now."""
        return self._lost

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self._opened = None
            try:
                if not self._version:
                    await self._scan()
                await self._kube.watch(self.kind, self.scope, self._labels, self._version, self._see)
                trouble: Exception | None = None
            except (ApiError, OSError, TimeoutError) as error:
                trouble = error
            except Exception as error:
                # A fault of ours: this kind is behind, and the others go on.
                logger.exception("following failed", extra=self._told())
                self._version = ""
                trouble = error
            lasted = _now() - self._opened if self._opened else 0.0
            if lasted >= SHORT_SECONDS:
                self._failures, self._failing_since = 0, None
            if trouble or lasted < SHORT_SECONDS:
                wait = self._failed(trouble)
                self.tried.set()
                await asyncio.sleep(wait)

    async def _scan(self) -> None:
        scan = self._store.scanning(self.kind, self.scope)
        version = await self._kube.scan(
            self.kind, self.scope, self._labels, lambda item: self._store.scanned(self.kind, item, scan)
        )
        self._store.settled(self.kind, self.scope, version, scan)
        self._version = version
        self.tried.set()
        if self._lost:
            self._lost = False
            metrics.NOT_FOLLOWED.labels(kind=self.kind.kind, namespace=self.scope or "").set(0)
            logger.info("followed again", extra=self._told())

    def _see(self, event: str, item: Object) -> None:
        if self._opened is None:
            self._opened = _now()
            return
        self._store.watched(self.kind, self.scope, event, item)
        version = item["metadata"].get("resourceVersion")
        if isinstance(version, str) and version:
            self._version = version
        self._failures, self._failing_since = 0, None

    def _failed(self, error: Exception | None) -> float:
        """What a failure means for what is known; the seconds to wait before the next try."""
        self._failures += 1
        self._failing_since = self._failing_since or _now()
        status = error.status if isinstance(error, ApiError) else 0
        if status == GONE or self._failures >= MAX_FAILURES:
            self._version = ""
        if status in _REFUSED or _now() - self._failing_since >= LOST_SECONDS:
            self._lose(error)
        elif status != GONE:
            logger.info("a watch ended early, and is tried again: %s", error or "without a word", extra=self._told())
        return 0.0 if status == GONE and self._failures == 1 else _BACKOFF.after(self._failures)

    def _lose(self, error: Exception | None) -> None:
        self._version = ""
        self._store.lost(self.kind, self.scope)
        if not self._lost:
            self._lost = True
            metrics.NOT_FOLLOWED.labels(kind=self.kind.kind, namespace=self.scope or "").set(1)
            logger.error(
                "objects cannot be followed, models are looked at without them: %s",
                error or "watches end at once",
                extra=self._told(),
            )

    def _told(self) -> dict[str, str]:
        return {"kind": self.kind.kind, "namespace": self.scope or "all namespaces"}


class Reflectors:
    """One reflector for each kind of a store and each namespace."""

    def __init__(self, kube: Kube, store: Store, namespaces: Iterable[str] = ()) -> None:
        """Begin with ``start``; without namespaces all are followed."""
        scopes: list[str | None] = list(namespaces) or [None]
        self._all = [Reflector(kube, store, kind, scope) for scope in scopes for kind in store.shapes]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Follow in the background; returns once everything has been scanned, or has refused to be."""
        self._tasks = [asyncio.create_task(each.run(), name=f"follow {each.kind.plural}") for each in self._all]
        for each in self._all:
            await each.tried.wait()

    def degraded(self) -> dict[str, list[str]]:
        """By namespace ("" for all together), the kinds that cannot be followed there for now."""
        found: dict[str, list[str]] = {}
        for each in self._all:
            if each.lost:
                found.setdefault(each.scope or "", []).append(each.kind.kind)
        return found

    async def stop(self) -> None:
        """Follow no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _now() -> float:
    return asyncio.get_running_loop().time()
