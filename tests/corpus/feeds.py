"""Random inputs of the sizes with which the product warmed a model up, and how answers are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Feed = dict[str, np.ndarray]

RELATIVE = {"f2": 1e-2, "f4": 1e-4, "f8": 1e-9}
"""Rounding that is let pass, relative to the largest value of an output; fewer bits are always told."""
_WORDS = ["", "a", "1", "the quick brown fox", "été"]


def random_feeds(like: Mapping[str, Any], seed: int) -> Iterator[Feed]:
    """Feeds as ``like``, wilder ones first: integers may be indices, lengths or rates, of which few are answered."""
    for most in (100, 10, 2, 0):
        random = np.random.default_rng(seed)
        yield {name: _like(np.asarray(value), random, most) for name, value in like.items()}
    # Only floats are random: integers and strings stay as the product has found them.
    random = np.random.default_rng(seed)
    yield {
        name: _like(value, random, 0) if value.dtype.kind == "f" else value
        for name, value in ((name, np.asarray(value)) for name, value in like.items())
    }
    yield {name: np.asarray(value) for name, value in like.items()}


def _like(value: np.ndarray, random: np.random.Generator, most: int) -> np.ndarray:
    kind = value.dtype.kind
    if kind == "f":
        return random.standard_normal(value.shape).astype(value.dtype)
    if kind in "iu":
        return random.integers(0, most + 1, value.shape).astype(value.dtype)
    if kind == "b":
        return random.integers(0, 2, value.shape).astype(bool)
    if most == 0:
        return value
    return np.array([_WORDS[i] for i in random.integers(0, len(_WORDS), value.size)], object).reshape(value.shape)


def first_answered(
    feeds: Iterator[Feed], run: Callable[[Feed], list[Any]]
) -> tuple[Feed, list[Any]] | tuple[None, str]:
    """The first feed that ``run`` answers, with the answer; or why it did not answer the last one."""
    cause = ""
    for feed in feeds:
        try:
            return feed, run(feed)
        except Exception as error:
            cause = str(error)
    return None, cause


def scores(maps: Sequence[Mapping[Any, float]], classes: Sequence[Any]) -> np.ndarray:
    """A sequence of maps from class to score as the tensor that the server makes of it."""
    return np.array([[row[label] for label in classes] for row in maps], np.float32).reshape(len(maps), len(classes))


def compare(expected: np.ndarray, actual: np.ndarray) -> str:
    """``bits`` where all are equal, ``rounding`` where they differ by that only, else what differs."""
    if expected.shape != actual.shape:
        return f"shape {list(actual.shape)} instead of {list(expected.shape)}"
    if expected.dtype.kind != "f":
        same = expected == actual
        return "bits" if np.all(same) else f"{np.size(same) - np.count_nonzero(same)} of {np.size(same)} elements"
    if expected.tobytes() == actual.tobytes():
        return "bits"
    one, other = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return "other NaN or infinite elements"
    largest = float(np.max(np.abs(one[finite]), initial=0.0))
    difference = float(np.max(np.abs(one[finite] - other[finite]), initial=0.0))
    if difference <= RELATIVE[expected.dtype.str[1:]] * largest:
        return "rounding"
    return f"{difference:g} at values up to {largest:g}"
