"""Random weights in place of the constant ones with which the onnx package ships its test models."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

# Less of what a residual branch adds keeps sixteen of them in a row from exploding.
_RESIDUAL_GAIN = 0.25
# How far the scores of a class differ between inputs.
_SPREAD = 2.0


def randomize(model: onnx.ModelProto, seed: int) -> None:
    """Replace every weight, in place; scaled so that activations neither vanish nor explode."""
    graph = model.graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    constants = [n for n in graph.node if n.op_type == "ConstantOfShape" and n.input[0] in values]
    shapes = {name: value.shape for name, value in values.items()}
    shapes |= {n.output[0]: tuple(values[n.input[0]].tolist()) for n in constants}
    weights = {
        name: _draw(role, shapes[name], np.random.default_rng([seed, zlib.crc32(name.encode())])) * gain
        for name, role, gain in _weights(graph)
    }
    dropped = set(weights) | {n.input[0] for n in constants if n.output[0] in weights}
    _keep(graph.node, [n for n in graph.node if n.op_type != "ConstantOfShape" or n.output[0] not in weights])
    _keep(graph.initializer, [t for t in graph.initializer if t.name not in dropped])
    _keep(graph.input, [i for i in graph.input if i.name not in dropped])
    for name, value in weights.items():
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
        # Until IR 4 every initializer is an input as well.
        if model.ir_version < 4:
            graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape))


def calibrate(model: onnx.ModelProto, inputs: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Centre and scale the last layer's scores over some inputs, in place.

    Random layers answer nearly the same to everything; what is common to all inputs would hide what differs.
    """
    last = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm")][-1]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(onnx.ValueInfoProto(name=last.output[0]))
    session = open_session(probe.SerializeToString())
    scores = np.stack([session.run([last.output[0]], dict(feed))[0] for feed in inputs])
    scores = scores.reshape(*scores.shape[:3], -1).mean(-1).reshape(len(inputs), -1)
    centre, scale = scores.mean(0), _SPREAD / scores.std(0).mean()
    tensors = {t.name: t for t in model.graph.initializer}
    weights, offset = (tensors[name] for name in last.input[1:])
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(scale), weights.name))
    shifted = (numpy_helper.to_array(offset) - centre) * scale
    offset.CopyFrom(numpy_helper.from_array(shifted.astype(np.float32), offset.name))


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """A session on this machine's CPU, which keeps its warnings to itself."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _weights(graph: onnx.GraphProto) -> Iterator[tuple[str, str, float]]:
    """Name, role and gain of every weight."""
    summed = {name for n in graph.node if n.op_type in ("Sum", "Add") for name in n.input}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            yield node.input[1], "matrix", 1.0
            for name in node.input[2:]:
                yield name, "offset", 1.0
        elif node.op_type == "BatchNormalization":
            scale, offset, mean, variance = node.input[1:]
            yield scale, "scale", _RESIDUAL_GAIN if node.output[0] in summed else 1.0
            yield offset, "offset", 1.0
            yield mean, "offset", 1.0
            yield variance, "scale", 1.0


def _draw(role: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    if role == "matrix":
        # Normal with the variance that rectified layers keep (He and others, 2015).
        return random.standard_normal(shape, np.float32) * math.sqrt(2 / math.prod(shape[1:]))
    if role == "scale":
        return random.uniform(0.9, 1.1, shape)
    return random.normal(0, 0.05, shape)


def _keep(repeated: Any, items: list[Any]) -> None:
    """Leave only these of its own items in a repeated field."""
    copies = list(items)
    del repeated[:]
    repeated.extend(copies)
