"""Facts of a good start: read once a revision, from the log of one of its ready pods."""

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from onnx_operator.api import names
from onnx_operator.api.contract import MAX_INT64, StartFacts, WarmUpFacts
from onnx_operator.api.onnxmodel import Started
from onnx_operator.api.report import shorten
from onnx_operator.controller.cluster.answers import ApiError
from onnx_operator.controller.cluster.keys import ModelKey
from onnx_operator.controller.cluster.kube import Kube
from onnx_operator.controller.cluster.naming import InvalidNameError
from onnx_operator.controller.cluster.queue import KeyedQueue
from onnx_operator.controller.revision.warm_up import MAX_REQUEST_SECONDS
from onnx_operator.model.inspection.fair import FairPlaces

logger = logging.getLogger(__name__)

LOG_BYTES = 256 * 1024
MAX_OPERATORS = 16
MAX_NAME_BYTES = 64
MAX_CAUSE_BYTES = 256
MAX_WARM_UP_BYTES = 640
MAX_INPUTS_BYTES = 5 * 1024
ATTEMPTS = 3
READ_TIMEOUT_SECONDS = 10.0
PAUSE_SECONDS = 5.0
READS = 8
"""Logs that are read at the same time, of all models together."""
READS_PER_NAMESPACE = 6
"""Of these, of one namespace: nodes that do not answer keep nobody else's facts away."""
MAX_LISTED = 64
MAX_COUNT = 10_000
"""Of threads and processes."""


def _cut(told: object) -> Any:
    """What a line tells, with lists of a bounded length: an error for each wrong element would take far more room."""
    if not isinstance(told, dict):
        return None
    warm = told.get("warmUp")
    if isinstance(warm, dict) and len(json.dumps(warm.get("inputs"))) > MAX_INPUTS_BYTES:
        told["warmUp"] = {**warm, "inputs": None}
    return {key: value[:MAX_LISTED] if isinstance(value, list) else value for key, value in told.items()}


def find_facts(log: str) -> StartFacts | None:
    """The facts in a server's log, or None where it holds none. Anybody's container can write anything there."""
    for line in log.splitlines():
        if '"started"' in line:
            try:
                facts = StartFacts.model_validate(_cut(from_json(line)))
            except ValueError:
                continue
            if 0 <= facts.resident_memory_bytes <= MAX_INT64:
                return facts
    return None


def _count(told: int | None) -> int | None:
    return told if told is not None and 0 < told <= MAX_COUNT else None


def _microseconds(told: WarmUpFacts | None) -> int | None:
    seconds = told.request_cpu_seconds if told else None
    return round(seconds * 1e6) if seconds is not None and 0 <= seconds <= MAX_REQUEST_SECONDS else None


@dataclass
class _Entry:
    revision: str
    pod: str
    facts: Started | None = None
    warm_up: WarmUpFacts | None = None
    task: asyncio.Task[None] | None = None


class FactReader:
    """Reads beside the workers: a node that does not answer holds up nobody."""

    def __init__(self, kube: Kube, queue: KeyedQueue[ModelKey]) -> None:
        self._kube = kube
        self._queue = queue
        self._entries: dict[str, _Entry] = {}
        self._places = FairPlaces(READS, READS_PER_NAMESPACE)

    def poll(self, uid: str, model: ModelKey, revision: str, pod: str | None) -> Started | None:
        """The facts of a revision, as far as known; begins to read them from ``pod``, a ready one of the revision."""
        entry = self._entries.get(uid)
        given_up = entry and entry.facts is None and entry.task and entry.task.done() and entry.pod != pod
        if entry is None or entry.revision != revision or given_up:
            if entry and entry.task:
                entry.task.cancel()
            if pod is None:
                return None
            entry = self._entries[uid] = _Entry(revision, pod)
            entry.task = asyncio.create_task(self._read(entry, model, pod), name=f"read facts of {model}")
        return entry.facts

    def warm_up(self, uid: str, revision: str) -> WarmUpFacts | None:
        """What the revision's first good start told of its warm-up, as far as known."""
        entry = self._entries.get(uid)
        return entry.warm_up if entry and entry.revision == revision else None

    def noted(self, uid: str) -> None:
        """It has been tried to keep that: once, for what the API server refuses it refuses again."""
        if entry := self._entries.get(uid):
            entry.warm_up = None

    def forget(self, uid: str) -> None:
        """Drop what is remembered of a model that is gone."""
        entry = self._entries.pop(uid, None)
        if entry and entry.task:
            entry.task.cancel()

    async def _read(self, entry: _Entry, model: ModelKey, pod: str) -> None:
        for attempt in range(ATTEMPTS):
            await asyncio.sleep(attempt * PAUSE_SECONDS)
            try:
                async with self._places.hold(model[0]), asyncio.timeout(READ_TIMEOUT_SECONDS):
                    log = await self._kube.log(model[0], pod, names.CONTAINER_SERVER, LOG_BYTES)
            except InvalidNameError:
                return
            except (ApiError, TimeoutError, OSError) as error:
                logger.info("the log of a pod cannot be read: %s", error, extra={"model": "/".join(model), "pod": pod})
                continue
            facts = find_facts(log)
            if facts:
                entry.warm_up = facts.warm_up
                entry.facts = Started(
                    revision=entry.revision,
                    execution_providers=[shorten(p, MAX_NAME_BYTES) for p in facts.execution_providers[:8]],
                    fallback_operators=[shorten(o, MAX_NAME_BYTES) for o in facts.fallback_operators[:MAX_OPERATORS]],
                    fallback_causes=[shorten(cause, MAX_CAUSE_BYTES) for cause in facts.fallback_causes[:8]],
                    resident_memory_bytes=facts.resident_memory_bytes,
                    intra_op_threads=_count(facts.intra_op_threads),
                    processes=_count(facts.processes),
                    request_cpu_microseconds=_microseconds(facts.warm_up),
                    warmed=facts.warm_up.warmed if facts.warm_up else None,
                    warm_up=shorten(facts.warm_up.message, MAX_WARM_UP_BYTES) if facts.warm_up else "",
                )
                self._queue.add(model)
                return
