"""Messages of the protocol to inferences, and results to messages. Pure functions.

Raw contents are the only form of FP16, BF16 and floats of 8 bits. An answer is raw when the request was, or when it
holds a type without typed contents: the protocol wants all tensors of a message in one form.
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_operator.server.dataplane.binary import decode_raw, encode_raw
from onnx_operator.server.dataplane.inference import (
    MAX_DIMENSIONS,
    Inference,
    check_feed,
    check_shape,
    choose_outputs,
    find_input,
)
from onnx_operator.server.dataplane.model import ServedModel
from onnx_operator.server.dataplane.tensors import DTYPES, Array, TensorInfo, show_shape
from onnx_operator.server.errors import RequestError, quote
from onnx_operator.server.rpc import inference_pb2 as pb

TYPED = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of ``InferTensorContents`` that holds a datatype's elements."""
_WIDE = {
    **dict.fromkeys(("INT8", "INT16"), np.dtype(np.int32)),
    **dict.fromkeys(("UINT8", "UINT16"), np.dtype(np.uint32)),
}
"""What the field holds where the datatype is narrower."""


def decode_request(request: pb.ModelInferRequest, model: ServedModel) -> tuple[Inference, bool]:
    """The inference that is asked for, and whether the answer is to be raw. Raises :class:`RequestError`."""
    raws = request.raw_input_contents
    inputs = request.inputs
    if raws and len(raws) != len(inputs):
        raise RequestError(f"raw_input_contents has {len(raws)} entries for {len(inputs)} inputs; send one for each")
    feed: dict[str, Array] = {}
    for index, tensor in enumerate(inputs):
        info = find_input(model, tensor.name)
        if info.name in feed:
            raise RequestError(f"input {info.name} is given twice")
        feed[info.name] = _decode_tensor(tensor, raws[index] if raws else None, info)
    check_feed(model, feed)
    for output in request.outputs:
        if output.parameters:
            _refuse_parameters(output.parameters, f"output {quote(output.name)}")
    outputs = choose_outputs(model, [output.name for output in request.outputs])
    return Inference(feed, outputs), bool(raws) or not inputs


def encode_response(
    request: pb.ModelInferRequest,
    model: ServedModel,
    version: str,
    outputs: Sequence[str],
    results: Sequence[Any],
    raw: bool,
) -> bytes:
    """The answer as bytes. Raises :class:`RequestError` (500) for a value that has no form."""
    infos = [model.output_by_name[name] for name in outputs]
    raw = raw or any(info.datatype not in TYPED for info in infos)
    response = pb.ModelInferResponse(model_name=request.model_name, model_version=version, id=request.id)
    for info, result in zip(infos, results, strict=True):
        array = np.asarray(result)
        datatype = info.datatype
        assert datatype is not None
        tensor = response.outputs.add(name=info.name, datatype=datatype)
        tensor.shape.extend(array.shape)
        if raw:
            response.raw_output_contents.append(encode_raw(array, datatype))
        else:
            getattr(tensor.contents, TYPED[datatype]).extend(_elements(array, datatype))
    return response.SerializeToString()


def _decode_tensor(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None, info: TensorInfo) -> Array:
    label = f"input {info.name}"
    datatype = info.datatype
    assert datatype is not None
    if tensor.datatype != datatype:
        raise RequestError(f"{label}: expected datatype {datatype}, got {quote(tensor.datatype)}")
    if len(tensor.shape) > MAX_DIMENSIONS:
        check_shape(info, tensor.shape)
    shape = tuple(tensor.shape)
    if shape and min(shape) < 0:
        raise RequestError(f"{label}: shape {show_shape(shape)[:200]} has a negative size")
    check_shape(info, shape)
    if tensor.parameters:
        _refuse_parameters(tensor.parameters, label)
    if raw is not None:
        if tensor.HasField("contents") and tensor.contents.ListFields():
            raise RequestError(f"{label} has contents beside raw_input_contents; send one of both")
        return decode_raw(raw, datatype, shape, label)
    return _decode_typed(tensor.contents, datatype, shape, label)


def _decode_typed(contents: pb.InferTensorContents, datatype: str, shape: tuple[int, ...], label: str) -> Array:
    field = TYPED.get(datatype)
    if field is None:
        raise RequestError(f"{label}: {datatype} has no typed contents in the protocol; send it in raw_input_contents")
    others = [found.name for found, _ in contents.ListFields() if found.name != field]
    if others:
        raise RequestError(f"{label}: {datatype} travels in {field}, got {', '.join(others)}")
    values = getattr(contents, field)
    count = math.prod(shape)
    if len(values) != count:
        raise RequestError(
            f"{label}: shape {show_shape(shape)[:200]} needs {count} elements, {field} holds {len(values)}"
        )
    if datatype == "BYTES":
        flat = np.empty(count, dtype=np.object_)
        flat[:] = [_text(value, index, label) for index, value in enumerate(values)]
    else:
        # Without an object for each element: protobuf's list gives numpy its memory.
        flat = np.array(values, dtype=_WIDE.get(datatype, DTYPES[datatype]))
        if datatype in _WIDE:
            _check_range(flat, datatype, label)
            flat = flat.astype(DTYPES[datatype])
    try:
        return flat.reshape(shape)
    except (ValueError, OverflowError):
        raise RequestError(f"{label}: shape {show_shape(shape)[:200]} is beyond what an array can have") from None


def _check_range(elements: Array, datatype: str, label: str) -> None:
    bounds = np.iinfo(DTYPES[datatype])
    wrong = np.flatnonzero((elements < bounds.min) | (elements > bounds.max))
    if wrong.size:
        index = int(wrong[0])
        expected = f"an integer from {bounds.min} to {bounds.max} ({datatype})"
        raise RequestError(f"{label}: element {index} is {elements[index]}, expected {expected}")


def _text(value: bytes, index: int, label: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise RequestError(f"{label}: element {index} is not UTF-8, which ONNX's strings are") from None


def _elements(array: Array, datatype: str) -> list[Any]:
    flat: list[Any] = array.reshape(-1).tolist()
    if datatype != "BYTES":
        return flat
    return [value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape") for value in flat]


def _refuse_parameters(parameters: Any, label: str) -> None:
    """Parameters that change what a tensor means must not be passed over; the protocol says that others may."""
    if "classification" in parameters or "shared_memory_region" in parameters:
        raise RequestError(f"{label}: classification and shared memory are not offered")
