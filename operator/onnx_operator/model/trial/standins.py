"""A structure that the runtime can load without the weights: what was not read lies in one file of zeros.

Every tensor that is not held here is written as external data at the beginning of that file, whatever the model says
of it: the runtime opens no other file. Nothing checks values here; see :mod:`onnx_operator.model.reading.weights`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from onnx import ModelProto, TensorProto, helper

from onnx_operator.model.elements import bits, tensor_bytes
from onnx_operator.model.nodes import all_tensors
from onnx_operator.model.reading.skeleton import STRIPPED, Skeleton, Weight

ZEROS = "zeros"
"""Name of the file, which lies alone in its folder."""
_FROM_SHAPES = frozenset({"Shape", "Size"})
_DEFAULTS_SINCE = 4
"""IR version in which inputs may have defaults; before, all initializers are inputs."""
_INLINE_BYTES = 4096
_ENTRIES = frozenset({"location", "offset", "length", "checksum", STRIPPED})
_PREPACKED = "prepacked_"
"""Begins entries of ONNX Runtime's own, which say what its kernels would read instead of the values."""
"""Smaller stand-ins are zeros in the model itself: each mapping takes a place of those that a process may have."""


@dataclass
class StandIns:
    """A model to load, and what stands in for its values."""

    model: ModelProto
    sizes: list[int] = field(default_factory=list)
    """Bytes of the mappings that loading takes."""
    unread: list[Weight] = field(default_factory=list)
    """What zeros stand in for; the smallest come first."""
    texts: bool = False
    """Whether texts were not read, for which nothing can stand in."""


def may_be_folded(model: ModelProto) -> bool:
    """Whether a node computes something from constants or shapes alone, from which sizes of outputs may follow."""
    graph = model.graph
    constant = {tensor.name for tensor in graph.initializer} - {value.name for value in graph.input}
    for node in graph.node:
        if node.op_type == "Constant":
            constant.update(node.output)
        elif node.op_type in _FROM_SHAPES or (node.input and all(name in constant for name in node.input if name)):
            return True
    return False


def with_defaults(made: StandIns) -> ModelProto | None:
    """The model with its stand-ins as inputs that have a default, so that nothing is computed from zeros.

    None where some are not initializers of the main graph, which alone may be such.
    """
    wanted = {weight.name for weight in made.unread}
    graph = made.model.graph
    if len(made.unread) > len(wanted) or made.model.ir_version < _DEFAULTS_SINCE:
        return None
    known = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if tensor.name in wanted:
            wanted.remove(tensor.name)
            if tensor.name not in known:
                graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return None if wanted else made.model


Values = Callable[[Weight], TensorProto | None]
"""A weight with its real values, or nothing where they are not read."""


def with_stand_ins(skeleton: Skeleton, values: Values = lambda weight: None) -> StandIns:
    """Copy a model, all its tensors either with their values or with zeros for them; ``values`` has the first word."""
    copy = ModelProto()
    copy.CopyFrom(skeleton.model)
    out = StandIns(copy)
    for tensor in all_tensors(copy):
        _fill(tensor, skeleton, values, out)
    out.unread.sort(key=lambda weight: weight.stored_bytes)
    return out


def _fill(tensor: TensorProto, skeleton: Skeleton, values: Values, out: StandIns) -> None:
    weight = _external(tensor) if tensor.data_location == TensorProto.EXTERNAL else _stripped(tensor, skeleton)
    if weight is None:
        return
    odd = _odd_entries(tensor)
    real = None if odd else values(weight)
    if not odd and (weight.kept or real is not None):
        del tensor.external_data[:]
        tensor.ClearField("data_location")
        if real is None:
            tensor.MergeFromString(weight.kept)
        else:
            name = tensor.name
            tensor.CopyFrom(real)
            tensor.name = name
        return
    out.unread.append(weight)
    outside = tensor.data_location == TensorProto.EXTERNAL
    out.texts = out.texts or weight.data_type == TensorProto.STRING
    _stand_in(tensor, weight, out, outside=outside)


def _stand_in(tensor: TensorProto, weight: Weight, out: StandIns, *, outside: bool) -> None:
    # What lies in another file stays in one: the runtime refuses some such values, however small they are.
    odd = _odd_entries(tensor)
    del tensor.external_data[:]
    sound = all(size >= 0 for size in weight.dims) and bits(weight.data_type) > 0
    size = tensor_bytes(weight.data_type, weight.dims) if sound else 0
    if size == 0 or (size <= _INLINE_BYTES and not outside):
        tensor.ClearField("data_location")
        tensor.raw_data = bytes(size)
        return
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", ZEROS), ("offset", "0"), ("length", str(size)), *odd):
        tensor.external_data.add(key=key, value=value)
    out.sizes.append(size)


def _odd_entries(tensor: TensorProto) -> list[tuple[str, str]]:
    """What is said of a tensor's place besides what ONNX defines: the runtime refuses most of it."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return []
    found = ((entry.key, entry.value) for entry in tensor.external_data)
    return [each for each in found if each[0] not in _ENTRIES and not each[0].startswith(_PREPACKED)]


def _external(tensor: TensorProto) -> Weight:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    dims = tuple(tensor.dims)
    size = tensor_bytes(tensor.data_type, dims) if all(each >= 0 for each in dims) else 0
    offset = entries.get("offset", "")
    begin = int(offset) if offset.isascii() and offset.isdecimal() and len(offset) < 19 else 0
    return Weight(tensor.name, tensor.data_type, dims, size, True, entries.get("location", ""), begin)


def _stripped(tensor: TensorProto, skeleton: Skeleton) -> Weight | None:
    """What was left out of the skeleton; a file may hold such a mark itself, which then is none."""
    index = next((each.value for each in reversed(tensor.external_data) if each.key == STRIPPED), "")
    if not (index.isascii() and index.isdecimal() and len(index) < 10) or int(index) >= len(skeleton.weights):
        return None
    weight = skeleton.weights[int(index)]
    same = (weight.name, weight.data_type, weight.dims) == (tensor.name, tensor.data_type, tuple(tensor.dims))
    return weight if same else None
