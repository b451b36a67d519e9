"""Whether the rows of a model's tensors are requests of their own, that may share a run.

A model says that its first dimension is open or fixed, not that it is a batch: it may normalise over it, or quantise
all rows with one scale. So random rows are computed alone and among others, which must make no difference.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnx_operator.api.warm_up import MAX_WARM_UP_ELEMENTS
from onnx_operator.server.dataplane.tensors import DTYPES, TensorInfo
from onnx_operator.server.errors import RequestError
from onnx_operator.server.runtime.guessing import Guess, shape_of
from onnx_operator.server.runtime.session import Model

TOLERANCES = {"FP64": 1e-6, "FP32": 1e-3, "FP16": 1e-2, "BF16": 4e-2}
"""By how much, relative to the largest value of a row, results may differ: kernels add up in another order when
there are more rows. What depends on its neighbours differs by far more."""
_MIN_DIFFERENCE = 1e-5
_NOISE = {"FP64": 1e-14, "FP32": 4e-6, "FP16": 3e-2, "BF16": 0.25}
"""About 32 roundings, relative to the largest value: differences below that tell nothing."""
_SCALES = (1.0, 100.0, 10_000.0)
"""Of random numbers, tried until the answers differ: thresholds of trees may be anywhere."""
_OTHER_REST = 5
"""Size of further open dimensions: at 1, many operators give a constant."""

Feed = dict[str, Any]


class NotBatchableError(Exception):
    """Requests cannot share a run of this model; the text says why."""


class RowsMeetError(NotBatchableError):
    """Rows were seen to have other answers among other rows."""


@dataclass(frozen=True)
class Rows:
    """The first dimension of all inputs and outputs: open (``fixed`` is 0), or always ``fixed`` rows.

    With ``exact`` the graph proves that answers are the same to the bit, whoever shares the run; with ``rounded``, but
    for rounding, which depends on how many rows there are and not on what they hold.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[str, ...]
    fixed: int
    exact: bool = False
    rounded: bool = False


def find_rows(model: Model) -> Rows:
    """Read from the declared shapes what could be a batch. Raises :class:`NotBatchableError`."""
    inputs = tuple(info for info in model.inputs if not info.optional)
    if not inputs:
        raise NotBatchableError("it has no inputs")
    for info in (*inputs, *model.outputs):
        if info.datatype not in DTYPES and info.datatype != "BF16":
            raise NotBatchableError(f"{info.name} is {info.datatype or info.onnx_type}")
    for info in inputs:
        if not info.shape:
            raise NotBatchableError(f"input {info.name} has no declared dimensions")
    first = {info.shape[0] for info in inputs}
    if len(first) > 1:
        raise NotBatchableError("its inputs differ in their first dimension")
    rows = first.pop()
    if any(rows in info.shape[1:] for info in inputs if isinstance(rows, str)):
        raise NotBatchableError(f"the open first dimension {rows} is also another one")
    fixed = rows if isinstance(rows, int) else 0
    if fixed == 1 or rows == 0:
        raise NotBatchableError(f"its first dimension is always {rows}")
    return Rows(inputs, tuple(info.name for info in model.outputs), fixed)


def run_rows(model: Model, rows: Rows, feed: Feed, count: int) -> list[Any]:
    """Compute all outputs. Raises :class:`NotBatchableError` where one has not ``count`` rows, or there is none."""
    try:
        return _run(model, rows, feed, count)
    except RequestError as error:
        raise NotBatchableError(f"it did not answer {count} rows: {error.message}") from None


def _run(model: Model, rows: Rows, feed: Feed, count: int) -> list[Any]:
    results = model.run_plain(rows.outputs, feed)
    for name, result in zip(rows.outputs, results, strict=True):
        if not result.ndim or result.shape[0] != count:
            raise NotBatchableError(f"output {name} has shape {list(result.shape)} for {count} rows")
    return results


def check_independence(
    model: Model, rows: Rows, guess: Guess, *, thorough: bool, count: int = 4
) -> tuple[Feed, list[Any]]:
    """Compare random rows alone (or, in a fixed batch, among others) with rows among others.

    Returns the feed of ``count`` rows and its results, for comparisons with larger batches. Raises
    :class:`NotBatchableError`. Without ``thorough`` only what is indispensable is run.
    """
    kept: tuple[Feed, list[Any]] | None = None
    told_apart = False
    refusal = NotBatchableError("its answers to random inputs differ too little to tell whether rows are independent")
    for variant, scale, narrow in _variants(rows, guess, thorough):
        try:
            feed, results, differ = _check(model, rows, variant, scale, narrow, rows.fixed or count)
        except _UnansweredError as error:
            refusal = NotBatchableError(str(error))
            continue
        told_apart = told_apart or differ
        if variant == guess:
            kept = (feed, results)
        if kept and told_apart:
            return kept
    raise refusal


