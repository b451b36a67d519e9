"""Finding the input that warms a model up: from test data, given, kept from the revision before, or made up."""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnx_operator.api.warm_up import WarmUpInputs
from onnx_operator.server.dataplane.tensors import TensorInfo
from onnx_operator.server.runtime.attempts import GIVEN_SECONDS, Attempts, OutOfTimeError, run_within
from onnx_operator.server.runtime.failures import FailedTestError, HeldLoadError, LoadError, UnwarmedLoadError
from onnx_operator.server.runtime.guessing import (
    NOTHING,
    Graph,
    Guess,
    Search,
    UnmakeableError,
    make_feed,
    read_graph,
)
from onnx_operator.server.runtime.recipes import check_given, guess_of, recipe_of, shape_of_value
from onnx_operator.server.runtime.session import Model, explain

logger = logging.getLogger(__name__)

NOT_IMPLEMENTED = "NotImplemented"
"""ONNX Runtime's exception for its status of that name: no other input would help."""
CURE = (
    "give inputs that the model answers with spec.model.testData (serve: --test-data), or their sizes with spec.warmUp "
    "(serve: --warm-up); then requests that arrive together can share a run where that is safe"
)
_HELD = "it does not answer the inputs that the revision before was warmed up with"
_CONSENT = "if that is intended, give inputs that it answers with spec.warmUp or spec.model.testData"
_NOT_GIVEN = "the model does not answer what spec.warmUp says"
_EMPTY_SECONDS = 5.0
"""To find another input, once one is answered that holds nothing."""
_SHOWN = 3


@dataclass(frozen=True)
class Sources:
    """Where inputs may come from, and what bounds the search."""

    test_data: Path | None = None
    given: WarmUpInputs | None = None
    """What spec.warmUp says."""
    kept: WarmUpInputs | None = None
    """What warmed up the revision that serves, whose interface this model has."""
    required: bool = False
    """Whether a model for which no input is found must not serve: it is no first version."""
    attempts: Attempts = field(default_factory=Attempts)
    graph: Callable[[], Graph] | None = None
    """The model's graph; None: read from its file."""


@dataclass(frozen=True)
class Found:
    """An input that the model answered; ``guess`` makes one of its shapes anew."""

    guess: Guess
    feed: dict[str, Any]
    origin: str
    recipe: WarmUpInputs | None = None
    """The same, in few bytes."""


@dataclass(frozen=True)
class NotFound:
    """No input was found; the text says what was tried and the runtime's words."""

    message: str


def find_input(model: Model, sources: Sources) -> Found | NotFound:
    """Find an input that the model answers.

    What somebody gave has the last word: test data, else spec.warmUp, else what warmed up the revision before.

    Raises :class:`LoadError` where the runtime says that it does not implement what the model needs, or where what
    spec.warmUp says is not answered, :class:`FailedTestError` where test data is not, :class:`HeldLoadError`
    where kept ones are not, :class:`UnwarmedLoadError` where one is required and none is found.
    """
    required = [info for info in model.inputs if not info.optional]
    if sources.test_data is not None:
        feed = _of_test_data(model, sources.test_data)
        recipe = recipe_of(required, feed, None)
        shapes = {info.name: shape_of_value(feed[info.name]) for info in required if info.datatype}
        guess = guess_of(required, shapes)
        alike = recipe if recipe and _answers(model, required, recipe, sources.attempts) else None
        return Found(guess, feed, "testData", alike)
    if sources.given is not None and not sources.given.empty:
        check_given(required, sources.given)
        return _given(model, required, sources, sources.given)
    if sources.kept is not None and _fits(required, sources.kept):
        return _kept(model, required, sources.kept)
    if sources.required:
        # Found too late for a first version, it would keep this one from serving at all.
        sources.attempts.allow(GIVEN_SECONDS)
    found = _search(model, required, sources, Guess())
    if sources.required and isinstance(found, NotFound):
        raise UnwarmedLoadError(f"this is not a first version, so it serves only once it is warmed up: {found.message}")
    return found


def _given(model: Model, required: Sequence[TensorInfo], sources: Sources, given: WarmUpInputs) -> Found | NotFound:
    """What somebody says is run as it is; what he leaves open is searched for, and nothing else."""
    guess = guess_of(required, given.shapes, given.fillings())
    tensors = [info for info in required if info.datatype]
    sized = all(info.name in given.shapes or _is_fixed(info) for info in tensors)
    if sized:
        try:
            feed = make_feed(required, guess)
            run_within(model, feed, GIVEN_SECONDS)
        except OutOfTimeError:
            raise LoadError(f"{_NOT_GIVEN}: that takes longer than {GIVEN_SECONDS:.0f} s") from None
        except Exception as error:
            if all(info.name in given.fillings() for info in tensors):
                raise LoadError(f"{_NOT_GIVEN}: {explain(error)}") from None
            sources.attempts.allow(GIVEN_SECONDS)
        else:
            return Found(guess, feed, "warmUp", recipe_of(required, feed, guess))
    # A first size that is told is none that a batch may change.
    found = _search(model, required, sources, replace(guess, batch=1, shapes=_exact(given.shapes)))
    if isinstance(found, NotFound):
        raise LoadError(f"{_NOT_GIVEN}: {found.message}")
    if sized:
        found = replace(found, guess=replace(found.guess, batch=guess.batch, shapes=guess.shapes))
    return replace(found, origin="warmUp")


def _is_fixed(info: TensorInfo) -> bool:
    return bool(info.shape) and all(isinstance(size, int) for size in info.shape)


def _exact(shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in shapes.items()}


def _fits(required: Sequence[TensorInfo], kept: WarmUpInputs) -> bool:
    """Whether kept inputs are inputs of this model at all."""
    try:
        check_given(required, kept)
    except LoadError:
        return False
    return {info.name for info in required} == kept.shapes.keys()


