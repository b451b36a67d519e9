"""Sizes as products of a number and symbols: what a shape holds before anybody has sent a row."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

ROWS = "N"
"""The symbol of the number of rows; every other one stands for a number that rows do not change."""
_MAX_SYMBOLS = 24
_LARGEST = 2**62


class Size(NamedTuple):
    """``coefficient`` times all ``symbols``, which are in order; one may come twice."""

    coefficient: int
    symbols: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """How often the number of rows is a factor."""
        return self.symbols.count(ROWS)

    @property
    def number(self) -> int | None:
        """The number that it is; None where it has symbols."""
        return None if self.symbols else self.coefficient

    @property
    def natural(self) -> bool:
        """Whether it cannot be negative: ``?`` begins the symbols of which nothing is known."""
        return self.coefficient >= 0 and not any(symbol.startswith("?") for symbol in self.symbols)


ZERO, ONE, MINUS_ONE = Size(0), Size(1), Size(-1)
N = Size(1, (ROWS,))


def product(sizes: Iterable[Size]) -> Size | None:
    """Multiply; None where the result is not worth following."""
    coefficient, symbols = 1, list[str]()
    for size in sizes:
        coefficient *= size.coefficient
        symbols += size.symbols
        if len(symbols) > _MAX_SYMBOLS or abs(coefficient) > _LARGEST:
            return None
    return Size(coefficient, tuple(sorted(symbols))) if coefficient else ZERO


def quotient(size: Size, divisor: Size) -> Size | None:
    """Divide; None where it is not known to come out even."""
    if not divisor.coefficient or size.coefficient % divisor.coefficient:
        return None
    left = Counter(size.symbols)
    left.subtract(divisor.symbols)
    if any(count < 0 for count in left.values()):
        return None
    return Size(size.coefficient // divisor.coefficient, tuple(sorted(left.elements())))