class _UnansweredError(Exception):
    """These made-up rows are none that the model can answer, which tells nothing of batches."""


def _variants(rows: Rows, guess: Guess, thorough: bool) -> Iterator[tuple[Guess, float, bool]]:
    open_rest = any(not isinstance(size, int) for info in rows.inputs for size in info.shape[1:])
    if thorough and open_rest and not guess.image:
        yield replace(guess, rest=_OTHER_REST), 1.0, False
    for scale in _SCALES if thorough else _SCALES[:1]:
        yield guess, scale, False
    yield guess, 1.0, True


def _check(
    model: Model, rows: Rows, guess: Guess, scale: float, narrow: bool, count: int
) -> tuple[Feed, list[Any], bool]:
    """Compare. The third value is whether the rows have different answers: else this tells nothing."""
    feed = random_rows(rows.inputs, guess, count, scale, narrow)
    if rows.fixed:
        return _check_fixed(model, rows, guess, feed, (scale, narrow))
    alone: list[list[Any]] = []
    for index in range(count):
        row = {name: value[index : index + 1] for name, value in feed.items()}
        alone.append(_answer(model, rows, row, 1))
    together = run_rows(model, rows, feed, count)
    for index, results in enumerate(alone):
        compare_among(model, rows, feed, together, index, results, 0)
    expected = [np.concatenate(each) for each in zip(*alone, strict=True)]
    return feed, together, _tell_apart(model, rows, expected, [together])


