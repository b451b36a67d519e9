"""A model without its weights: what every check works on, whatever the size of the file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto

from onnx_operator.api.conditions import Reason
from onnx_operator.model import formats
from onnx_operator.model.reading.lists import ELEMENTS, LONG_BYTES, ListReader, LongLists
from onnx_operator.model.reading.numbers import (
    TENSOR_VALUES,
    AttributeField,
    EntryField,
    GraphField,
    ModelField,
    NodeField,
    TensorField,
)
from onnx_operator.model.reading.rewriting import DESCENT
from onnx_operator.model.reading.window import Window
from onnx_operator.model.reading.wire import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    Field,
    WireError,
    fields,
    head,
    varint,
    varints,
)
from onnx_operator.model.refusal import RefusedError

KEEP_BYTES = 4096
"""Messages up to this size stay whole: shape inference reads the small tensors."""
HEAD_BYTES = 65536
STRIPPED = "stripped"
"""Key of the entry that a tensor without its values carries instead; its value is an index into ``weights``."""
_LIGHT_BYTES = 8 << 20
"""Of a structure, which is gathered without asking."""
_MAX_DEPTH = 60
"""Messages within messages; protobuf itself reads no more than 100."""
_MODEL_FIELDS = {
    number: VARINT if number in (ModelField.IR_VERSION, ModelField.MODEL_VERSION) else BYTES
    for name, number in vars(ModelField).items()
    if name.isupper()
}
"""The wire type of each field of a model."""
_DESCENT = {**DESCENT, "Model": {ModelField.GRAPH: "Graph"}}
_DOC_STRING = {
    "Model": ModelField.DOC_STRING,
    "Graph": GraphField.DOC_STRING,
    "Node": NodeField.DOC_STRING,
    "Tensor": TensorField.DOC_STRING,
    "Attribute": AttributeField.DOC_STRING,
    "SparseTensor": -1,
}
_METADATA = {
    "Model": ModelField.METADATA_PROPS,
    "Graph": GraphField.METADATA_PROPS,
    "Node": NodeField.METADATA_PROPS,
    "Tensor": TensorField.METADATA_PROPS,
}
"""Texts that no check looks at, and a report takes the beginning of: of the model's own the first bytes are kept."""
_CONSTANT, _TREES = b"Constant", b"TreeEnsemble"
KEPT_TYPES = frozenset({TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL})
"""Of tensors that may be sizes, axes, indices or conditions: what a structure rests on."""
KEEP_NUMBERS_BYTES = 1 << 20
"""Such tensors are kept up to this size."""
_KEEP_IN_ALL_BYTES = 32 << 20
"""Of all values that are kept."""


@dataclass(frozen=True)
class Weight:
    """A tensor whose values were left out."""

    name: str
    data_type: int
    dims: tuple[int, ...]
    stored_bytes: int
    """Bytes of its values where they are stored."""
    raw: bool
    """Whether the values lie there as they will in memory."""
    file: str = ""
    """Name of the file with the values, relative to the model's folder; empty: the model's own."""
    offset: int = 0
    """Where in that file the values begin."""
    message: tuple[int, int] = (0, 0)
    """From where to where the whole tensor lies in the model's file."""
    kept: bytes = field(default=b"", repr=False)
    """The fields with the values, as they are written, where the runtime has to see them to judge the structure."""


@dataclass
class Skeleton:
    """The model, its large tensors without their values, each marked with its index in ``weights``."""

    model: onnx.ModelProto
    before_parsing: Callable[[], None] = lambda: None
    weights: list[Weight] = field(default_factory=list)
    kept_bytes: int = 0
    lists: LongLists = field(default_factory=LongLists)


def read_skeleton(window: Window, before_parsing: Callable[[], None] = lambda: None) -> Skeleton:
    """Parse all of a model but the values of its large tensors.

    ``before_parsing`` is called, once or more often, when memory is about to be taken: the parsed form of a structure
    is many times as large as its bytes.

    Raises :class:`RefusedError`: ``NotOnnx`` for what is something else, ``Corrupt`` for what is broken; and
    MemoryError.
    """
    skeleton = Skeleton(onnx.ModelProto(), before_parsing)
    out = bytearray()
    try:
        _strip(window, Field(0, BYTES, 0, 0, window.size, 0), "Model", out, skeleton, 0)
    except WireError as error:
        raise _not_a_model(window, str(error), error.offset) from None
    before_parsing()
    try:
        skeleton.model.ParseFromString(bytes(out))
    except DecodeError as error:
        # The message tells nothing about the place, but whether memory was all that lacked.
        if "alloc" in str(error):
            raise MemoryError from None
        raise _not_a_model(window, "a message inside is malformed", None) from None
    return skeleton


