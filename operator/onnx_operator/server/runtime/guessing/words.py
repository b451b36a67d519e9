"""What ONNX Runtime's own words say of the sizes and values that it would have liked. Pure."""

import itertools
import re
from dataclasses import dataclass

_NODE = re.compile(r"running (\w{1,100}) node\. Name:'([^']{0,1000})'")
_BOUNDS = re.compile(r"idx=(-?\d{1,18}) must be within the inclusive range \[(-?\d{1,18}),(-?\d{1,18})\]")
_NUMBER = re.compile(r"(?<![\w.'/])-?\d{1,7}(?![\w.'])")
MAX_NUMBERS = 16
MAX_TEXT_LENGTH = 4000
"""Characters of a refusal that are read."""


@dataclass(frozen=True)
class Words:
    """A refusal: the node where it happened (operator and name, empty where none is told), and numbers in it."""

    operator: str
    node: str
    numbers: tuple[int, ...]
    shift: int = 0
    """By how much an index lies beyond its table; negative where it must become less."""


def read_words(text: str) -> Words:
    """Read what ONNX Runtime says of a failed run."""
    text = text[:MAX_TEXT_LENGTH]
    # The innermost, where a node holds others.
    found = next(reversed(list(_NODE.finditer(text))), None)
    rest = text[found.end() :] if found else text
    numbers = [int(number) for number in _NUMBER.findall(rest)]
    shift = 0
    if bounds := _BOUNDS.search(rest):
        index, low, high = map(int, bounds.groups())
        shift = high - index if index > high else max(0, low) - index
    distinct = tuple(dict.fromkeys(number for number in numbers if number > 0))
    return Words(found[1] if found else "", found[2] if found else "", distinct[:MAX_NUMBERS], shift)


def sizes_from(numbers: tuple[int, ...], size: int, largest: int) -> list[int]:
    """Sizes worth trying instead of ``size``, by the numbers that a refusal names.

    A number may be the size itself. Or one number is what came of ``size`` where another was wanted: then the size has
    to grow in that proportion, or by that difference.
    """
    plain = [each for number in numbers for each in (number, number + 1)]
    # The last two are the most telling: "mismatched dimensions of 1500 and 68".
    pairs = list(itertools.combinations(numbers[-6:][::-1], 2))
    scaled = [
        each
        for one, other in pairs
        for each in (size * max(one, other) // min(one, other), size + abs(one - other))
        if each != size
    ]
    wished = [*plain[:2], *scaled[:4], *plain[2:], *scaled[4:]]
    return [each for each in dict.fromkeys(wished) if 0 < each <= largest and each != size]
