"""The first runs of a model: that it answers, how long it takes, and which requests may share a run.

What is measured here decides how requests are served: on the event loop or in a thread, together or alone. It costs
about a second, for slow models a few runs.
"""

import logging
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from onnx_operator.api.warm_up import MAX_WARM_UP_ELEMENTS, WarmUpInputs
from onnx_operator.model.batching.proof import Proof
from onnx_operator.server.errors import RequestError
from onnx_operator.server.runtime.attempts import MEASURING
from onnx_operator.server.runtime.finding import Found, Sources, find_input
from onnx_operator.server.runtime.guessing import Guess, make_feed, run_once
from onnx_operator.server.runtime.progress import Note, ignore
from onnx_operator.server.runtime.rows import (
    Feed,
    NotBatchableError,
    Rows,
    RowsMeetError,
    check_independence,
    compare_among,
    find_rows,
    run_rows,
    tile,
)
from onnx_operator.server.runtime.session import Model

logger = logging.getLogger(__name__)

INLINE_SECONDS = 0.001
"""A run on the event loop keeps all other connections waiting: no longer than this."""
_SLOW_SECONDS = 0.25
"""Models whose runs take this long are run as rarely as possible."""
_BUDGET_SECONDS = 1.0
_LARGE_SECONDS = 0.001
"""Models whose runs take this long have large tensors in between, of which every row needs its own."""
_PAYS = 0.95
"""A larger batch is worth its memory as long as a row takes at most this share of the time in a smaller one."""
_MAX_BATCH_SECONDS = 5.0
"""No batch is worth more than the time that a request has."""
_MAX_ROWS = 64
"""Rows of a request that may be computed on the event loop; more take memory that few ever need."""
_BUSY_SECONDS = 0.05
"""On the CPU, runs this long keep it busy by themselves: rows that share one would only take more memory."""

_ORIGINS = {
    "testData": "test data (spec.model.testData)",
    "warmUp": "inputs that spec.warmUp describes",
    "kept": "the inputs of the revision before",
    "madeUp": "made-up inputs",
}

_GIVEN = frozenset({"testData", "warmUp"})
"""Of these, inputs that somebody gave: a kill by them is told as any other."""

_UNBOUNDED_OPERATORS = frozenset({"Loop", "Scan", "If"}) | {
    f"com.microsoft.{name}" for name in ("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch")
}
"""How long these take depends on values: what was measured says nothing of the next request."""


@dataclass(frozen=True)
class WarmUp:
    """What the first runs told.

    Requests whose feeds hold exactly the required inputs may share a run where ``batchable``: with up to
    ``max(seconds)`` rows in all, or, where ``fixed_batch`` is set, with always that many, the last row being repeated.
    """

    batchable: bool = False
    fixed_batch: int | None = None
    inline: bool = False
    """Whether single runs are so short that they need no thread."""
    seconds: dict[int, float] = field(default_factory=dict)
    """Seconds of a run by its rows; 1 stands for what the model takes at least where it has no batch."""
    cpu_seconds: float | None = None
    """CPU time of a run of one row, of all threads together; None where nothing was measured."""
    largest_elements: int = 0
    """Elements of all inputs together, up to which a run takes no longer than ``INLINE_SECONDS``."""
    reason: str = ""
    """Why requests cannot share a run."""
    warmed: bool = True
    """Whether the model has answered an input."""
    message: str = ""
    """What was tried where it has not; else where the input came from."""
    feed: Feed = field(default_factory=dict)
    """The input that it answered."""
    recipe: WarmUpInputs | None = None
    """The same, in few bytes, for the next revision."""
    proof: str = ""
    """What the graph proves of rows: ``Exact``, ``Tolerant`` or ``Unproven``; empty where nobody asked."""
    contradicted: bool = False
    """Whether the measurement saw rows meet although it is proven that they do not: a fault of ours."""


