"""Numbers with a fraction or an exponent, where an integer may be meant: a double would lose their last digits.

``9007199254740993.0`` and ``1e19`` are integers, ``1.00000000000000000001`` is none, and none of this can be told once
they are doubles. Pure functions.
"""

from decimal import Decimal, InvalidOperation

_BEYOND = 2.0**65
"""No datatype has integers of this size."""
_ALIKE = bytes.maketrans(b"123456789.E", b"0000000000e")
_MANY_DIGITS = b"0" * 17
"""Sixteen digits and a point. Numbers of fifteen are told apart by doubles."""
_EXPONENT = b"0e"


class Whole(int):
    """An integer that was written with a fraction or an exponent."""


class Spelled(float):
    """A number that is no integer although the nearest double is one, or that is beyond all doubles, with its text."""

    def __new__(cls, text: str) -> "Spelled":
        """The nearest double."""
        number = super().__new__(cls, text)
        number._text = text
        return number

    _text: str

    def __str__(self) -> str:
        return self._text


def doubtful(body: bytes) -> bool:
    """Whether JSON may hold numbers of which doubles are not enough to tell the integers that they are, or are not."""
    digits = body.translate(_ALIKE)
    return _EXPONENT in digits or _MANY_DIGITS in digits


def exact(text: str) -> float | int:
    """A number with a fraction or an exponent: :class:`Whole`, :class:`Spelled`, or a double. Zeros keep their sign."""
    number = float(text)
    if abs(number) == float("inf"):
        return Spelled(text)
    if not number.is_integer() or abs(number) > _BEYOND:
        return number
    try:
        decimal = Decimal(text)
    except InvalidOperation:
        # An exponent of more digits than decimals can have.
        return Spelled(text)
    whole = int(decimal)
    if whole != decimal:
        return Spelled(text)
    return Whole(whole) if whole else number
