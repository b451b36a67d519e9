"""The search for inputs that a model answers: which guess is next, given what the runtime said to those before. Pure.

The first guesses are plain: all open sizes 1, zeros, then ones. Where they fail, the graph is read. From then on each
refusal breeds guesses that differ from the refused one in a size or a value, most of them by numbers that the refusal
names; those whose run came furthest in the graph breed first.
"""

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from onnx_operator.api.warm_up import MAX_WARM_UP_ELEMENTS
from onnx_operator.server.dataplane.tensors import TensorInfo
from onnx_operator.server.runtime.guessing.graph import Graph
from onnx_operator.server.runtime.guessing.guess import Guess, Key, shape_of, terms
from onnx_operator.server.runtime.guessing.hints import Hints
from onnx_operator.server.runtime.guessing.words import Words, read_words, sizes_from

MAX_OPEN_SIZE = 65_536
"""Sizes beyond it are not tried: a few seconds of sound."""
MAX_GUESSES = 600
_MAX_BRED = 96
_MIN_BRED = 8
_FEW_INPUTS = 100
"""Guesses that one refusal breeds."""
_COMMON_SIZES = 12
_SIDES = (8, 16, 32, 64, 128, 224, 256, 512, 1024)
"""Of pictures."""
_FILLS = (0, 1, 2, 3, 4, 8, 16)
_NAMELESS = -1.0
_MAX_TOLD = 24
"""Sizes of one dimension that a refusal's numbers lead to."""
_COMMON_COST = 10
_VALUES_COST = 14
_SIZE_COST = 0.25
"""What a guess of twice the size costs more."""
_INHERITED = 0.5
"""The part of a guess's cost that those it breeds cost more: many small steps are less likely than a large one."""
_LIKELIER_ZEROS = 8.0
"""What guesses of ones cost more than those of zeros."""


