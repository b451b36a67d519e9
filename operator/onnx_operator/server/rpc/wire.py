"""What a message takes in memory once it is parsed, found on its bytes before that. Pure.

An empty message of two bytes becomes an object of ninety, a number of one byte one of eight in a list that has doubled
its room: whoever may send eight MiB must not have three hundred of them for it.
https://protobuf.dev/programming-guides/encoding/

Walks by itself, not by ``model.reading.wire``: that one looks through a moving window, refuses what is malformed (here
the parser's task) and makes an object of each field. Measured, it takes 1.6 to 2.4 times as long for a request of 40
bytes, of 1 MiB raw or packed (12 to 20 µs more each), and of 100,000 strings (243 ms for 138 ms).
"""

from collections.abc import Iterator

from onnx_operator.model.reading.wire import BYTES, FIXED32, FIXED64, VARINT
from onnx_operator.server.dataplane.sizes import STRING
from onnx_operator.server.errors import RequestError
from onnx_operator.server.rpc.inference_pb2 import InferTensorContents, ModelInferRequest

MAX_REQUEST_FIELDS = 4096
"""Fields of a request, counted within its inputs and their contents too, where each is an object of its own."""
MAX_UNPACKED_ELEMENTS = 262_144
"""Fields within the contents of all inputs: strings, and numbers that were not packed. Each is looked at."""
_DENSE = 24
"""Bytes for a byte of what may hold short numbers, names and maps. Measured: 17."""
_PLAIN = 4
"""Bytes for a byte of what is copied as it is: contents of the message, of Python, and of the array."""
_TAG = 2
"""Bytes of a field besides its content, at least."""
_INPUTS = ModelInferRequest.INPUTS_FIELD_NUMBER
_RAW = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_CONTENTS = ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER
_PACKED = (
    InferTensorContents.BOOL_CONTENTS_FIELD_NUMBER,
    InferTensorContents.FP32_CONTENTS_FIELD_NUMBER,
    InferTensorContents.FP64_CONTENTS_FIELD_NUMBER,
)
_BYTES = InferTensorContents.BYTES_CONTENTS_FIELD_NUMBER


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
            inner, seen, within = _input_bytes(view, start, end, MAX_UNPACKED_ELEMENTS - elements)
            found += inner
            count += seen
            elements += within
        else:
            found += _DENSE * (end - start + _TAG)
        if count > MAX_REQUEST_FIELDS:
            raise RequestError(
                f"the message has more than {MAX_REQUEST_FIELDS} fields; send elements packed, or raw", 400
            )
    return found


def _input_bytes(view: memoryview, start: int, end: int, most: int) -> tuple[int, int, int]:
    found, count, elements = 0, 0, 0
    for number, begin, stop in _fields(view, start, end):
        count += 1
        if number != _CONTENTS:
            found += _DENSE * (stop - begin + _TAG)
            if count > MAX_REQUEST_FIELDS:
                # Unpacked sizes and the like; the rest is taken at its worst.
                return found + _DENSE * (end - stop), count, elements
            continue
        for field, first, last in _fields(view, begin, stop):
            elements += 1
            if elements > most:
                raise RequestError(
                    f"the message has more than {MAX_UNPACKED_ELEMENTS} elements one by one; send strings in "
                    "raw_input_contents, and numbers packed or there as well",
                    400,
                )
            if field in _PACKED and last - first > 64:
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
            if kind == BYTES:
                size, start = _varint(view, at, end)
                at = start + size
            elif kind == VARINT:
                _, at = _varint(view, at, end)
            elif kind == FIXED64:
                at += 8
            elif kind == FIXED32:
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