def _strip(
    window: Window,
    message: Field,
    kind: str,
    out: bytearray,
    skeleton: Skeleton,
    depth: int,
    operator: bytes = b"",
) -> None:
    """Append a message to ``out``, its large tensors stripped; ``operator`` is that of an attribute's node."""
    if depth > _MAX_DEPTH:
        raise WireError("its messages are nested too deeply", message.start)
    descent, doc_string = _DESCENT[kind], _DOC_STRING[kind]
    seen: dict[int, int] = {}
    trees = kind == "Attribute" and operator.startswith(_TREES) and message.end - message.begin > LONG_BYTES
    lists = ListReader(window, skeleton.lists) if trees else None
    for each in fields(window, message.begin, message.end, ELEMENTS if kind == "Attribute" else None):
        if kind == "Model":
            _check_field(each)
            seen.setdefault(each.number, each.value)
        elif kind == "Node" and each.number == NodeField.OP_TYPE and each.end - each.begin <= KEEP_BYTES:
            operator = window.slice(each.begin, each.end)
        if lists is not None and lists.take(each):
            continue
        large = each.wire_type == BYTES and each.end - each.begin > KEEP_BYTES
        if large and each.number in descent:
            inner = bytearray()
            child = descent[each.number]
            if child == "Tensor":
                # Of an attribute of a node that is no Constant, tensors say what is computed.
                _strip_tensor(window, each, inner, skeleton, operator not in (b"", _CONSTANT))
            else:
                below = b"" if child in ("Graph", "Node") else operator
                _strip(window, each, child, inner, skeleton, depth + 1, below)
            out += head(each.number, len(inner))
            out += inner
            if len(out) > _LIGHT_BYTES:
                skeleton.before_parsing()
        elif large and each.number == _METADATA.get(kind):
            if kind == "Model":
                out += _cut_entry(window, each)
        elif not (large and each.number == doc_string):
            if each.end - each.start > _LIGHT_BYTES:
                skeleton.before_parsing()
            window.append_to(out, each.start, each.end)
    if lists is not None:
        lists.finish(out)
        skeleton.before_parsing()
    if kind == "Model":
        _check_whole(seen, message.end)


def _cut_entry(window: Window, entry: Field) -> bytes:
    """An entry of the model's metadata whose key and value are no longer than what is kept of a text."""
    cut = bytearray()
    for each in fields(window, entry.begin, entry.end):
        if each.number in (EntryField.KEY, EntryField.VALUE) and each.wire_type == BYTES:
            text = window.slice(each.begin, min(each.end, each.begin + KEEP_BYTES))
            if each.end - each.begin > KEEP_BYTES:
                # Not within a character: whether a text is UTF-8 is looked at.
                text = text.decode(errors="ignore").encode()
            cut += head(each.number, len(text)) + text
    return head(_METADATA["Model"], len(cut)) + bytes(cut)


