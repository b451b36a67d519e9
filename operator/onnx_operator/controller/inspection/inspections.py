"""Inspections in flight: started by reconciling, run beside the workers, so that no model waits for another's source.

What is concluded is kept in the status (and for accepted models in the revision); this memory only spares asking again.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from onnx_operator.api.conditions import Reason
from onnx_operator.api.reasons import REASONS
from onnx_operator.api.report import InspectionResult
from onnx_operator.api.sources import SourcePin
from onnx_operator.controller.cluster.keys import ModelKey
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.telemetry import metrics

logger = logging.getLogger(__name__)

Run = Callable[[], Awaitable[InspectionResult]]

FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 600.0
MOST_CHANGES = 16
"""Claims of pods that are remembered: anybody who makes pods that look like the model's can make up new ones."""


@dataclass
class _Entry:
    key: str
    result: InspectionResult | None = None
    task: asyncio.Task[None] | None = None
    attempts: int = 0
    not_before: float = 0.0
    again: bool = False
    """A refusal of an earlier life: settings, volumes and images may have changed since, so it is checked once."""
    judged: SourcePin | None = None
    changes_seen: dict[str, None] = field(default_factory=dict)
    """What pods found and was looked at, since the source last brought something new."""


@dataclass(frozen=True)
class Look:
    """What is known of a model's inspection at this moment."""

    result: InspectionResult | None
    inspecting: bool
    source_changed: bool = False


class Inspections:
    """At most one inspection a model; a finished one puts the model back on the queue."""

    def __init__(self, queue: KeyedQueue[ModelKey]) -> None:
        self._queue = queue
        self._entries: dict[str, _Entry] = {}

    def look(
        self,
        uid: str,
        model: ModelKey,
        key: str,
        run: Run,
        persisted: InspectionResult | None,
        changed: SourcePin | None = None,
    ) -> Look:
        """The state of the inspection that ``key`` names; starts it where that is due.

        Args:
            uid: of the OnnxModel.
            model: put on the queue when there is news.
            key: hash of everything that the result depends on.
            run: does the inspection.
            persisted: what an earlier life of the operator concluded for this key.
            changed: what a pod found at the source instead of what was inspected.
        """
        entry = self._entries.get(uid)
        if entry is None or entry.key != key:
            if entry and entry.task:
                entry.task.cancel()
            entry = self._entries[uid] = _Entry(key, persisted)
            if persisted and persisted.refusal:
                entry.again, entry.attempts = True, 1
                entry.not_before = self._now() + FIRST_RETRY_SECONDS

        due = entry.result is None or entry.again or self._retried(entry.result)
        if changed and entry.result and entry.result.source != changed and changed.value not in entry.changes_seen:
            # Looking again is paced by the attempts before, so that a claim that was forgotten costs little.
            while len(entry.changes_seen) >= MOST_CHANGES:
                entry.changes_seen.pop(next(iter(entry.changes_seen)))
            entry.changes_seen[changed.value] = None
            entry.judged = entry.result.source
            entry.result, due = None, True
        if due and entry.task is None:
            wait = entry.not_before - self._now()
            if wait <= 0:
                entry.task = asyncio.create_task(self._inspect(entry, model, run), name=f"inspect {model}")
            else:
                self._queue.add_after(model, wait)
        return Look(entry.result, inspecting=entry.result is None, source_changed=bool(entry.changes_seen))

    def forget(self, uid: str) -> None:
        """Stop and drop the inspection of a model that is gone."""
        entry = self._entries.pop(uid, None)
        if entry and entry.task:
            entry.task.cancel()

    @staticmethod
    def _retried(result: InspectionResult) -> bool:
        return bool(result.refusal and (result.refusal.retriable or REASONS[result.refusal.reason].retried))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _inspect(self, entry: _Entry, model: ModelKey, run: Run) -> None:
        try:
            entry.result = await run()
            entry.again = False
            if entry.result.source != entry.judged:
                entry.changes_seen.clear()
            outcome = entry.result.refusal.reason if entry.result.refusal else Reason.INSPECTED
            metrics.INSPECTIONS.labels(reason=outcome).inc()
            logger.info("inspected", extra={"model": "/".join(model), "reason": outcome})
        except Exception:
            # A fault of ours or of the API server: the model stays as it is and is looked at again.
            metrics.INSPECTIONS.labels(reason="Error").inc()
            logger.exception("inspection failed", extra={"model": "/".join(model)})
        finally:
            entry.task = None
            delay = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(entry.attempts, 20))
            entry.attempts += 1
            entry.not_before = self._now() + delay * (0.75 + random.random() / 2)  # noqa: S311
            self._queue.add(model)
