"""Requests that arrive together run together.

All of this happens on the event loop but the runs of slow models, which take a thread of a pool. Fast models
run on the loop itself, once a turn of it: what the loop has read from all its connections in one turn is one batch.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from time import perf_counter, thread_time
from typing import Any

import numpy as np

from onnx_operator.server.dataplane.call import Call, Cancelled
from onnx_operator.server.dataplane.categories import check_feed_categories
from onnx_operator.server.dataplane.inference import Inference
from onnx_operator.server.dataplane.model import ServedModel
from onnx_operator.server.errors import RequestError

SLOW_RUN_SECONDS = 0.01
"""A run of this length on the event loop is the last one there: probes and other connections wait meanwhile."""


@dataclass(frozen=True)
class BatchPolicy:
    """How requests run together.

    ``size`` is the number of rows that one run may have, 1 without batching; ``delay`` the seconds that a request
    waits for others; ``pad`` the number of rows that every run must have, 0 for any; ``inline`` whether the model
    is fast enough for the event loop; ``largest`` the elements of one feed up to which that was measured.
    """

    size: int = 1
    delay: float = 0.0
    pad: int = 0
    inline: bool = False
    largest: int = 0


Observe = Callable[[int, int, float], None]
"""Told of each run: its requests, its rows, and the seconds that the oldest of them had waited."""


class Batcher:
    """Runs inferences, together where the policy allows it; each is answered through its ``done``."""

    def __init__(
        self,
        model: ServedModel,
        policy: BatchPolicy,
        workers: int,
        observe: Observe = lambda *_: None,
    ) -> None:
        self._model = model
        self._policy = policy
        self._inline = policy.inline
        self._workers = workers
        self._free = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="inference")
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Inference] = deque()
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._observe = observe
        self._batched = policy.size > 1 or policy.pad > 1
        required = [info.name for info in model.inputs if not info.optional]
        self._required = frozenset(required)
        self._sole = required[0] if len(required) == 1 and len(model.inputs) == 1 else None

    @property
    def waiting(self) -> int:
        """Inferences that have not begun."""
        return len(self._waiting)

    def immediate(self, inference: Inference) -> bool:
        """Whether ``inference`` would run on the loop in this turn of it."""
        return self._inline and not self._policy.delay and _elements(inference) <= self._policy.largest

    def submit(self, inference: Inference) -> None:
        """Run ``inference`` soon; its ``done`` is called on the loop. Cancelled through its ``call``, if it has one."""
        if self._batched:
            self._measure(inference)
        inference.queued = perf_counter()
        self._waiting.append(inference)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def close(self) -> None:
        """Let the threads end; what still runs is not waited for."""
        if self._timer is not None:
            self._timer.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _measure(self, inference: Inference) -> None:
        """Say which inferences this one could run with: the same outputs, and the same shapes but for the rows.

        One that gives a default of the model another value runs alone: that value is no row, and nothing is proven
        of what it makes of rows.
        """
        if self._sole is not None:
            shape = inference.feed[self._sole].shape
            if shape and shape[0]:
                inference.rows = shape[0]
                inference.key = (shape[1:], inference.feed[self._sole].dtype, inference.outputs)
            return
        if inference.feed.keys() != self._required:
            return
        rows = {value.shape[0] if value.ndim else 0 for value in inference.feed.values()}
        if len(rows) == 1 and (count := rows.pop()):
            inference.rows = count
            shapes = tuple((name, value.shape[1:]) for name, value in sorted(inference.feed.items()))
            inference.key = (shapes, inference.outputs)

    def _turn(self) -> None:
        self._scheduled = False
        waiting, policy = self._waiting, self._policy
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while waiting:
            inline = self._inline and _elements(waiting[0]) <= policy.largest
            if not (inline or self._free) or (policy.delay and not self._due()):
                break
            batch = self._take(policy.largest if inline else 0)
            if not batch:
                continue
            self._observe(len(batch), sum([i.rows for i in batch]) or 1, perf_counter() - batch[0].queued)
            if not inline:
                self._free -= 1
                future = self._pool.submit(self._compute, batch)
                future.add_done_callback(lambda f, b=batch: self._loop.call_soon_threadsafe(self._finished, b, f))  # type: ignore[misc]
                continue
            # Processor time: that others kept this process waiting says nothing of the model.
            started = thread_time()
            answers = self._compute(batch)
            if thread_time() - started > SLOW_RUN_SECONDS:
                self._inline = False
            self._finish(batch, answers)

    def _due(self) -> bool:
        """Whether the oldest has waited long enough, or enough wait with it; sets the clock if not."""
        first, policy = self._waiting[0], self._policy
        most = max(policy.size, policy.pad)
        remaining = first.queued + policy.delay - perf_counter()
        if first.key is None or remaining <= 0:
            return True
        rows = 0
        for inference in self._waiting:
            if inference.key == first.key:
                rows += inference.rows
                if rows >= most:
                    return True
        self._timer = self._loop.call_later(remaining, self._turn)
        return False

    def _take(self, largest: int) -> list[Inference]:
        """Take the oldest and what may run with it, in order; nobody waits for those given up.

        ``largest`` bounds the elements of all together, 0 does not.
        """
        waiting, most = self._waiting, max(self._policy.size, self._policy.pad)
        first = waiting.popleft()
        if first.call is not None and first.call.cancelled:
            first.release()
            return []
        batch, rows = [first], first.rows
        if first.key is None or rows >= most:
            return batch
        if largest:
            # Rows of one shape have the same number of elements.
            most = min(most, max(rows, largest * rows // max(1, _elements(first))))
        others: list[Inference] = []
        while waiting:
            inference = waiting.popleft()
            if inference.key == first.key and rows + inference.rows <= most:
                batch.append(inference)
                rows += inference.rows
                if rows >= most:
                    break
            else:
                others.append(inference)
        waiting.extendleft(reversed(others))
        return batch

    def _compute(self, batch: list[Inference]) -> list[list[Any] | RequestError]:
        if len(batch) == 1 and not (self._policy.pad and batch[0].key is not None):
            return [self._alone(batch[0])]
        try:
            return list(self._together(batch))
        except (RequestError, ValueError, MemoryError, Cancelled):
            # One of them may be at fault: each gets its own answer.
            return [self._alone(inference) for inference in batch]

    def _together(self, batch: Sequence[Inference]) -> list[list[Any]]:
        feed: Mapping[str, Any]
        if len(batch) == 1:
            feed = batch[0].feed
        else:
            feed = {name: np.concatenate([i.feed[name] for i in batch]) for name in batch[0].feed}
        call = _shared(batch)
        rows = sum(i.rows for i in batch)
        total = self._policy.pad or rows
        if rows > total:
            raise ValueError("more rows than the model takes")
        if rows < total:
            feed = {name: _padded(value, total) for name, value in feed.items()}
        results = (
            self._model.run(batch[0].outputs, feed, call) if call else self._model.run_plain(batch[0].outputs, feed)
        )
        if any(not isinstance(r, np.ndarray) or not r.ndim or r.shape[0] != total for r in results):
            raise ValueError("the outputs have other rows than the inputs")
        answers: list[list[Any]] = []
        at = 0
        for inference in batch:
            end = at + inference.rows
            answers.append([result[at:end] for result in results])
            at = end
        return answers

    def _alone(self, inference: Inference) -> list[Any] | RequestError:
        try:
            if inference.call is None:
                return run(self._model, inference)
            return run(self._model, inference, inference.call)
        except RequestError as error:
            return error
        except Cancelled:
            return RequestError("the request was given up", 503)
        except Exception as error:
            return RequestError(f"the model failed on these inputs: {type(error).__name__}: {error}", 500)

    def _finished(self, batch: list[Inference], future: Any) -> None:
        self._free += 1
        self._finish(batch, future.result())
        if self._waiting and not self._scheduled:
            self._turn()

    def _finish(self, batch: Sequence[Inference], answers: Sequence[list[Any] | RequestError]) -> None:
        for inference, answer in zip(batch, answers, strict=True):
            done = inference.done
            assert done is not None
            if inference.charged:
                inference.release()
            if isinstance(answer, RequestError):
                done(None, answer)
            else:
                done(answer, None)


def run(model: ServedModel, inference: Inference, call: Call | None = None) -> list[Any]:
    """Run one inference. Raises :class:`RequestError`; 400 where it fails on what the inputs hold.

    ONNX Runtime does not compare sizes that a model calls the same, and many models can do with different ones: only
    when the run fails is the caller told of them, and of categories that an encoder does not know.
    """
    try:
        if call is None:
            return model.run_plain(inference.outputs, inference.feed)
        return model.run(inference.outputs, inference.feed, call)
    except RequestError as error:
        if error.status == 500:
            check_feed_categories(model, inference.feed)
        sizes: dict[str, set[int]] = {}
        for name, value in inference.feed.items():
            for dimension, size in zip(model.input_by_name[name].shape, np.shape(value), strict=False):
                if isinstance(dimension, str):
                    sizes.setdefault(dimension, set()).add(size)
        clashing = {d: sorted(found) for d, found in sizes.items() if len(found) > 1}
        if error.status != 500 or not clashing:
            raise
        told = ", ".join(f"{dimension} is {' and '.join(map(str, found))}" for dimension, found in clashing.items())
        raise RequestError(f"inputs disagree on sizes that the model gives one name: {told}; {error.message}") from None


def _elements(inference: Inference) -> int:
    count = 0
    for value in inference.feed.values():
        count += value.size
    return count


def _shared(batch: Sequence[Inference]) -> Call | None:
    """A call that is given up once all of the batch's are; None if one of them cannot be."""
    calls = [inference.call for inference in batch]
    shared = Call()
    remaining = len(calls)
    lock = Lock()

    def stop() -> None:
        nonlocal remaining
        with lock:
            remaining -= 1
            last = remaining == 0
        if last:
            shared.cancel()

    for call in calls:
        if call is None:
            return None
        try:
            call.begin(stop)
        except Cancelled:
            stop()
    return shared


def _padded(value: Any, rows: int) -> Any:
    # The last row again: zeros may be values that a model never meets.
    return np.concatenate([value, np.repeat(value[-1:], rows - value.shape[0], axis=0)])
