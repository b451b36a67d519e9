"""Inputs and outputs as callers of the Open Inference Protocol see them."""

from functools import lru_cache

from onnx import TensorProto, TensorShapeProto, TypeProto, ValueInfoProto

from onnx_operator.api.report import Dimension, TensorSpec

_PROTOCOL_NAMES: dict[int, str] = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.STRING: "BYTES",
}

_NAMES_BY_TEXT = {f"tensor({TensorProto.DataType.Name(kind).lower()})": name for kind, name in _PROTOCOL_NAMES.items()}
_RAW_BYTES = frozenset({"float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"})
"""Elements that the protocol has no name for, but that the server can make."""


def describe(value: ValueInfoProto) -> TensorSpec:
    """Describe an input or output; one of unknown rank gets the shape ``[-1]``."""
    kind = value.type
    if kind.WhichOneof("value") != "tensor_type":
        return TensorSpec(name=value.name, datatype=type_text(kind), shape=[])
    tensor = kind.tensor_type
    datatype = _PROTOCOL_NAMES.get(tensor.elem_type) or type_text(kind)
    if not tensor.HasField("shape"):
        return TensorSpec(name=value.name, datatype=datatype, shape=[-1])
    return TensorSpec(name=value.name, datatype=datatype, shape=[_dimension(d) for d in tensor.shape.dim])


def datatype_of(kind: str) -> str:
    """The protocol's name of a type in ONNX's notation, where it has one."""
    return _NAMES_BY_TEXT.get(kind, kind)


def type_text(kind: TypeProto) -> str:
    """Write a type in ONNX's notation, as in ``seq(map(int64,tensor(float)))``."""
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        return f"tensor({_element(kind.tensor_type.elem_type)})"
    if which == "sparse_tensor_type":
        return f"sparse_tensor({_element(kind.sparse_tensor_type.elem_type)})"
    if which == "sequence_type":
        return f"seq({type_text(kind.sequence_type.elem_type)})"
    if which == "map_type":
        return f"map({_element(kind.map_type.key_type)},{type_text(kind.map_type.value_type)})"
    if which == "optional_type":
        return f"optional({type_text(kind.optional_type.elem_type)})"
    return "unknown"


@lru_cache(maxsize=256)
def _element(number: int) -> str:
    try:
        return str(TensorProto.DataType.Name(number)).lower()
    except ValueError:
        return f"type {number}"


def _dimension(dimension: TensorShapeProto.Dimension) -> Dimension:
    if dimension.WhichOneof("value") == "dim_value":
        return max(dimension.dim_value, -1)
    return dimension.dim_param or -1


def unsendable(inputs: list[TensorSpec]) -> str:
    """Say which input nobody can give to the runtime from Python, in any way; "" for none."""
    for each in inputs:
        kind = each.datatype.removeprefix("tensor(").removesuffix(")")
        if each.datatype.startswith("tensor(") and kind not in _RAW_BYTES:
            return (
                f'The input "{each.name}" is a {each.datatype}, which neither the Open Inference Protocol nor /score'
                " can send and the server cannot give to ONNX Runtime. Let the model take another type (INT8, FP32),"
                " and cast it within."
            )
    return ""


def protocol_notes(inputs: list[TensorSpec], outputs: list[TensorSpec]) -> list[str]:
    """What callers of the Open Inference Protocol cannot send or get, and what ``/score`` does with it."""
    names = set(_PROTOCOL_NAMES.values())
    notes = [
        f'The input "{each.name}" is a {each.datatype}, which neither the Open Inference Protocol nor /score can send.'
        for each in inputs
        if each.datatype not in names
    ]
    for each in outputs:
        if each.datatype in names:
            continue
        plain = each.datatype.startswith(("seq(", "map(", "optional("))
        how = "only /score returns it, as JSON lists and objects" if plain else "neither does /score return it"
        notes.append(f'The output "{each.name}" is a {each.datatype}, which the protocol cannot carry; {how}.')
    return notes
