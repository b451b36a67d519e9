"""Bodies of the Open Inference Protocol's REST form: JSON, with binary tensors in both directions.

Each body has a quick way and a thorough one. The quick one takes what is evidently right; whatever it cannot vouch
for goes the thorough way, which either takes it too or says what is wrong.
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import numpy as np
import orjson
import simdjson

from onnx_operator.server.dataplane.binary import RAW_DTYPES, decode_raw, encode_raw
from onnx_operator.server.dataplane.inference import (
    MAX_DIMENSIONS,
    Inference,
    check_feed,
    check_shape,
    choose_outputs,
    find_input,
)
from onnx_operator.server.dataplane.model import ServedModel
from onnx_operator.server.dataplane.pieces import PIECE, give_way, pieces
from onnx_operator.server.dataplane.sizes import STRING, quick_bytes, thorough_bytes
from onnx_operator.server.dataplane.tensors import (
    BITS,
    DTYPES,
    Array,
    TensorInfo,
    decode,
    encode,
    expects_integers,
    show_shape,
)
from onnx_operator.server.errors import RequestError, quote
from onnx_operator.server.http.jsonbody import encode as json_bytes
from onnx_operator.server.http.jsonbody import parse_object
from onnx_operator.server.http.numberlists import cut_lists, split_at_commas

Json = dict[str, Any]

_BUFFER = {
    **dict.fromkeys(("FP64", "FP32", "FP16"), ("d", np.dtype(np.float64))),
    **dict.fromkeys(("INT8", "INT16", "INT32", "INT64"), ("i", np.dtype(np.int64))),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32", "UINT64"), ("u", np.dtype(np.uint64))),
}
_SQUARES = {
    name: float(np.finfo(name_dtype).max) ** 2
    for name, name_dtype in DTYPES.items()
    if name_dtype.kind == "f" and name != "FP64"
}
_ARRAY: Any = simdjson.Array
_DATA_KEY = re.compile(rb'(?<!\\)"data"\s*:\s*$')
_ID = re.compile(rb'\{"id": ?"([^"\\\x00-\x1f]*)", ?(?=")')
"""How a request begins that has an ``id`` of its own. What follows is remembered: it has no other, since keys that come
twice are refused, and no whole request begins like it."""
_KNOWN = ("id", "outputs", "parameters")
_MAX_PLANS = 64
Reserve = Callable[[int], None]
"""Makes sure that so many bytes of memory are there in all; raises :class:`RequestError`."""
_MAX_PLAN_LENGTH = 4096


class Form:
    """How one request wants its answer: which outputs, which of them as bytes, and its id."""

    __slots__ = ("binary", "id", "outputs")

    def __init__(self, outputs: tuple[str, ...], binary: tuple[bool, ...], request_id: str | None) -> None:
        self.outputs = outputs
        self.binary = binary
        self.id = request_id


@dataclass(frozen=True)
class _Slot:
    """An input of a binary request: where its bytes are, or the array that its JSON gave."""

    info: TensorInfo
    shape: tuple[int, ...]
    size: int
    array: Array | None


@dataclass(frozen=True)
class _Plan:
    """What the JSON part of a binary request says."""

    slots: tuple[_Slot, ...]
    size: int
    form: Form
    sole: np.dtype[Any] | None = None
    """The type of the elements where there is one input, whose bytes are elements whatever they are."""


@dataclass(frozen=True)
class _Frame:
    """What the JSON around the numbers of a request's only input says."""

    info: TensorInfo
    shape: tuple[int, ...]
    size: int
    form: Form
    after: bytes
    """What follows the numbers."""


def _with_id(form: Form, own: re.Match[bytes] | None) -> Form | None:
    """The form that is kept, for a request with an id of its own; None where that is no text."""
    if own is None:
        return form
    try:
        return Form(form.outputs, form.binary, own[1].decode())
    except UnicodeDecodeError:
        return None