def _strip_tensor(window: Window, tensor: Field, out: bytearray, skeleton: Skeleton, settings: bool) -> None:
    dims: list[int] = []
    name, data_type, stored, offset, raw = "", 0, 0, 0, False
    kept, whole = bytearray(), True
    for each in fields(window, tensor.begin, tensor.end):
        size = each.end - each.begin
        if each.number in TENSOR_VALUES:
            offset = offset or each.begin
            stored += size
            raw = raw or each.number == TensorField.RAW_DATA
            # Writers tell the type before the values; of the few that do not, nothing is kept at first.
            if _is_kept(settings, data_type, stored) and skeleton.kept_bytes + stored <= _KEEP_IN_ALL_BYTES:
                window.append_to(kept, each.start, each.end)
            else:
                whole = False
            continue
        if size > KEEP_BYTES and each.number in (_DOC_STRING["Tensor"], _METADATA["Tensor"]):
            continue
        window.append_to(out, each.start, each.end)
        if each.number == TensorField.DIMS and each.wire_type == VARINT:
            dims.append(each.value)
        elif each.number == TensorField.DIMS and each.wire_type == BYTES:
            dims += varints(window.slice(each.begin, each.end))
        elif each.number == TensorField.DATA_TYPE and each.wire_type == VARINT:
            data_type = each.value
        elif each.number == TensorField.NAME and each.wire_type == BYTES:
            name = window.slice(each.begin, each.end).decode(errors="replace")
    if stored:
        mark = head(EntryField.KEY, len(STRIPPED)) + STRIPPED.encode()
        index = str(len(skeleton.weights)).encode()
        mark += head(EntryField.VALUE, len(index)) + index
        out += head(TensorField.EXTERNAL_DATA, len(mark)) + mark
        if not whole:
            kept.clear()
        skeleton.kept_bytes += len(kept)
        if skeleton.kept_bytes > _LIGHT_BYTES:
            skeleton.before_parsing()
        where = (tensor.begin, tensor.end)
        skeleton.weights.append(Weight(name, data_type, tuple(dims), stored, raw, "", offset, where, bytes(kept)))


def _is_kept(settings: bool, data_type: int, stored: int) -> bool:
    if settings or data_type == TensorProto.STRING:
        return True
    return data_type in KEPT_TYPES and stored <= KEEP_NUMBERS_BYTES


def _check_field(each: Field) -> None:
    expected = _MODEL_FIELDS.get(each.number)
    if expected is not None and each.wire_type != expected:
        raise WireError(f"field {each.number} has another type than in a model", each.start)


def _check_whole(seen: dict[int, int], end: int) -> None:
    if ModelField.GRAPH not in seen:
        raise WireError("it holds no graph", end)
    if ModelField.IR_VERSION not in seen:
        raise WireError("it does not tell its IR version", end)
    if seen[ModelField.IR_VERSION] >= 3 and ModelField.OPSET_IMPORT not in seen:
        raise WireError("it does not tell its operator sets", end)


def _not_a_model(window: Window, why: str, offset: int | None) -> RefusedError:
    beginning = window.slice(0, min(HEAD_BYTES, window.size))
    known = formats.name_format(beginning, window.size)
    if not known and not _plausible(beginning, window.size):
        known = _other_protobuf(beginning)
    if known:
        return RefusedError(Reason.NOT_ONNX, f"The file is not an ONNX model: it is {known}.")
    place = "" if offset is None else f" at byte {offset} of {window.size}"
    return RefusedError(
        Reason.CORRUPT,
        f"The file begins like an ONNX model but is broken or incomplete: {why}{place}. Upload it again, and compare"
        " its size and sha256 with the original.",
    )


def _beginning_fields(beginning: bytes) -> Iterable[tuple[int, int, int]]:
    """Number, wire type and end of the fields whose tags lie in the beginning of a file."""
    at = 0
    while at < len(beginning):
        try:
            tag, after = varint(beginning, at, len(beginning), 0)
            number, wire_type = tag >> 3, tag & 7
            if wire_type == BYTES:
                size, after = varint(beginning, after, len(beginning), 0)
                after += size
            elif wire_type == VARINT:
                _, after = varint(beginning, after, len(beginning), 0)
            elif wire_type in (FIXED64, FIXED32):
                after += 8 if wire_type == FIXED64 else 4
            else:
                return
        except WireError:
            return
        yield number, wire_type, after
        at = after


def _plausible(beginning: bytes, size: int) -> bool:
    """Tell whether the first fields look like those of a model."""
    seen = 0
    for number, wire_type, _ in _beginning_fields(beginning):
        if _MODEL_FIELDS.get(number) != wire_type:
            return False
        seen += 1
        if seen == 3:
            return True
    if seen == 0:
        return False
    return size > 3


def _other_protobuf(beginning: bytes) -> str:
    numbers = {(number, wire_type) for number, wire_type, _ in _beginning_fields(beginning)}
    if {(TensorField.DATA_TYPE, VARINT), (TensorField.RAW_DATA, BYTES)} <= numbers:
        return "a single ONNX tensor (TensorProto), not a model"
    return "something unknown"


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
