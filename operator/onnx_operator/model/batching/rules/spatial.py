"""Convolutions, pools and the like: images at axis 0, one after the other."""

import math
from collections.abc import Sequence

from onnx_operator.model.batching.call import Call, Rule, known
from onnx_operator.model.batching.kernels import MAX_EXACT_TERMS
from onnx_operator.model.batching.sizes import ONE, Size, product, quotient
from onnx_operator.model.batching.values import Sizes, UnprovenError, Value

_MIN_BLOCK = 8
"""Channels that are arranged together, on the oldest CPUs."""


def _images(call: Call) -> Sizes:
    """The shape of the first input, whose images lie at axis 0; all else must be the same in every run."""
    value = call.required(0)
    call.only_fixed(*range(1, len(call.inputs)))
    dims = known(value)
    if value.batch and (value.axis != 0 or len(dims) < 3):
        raise UnprovenError("works on images, and the rows are not at its axis 0")
    return dims


def _unknown(call: Call) -> bool:
    return not any(value.batch for value in call.given())


def _window(call: Call, size: Size, index: int, kernel: int | None, rank: int) -> Size:
    """What a window that moves along a dimension leaves of it."""
    number = size.number
    stride = (call.integers("strides") or [1] * rank)[index]
    dilation = (call.integers("dilations") or [1] * rank)[index]
    mode = call.text("auto_pad", "NOTSET")
    if number is None or stride < 1:
        return call.symbols.size()
    if mode.startswith("SAME"):
        return Size(-(-number // stride))
    if kernel is None:
        return call.symbols.size()
    pads = [0] * 2 * rank if mode == "VALID" else call.integers("pads") or [0] * 2 * rank
    room = number + pads[index] + pads[index + rank] - dilation * (kernel - 1) - 1
    if room < 0 or call.integer("ceil_mode", 0):
        return call.symbols.size()
    return Size(room // stride + 1)


def _spatial(call: Call, sizes: Sizes, kernel: Sequence[int | None]) -> list[Size]:
    rank = len(sizes)
    if len(kernel) != rank or any(
        len(call.integers(name) or [0] * rank * factor) != rank * factor
        for name, factor in (("strides", 1), ("dilations", 1), ("pads", 2))
    ):
        raise UnprovenError("has attributes that do not fit the shape of its input")
    return [_window(call, size, i, kernel[i], rank) for i, size in enumerate(sizes)]


def convolution(call: Call) -> Value:
    """Conv and ConvInteger; filters are the same in every run."""
    if _unknown(call):
        return Value()
    dims, weight = _images(call), known(call.required(1))
    if len(weight) != len(dims):
        raise UnprovenError("has filters of other dimensions than its images")
    kernel: Sequence[int | None] = call.integers("kernel_shape") or [size.number for size in weight[2:]]
    rounded = call.operator == "Conv" and not _summed_alike(call, weight, kernel)
    return Value((dims[0], weight[0], *_spatial(call, dims[2:], kernel)), 0, rounded=rounded)


def _summed_alike(call: Call, weight: Sizes, kernel: Sequence[int | None]) -> bool:
    """Whether the order of the products does not depend on how the work of more images is shared out.

    It does not where they are few, or where filters of two dimensions are arranged in blocks of channels, for which
    ONNX Runtime needs stored ones of a suitable number of channels.
    """
    depth, filters, groups = weight[1].number, weight[0].number, call.integer("group", 1)
    places = [each for each in kernel if each is not None]
    if depth is None or filters is None or len(places) < len(kernel):
        return False
    if depth * math.prod(places) <= MAX_EXACT_TERMS:
        return True
    blocks = depth % 4 == 0 or depth < _MIN_BLOCK
    return call.required(1).stored and len(kernel) == 2 and groups == 1 and blocks


def transposed(call: Call) -> Value:
    """ConvTranspose, whose sizes are not followed."""
    if _unknown(call):
        return Value()
    dims, weight = _images(call), known(call.required(1))
    if len(weight) != len(dims):
        raise UnprovenError("has filters of other dimensions than its images")
    channels = product([weight[1], Size(call.integer("group", 1))]) or call.symbols.size()
    return Value((dims[0], channels, *(call.symbols.size() for _ in dims[2:])), 0)


def pool(call: Call) -> list[Value]:
    """Pools. Where a maximum was found is told by its place among all images."""
    if _unknown(call):
        return [Value(), Value()]
    dims = _images(call)
    if len(call.node.output) > 1 and call.node.output[1]:
        raise UnprovenError("counts places through all rows")
    kernel = call.integers("kernel_shape") or []
    return [Value((*dims[:2], *_spatial(call, dims[2:], kernel)), 0)]


def global_pool(call: Call) -> Value:
    """One number for each channel of each image."""
    if _unknown(call):
        return Value()
    dims = _images(call)
    return Value((*dims[:2], *(ONE for _ in dims[2:])), 0)


def blocks(call: Call) -> Value:
    """DepthToSpace, SpaceToDepth."""
    if _unknown(call):
        return Value()
    dims = _images(call)
    block = call.integer("blocksize", 0)
    if len(dims) != 4 or block < 1:
        raise UnprovenError("works on images, and its input is not one")
    square, side = Size(block * block), Size(block)

    def times(size: Size, factor: Size) -> Size:
        return product([size, factor]) or call.symbols.size()

    def part(size: Size, factor: Size) -> Size:
        return quotient(size, factor) or call.symbols.size()

    if call.operator == "DepthToSpace":
        return Value((dims[0], part(dims[1], square), times(dims[2], side), times(dims[3], side)), 0)
    return Value((dims[0], times(dims[1], square), part(dims[2], side), part(dims[3], side)), 0)


def resize(call: Call) -> Value:
    """Images are made larger or smaller each by itself, where the factor of the batch axis is one."""
    if _unknown(call):
        return Value()
    value = call.required(0)
    dims = known(value)
    axes = call.integers("axes")
    cropped = call.text("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    if call.operator == "Resize" and call.opset < 11:
        scales, sizes = call.input(1), None
    elif call.operator == "Upsample":
        scales, sizes = call.input(1), None
        if call.opset < 9:
            raise UnprovenError("has its factors in an attribute, as opsets before 9 do")
    else:
        scales, sizes = call.input(2), call.input(3)
    stretched = call.text("keep_aspect_ratio_policy", "stretch") == "stretch"
    if cropped or axes is not None or not stretched or value.axis is None:
        raise UnprovenError("resizes in a way that is not followed")
    if call.text("mode", "nearest") != "nearest" and (value.axis != 0 or len(dims) not in (4, 5)):
        # What has two or three dimensions is one image to the kernel: neighbours count zero times, but NaN stays NaN.
        raise UnprovenError("blends rows with their neighbours")
    target = call.elements(sizes) if sizes is not None else None
    if target is not None and target:
        if len(target) != len(dims) or target[value.axis] != dims[value.axis]:
            raise UnprovenError("resizes the rows")
        others = [size for i, size in enumerate(target) if i != value.axis]
        if any(size is None or size.rows for size in others):
            raise UnprovenError("takes sizes from the number of rows")
        return Value(tuple(size or dims[i] for i, size in enumerate(target)), value.axis)
    factors = None if scales is None or scales.data is None else scales.data.reshape(-1)
    if factors is None or len(factors) != len(dims) or factors[value.axis] != 1:
        raise UnprovenError("resizes by factors that are not known to leave the rows alone")
    return Value(tuple(size if factors[i] == 1 else call.symbols.size() for i, size in enumerate(dims)), value.axis)


RULES: dict[str, Rule] = {
    "Conv": convolution,
    "ConvInteger": convolution,
    "ConvTranspose": transposed,
    "MaxPool": pool,
    "AveragePool": pool,
    "LpPool": pool,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "GlobalLpPool": global_pool,
    "DepthToSpace": blocks,
    "SpaceToDepth": blocks,
    "Resize": resize,
    "Upsample": resize,
}
