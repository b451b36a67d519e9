"""What a message takes in memory once it is parsed, found on its bytes before that. Pure.

An empty message of two bytes becomes an object of ninety, a number of one byte one of eight in a list that has doubled
its room: whoever may send eight MiB must not have three hundred of them for it.
https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator

from onnx_operator.server.dataplane.sizes import STRING
from onnx_operator.server.errors import RequestError

MOST_FIELDS = 4096
"""Fields of a request, counted within its inputs and their contents too, where each is an object of its own."""
MOST_ELEMENTS = 262_144
"""Fields within the contents of all inputs: strings, and numbers that were not packed. Each is looked at."""
_DENSE = 24
"""Bytes for a byte of what may hold short numbers, names and maps. Measured: 17."""
_PLAIN = 4
"""Bytes for a byte of what is copied as it is: contents of the message, of Python, and of the array."""
_TAG = 2
"""Bytes of a field besides its content, at least."""
_INPUTS, _RAW = 5, 7
_CONTENTS = 5
_BOOL, _FP32, _FP64, _BYTES = 1, 6, 7, 8
"""Field numbers of ModelInferRequest, its InferInputTensor and that one's InferTensorContents."""


def parsed_bytes(body: bytes) -> int:
    """Bytes of memory that a ModelInferRequest takes with its arrays, at most. Raises :class:`RequestError`.

    What is no message at all is left to the parser, which refuses it.
    """
    view = memoryview(body)
    found, count, elements = 3 * len(body), 0, 0
    for number, start, end in _fields(view, 0, len(view)):
        count += 1
        if number == _RAW:
            found += _PLAIN * (end - start)
        elif number == _INPUTS:
            inner, seen, within = _input_bytes(view, start, end, MOST_ELEMENTS - elements)
            found += inner
            count += seen
            elements += within
        else:
            found += _DENSE * (end - start + _TAG)
        if count > MOST_FIELDS:
            raise RequestError(f"the message has more than {MOST_FIELDS} fields; send elements packed, or raw", 400)
    return found


def _input_bytes(view: memoryview, start: int, end: int, most: int) -> tuple[int, int, int]:
    found, count, elements = 0, 0, 0
    for number, begin, stop in _fields(view, start, end):
        count += 1
        if number != _CONTENTS:
            found += _DENSE * (stop - begin + _TAG)
            if count > MOST_FIELDS:
                # Unpacked sizes and the like; the rest is taken at its worst.
                return found + _DENSE * (end - stop), count, elements
            continue
        for field, first, last in _fields(view, begin, stop):
            elements += 1
            if elements > most:
                raise RequestError(
                    f"the message has more than {MOST_ELEMENTS} elements one by one; send strings in "
                    "raw_input_contents, and numbers packed or there as well",
                    400,
                )
            if field in (_BOOL, _FP32, _FP64) and last - first > 64:
                found += _PLAIN * (last - first)
            elif field == _BYTES:
                found += STRING + _DENSE + _PLAIN * (last - first)
            else:
                found += _DENSE * (last - first + _TAG)
    return found, count, elements


def _fields(view: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field's content; ends where the bytes are no message."""
    while at < end:
        try:
            tag, at = _varint(view, at, end)
            start, kind = at, tag & 7
            if kind == 2:
                size, start = _varint(view, at, end)
                at = start + size
            elif kind == 0:
                _, at = _varint(view, at, end)
            elif kind == 1:
                at += 8
            elif kind == 5:
                at += 4
            else:
                # Groups are unknown to the protocol: copied, with all that is in them.
                at = end
        except IndexError:
            return
        if at > end:
            return
        yield tag >> 3, start, at


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise IndexError
