"""Inputs and outputs as callers of the Open Inference Protocol see them."""

from collections.abc import Mapping
from functools import lru_cache

from onnx import TensorProto, TensorShapeProto, TypeProto, ValueInfoProto

from onnx_operator.api.report import Dimension, TensorSpec
from onnx_operator.model.elements import NAMES, PROTOCOL_NAMES, PROTOCOL_NAMES_BY_TEXT, RAW_NAMES

_NAMES_BY_TEXT = {f"tensor({text})": name for text, name in PROTOCOL_NAMES_BY_TEXT.items()}
SCORES = "seq(map("
"""How the type of scores by class begins."""
_TRAVELS = "travels as raw bytes only, by the datatype {}: other servers' clients do not know it."
_RAW = {f"tensor({NAMES[number].lower()})": name for number, name in RAW_NAMES.items()}


def describe(value: ValueInfoProto) -> TensorSpec:
    """Describe an input or output; one of unknown rank gets the shape ``[-1]``."""
    kind = value.type
    if kind.WhichOneof("value") != "tensor_type":
        return TensorSpec(name=value.name, datatype=type_text(kind), shape=[])
    tensor = kind.tensor_type
    datatype = PROTOCOL_NAMES.get(tensor.elem_type) or type_text(kind)
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
    """Say which tensor no caller can give to the model, in any way; "" for none."""
    for each in inputs:
        if each.datatype.startswith("tensor(") and each.datatype not in _RAW:
            return (
                f'The input "{each.name}" is a {each.datatype}, which no caller can send: neither the Open Inference'
                " Protocol nor /score has a form for it. Let the model take another type (INT8, FP32), and cast it"
                " within."
            )
    return ""


def protocol_notes(
    inputs: list[TensorSpec], outputs: list[TensorSpec], scores: Mapping[str, int] | None = None
) -> list[str]:
    """What callers of the Open Inference Protocol cannot send or get, or not as they are used to.

    ``scores``: outputs that are maps from class to score in the file and tensors where it is served, with the number
    of their classes.
    """
    served = scores or {}
    return [_input_note(each) for each in inputs if _is_unusual(each)] + [
        _output_note(each, served.get(each.name, 0)) for each in outputs if _is_unusual(each)
    ]


def _is_unusual(each: TensorSpec) -> bool:
    return each.datatype not in _NAMES_BY_TEXT.values()


def _input_note(each: TensorSpec) -> str:
    start = f'The input "{each.name}" is a {each.datatype}, which'
    if name := _RAW.get(each.datatype):
        return f"{start} {_TRAVELS.format(name)}"
    return f"{start} no caller can send: only a scoring script can use the model."


def _output_note(each: TensorSpec, classes: int) -> str:
    start = f'The output "{each.name}" is a {each.datatype}, which'
    if name := _RAW.get(each.datatype):
        return f"{start} {_TRAVELS.format(name)}"
    if classes:
        return (
            f"{start} /score returns; callers of the Open Inference Protocol get its scores as FP32 [rows, {classes}]."
        )
    if each.datatype.startswith(SCORES):
        return (
            f"{start} only /score returns: no ZipMap at the end of the graph makes it. Export the model without ZipMap"
            " for the Open Inference Protocol to carry its scores."
        )
    if each.datatype.startswith(("seq(", "map(", "optional(")):
        return (
            f"{start} only /score returns, as JSON lists and objects: the Open Inference Protocol has no form for it."
        )
    return f"{start} nothing returns: callers must name the outputs that they want, without this one."
