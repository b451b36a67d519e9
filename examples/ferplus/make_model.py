"""A network of seeded weights with the interface of FER+, which tells eight emotions from a face.

The Model Zoo's file takes `Input3` [1, 1, 64, 64], grey pixels from 0 to 255, and gives `Plus692_Output_0` [1, 8].
Its weights must be downloaded; these are random and a sixteenth as many channels wide, so what it says of a face
means nothing.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTHS = (8, 16, 16, 32)


def main(folder: Path) -> None:
    random = np.random.default_rng(64)
    nodes, weights, value, channels = [], [], "Input3", 1
    for number, width in enumerate(WIDTHS):
        kernel = random.standard_normal((width, channels, 3, 3)) * (2 / (9 * channels)) ** 0.5
        offset = random.standard_normal(width) / 10
        weights += [(f"K{number}", kernel / (255 if number == 0 else 1)), (f"b{number}", offset)]
        names = [value, f"K{number}", f"b{number}"]
        nodes.append(helper.make_node("Conv", names, [f"c{number}"], pads=[1] * 4, kernel_shape=[3, 3]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        value, channels = f"p{number}", width
        nodes.append(helper.make_node("MaxPool", [f"r{number}"], [value], kernel_shape=[2, 2], strides=[2, 2]))
    weights += [("W", random.standard_normal((512, 8)) / 8), ("b", np.zeros(8))]
    nodes.append(helper.make_node("Flatten", [value], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "W", "b"], ["Plus692_Output_0"]))
    tensors = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights]
    inputs = [helper.make_tensor_value_info("Input3", TensorProto.FLOAT, [1, 1, 64, 64])]
    # IR 3, as the original: initializers are inputs as well.
    inputs += [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.dims) for t in tensors]
    outputs = [helper.make_tensor_value_info("Plus692_Output_0", TensorProto.FLOAT, [1, 8])]
    graph = helper.make_graph(nodes, "ferplus", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=3)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "ferplus.onnx")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