class Codec:
    """Reads and writes bodies for one model. For one thread at a time."""

    def __init__(self, model: ServedModel, name: str, version: str) -> None:
        self._model = model
        # Any: its values are known by trying, here.
        self._parser: Any = simdjson.Parser()
        self._integers = expects_integers(model.inputs)
        self._plans: dict[bytes, _Plan] = {}
        self._frames: dict[bytes, _Frame] = {}
        try:
            self._all: tuple[str, ...] | None = choose_outputs(model, ())
        except RequestError:
            self._all = None
        plain = self._all is not None and all(model.output_by_name[n].datatype not in BITS for n in self._all)
        self._form = Form(self._all, (False,) * len(self._all), None) if plain and self._all is not None else None
        start: Json = {"model_name": name}
        if version:
            start["model_version"] = version
        self._start = orjson.dumps(start)[:-1]
        self._heads: dict[tuple[str, tuple[int, ...]], bytes] = {}

    def read(self, body: bytes, header_length: bytes | None) -> tuple[Inference, Form]:
        """Read a request. ``header_length`` is the value of ``Inference-Header-Content-Length``, if it came.

        Raises :class:`RequestError`.
        """
        if header_length is not None:
            return self._read_binary(body, header_length)
        return self.read_quickly(body) or self._read_thoroughly(body)

    def read_quickly(self, body: bytes) -> tuple[Inference, Form] | None:
        """Read JSON of numbers, flat and nothing unusual; None where it is anything else, or wrong."""
        return self._try(self._read_at_once, body)

    def read_large(self, body: bytes, header_length: bytes | None, reserve: Reserve) -> tuple[Inference, Form]:
        """As :meth:`read`, but makes sure of the memory of each step before it is taken."""
        if header_length is not None:
            length = self._json_length(body, header_length)
            reserve(2 * len(body) + thorough_bytes(body[:length]))
            return self._read_binary(body, header_length, reserve)
        reserve(quick_bytes(body))
        quick = self._try(self._read_in_pieces, body)
        if quick is not None:
            return quick
        reserve(thorough_bytes(body))
        return self._read_thoroughly(body)

    def _read_at_once(self, body: bytes) -> tuple[Inference, Form] | None:
        return self._read_numbers(body) or self._read_quickly(body)

    @staticmethod
    def _try(read: Callable[[bytes], tuple[Inference, Form] | None], body: bytes) -> tuple[Inference, Form] | None:
        try:
            return read(body)
        except (RequestError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError, OverflowError):
            return None

    # The quick way: numbers, flat, nothing unusual.

    def _read_numbers(self, body: bytes) -> tuple[Inference, Form] | None:
        """Read a request that differs from an earlier one in its numbers and its id alone."""
        start = body.rfind(b"[")
        own = _ID.match(body)
        frame = self._frames.get(body[own.end() if own else 0 : start])
        if frame is None or not body.endswith(frame.after):
            return None
        info, form = frame.info, _with_id(frame.form, own)
        if form is None:
            return None
        assert info.datatype is not None
        kind, wide = _BUFFER[info.datatype]
        values = np.frombuffer(
            self._parser.parse(body[start : len(body) - len(frame.after)]).as_buffer(of_type=kind), wide
        )
        if values.size != frame.size:
            return None
        array = _narrowed(values, info.datatype)
        if array is None:
            return None
        return Inference({info.name: array.reshape(frame.shape)}, form.outputs), form

    def _remember(self, body: bytes, info: TensorInfo, shape: tuple[int, ...], size: int, form: Form) -> None:
        start = body.rfind(b"[")
        end = body.find(b"]", start) + 1
        before, after = body[:start], body[end:]
        if own := _ID.match(body):
            before, form = before[own.end() :], Form(form.outputs, form.binary, None)
        # The body is valid JSON: what ends like this is the key of the input's data, not the inside of a string.
        if len(before) + len(after) <= _MAX_PLAN_LENGTH and _DATA_KEY.search(before):
            if len(self._frames) >= _MAX_PLANS:
                self._frames.clear()
            self._frames[before] = _Frame(info, shape, size, form, after)

    def _read_quickly(self, body: bytes) -> tuple[Inference, Form] | None:
        document = self._parser.parse(body)
        inputs: Any = document["inputs"]
        if type(inputs) is not _ARRAY:
            return None
        count, form, keys = len(inputs), self._form, 1
        brackets = 1 + 2 * count
        if len(document) > 1:
            keys += sum(key in document for key in _KNOWN)
            if keys != len(document) or "parameters" in document:
                return None
            outputs, request_id = None, None
            if "id" in document:
                request_id = document["id"]
                if type(request_id) is not str:
                    return None
            if "outputs" in document:
                brackets += 1
                outputs = document["outputs"].as_list()
            form = self._read_form(outputs, request_id, None)
        if form is None:
            return None
        # As many lists as there must be: the data is flat.
        at = -1
        for _ in range(brackets):
            at = body.find(b"[", at + 1)
        if body.find(b"[", at + 1) != -1:
            return None
        feed: dict[str, Array] = {}
        for tensor in inputs:
            if len(tensor) != 4:
                return None
            info = self._model.input_by_name[tensor["name"]]
            if tensor["datatype"] != info.datatype:
                return None
            assert info.datatype is not None
            kind, wide = _BUFFER[info.datatype]
            shape = tensor["shape"].as_list()
            if len(shape) > MAX_DIMENSIONS or not info.accepts(shape) or info.name in feed:
                return None
            size = 1
            for dimension in shape:
                if type(dimension) is not int or dimension < 0:
                    return None
                size *= dimension
            values = np.frombuffer(tensor["data"].as_buffer(of_type=kind), wide)
            if values.size != size or not size:
                return None
            array = _narrowed(values, info.datatype)
            if array is None:
                return None
            feed[info.name] = array.reshape(shape)
        if len(feed) != len(self._model.inputs):
            check_feed(self._model, feed)
        if count == 1:
            self._remember(body, info, tuple(shape), size, form)
        return Inference(feed, form.outputs), form

    def _read_in_pieces(self, body: bytes) -> tuple[Inference, Form] | None:
        """Read a large request of numbers: its flat lists by the quick parser, piece by piece, the rest thoroughly."""
        # What no caller knows cannot stand in the place of a list that was cut out.
        mark = token_hex(16)
        rest, cuts = cut_lists(body, mark)
        if not cuts or len(rest) > PIECE:
            return None
        request = parse_object(rest, integers=self._integers)
        for tensor in request["inputs"]:
            numbers = cuts.pop(tensor.get("data"), None) if isinstance(tensor.get("data"), str) else None
            if numbers is not None:
                info = self._model.input_by_name[tensor["name"]]
                if info.datatype is None or tensor["datatype"] != info.datatype:
                    return None
                tensor["data"] = self._numbers(numbers, info.datatype)
        if cuts:
            return None
        form = self._read_request_form(request)
        slots, size = self._read_slots(request["inputs"])
        return None if size else (self._inference(slots, b"", form), form)

    def _numbers(self, text: memoryview, datatype: str) -> Array:
        """The numbers of a flat list, the text between its brackets. Raises ValueError for anything else."""
        kind, wide = _BUFFER[datatype]
        found: list[Array] = []
        for part in split_at_commas(text):
            values = np.frombuffer(self._parser.parse(b"[%b]" % part).as_buffer(of_type=kind), wide)
            array = _narrowed(values, datatype) if values.size else None
            if array is None:
                raise ValueError
            # A copy: the parser reads the next piece into the same memory.
            found.append(array.copy())
            give_way()
        return np.concatenate(found)

    # The thorough way.

    def _read_thoroughly(self, body: bytes) -> tuple[Inference, Form]:
        request = parse_object(body, integers=self._integers)
        form = self._read_request_form(request)
        slots, size = self._read_slots(request.get("inputs"))
        if size:
            raise RequestError(
                "an input has binary_data_size, but the header Inference-Header-Content-Length is missing"
            )
        return self._inference(slots, b"", form), form

    @staticmethod
    def _json_length(body: bytes, header_length: bytes) -> int:
        if not header_length.isdigit() or len(header_length) > 18 or int(header_length) > len(body):
            raise RequestError(
                "the header Inference-Header-Content-Length must be the number of bytes of the body's JSON part, "
                f"0 to {len(body)}; got {quote(header_length.decode('latin-1'))}"
            )
        return int(header_length)

    def _read_binary(self, body: bytes, header_length: bytes, reserve: Reserve | None = None) -> tuple[Inference, Form]:
        length = self._json_length(body, header_length)
        text = body[:length]
        own = _ID.match(text)
        rest = text[own.end() :] if own else text
        plan = self._plans.get(rest)
        form = _with_id(plan.form, own) if plan else None
        if plan is None or form is None:
            request = parse_object(text, integers=self._integers)
            slots, size = self._read_slots(request.get("inputs"))
            form = self._read_request_form(request)
            kept = Form(form.outputs, form.binary, None) if own else form
            plan = _Plan(slots, size, kept, _sole(slots))
            # Callers send the same JSON part again and again, but for its id: what it means is kept.
            if len(text) <= _MAX_PLAN_LENGTH and all(slot.array is None for slot in slots):
                if len(self._plans) >= _MAX_PLANS:
                    self._plans.clear()
                self._plans[rest] = plan
        if len(body) - length != plan.size:
            raise RequestError(
                f"the inputs' binary_data_size make {plan.size} bytes, but {len(body) - length} follow the JSON part"
            )
        if plan.sole is not None and len(self._model.inputs) == 1:
            slot = plan.slots[0]
            # A copy, as decode_raw makes it.
            array: Array = np.ndarray(slot.shape, plan.sole, body, length).copy()
            return Inference({slot.info.name: array}, form.outputs), form
        if reserve is not None:
            texts = sum(min(math.prod(s.shape), s.size // 4) for s in plan.slots if s.info.datatype == "BYTES")
            reserve(4 * len(body) + STRING * texts)
        return self._inference(plan.slots, memoryview(body)[length:], form), form

    def _inference(self, slots: Sequence[_Slot], data: bytes | memoryview, form: Form) -> Inference:
        feed: dict[str, Array] = {}
        at = 0
        for slot in slots:
            info = slot.info
            if slot.array is not None:
                feed[info.name] = slot.array
            else:
                assert info.datatype is not None
                feed[info.name] = decode_raw(data[at : at + slot.size], info.datatype, slot.shape, f"input {info.name}")
                at += slot.size
        if len(feed) != len(self._model.inputs):
            check_feed(self._model, feed)
        return Inference(feed, form.outputs)

    def read_form(self, outputs: list[str]) -> Form:
        """The form of an answer with these outputs: as JSON, and as bytes what has no form there."""
        binary = tuple(self._model.output_by_name[name].datatype in BITS for name in outputs)
        return Form(tuple(outputs), binary, None)

    def _read_request_form(self, request: Json) -> Form:
        request_id = request.get("id")
        if request_id is not None and not isinstance(request_id, str):
            raise RequestError(f'"id" must be a string, got {quote(request_id)}')
        return self._read_form(request.get("outputs"), request_id, request.get("parameters"))

    def _read_form(self, outputs: object, request_id: str | None, parameters: object) -> Form:
        binary = _flag(parameters, "binary_data_output", '"parameters"')
        if outputs is None or outputs == []:
            names = self._all if self._all is not None else choose_outputs(self._model, ())
            return Form(names, self._possible(names, (binary,) * len(names)), request_id)
        if not isinstance(outputs, list):
            raise RequestError(f'"outputs" must be a list of objects with a "name", got {quote(outputs)}')
        wanted: list[str] = []
        flags: list[bool] = []
        for index, entry in enumerate(outputs):
            name = entry.get("name") if isinstance(entry, dict) else None
            if not isinstance(name, str):
                raise RequestError(f'outputs[{index}] must be an object with a "name"')
            wanted.append(name)
            own = entry.get("parameters")
            label = f"outputs[{index}].parameters"
            if isinstance(own, dict) and ("classification" in own or "shared_memory_region" in own):
                raise RequestError(f"{label}: classification and shared memory are not offered")
            flags.append(_flag(own, "binary_data", label, binary))
        names = choose_outputs(self._model, wanted)
        return Form(names, self._possible(names, tuple(flags)), request_id)

    def _possible(self, names: Sequence[str], binary: tuple[bool, ...]) -> tuple[bool, ...]:
        for name, flag in zip(names, binary, strict=True):
            datatype = self._model.output_by_name[name].datatype
            if not flag and datatype in BITS:
                raise RequestError(
                    f"output {name} has datatype {datatype}, which JSON cannot carry; ask for it with "
                    '"parameters": {"binary_data": true}'
                )
        return binary

    def _read_slots(self, inputs: object) -> tuple[tuple[_Slot, ...], int]:
        if not isinstance(inputs, list):
            found = "it is missing" if inputs is None else f"got {quote(inputs)}"
            raise RequestError(f'"inputs" must be a list of tensors with name, shape, datatype and data; {found}')
        slots: dict[str, _Slot] = {}
        for index, tensor in enumerate(inputs):
            name = tensor.get("name") if isinstance(tensor, dict) else None
            if not isinstance(name, str):
                raise RequestError(f'inputs[{index}] must be an object with a "name"')
            info = find_input(self._model, name)
            if name in slots:
                raise RequestError(f"input {name} is given twice")
            slots[name] = _read_slot(info, tensor)
        check_feed(self._model, slots)
        return tuple(slots.values()), sum(slot.size for slot in slots.values())

    # Answers.

    def write(self, form: Form, results: Sequence[Any]) -> tuple[bytes, int | None]:
        """Write an answer: the body, and the length of its JSON part if bytes follow it.

        Raises :class:`RequestError` (500) where an output is not what the model said.
        """
        parts = [self._start]
        if form.id is not None:
            parts += (b',"id":', json_bytes(form.id))
        parts.append(b',"outputs":[')
        binary: list[bytes] = []
        separator = b""
        for name, as_bytes, result in zip(form.outputs, form.binary, results, strict=True):
            array = result if isinstance(result, np.ndarray) else np.asarray(result)
            info = self._model.output_by_name[name]
            assert info.datatype is not None
            parts += (separator, self._head(name, info.datatype, array.shape))
            separator = b","
            if as_bytes:
                raw = encode_raw(array, info.datatype)
                parts.append(b',"parameters":{"binary_data_size":%d}}' % len(raw))
                binary.append(raw)
            else:
                parts += (b',"data":', _data(array, info.datatype), b"}")
        parts.append(b"]}")
        text = b"".join(parts)
        if not binary:
            return text, None
        return b"".join((text, *binary)), len(text)

    def _head(self, name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
        head = self._heads.get((name, shape))
        if head is None:
            head = orjson.dumps({"name": name, "datatype": datatype, "shape": list(shape)})[:-1]
            if len(self._heads) >= 4 * _MAX_PLANS:
                self._heads.clear()
            self._heads[(name, shape)] = head
        return head


def _sole(slots: Sequence[_Slot]) -> np.dtype[Any] | None:
    if len(slots) != 1 or slots[0].array is not None:
        return None
    slot = slots[0]
    dtype = RAW_DTYPES.get(slot.info.datatype or "")
    if dtype is None or dtype.kind == "b" or math.prod(slot.shape) * dtype.itemsize != slot.size:
        return None
    return dtype


def _narrowed(values: Array, datatype: str) -> Array | None:
    """The numbers in the input's own type; None where one of them does not fit it."""
    dtype = DTYPES[datatype]
    if values.dtype == dtype:
        return values
    if dtype.kind == "f":
        with np.errstate(over="ignore", under="ignore"):
            # No element is larger than the root of the sum of squares.
            if values.dot(values) <= _SQUARES[datatype]:
                return values.astype(dtype)
            narrow = values.astype(dtype)
        return None if np.isinf(narrow).any() else narrow
    bounds = np.iinfo(dtype)
    if values.min() < bounds.min or values.max() > bounds.max:
        return None
    return values.astype(dtype)


def _data(array: Array, datatype: str) -> bytes:
    if array.size > PIECE:
        flat = array.reshape(-1)
        return b"[%b]" % b",".join(_data(flat[part], datatype)[1:-1] for part in pieces(len(flat)))
    if datatype != "BYTES":
        if array.ndim == 2 and array.shape[0] == 1 and array.flags.c_contiguous:
            # A row: what is within the outer brackets is flat.
            text = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        else:
            text = orjson.dumps(np.ascontiguousarray(array.reshape(-1)), option=orjson.OPT_SERIALIZE_NUMPY)
        # What is not finite has no number in JSON; it became null.
        if b"null" not in text:
            return text
    try:
        return orjson.dumps(encode(array))
    except TypeError:
        raise RequestError("an output is not text in UTF-8; ask for it as binary data", 500) from None


def _read_slot(info: TensorInfo, tensor: Json) -> _Slot:
    label = f"input {info.name}"
    parameters = tensor.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    for key in ("shape", "datatype") if size is not None else ("shape", "datatype", "data"):
        if key not in tensor:
            raise RequestError(f'{label}: "{key}" is missing; the model expects {info.describe()}')
    datatype, shape = tensor["datatype"], tensor["shape"]
    if datatype != info.datatype:
        raise RequestError(f"{label}: expected datatype {info.datatype}, got {quote(datatype)}")
    if not isinstance(shape, list) or not all(type(number) is int and number >= 0 for number in shape):
        raise RequestError(f'{label}: "shape" must be a list of sizes (integers from 0), for {show_shape(info.shape)}')
    check_shape(info, tuple(shape))
    if size is not None:
        if type(size) is not int or size < 0:
            raise RequestError(f"{label}: binary_data_size must be a number of bytes, got {quote(size)}")
        # kserve's client says of an empty tensor that its data is null, too.
        if tensor.get("data") not in (None, []):
            raise RequestError(f'{label}: has both "data" and binary_data_size; send one of them')
        return _Slot(info, tuple(shape), size, None)
    if isinstance(parameters, dict) and "shared_memory_region" in parameters:
        raise RequestError(f"{label}: shared memory is not offered")
    if info.datatype in BITS:
        raise RequestError(f"{label} has datatype {info.datatype}, which JSON cannot carry; send it as binary data")
    assert info.datatype is not None
    data = tensor["data"]
    if isinstance(data, np.ndarray):
        if data.size != math.prod(shape):
            raise RequestError(f"{label}: shape {show_shape(shape)} does not fit {data.size} elements")
        return _Slot(info, tuple(shape), 0, data.reshape(shape))
    return _Slot(info, tuple(shape), 0, decode(data, info.datatype, shape, label))


def _flag(parameters: object, name: str, label: str, default: bool = False) -> bool:
    if parameters is None:
        return default
    if not isinstance(parameters, dict):
        raise RequestError(f"{label} must be an object, got {quote(parameters)}")
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"{label}: {name} must be true or false, got {quote(value)}")
    return value
