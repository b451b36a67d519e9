"""A model without its weights: what every check works on, whatever the size of the file."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from onnx_operator.api.conditions import Reason
from onnx_operator.api.report import Refusal
from onnx_operator.model import formats
from onnx_operator.model.wire import BYTES, FIXED32, VARINT, Field, WireError, encode_varint, fields, message

KEEP_BYTES = 4096
"""Tensors up to this size stay: shape inference reads the small ones."""
_HEAD_BYTES = 65536
_MESSAGE_LIMIT = 1000
"""Characters; names in a model may have any length."""
_MODEL_FIELDS = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES, 14: BYTES}
_MODEL_FIELDS |= {20: BYTES, 25: BYTES, 26: BYTES}
_GRAPH, _INITIALIZER = 7, 5
_TENSOR_NAME, _TENSOR_TYPE, _TENSOR_DIMS, _TENSOR_RAW = 8, 2, 1, 9
_TENSOR_DATA = {4: FIXED32, 5: VARINT, 6: BYTES, 7: VARINT, _TENSOR_RAW: BYTES, 10: 1, 11: VARINT}


class RefusedError(Exception):
    """The model is not accepted, and why."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        short = text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + "…"
        self.refusal = Refusal(reason=reason, message=short)


@dataclass(frozen=True)
class Weight:
    """A tensor whose values were left out."""

    name: str
    data_type: int
    dims: tuple[int, ...]
    stored_bytes: int
    """Bytes of its values in the file."""
    raw: bool
    """Whether the values lie there as they will in memory."""


@dataclass
class Skeleton:
    """The model, its large initializers replaced by entries of ``weights``."""

    model: onnx.ModelProto
    weights: dict[str, Weight] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    """Names that more than one large initializer has."""


def read_skeleton(data: memoryview) -> Skeleton:
    """Parse all of a model but its large initializers.

    Raises :class:`RefusedError`: ``NotOnnx`` for what is something else, ``Corrupt`` for what is broken; and
    MemoryError.
    """
    skeleton = Skeleton(onnx.ModelProto())
    try:
        top = list(fields(data, 0, len(data)))
        _check_fields(top)
        _check_whole(top)
        pieces = [
            _strip_graph(data, each, skeleton) if each.number == _GRAPH else bytes(data[each.start : each.end])
            for each in top
        ]
    except WireError as error:
        raise _not_a_model(data, str(error), error.offset) from None
    try:
        skeleton.model.ParseFromString(b"".join(pieces))
    except DecodeError as error:
        # The message tells nothing about the place, but whether memory was all that lacked.
        if "alloc" in str(error):
            raise MemoryError from None
        raise _not_a_model(data, "a message inside is malformed", None) from None
    return skeleton


def _check_fields(top: list[Field]) -> None:
    for each in top:
        expected = _MODEL_FIELDS.get(each.number)
        if expected is not None and each.wire_type != expected:
            raise WireError(f"field {each.number} has another type than in a model", each.start)


def _check_whole(top: list[Field]) -> None:
    numbers = {each.number for each in top}
    end = top[-1].end if top else 0
    if _GRAPH not in numbers:
        raise WireError("it holds no graph", end)
    if 1 not in numbers:
        raise WireError("it does not tell its IR version", end)
    version = next(each.value for each in top if each.number == 1)
    if version >= 3 and 8 not in numbers:
        raise WireError("it does not tell its operator sets", end)


def _not_a_model(data: memoryview, why: str, offset: int | None) -> RefusedError:
    head = bytes(data[:_HEAD_BYTES])
    known = formats.name_format(head, len(data), lambda: bytes(data))
    if not known and not _plausible(data):
        known = _other_protobuf(data)
    if known:
        return RefusedError(Reason.NOT_ONNX, f"The file is not an ONNX model: it is {known}.")
    place = "" if offset is None else f" at byte {offset} of {len(data)}"
    return RefusedError(
        Reason.CORRUPT,
        f"The file begins like an ONNX model but is broken or incomplete: {why}{place}. Upload it again, and compare"
        " its size and sha256 with the original.",
    )