def _kept(model: Model, required: Sequence[TensorInfo], kept: WarmUpInputs) -> Found:
    guess = guess_of(required, kept.shapes, kept.fillings())
    try:
        feed = make_feed(required, guess)
        run_within(model, feed, GIVEN_SECONDS)
    except OutOfTimeError:
        raise HeldLoadError(f"{_HELD}: they take longer than {GIVEN_SECONDS:.0f} s; {_CONSENT}") from None
    except Exception as error:
        raise HeldLoadError(f"{_HELD}: {explain(error)}; {_CONSENT}") from None
    return Found(guess, feed, "kept", kept)


def _answers(model: Model, required: Sequence[TensorInfo], recipe: WarmUpInputs, attempts: Attempts) -> bool:
    """Whether an input like that of the test data is answered too; a kill by it is no fault of the model's."""
    try:
        guess = guess_of(required, recipe.shapes, recipe.fillings())
        feed = make_feed(required, guess)
        identity = _identity(feed, guess)
        if attempts.killed(identity):
            return False
        attempts.run(model, feed, identity, _bytes(feed))
    except Exception:
        return False
    return True


def _of_test_data(model: Model, folder: Path) -> dict[str, Any]:
    from onnx_operator.server.runtime.testdata import find_data_sets, inputs_of

    data_set = find_data_sets(folder)[0]
    feed = inputs_of(model, data_set)
    try:
        model.run_plain([info.name for info in model.outputs], feed)
    except Exception as error:
        raise FailedTestError(f"{data_set.name}: {getattr(error, 'message', None) or explain(error)}") from None
    return feed


def _search(model: Model, required: Sequence[TensorInfo], sources: Sources, base: Guess) -> Found | NotFound:
    attempts = sources.attempts
    told = _Told()
    search = Search(required, sources.graph or (lambda: read_graph(model.path) if model.path else NOTHING), base)
    open_sizes = any(
        not isinstance(size, int) for info in required if info.name not in base.shapes for size in info.shape
    )
    empty: Found | None = None
    for guess in () if attempts.given_up else search:
        try:
            feed = make_feed(required, guess)
        except ValueError:
            continue
        except UnmakeableError as error:
            return NotFound(f"{error}; {CURE}")
        identity, size = _identity(feed, guess), _bytes(feed)
        if attempts.forbids(identity, size, open_sizes=open_sizes):
            told.left_out += 1
            search.skipped()
            continue
        try:
            attempts.run(model, feed, identity, size)
        except OutOfTimeError:
            told.late = True
            break
        except Exception as error:
            told.add(error, feed, search.refused(guess, explain(error)))
        else:
            found = Found(guess, feed, "madeUp", recipe_of(required, feed, guess))
            if not _is_empty(required, feed, base):
                return found
            if empty is None:
                # It computes next to nothing: only where no other is answered it must do.
                empty = found
                attempts.hurry(_EMPTY_SECONDS)
            search.skipped()
    if empty is not None:
        return empty
    told.kills = attempts.kills
    if told.tried and told.implemented == 0:
        raise LoadError(f"ONNX Runtime does not implement what the model needs: {told.words}")
    return NotFound(told.message())


def _is_empty(required: Sequence[TensorInfo], feed: Mapping[str, Any], base: Guess) -> bool:
    """Whether there is nothing in one of the tensors, although neither the model nor anybody says so."""
    return any(
        0 in shape_of_value(feed[info.name])
        for info in required
        if info.datatype and 0 not in info.shape and info.name not in base.shapes
    )


class _Told:
    """What became of the guesses."""

    def __init__(self) -> None:
        self.tried = self.left_out = self.implemented = self.kills = 0
        self.late = False
        self.words = ""
        self._furthest = -math.inf
        self._shapes: list[str] = []
        self._started = time.monotonic()

    def add(self, error: Exception, feed: Mapping[str, Any], progress: float) -> None:
        """A guess was refused; the words of the run that came furthest are kept."""
        self.tried += 1
        self.implemented += type(error).__name__ != NOT_IMPLEMENTED
        if progress > self._furthest:
            self._furthest, self.words = progress, explain(error)
        shown = ", ".join(f"{name} {list(shape_of_value(value))}" for name, value in list(feed.items())[:_SHOWN])
        if shown and shown not in self._shapes[:1]:
            self._shapes = [*self._shapes[:1], shown]

    def message(self) -> str:
        """What is told to people."""
        seconds = time.monotonic() - self._started
        tried = f"{self.tried} made-up inputs were tried in {seconds:.1f} s"
        if self._shapes:
            tried += f", {' … '.join(self._shapes)}"
        parts = [f"ONNX Runtime answered none: {self.words}" if self.words else "none was answered", tried]
        if self.late:
            parts.append("the time for the search was over")
        if self.left_out:
            parts.append(f"{self.left_out} were left out, for memory or because they had killed the process")
        if self.kills:
            parts.append(f"{self.kills} killed the process; more memory (spec.resources.limits.memory) may help")
        return "; ".join([*parts, CURE])


def _bytes(feed: Mapping[str, Any]) -> int:
    return sum(
        value.tensor_size_in_bytes() if hasattr(value, "tensor_size_in_bytes") else getattr(value, "nbytes", 0)
        for value in feed.values()
    )


def _identity(feed: Mapping[str, Any], guess: Guess) -> str:
    """Names a guess across starts."""
    shapes = [(name, list(shape_of_value(value))) for name, value in feed.items()]
    values = sorted((name, list(values)) for name, values in guess.values.items())
    return hashlib.sha256(repr((shapes, values, guess.value)).encode()).hexdigest()[:16]
