"""A network of seeded weights with the interface and the layers of Tiny YOLO v2, which finds things in pictures.

The Model Zoo's file takes `image` [None, 3, 416, 416], pixels from 0 to 255, and gives `grid` [None, 125, 13, 13].
Its 60 MB of weights must be downloaded; these are random and far fewer channels wide, so the boxes that it finds
mean nothing.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTHS = (4, 8, 8, 16, 16, 24, 24, 24)


def main(folder: Path) -> None:
    random = np.random.default_rng(416)
    nodes = [
        helper.make_node("Mul", ["image", "scale"], ["scaled"]),
    ]
    weights, value, channels = [("scale", np.full(1, 1 / 255))], "scaled", 3
    for number, width in enumerate(WIDTHS):
        kernel = random.standard_normal((width, channels, 3, 3)) * (2 / (9 * channels)) ** 0.5
        weights.append((f"K{number}", kernel))
        nodes.append(
            helper.make_node("Conv", [value, f"K{number}"], [f"c{number}"], auto_pad="SAME_UPPER", kernel_shape=[3, 3])
        )
        normal = [f"c{number}", *(f"{part}{number}" for part in ("gain", "shift", "mean", "variance"))]
        values = (np.ones(width), random.standard_normal(width) / 5, np.zeros(width), np.full(width, 0.25))
        weights += list(zip(normal[1:], values, strict=True))
        nodes.append(helper.make_node("BatchNormalization", normal, [f"n{number}"]))
        value = f"a{number}"
        nodes.append(helper.make_node("LeakyRelu", [f"n{number}"], [value], alpha=0.1))
        if number < 6:
            step = [2, 2] if number < 5 else [1, 1]
            pooled = {"kernel_shape": [2, 2], "strides": step, "auto_pad": "SAME_UPPER"}
            nodes.append(helper.make_node("MaxPool", [value], [f"p{number}"], **pooled))
            value = f"p{number}"
        channels = width
    weights += [("K", random.standard_normal((125, channels, 1, 1)) / (4 * channels)), ("b", np.full(125, -0.5))]
    nodes.append(helper.make_node("Conv", [value, "K", "b"], ["grid"], kernel_shape=[1, 1]))
    tensors = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["None", 3, 416, 416])]
    inputs += [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.dims) for t in tensors]
    outputs = [helper.make_tensor_value_info("grid", TensorProto.FLOAT, ["None", 125, 13, 13])]
    graph = helper.make_graph(nodes, "tinyyolo", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=3)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "tinyyolo.onnx")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