class Search:
    """Guesses for these inputs, one after the other; :meth:`refused` says why one was wrong.

    ``read`` gives the graph; it is called once, and only where the plain guesses fail. Shapes and values of ``base``
    are what somebody has said, and never varied.
    """

    def __init__(self, inputs: Sequence[TensorInfo], read: Callable[[], Graph], base: Guess | None = None) -> None:
        self._inputs = [info for info in inputs if info.datatype]
        self._read = read
        self._base = base or Guess()
        self._distinct = _distinct(self._inputs, self._base)
        self._furthest: list[tuple[float, float, int, Guess]] = []
        self._cheapest: list[tuple[float, int, Guess]] = []
        self._count = itertools.count()
        self._costs: dict[object, float] = {}
        self._graph: Graph | None = None
        self._hints: Hints | None = None
        self._order: dict[str, int] = {}
        self._common: list[int] = []
        self._keys = [*self._open_keys()]
        for order, guess in enumerate((self._base, replace(self._base, value=1))):
            self._push(guess, math.inf, order)

    def __iter__(self) -> Iterator[Guess]:
        given: set[int] = set()
        while self._cheapest and len(given) < MAX_GUESSES:
            # What came furthest, and what is cheapest, in turn: the furthest may lead nowhere.
            for number, guess in (heapq.heappop(self._cheapest)[1:], self._next_furthest()):
                if guess is not None and number not in given:
                    given.add(number)
                    yield guess

    def _next_furthest(self) -> tuple[int, Guess | None]:
        return heapq.heappop(self._furthest)[2:] if self._furthest else (0, None)

    def refused(self, guess: Guess, text: str) -> float:
        """Learn from what ONNX Runtime said to a guess; return how far its run came in the graph."""
        if self._graph is None:
            self._read_graph()
        words = read_words(text)
        progress = self._progress(words)
        inherited = _INHERITED * self._costs.get(self._identity(guess), 0.0)
        for cost, bred in itertools.islice(self._breed(guess, words), self._most_bred()):
            self._push(bred, progress, inherited + cost + _LIKELIER_ZEROS * guess.value, sized=_SIZE_COST)
        return progress

    def _most_bred(self) -> int:
        """Guesses that one refusal may lead to: each costs time for all inputs."""
        return max(_MIN_BRED, min(_MAX_BRED, _MAX_BRED * _FEW_INPUTS // max(1, len(self._inputs))))

    def skipped(self) -> None:
        """A guess was not run: there are others, though no words of the runtime's lead to them."""
        if self._graph is None:
            self._read_graph()

    def _read_graph(self) -> None:
        """Read the graph; what it says of values and sizes is tried first."""
        self._graph = graph = self._read()
        self._hints = Hints(graph, self._inputs)
        for node in graph.nodes:
            self._order.setdefault(node.name or f"\0{node.operator}", node.order)
            self._order.setdefault(f"\0{node.operator}", node.order)
        numbers = Counter(
            size
            for constant in graph.constants.values()
            for size in {*constant.dims, *(v for v in constant.values if type(v) is int)}
            if 1 < size <= MAX_OPEN_SIZE
        )
        declared = [size for info in self._inputs for size in info.shape if isinstance(size, int) and size > 1]
        given = [size for shape in self._base.shapes.values() for size in shape if size > 1]
        constant = [size for size, _ in numbers.most_common(_COMMON_SIZES)]
        self._common = list(dict.fromkeys([*given, *declared, *constant]))[: 2 * _COMMON_SIZES]
        for order, guess in enumerate(self._static(self._base)):
            self._push(guess, 0.0, order)

    def _static(self, base: Guess) -> Iterator[Guess]:
        """Sizes that are tried whatever the runtime says: by doubling, pictures, ranks."""
        yield from self._hinted(base)
        if any(not isinstance(size, int) for info in self._inputs for size in info.shape):
            yield replace(base, batch=2, rest=2)
            pictures = any(len(info.shape) == 4 for info in self._inputs)
            sides = [key for key in self._keys if self._is_side(key)]
            if pictures:
                yield replace(base, image=True)
                for side in _SIDES if sides else ():
                    yield replace(base, sizes=dict.fromkeys(sides, side))
                    yield replace(base, image=True, sizes=dict.fromkeys(sides, side))
            yield from (replace(base, rest=2**power) for power in range(1, 12 if pictures else 17))
            yield from (replace(base, rest=size) for size in (3, 224))
        if any(not info.shape for info in self._inputs):
            for rank, size in itertools.product((1, 2, 3, 4), (1, 2)):
                yield replace(base, rank=rank, rest=size, batch=size)
                yield replace(base, rank=rank, rest=size, batch=size, value=1)

    def _hinted(self, guess: Guess) -> Iterator[Guess]:
        if self._hints is None:
            return
        free = {name: shape for name, shape in self._shapes(guess).items() if name not in self._base.values}
        for values in self._hints.combinations(free):
            yield replace(guess, values={**guess.values, **values})

    def _breed(self, guess: Guess, words: Words) -> Iterator[tuple[float, Guess]]:
        """Guesses that differ from a refused one in something, with what each costs: the likelier, the less."""
        sizes = {key: self._size(guess, key) for key in self._keys}
        told = {key: sizes_from(words.numbers, size, MAX_OPEN_SIZE) for key, size in sizes.items()}
        for order, wishes in enumerate(itertools.islice(itertools.zip_longest(*told.values()), _MAX_TOLD)):
            for key, size in zip(told, wishes, strict=True):
                if size is not None:
                    yield from self._with(order, guess, {key: size})
        if words.shift:
            yield from ((0.0, each) for each in self._shifted(guess, words.shift))
        yield from enumerate(self._hinted(guess), 1)
        yield from self._larger(guess, sizes)
        yield from enumerate(self._other_values(guess, words), _VALUES_COST)
        for order, size in enumerate(self._common, _COMMON_COST):
            for key in sizes:
                yield from self._with(order, guess, {key: size})
        for key in sizes:
            if isinstance(key, str) and "past" in key:
                yield from self._with(_COMMON_COST, guess, {key: 0})
        if self._has_batch() and not self._base.shapes:
            for size in (2, *words.numbers[:4]):
                if size != guess.batch and size <= 4096:
                    yield _COMMON_COST, replace(guess, batch=size)

    def _larger(self, guess: Guess, sizes: Mapping[Key, int]) -> Iterator[tuple[float, Guess]]:
        """Twice as large: all together, those of a picture's sides, and each alone."""
        sides = [key for key in sizes if self._is_side(key)]
        for side in _SIDES:
            if sides and side > max(sizes[key] for key in sides):
                yield from self._with(2, guess, dict.fromkeys(sides, side))
                break
        yield from self._with(3, guess, {key: 2 * size for key, size in sizes.items()})
        for factor in (2, 16):
            for key, size in sizes.items():
                yield from self._with(3 + factor // 2, guess, {key: max(1, factor * size)})

    def _shifted(self, guess: Guess, shift: int) -> Iterator[Guess]:
        """Whole numbers moved by as much as an index was beyond its table."""
        for info in self._varied():
            current = guess.values.get(info.name, (guess.value,))
            if all(type(value) is int for value in current):
                moved = tuple(int(value) + shift for value in current)
                yield replace(guess, values={**guess.values, info.name: moved})

    def _other_values(self, guess: Guess, words: Words) -> Iterator[Guess]:
        fills = [*_FILLS, *(number for number in words.numbers if number not in _FILLS)]
        names = [info.name for info in self._varied()]
        shapes = self._shapes(guess)
        for fill in fills:
            for name in names:
                yield replace(guess, values={**guess.values, name: (fill,)})
        for name in names:
            for other in {shape for key, shape in shapes.items() if key != name and shape}:
                yield replace(guess, values={**guess.values, name: other})

    def _varied(self) -> list[TensorInfo]:
        """Inputs of whole numbers, the values of which nobody has given."""
        whole = ("INT64", "INT32", "UINT8", "INT8", "UINT32", "UINT64", "INT16", "UINT16")
        return [info for info in self._inputs if info.datatype in whole and info.name not in self._base.values]

    def _with(self, cost: float, guess: Guess, sizes: Mapping[Key, int]) -> Iterator[tuple[float, Guess]]:
        if sizes and all(size <= MAX_OPEN_SIZE for size in sizes.values()):
            yield cost, replace(guess, sizes={**guess.sizes, **sizes})

    def _size(self, guess: Guess, key: Key) -> int:
        if key in guess.sizes:
            return guess.sizes[key]
        for info in self._inputs:
            for axis, declared in enumerate(info.shape):
                if declared == key or (info.name, axis) == key:
                    return shape_of(info, guess, {})[axis]
        return guess.rest

    def _shapes(self, guess: Guess) -> dict[str, tuple[int, ...]]:
        sizes: dict[str, int] = {}
        return {info.name: shape_of(info, guess, sizes) for info in self._inputs}

    def _distinct_shapes(self, guess: Guess) -> tuple[tuple[int, ...], ...]:
        """The same, without those that are another's in every guess: decoders have hundreds of alike inputs."""
        sizes: dict[str, int] = {}
        return tuple(shape_of(info, guess, sizes) for info in self._distinct)

    def _open_keys(self) -> Iterator[Key]:
        """What the search varies: open dimensions but the batch, those that an expression is made of among them."""
        found: dict[Key, None] = {}
        for info in self._inputs:
            if info.name in self._base.shapes:
                continue
            for axis, size in enumerate(info.shape):
                if isinstance(size, int):
                    continue
                if not size:
                    if axis or not self._has_batch():
                        found[info.name, axis] = None
                elif named := terms(size):
                    found.update(dict.fromkeys(named))
                elif axis or not self._has_batch():
                    found[size] = None
        batch = {info.shape[0] for info in self._inputs if info.shape} if self._has_batch() else set()
        yield from (key for key in found if key not in batch)

    def _has_batch(self) -> bool:
        """Whether the first dimension of all inputs is one open size, that is no other dimension too."""
        first = {info.shape[0] for info in self._inputs if info.shape}
        if len(first) != 1 or isinstance(next(iter(first)), int):
            return False
        return not any(size in first and size for info in self._inputs for size in info.shape[1:])

    def _is_side(self, key: Key) -> bool:
        return any(
            len(info.shape) == 4 and axis >= 2 and key in (size, (info.name, axis))
            for info in self._inputs
            for axis, size in enumerate(info.shape)
        )

    def _progress(self, words: Words) -> float:
        if not words.operator:
            return _NAMELESS
        named = self._order.get(words.node) if words.node else None
        return float(named if named is not None else self._order.get(f"\0{words.operator}", 0))

    def _push(self, guess: Guess, progress: float, cost: float, sized: float = 0.0) -> None:
        shapes = self._distinct_shapes(guess)
        identity = self._identity(guess, shapes)
        if identity in self._costs or any(math.prod(shape) > MAX_WARM_UP_ELEMENTS for shape in shapes):
            return
        cost += sized * _magnitude(shapes)
        self._costs[identity] = cost
        number = next(self._count)
        heapq.heappush(self._furthest, (-progress, cost, number, guess))
        heapq.heappush(self._cheapest, (cost, number, guess))

    def _identity(self, guess: Guess, shapes: tuple[tuple[int, ...], ...] | None = None) -> object:
        values = tuple(sorted((name, tuple(values)) for name, values in guess.values.items()))
        return shapes or self._distinct_shapes(guess), values, guess.value


def _distinct(inputs: Sequence[TensorInfo], base: Guess) -> list[TensorInfo]:
    """One input for each shape that is written with numbers and names alone; all others."""
    found: dict[object, TensorInfo] = {}
    for info in inputs:
        named = bool(info.shape) and all(info.shape) and info.name not in base.shapes
        found.setdefault(info.shape if named else info.name, info)
    return list(found.values())


def _magnitude(shapes: Sequence[tuple[int, ...]]) -> float:
    """Powers of two in the number of elements of all inputs."""
    return math.log2(1 + sum(math.prod(shape) for shape in shapes))
