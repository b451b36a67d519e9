"""Values that are looked up: a table that is the same for all, or each row in itself."""

from onnx_operator.model.batching.call import Call, Rule, known
from onnx_operator.model.batching.sizes import Size, product
from onnx_operator.model.batching.values import UnprovenError, Value

_PICKS = "picks among the rows"


def gather(call: Call) -> Value:
    """Slices of the first input by the indices in the second."""
    data, indices = call.required(0), call.required(1)
    if not (data.batch or indices.batch):
        if data.dims is None or indices.dims is None:
            return Value()
        axis = call.axis(0, len(data.dims))
        return Value(data.dims[:axis] + indices.dims + data.dims[axis + 1 :])
    dims, places = known(data), known(indices)
    axis = call.axis(0, len(dims))
    made = dims[:axis] + places + dims[axis + 1 :]
    if data.batch and indices.batch:
        raise UnprovenError(_PICKS)
    if indices.axis is not None:
        return Value(made, axis + indices.axis)
    if data.axis is None or data.axis == axis:
        raise UnprovenError(_PICKS)
    return Value(made, data.axis if data.axis < axis else data.axis + len(places) - 1)


def gather_elements(call: Call) -> Value:
    """An index for each element of the result, along one axis."""
    data, indices = call.required(0), call.required(1)
    if not (data.batch or indices.batch):
        return Value(indices.dims)
    dims, places = known(data), known(indices)
    axis = call.axis(0, len(dims))
    if indices.axis is None or len(dims) != len(places):
        raise UnprovenError(_PICKS)
    if data.batch:
        if data.axis != indices.axis or indices.axis == axis or dims[indices.axis] != places[indices.axis]:
            raise UnprovenError(_PICKS)
    elif indices.axis != axis:
        raise UnprovenError("meets the rows with a tensor that has a dimension of its own there")
    return Value(places, indices.axis)


def gather_nd(call: Call) -> Value:
    """Index tuples; the first ``batch_dims`` dimensions are those of both inputs."""
    data, indices = call.required(0), call.required(1)
    if not (data.batch or indices.batch):
        return Value()
    dims, places = known(data), known(indices)
    shared = call.integer("batch_dims", 0)
    depth = places[-1].number if places else None
    if depth is None or indices.axis is None or indices.axis == len(places) - 1 or shared < 0:
        raise UnprovenError(_PICKS)
    together = data.axis == indices.axis and indices.axis < shared and dims[indices.axis] == places[indices.axis]
    if data.batch and not together:
        raise UnprovenError(_PICKS)
    if not data.batch and indices.axis < shared:
        raise UnprovenError("meets the rows with a tensor that has a dimension of its own there")
    return Value(places[:-1] + dims[shared + depth :], indices.axis)


def one_hot(call: Call) -> Value:
    """A dimension more, in which one place is set."""
    indices = call.required(0)
    call.only_fixed(1, 2)
    if not indices.batch or indices.axis is None:
        return Value()
    dims = known(indices)
    axis = call.axis(-1, len(dims) + 1)
    depth = call.elements(call.required(1))
    size = depth[0] if depth and depth[0] is not None and depth[0].natural else call.symbols.size()
    return Value((*dims[:axis], size, *dims[axis:]), indices.axis + (indices.axis >= axis))


def top_k(call: Call) -> list[Value]:
    """The largest along an axis."""
    value = call.required(0)
    call.only_fixed(1)
    if not value.batch:
        return [Value(), Value()]
    dims = known(value)
    axis = call.axis(-1, len(dims))
    if axis == value.axis:
        raise UnprovenError(_PICKS)
    count = call.numbers(1)
    size = Size(count[0]) if count and count[0] >= 0 else call.symbols.size()
    found = Value((*dims[:axis], size, *dims[axis + 1 :]), value.axis)
    return [found, found]


def features(call: Call) -> Value:
    """ai.onnx.ml.ArrayFeatureExtractor: columns by number."""
    value, indices = call.required(0), call.required(1)
    call.only_fixed(1)
    if not value.batch:
        return Value()
    dims, places = known(value), known(indices)
    if value.axis == len(dims) - 1:
        raise UnprovenError(_PICKS)
    return Value((*dims[:-1], product(places) or call.symbols.size()), value.axis)


RULES: dict[str, Rule] = {
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "OneHot": one_hot,
    "TopK": top_k,
}