def warm_up(
    model: Model,
    max_batch_size: int = 1,
    note: Note = ignore,
    clock: Callable[[], float] = time.perf_counter,
    sources: Sources | None = None,
    *,
    assume_independent_rows: bool = False,
) -> WarmUp:
    """Run the model until it is warm, up to ``max_batch_size`` rows at a time.

    A model that answers no made-up input is not at fault: it is not warm, and its requests run alone. Others may share
    a run only where the graph proves that rows do not meet, or, with ``assume_independent_rows``, its owner says so;
    and where rows that were computed together answered as they did alone.

    Raises :class:`~onnx_operator.server.runtime.failures.LoadError` where the runtime does not implement what it needs,
    and FailedTestError where it does not answer its test data.
    """
    started = clock()
    sources = sources or Sources()
    answered = find_input(model, sources)
    if not isinstance(answered, Found):
        logger.warning("no input was found that warms the model up: %s", answered.message)
        return WarmUp(reason="no input was found that warms it up", warmed=False, message=answered.message)
    if sources.attempts.killed(MEASURING):
        found = WarmUp(reason="measuring it killed the process; more memory may help")
        logger.warning("nothing is measured: that killed the process at earlier starts")
    else:
        sources.attempts.note(MEASURING, 0, made_up=answered.origin not in _GIVEN)
        try:
            found = _measured(
                model,
                answered,
                max_batch_size,
                note,
                clock,
                started,
                assume_independent_rows=assume_independent_rows,
            )
        finally:
            sources.attempts.forget(MEASURING)
    return replace(found, message=f"by {_ORIGINS[answered.origin]}", feed=answered.feed, recipe=answered.recipe)


def _measured(
    model: Model,
    answered: Found,
    max_batch_size: int,
    note: Note,
    clock: Callable[[], float],
    started: float,
    *,
    assume_independent_rows: bool,
) -> WarmUp:
    guess, feed = answered.guess, answered.feed
    used = time.process_time()
    single, runs = _measure_feed(model, feed, clock)
    used = (time.process_time() - used) / runs
    inline = single < INLINE_SECONDS and not model.assignment.operators & _UNBOUNDED_OPERATORS
    elements = _elements_of(feed)
    plain = WarmUp(inline=inline, seconds={1: single}, cpu_seconds=used, largest_elements=elements)
    note(batch=1, seconds=round(single, 6))
    proof = Proof("Unproven")
    try:
        rows = find_rows(model)
        if max_batch_size > 1:
            proof = model.prove_rows(max(max_batch_size, rows.fixed))
            plain = replace(plain, proof=proof.strength)
            rows = replace(rows, exact=proof.strength == "Exact", rounded=proof.strength == "Tolerant")
            if inline and not rows.fixed:
                plain = replace(plain, largest_elements=_largest(model, rows, guess, plain, clock))
            if not (proof.holds or assume_independent_rows):
                raise NotBatchableError(f"it is not proven that rows do not meet: {proof.explain()}")
        if rows.fixed:
            plain = replace(plain, seconds={rows.fixed: single})
            found = _fixed(model, rows, guess, plain, max_batch_size)
        else:
            if max_batch_size > 1:
                found = _batches(model, rows, guess, plain, max_batch_size, note, lambda: clock() - started)
            else:
                found = replace(plain, reason="batching is off")
            if inline and max_batch_size == 1:
                found = replace(found, largest_elements=_largest(model, rows, guess, found, clock))
    except NotBatchableError as error:
        found = replace(plain, reason=str(error))
        if proof.holds and isinstance(error, RowsMeetError):
            found = replace(found, contradicted=True)
            fields = {"proof": proof.strength, "seen": str(error)}
            logger.error("rows met that are proven not to", extra={"fields": fields})
    logger.info(
        "warmed up",
        extra={
            "fields": {
                "batchable": found.batchable,
                **({"proof": found.proof} if found.proof else {}),
                "inline": found.inline,
                "batchSeconds": {str(size): round(seconds, 6) for size, seconds in found.seconds.items()},
                **({"reason": found.reason} if found.reason else {}),
            }
        },
    )
    return found


def _measure_feed(model: Model, feed: Feed, clock: Callable[[], float]) -> tuple[float, int]:
    """Seconds of a run as requests make it, and how many were made.

    Where Python cannot show the outputs, they are of one without looking at them.
    """
    outputs = tuple(info.name for info in model.outputs)
    runs = 0

    def run() -> object:
        nonlocal runs
        runs += 1
        return model.run_plain(outputs, feed)

    def blind() -> None:
        nonlocal runs
        runs += 1
        run_once(model, feed)

    started = clock()
    try:
        run()
    except RequestError:
        return _measure(blind, clock), runs
    return _measure(run, clock, clock() - started), runs