def _plausible(data: memoryview) -> bool:
    """Tell whether the first fields look like those of a model."""
    seen = 0
    at = 0
    try:
        for each in fields(data, 0, len(data)):
            if _MODEL_FIELDS.get(each.number) != each.wire_type:
                return False
            at = each.end
            seen += 1
            if seen == 3:
                return True
    except WireError:
        if len(data) - at < 2:
            return seen > 0 and len(data) > 3
        tag = data[at]
        return _MODEL_FIELDS.get(tag >> 3) == tag & 7 and (seen > 0 or tag in (0x08, 0x3A))
    return seen > 0 and len(data) > 3


def _other_protobuf(data: memoryview) -> str:
    try:
        numbers = {(each.number, each.wire_type) for each in fields(data, 0, len(data))}
    except WireError:
        return "something unknown"
    if (2, VARINT) in numbers and (9, BYTES) in numbers:
        return "a single ONNX tensor (TensorProto), not a model"
    return "something unknown"


def _strip_graph(data: memoryview, graph: Field, skeleton: Skeleton) -> bytes:
    out = bytearray()
    kept = graph.begin
    for each in fields(data, graph.begin, graph.end):
        if each.number != _INITIALIZER or each.wire_type != BYTES or each.end - each.begin <= KEEP_BYTES:
            continue
        weight = _strip_tensor(data, each)
        if weight is None:
            continue
        out += data[kept : each.start]
        kept = each.end
        if weight.name in skeleton.weights:
            skeleton.repeated.append(weight.name)
        skeleton.weights[weight.name] = weight
    out += data[kept : graph.end]
    return message(_GRAPH, bytes(out))


def _strip_tensor(data: memoryview, tensor: Field) -> Weight | None:
    """Read a tensor without its values; None for one that only the full parser can judge."""
    dims: list[int] = []
    name, data_type, stored, raw = "", 0, 0, False
    for each in fields(data, tensor.begin, tensor.end):
        if each.number == _TENSOR_DIMS and each.wire_type == VARINT:
            dims.append(each.value)
        elif each.number == _TENSOR_DIMS and each.wire_type == BYTES:
            # Packed numbers look like the values of fields whose tags are left out.
            dims += _packed(data, each)
        elif each.number == _TENSOR_TYPE and each.wire_type == VARINT:
            data_type = each.value
        elif each.number == _TENSOR_NAME and each.wire_type == BYTES:
            name = bytes(data[each.begin : each.end]).decode(errors="replace")
        elif each.number in _TENSOR_DATA:
            stored += each.end - each.begin
            raw = raw or each.number == _TENSOR_RAW
        elif each.number in (13, 14):
            return None
    return Weight(name, data_type, tuple(dims), stored, raw)


def _packed(data: memoryview, packed: Field) -> list[int]:
    values: list[int] = []
    at = packed.begin
    while at < packed.end:
        end = at
        while end < packed.end and data[end] & 0x80:
            end += 1
        one = encode_varint(1 << 3) + bytes(data[at : end + 1])
        values += [each.value for each in fields(memoryview(one), 0, len(one))]
        at = end + 1
    return values


def find_malformed_text(message: Message) -> bytes | None:
    """Return the first text in a message that is not UTF-8; None when all are."""
    for descriptor, content in message.ListFields():
        values = content if isinstance(content, Iterable) and not isinstance(content, str | bytes) else [content]
        for value in values:
            if isinstance(value, Message):
                found = find_malformed_text(value)
                if found is not None:
                    return found
            elif isinstance(value, bytes) and descriptor.type == descriptor.TYPE_STRING:
                return value
    return None


def bits(data_type: int) -> int:
    """Bits of one element in memory; 0 for strings and unknown types."""
    return _BITS.get(data_type, 0)


def tensor_bytes(data_type: int, dims: tuple[int, ...] | list[int]) -> int:
    """Bytes of a tensor's values in memory; strings count 32 bytes each."""
    return (math.prod(dims) * (bits(data_type) or 256) + 7) // 8


def _type_bits() -> dict[int, int]:
    kinds = onnx.TensorProto.DataType
    out: dict[int, int] = {}
    for name, number in kinds.items():
        digits = {
            "FLOAT": 32,
            "DOUBLE": 64,
            "BOOL": 8,
            "COMPLEX64": 64,
            "COMPLEX128": 128,
            "BFLOAT16": 16,
        }.get(name)
        if digits is None and name not in ("STRING", "UNDEFINED"):
            text = name.removeprefix("U").removeprefix("INT").removeprefix("FLOAT")
            digits = int("".join(text.partition("E")[0]) or 0)
        out[number] = digits or 0
    return out


_BITS = _type_bits()
