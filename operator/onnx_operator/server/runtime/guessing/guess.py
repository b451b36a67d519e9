"""A guess: how everything that a model leaves open is filled in. Pure."""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from onnx_operator.server.dataplane.tensors import TensorInfo

MAX_SIZE = 1 << 20
"""No dimension is made up beyond it."""
_MAX_EXPRESSION_LENGTH = 200
PIXELS = 224

Key = str | tuple[str, int]
"""What an open dimension is called: its name, or the input and the axis where it has none."""
Value = bool | int | float | str


@dataclass(frozen=True)
class Guess:
    """How unknowns are filled in.

    ``batch`` is the size of an open first dimension, ``rest`` of the others, but for those that ``sizes`` gives;
    ``image`` takes 3 × 224 × 224 for those of inputs with four dimensions. ``rank`` is that of inputs without a shape.
    ``value`` fills the tensors, but for those whose elements ``values`` gives, in turn and repeated. ``shapes`` has the
    last word on the shape of an input; -1 at its beginning stands for ``batch``.
    """

    batch: int = 1
    rest: int = 1
    image: bool = False
    rank: int = 0
    value: int = 0
    sizes: Mapping[Key, int] = field(default_factory=dict)
    values: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def shape_of(info: TensorInfo, guess: Guess, sizes: dict[str, int]) -> tuple[int, ...]:
    """Fill in unknown sizes; ``sizes`` keeps those that have a name."""
    if given := guess.shapes.get(info.name):
        return (guess.batch if given[0] < 0 else given[0], *given[1:])
    declared = info.shape or (None,) * guess.rank
    return tuple(
        size if isinstance(size, int) else _open_size(info.name, axis, declared, guess, sizes)
        for axis, size in enumerate(declared)
    )


def _open_size(
    name: str, axis: int, declared: tuple[int | str | None, ...], guess: Guess, sizes: dict[str, int]
) -> int:
    size = declared[axis]
    if not isinstance(size, str) or not size:
        return guess.sizes.get((name, axis), _default(axis, declared, guess))
    if size not in sizes:
        computed = evaluate(size, lambda term: guess.sizes.get(term, sizes.get(term, guess.rest)))
        if size in guess.sizes:
            sizes[size] = guess.sizes[size]
        elif computed is not None:
            sizes[size] = computed
        else:
            sizes[size] = _default(axis, declared, guess)
    return sizes[size]


def _default(axis: int, declared: tuple[int | str | None, ...], guess: Guess) -> int:
    if guess.image and len(declared) == 4 and axis > 0:
        channels_last = declared[-1] in (1, 3, 4)
        return 3 if axis == (3 if channels_last else 1) else PIXELS
    return guess.batch if axis == 0 else guess.rest


def terms(name: str) -> list[str]:
    """The names in a dimension's expression, such as ``past_sequence_length + sequence_length``; none in a plain name.

    Exporters write sums and products that Python's grammar reads.
    """
    tree = _parsed(name)
    return [] if tree is None else [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def evaluate(name: str, size_of: Callable[[str], int]) -> int | None:
    """The size that such an expression gives; None for a plain name, for what is no expression, and for no size.

    A name such as ``batch-size`` is no difference, and a quarter of 1 is no picture.
    """
    tree = _parsed(name)
    if tree is None:
        return None
    try:
        found = _compute(tree, size_of)
    except (ValueError, ZeroDivisionError):
        return None
    return found if 0 < found <= MAX_SIZE else None


@lru_cache(maxsize=1024)
def _parsed(name: str) -> ast.expr | None:
    if len(name) > _MAX_EXPRESSION_LENGTH or not any(sign in name for sign in "+-*/"):
        return None
    try:
        tree = ast.parse(name.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree if isinstance(tree, ast.BinOp) else None


def _compute(node: ast.expr, size_of: Callable[[str], int]) -> int:
    if isinstance(node, ast.Name):
        return size_of(node.id)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp):
        left, right = _compute(node.left, size_of), _compute(node.right, size_of)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.Div() | ast.FloorDiv():
                return left // right
    raise ValueError("no sum or product of sizes")
