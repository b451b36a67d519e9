"""Inspections in flight: started by reconciling, run beside the workers, so that no model waits for another's source.

What is concluded is kept in the status (and for accepted models in the revision); this memory only spares asking again.
"""

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from onnx_operator.api.conditions import Reason
from onnx_operator.api.reasons import REASONS
from onnx_operator.api.report import InspectionResult
from onnx_operator.api.sources import SourcePin
from onnx_operator.common.backoff import Backoff
from onnx_operator.controller.cluster.answers import API_FAILURES, failure
from onnx_operator.controller.cluster.keys import ModelKey
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.telemetry import metrics

logger = logging.getLogger(__name__)

Run = Callable[[], Awaitable[InspectionResult]]

FIRST_RETRY_SECONDS = 5.0
MAX_RETRY_SECONDS = 600.0
_BACKOFF = Backoff(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)
SHORT_SECONDS = 20.0
"""Longest wait where the source was not even asked: a Secret is missing, which nobody tells of when it comes, or the
API server failed."""
SHORT_PER_SECOND = 10.0
"""Such tries by all models together, each a call or two: of very many models each waits longer."""
MAX_CHANGES = 16
"""Claims of pods that are remembered: anybody who makes pods that look like the model's can make up new ones."""


@dataclass
class _Entry:
    key: str
    packed: bytes = b""
    """The result, in few bytes: a report takes some 10 KiB otherwise, of every model."""
    task: asyncio.Task[None] | None = None
    asked: str = ""
    """What of the spec was looked at last."""
    trouble: str = ""
    """Why the last look ended without any conclusion; empty where it had one."""
    held_up: bool = False
    """Whether the last look did not come as far as the source."""
    attempts: int = 0
    not_before: float = 0.0
    again: bool = False
    """A refusal of an earlier life: settings, volumes and images may have changed since, so it is checked once."""
    judged: SourcePin | None = None
    changes_seen: dict[str, None] = field(default_factory=dict)
    """What pods found and was looked at, since the source last brought something new."""

    @property
    def result(self) -> InspectionResult | None:
        return InspectionResult.model_validate_json(zlib.decompress(self.packed)) if self.packed else None

    @result.setter
    def result(self, found: InspectionResult | None) -> None:
        self.packed = zlib.compress(found.model_dump_json().encode(), 1) if found else b""


@dataclass(frozen=True)
class Poll:
    """What is known of a model's inspection at this moment."""

    result: InspectionResult | None
    inspecting: bool
    source_changed: bool = False
    trouble: str = ""
    """Why the last look ended without any conclusion: the API server failed on the way."""


class Inspections:
    """At most one inspection a model; a finished one puts the model back on the queue."""

    def __init__(self, queue: KeyedQueue[ModelKey]) -> None:
        self._queue = queue
        self._entries: dict[str, _Entry] = {}
        self._held_up: set[str] = set()
        """UIDs of models whose last look did not come as far as the source."""

    def poll(
        self,
        uid: str,
        model: ModelKey,
        key: str,
        run: Run,
        persisted: InspectionResult | None,
        changed: SourcePin | None = None,
        asked: str = "",
    ) -> Poll:
        """The state of the inspection that ``key`` names; starts it where that is due.

        Args:
            uid: of the OnnxModel.
            model: put on the queue when there is news.
            key: hash of everything that the result depends on.
            run: does the inspection.
            persisted: what an earlier life of the operator concluded for this key.
            changed: what a pod found at the source instead of what was inspected.
            asked: stands for what of the spec pods are made of; a change may have cured what kept the source from
                being read, which scaling does not.
        """
        entry = self._entries.get(uid)
        if entry is None or entry.key != key:
            if entry and entry.task:
                entry.task.cancel()
            entry = self._entries[uid] = _Entry(key)
            entry.result = persisted
            if persisted and persisted.refusal:
                entry.again, entry.attempts = True, 1
                entry.not_before = self._now() + FIRST_RETRY_SECONDS
        elif entry.asked != asked:
            entry.attempts, entry.not_before = 0, 0.0
        entry.asked = asked

        result = entry.result
        due = result is None or entry.again or self._retried(result)
        if changed and result and result.source != changed and changed.value not in entry.changes_seen:
            # Looking again is paced by the attempts before, so that a claim that was forgotten costs little.
            while len(entry.changes_seen) >= MAX_CHANGES:
                entry.changes_seen.pop(next(iter(entry.changes_seen)))
            entry.changes_seen[changed.value] = None
            entry.judged = result.source
            entry.result, result, due = None, None, True
        if due and entry.task is None:
            wait = entry.not_before - self._now()
            if wait <= 0:
                entry.task = asyncio.create_task(self._inspect(entry, uid, model, run), name=f"inspect {model}")
            else:
                self._queue.add_after(model, wait)
        return Poll(result, inspecting=result is None, source_changed=bool(entry.changes_seen), trouble=entry.trouble)

    def forget(self, uid: str) -> None:
        """Stop and drop the inspection of a model that is gone."""
        entry = self._entries.pop(uid, None)
        self._held_up.discard(uid)
        if entry and entry.task:
            entry.task.cancel()

    @staticmethod
    def _retried(result: InspectionResult) -> bool:
        return bool(result.refusal and (result.refusal.retriable or REASONS[result.refusal.reason].retried))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _inspect(self, entry: _Entry, uid: str, model: ModelKey, run: Run) -> None:
        try:
            found = await run()
            entry.result, entry.again, entry.trouble = found, False, ""
            entry.held_up = found.refusal is not None and found.refusal.reason is Reason.CREDENTIALS_NOT_FOUND
            if found.source != entry.judged:
                entry.changes_seen.clear()
            outcome = found.refusal.reason if found.refusal else Reason.INSPECTED
            metrics.INSPECTIONS.labels(reason=outcome).inc()
            logger.info("inspected", extra={"model": "/".join(model), "reason": outcome})
        except API_FAILURES as error:
            # It says nothing of the source: the model stays as it is and is looked at again.
            entry.trouble, entry.held_up = failure(error), True
            metrics.INSPECTIONS.labels(reason="Error").inc()
            logger.warning("not inspected: %s", error, extra={"model": "/".join(model)})
        except Exception:
            # A fault of ours.
            metrics.INSPECTIONS.labels(reason="Error").inc()
            logger.exception("inspection failed", extra={"model": "/".join(model)})
        finally:
            entry.task = None
            entry.attempts += 1
            entry.not_before = self._now() + self._pause(uid, entry)
            self._queue.add(model)

    def _pause(self, uid: str, entry: _Entry) -> float:
        """Seconds until looking again is due, if it is."""
        pause = _BACKOFF.after(entry.attempts)
        if not entry.held_up or self._entries.get(uid) is not entry:
            self._held_up.discard(uid)
            return pause
        self._held_up.add(uid)
        return min(pause, max(SHORT_SECONDS, len(self._held_up) / SHORT_PER_SECOND))