def _check_fixed(
    model: Model, rows: Rows, guess: Guess, feed: Feed, made: tuple[float, bool]
) -> tuple[Feed, list[Any], bool]:
    count, half = rows.fixed, max(1, rows.fixed // 2)
    results = _answer(model, rows, feed, count)
    others = random_rows(rows.inputs, guess, count, *made, seed=1)
    mixed = {name: np.concatenate([value[:half], others[name][half:]]) for name, value in feed.items()}
    padded = {name: pad(value[:half], count) for name, value in feed.items()}
    tried = []
    for neighbours in (mixed, padded):
        found = run_rows(model, rows, neighbours, count)
        for index in range(half):
            compare(model, rows, found, index, results, index)
        tried.append([each[:half] for each in found])
    return feed, results, _tell_apart(model, rows, results, tried)


def _answer(model: Model, rows: Rows, feed: Feed, count: int) -> list[Any]:
    try:
        return _run(model, rows, feed, count)
    except RequestError as error:
        raise _UnansweredError(f"it answers no random rows: {error.message}") from None


def pad(value: Any, rows: int) -> Any:
    """Repeat the last row until there are ``rows``."""
    return np.concatenate([value, np.repeat(value[-1:], rows - value.shape[0], axis=0)])


def tile(feed: Mapping[str, Any], rows: int) -> Feed:
    """Repeat all rows in turn until there are ``rows``."""
    return {name: value[np.arange(rows) % value.shape[0]] for name, value in feed.items()}


def compare(
    model: Model, rows: Rows, found: Sequence[Any], index: int, expected: Sequence[Any], expected_index: int
) -> None:
    """Raise :class:`NotBatchableError` unless row ``index`` of ``found`` is that of ``expected``."""
    for name, got, wanted in zip(rows.outputs, found, expected, strict=True):
        datatype = model.output_by_name[name].datatype or ""
        agree = same_bits if rows.exact else same
        if got.shape[1:] != wanted.shape[1:] or not agree(got[index], wanted[expected_index], datatype):
            raise RowsMeetError(f"rows of output {name} depend on the other rows of a request")


def compare_among(
    model: Model, rows: Rows, feed: Feed, found: Sequence[Any], index: int, expected: Sequence[Any], expected_index: int
) -> None:
    """Compare as :func:`compare` does a row of what ``feed`` made with one of a run of another number of rows.

    A model may make much of the last bits, as a variance does of numbers that hardly differ. That is no sign that rows
    meet where the row is still the same among as many copies of itself: :class:`NotBatchableError` then says so.
    """
    try:
        compare(model, rows, found, index, expected, expected_index)
    except RowsMeetError:
        if not rows.rounded:
            raise
        count = found[0].shape[0]
        copies = {name: np.repeat(value[index : index + 1], count, axis=0) for name, value in feed.items()}
        compare(model, replace(rows, exact=True), run_rows(model, rows, copies, count), index, found, index)
        text = "the number of rows changes its answers by more than rounding: it makes much of the last bits of a sum"
        raise NotBatchableError(text) from None


def same_bits(one: Any, other: Any, datatype: str) -> bool:
    """Whether two rows are the same, NaNs being alike."""
    return bool(np.array_equal(one, other, equal_nan=datatype in TOLERANCES and datatype != "BF16"))


def same(one: Any, other: Any, datatype: str) -> bool:
    """Whether two rows are the same but for the order in which a kernel adds up."""
    if datatype not in TOLERANCES:
        return bool(np.array_equal(one, other))
    one, other = as_floats(one, datatype), as_floats(other, datatype)
    finite = np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return False
    largest = float(np.max(np.abs(other[finite]), initial=0.0))
    difference = float(np.max(np.abs(one[finite] - other[finite]), initial=0.0))
    return difference <= TOLERANCES[datatype] * largest + _MIN_DIFFERENCE


def as_floats(array: Any, datatype: str) -> Any:
    """Widen to FP64; BF16 from its bits."""
    if datatype == "BF16":
        array = (np.asarray(array, np.uint32) << 16).view(np.float32)
    return np.asarray(array, np.float64)


def _tell_apart(model: Model, rows: Rows, expected: Sequence[Any], tried: Sequence[Sequence[Any]]) -> bool:
    """Whether rows differ from each other, and by far more than each does from itself among others."""
    told = False
    for position, (name, wanted) in enumerate(zip(rows.outputs, expected, strict=True)):
        datatype = model.output_by_name[name].datatype or ""
        if datatype not in TOLERANCES:
            told = told or any(not np.array_equal(row, wanted[0]) for row in wanted)
            continue
        values = as_floats(wanted, datatype)
        finite = np.isfinite(values)
        values = np.where(finite, values, 0.0)
        spread = float(np.abs(values[1:] - values[:-1]).max(initial=0.0))
        noise = _NOISE[datatype] * float(np.abs(values).max(initial=0.0))
        if spread <= noise:
            continue
        for found in tried:
            count = len(found[position])
            others = np.where(finite[:count], as_floats(found[position], datatype), 0.0)
            if float(np.abs(others - values[:count]).max(initial=0.0)) > spread / 10:
                return False
        told = True
    return told


def random_rows(
    inputs: Sequence[TensorInfo], guess: Guess, count: int, scale: float, narrow: bool, seed: int = 0
) -> Feed:
    """Make ``count`` random rows, each of another magnitude.

    Integers are 0 or 1, which most tables have rows for, but for 8-bit ones, which are pixels; ``narrow`` makes them
    0 or 1 too, and floats lie between 0 and 1.
    """
    random = np.random.default_rng(seed)
    sizes: dict[str, int] = {}
    feed: Feed = {}
    for info in inputs:
        shape = shape_of(info, replace(guess, batch=count), sizes)
        if math.prod(shape) > MAX_WARM_UP_ELEMENTS:
            raise NotBatchableError(f"input {info.name} would have {math.prod(shape)} elements")
        feed[info.name] = _random(random, info.datatype or "", (count, *shape[1:]), scale, narrow)
    return feed


def _random(random: np.random.Generator, datatype: str, shape: tuple[int, ...], scale: float, narrow: bool) -> Any:
    if datatype in TOLERANCES:
        values = random.random(shape) if narrow else random.normal(size=shape)
        # The scale of the largest row is what a quantisation over all rows would take for each.
        magnitudes = 1.0 if narrow else 8.0 ** (np.arange(shape[0]) % 3)
        values = values * scale * np.reshape(magnitudes, (-1,) + (1,) * (len(shape) - 1))
        if datatype == "BF16":
            return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return np.clip(values, -60_000, 60_000).astype(DTYPES[datatype])
    if datatype == "BYTES":
        return _numbers(random, shape, 2).astype(str).astype(object)
    highest = 128 if datatype in ("UINT8", "INT8") and not narrow else 2
    return _numbers(random, shape, highest).astype(DTYPES[datatype])


def _numbers(random: np.random.Generator, shape: tuple[int, ...], highest: int) -> Any:
    numbers = random.integers(0, highest, shape)
    # However few they are, two rows in succession differ.
    numbers.reshape(shape[0], -1)[:, :1] = np.arange(shape[0])[:, None] % 2
    return numbers
