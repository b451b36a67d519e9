"""What is measured: models made from a seed, the requests for them, and how many clients send these."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

SEED = 7
PAYLOADS = 8
"""Different requests that the clients take in turn."""


def _dense(sizes: list[int], last: str) -> ModelProto:
    random = np.random.default_rng(SEED)
    nodes: list[NodeProto] = []
    weights: dict[str, Any] = {}
    value = "x"
    for layer, (before, after) in enumerate(pairwise(sizes)):
        weights[f"W{layer}"] = (random.standard_normal((before, after)) / before**0.5).astype(np.float32)
        weights[f"b{layer}"] = random.standard_normal(after, dtype=np.float32)
        nodes.append(helper.make_node("Gemm", [value, f"W{layer}", f"b{layer}"], [f"sum{layer}"], f"dense{layer}"))
        final = layer == len(sizes) - 2
        value = "y" if final else f"hidden{layer}"
        nodes.append(helper.make_node(last if final else "Relu", [f"sum{layer}"], [value], f"activation{layer}"))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", sizes[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", sizes[-1]])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def mlp() -> ModelProto:
    """784 → 256 → 10, as for handwritten digits."""
    return _dense([784, 256, 10], "Softmax")


def iris() -> ModelProto:
    """Four features to three classes: a model that costs next to nothing."""
    return _dense([4, 3], "Softmax")


def light(name: str) -> ModelProto:
    """A network of the ONNX Model Zoo as the onnx package brings it: the real graph, weights made on loading."""
    return onnx.load(Path(onnx.backend.test.__file__).parent / "data" / "light" / f"light_{name}.onnx")


def squeezenet() -> ModelProto:
    """Pictures of 3 × 224 × 224 to 1000 classes."""
    return light("squeezenet")


def resnet50() -> ModelProto:
    """ResNet-50 with weights in the file, about 100 MB: the stand-ins of the light model are filled in."""
    model = light("resnet50")
    random = np.random.default_rng(SEED)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kept: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        weights = random.standard_normal(shapes[node.input[0]].tolist(), dtype=np.float32) / 50
        model.graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
        entry = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, weights.shape)
        model.graph.input.append(entry)  # IR version 3 wants every initializer among the inputs
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model