def _measure(run: Callable[[], object], clock: Callable[[], float], first: float = 0.0) -> float:
    """Median seconds of a few runs; those of the ``first`` where it took long."""
    if first > _SLOW_SECONDS:
        return first
    taken: list[float] = []
    for _ in range(5):
        started = clock()
        run()
        taken.append(clock() - started)
        if taken[0] > _SLOW_SECONDS / 5:
            break
    return statistics.median(taken)


def _fixed(model: Model, rows: Rows, guess: Guess, plain: WarmUp, max_batch_size: int) -> WarmUp:
    if max_batch_size == 1:
        return replace(plain, reason="batching is off")
    check_independence(model, rows, guess, thorough=plain.seconds[rows.fixed] < _SLOW_SECONDS)
    return replace(plain, batchable=True, fixed_batch=rows.fixed)


def _batches(
    model: Model,
    rows: Rows,
    guess: Guess,
    plain: WarmUp,
    max_batch_size: int,
    note: Note,
    elapsed: Callable[[], float],
) -> WarmUp:
    single = plain.seconds[1]
    if single > _BUSY_SECONDS and not model.assignment.accelerated:
        raise NotBatchableError("a run is so long that nothing is gained by sharing it")
    large = single > _LARGE_SECONDS
    feed, results = check_independence(model, rows, guess, thorough=single < _SLOW_SECONDS / 5, count=2 if large else 4)
    seconds = dict(plain.seconds)
    per_row = _elements_of(feed) // len(results[0])
    for size in _sizes(max_batch_size):
        late = len(seconds) > 1 and elapsed() > _BUDGET_SECONDS
        if late or single * size > _MAX_BATCH_SECONDS or per_row * size > MAX_WARM_UP_ELEMENTS:
            break
        try:
            seconds[size] = _time_batch(model, rows, feed, results, size, elapsed)
        except RowsMeetError:
            raise
        except NotBatchableError as error:
            # Smaller batches work: perhaps there is no memory for more.
            logger.warning("batches of %d rows do not work, smaller ones are made: %s", size, error)
            break
        note(batch=size, seconds=round(seconds[size], 6))
        if large and seconds[size] / size > _PAYS * min(taken / n for n, taken in seconds.items() if n < size):
            # The pod's memory is what one row at a time was estimated to take.
            break
    if max(seconds) == 1:
        return replace(plain, reason="it is too slow, or its inputs are too large, for two rows at a time")
    return replace(plain, batchable=True, seconds=seconds)


def _sizes(largest: int) -> list[int]:
    return [2**power for power in range(1, largest.bit_length()) if 2**power < largest] + [largest]


def _time_batch(
    model: Model, rows: Rows, feed: Feed, results: list[Any], size: int, clock: Callable[[], float]
) -> float:
    batch, count = tile(feed, size), len(results[0])
    started = clock()
    found = run_rows(model, rows, batch, size)
    first = clock() - started
    for index in {0, 1, size // 2, size - 1}:
        compare_among(model, rows, batch, found, index, results, index % count)
    return _measure(lambda: model.run_plain(rows.outputs, batch), clock, first)


def _largest(model: Model, rows: Rows, guess: Guess, found: WarmUp, clock: Callable[[], float]) -> int:
    """Elements of the largest feed, by rows, that is computed within ``INLINE_SECONDS``."""
    required = list(rows.inputs)
    largest, size = found.largest_elements, 2
    while size <= _MAX_ROWS:
        try:
            feed = make_feed(required, replace(guess, batch=size))
            seconds, _ = _measure_feed(model, feed, clock)
        except Exception:
            # More rows than this it cannot do; whoever sends them is told.
            break
        if seconds > INLINE_SECONDS:
            break
        largest, size = _elements_of(feed), size * 2
    return largest


def _elements_of(feed: Feed) -> int:
    return sum(_elements(value) for value in feed.values())


def _elements(value: Any) -> int:
    shape = getattr(value, "shape", None)
    if shape is None:
        return len(value) if isinstance(value, list | dict) else 0
    return math.prod(shape() if callable(shape) else shape)
