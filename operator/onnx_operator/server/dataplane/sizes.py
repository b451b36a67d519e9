"""What requests and answers take in memory, estimated before it is taken. Pure functions; all in bytes.

Measured on x86-64 with bodies of 8 MiB, the peak beyond what was there before. A value is at most what follows a
comma or opens a list or an object; where a string holds such characters the estimate is too high, never too low.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUICK_BODY, QUICK_VALUE = 3, 32
"""simdjson: a padded copy, sixteen bytes a number, four an index, eight each in two arrays."""
THOROUGH_BODY, THOROUGH_VALUE, THOROUGH_KEY = 6, 110, 220
"""Python's objects: text of a byte a character, strings, lists and dictionaries of one element each."""
WIDE_BODY = 11
"""The same of a body with other characters than ASCII's: one of them makes four bytes of each in its text."""
CHARACTERS = 8
"""Bytes that a byte of a body may be as characters of Python's and ONNX Runtime's strings, in inputs and outputs."""
STRING = 100
"""A string as an object and as ONNX Runtime's, without its characters."""
WRITTEN_VALUE = 100
"""A number as text in the three copies that make a body, or as an object and as text."""
WRITTEN_BYTES = 4
"""Copies of raw bytes that make an answer."""
_PIECE = 1 << 16


def quick_bytes(body: bytes) -> int:
    """What the quick reader takes for JSON of numbers."""
    values, _ = _count(body)
    return QUICK_BODY * len(body) + QUICK_VALUE * values


def thorough_bytes(body: bytes) -> int:
    """What the thorough reader, or any that makes objects of Python, takes for any JSON."""
    values, keys = _count(body)
    return text_bytes(body) + THOROUGH_VALUE * values + THOROUGH_KEY * keys


def text_bytes(body: bytes) -> int:
    """What the characters of a body take in the copies that reading makes of them."""
    # JSON may have any character as an escape.
    return (THOROUGH_BODY if body.isascii() and b"\\u" not in body else WIDE_BODY) * len(body)


def strings_of(feed: Mapping[str, Any]) -> int:
    """What the strings of a feed take besides their characters."""
    return STRING * sum(int(value.size) for value in feed.values() if value.dtype.hasobject)


def feed_bytes(feed: Mapping[str, Any], length: int) -> int:
    """What a feed takes that came in a body of ``length`` bytes, and its outputs where they are of the same size."""
    texts = CHARACTERS * length if any(value.dtype.hasobject for value in feed.values()) else 0
    return 2 * sum(int(value.nbytes) for value in feed.values()) + strings_of(feed) + texts


def result_bytes(results: Sequence[Any]) -> int:
    """What results hold until they are written, without the characters of their strings."""
    return sum(_held(result) for result in results)


def _held(result: Any) -> int:
    if isinstance(result, np.ndarray):
        return int(result.nbytes) + (STRING * int(result.size) if result.dtype.hasobject else 0)
    return _written(result, raw=False)


def written_bytes(results: Sequence[Any], *, raw: bool = False) -> int:
    """What it takes to write results as JSON, or as ``raw`` bytes."""
    return sum(_written(result, raw) for result in results)


def _written(result: Any, raw: bool) -> int:
    if isinstance(result, (list, tuple)):
        return WRITTEN_VALUE + sum(_written(each, raw) for each in result)
    if isinstance(result, dict):
        return 2 * WRITTEN_VALUE * (1 + len(result))
    if not isinstance(result, np.ndarray):
        return WRITTEN_VALUE
    if result.dtype.hasobject:
        texts = result.reshape(-1).tolist()
        return WRITTEN_VALUE * len(texts) + WRITTEN_BYTES * sum(len(text) for text in texts if isinstance(text, str))
    return WRITTEN_BYTES * int(result.nbytes) if raw else WRITTEN_VALUE * int(result.size)


def _count(body: bytes) -> tuple[int, int]:
    """How many values and keys JSON has at most."""
    whole = np.frombuffer(body, np.uint8)
    found = np.zeros(256, np.int64)
    for at in range(0, len(whole), _PIECE):
        found += np.bincount(whole[at : at + _PIECE], minlength=256)
    return int(found[ord(",")] + found[ord("[")] + found[ord("{")]) + 1, int(found[ord(":")])
