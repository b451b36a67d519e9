"""A Core ML neural network that reads handwritten digits, written by coremltools and converted by onnxmltools.

Core ML runs on Apple's systems only. The weights are those of a network of scikit-learn, whose answer is expected.
"""

import sys
from pathlib import Path

import coremltools
import numpy as np
from coremltools.models import datatypes
from coremltools.models.neural_network import NeuralNetworkBuilder
from onnxmltools import convert_coreml
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from examples.recording import record_score

HIDDEN = 32


def main(folder: Path) -> None:
    digits = load_digits()
    pixels = (digits.data / 16).astype(np.float32)
    network = MLPClassifier([HIDDEN], max_iter=1000, random_state=1).fit(pixels[3:], digits.target[3:])
    model = convert_coreml(core_ml(network), "coreml", target_opset=13)
    (folder / "coreml.onnx").write_bytes(model.SerializeToString())

    # Core ML knows no batches: one picture at a time.
    held_back = pixels[2:3]
    names = [str(digit) for digit in network.classes_]
    answer = {
        "digit": [[str(digit)] for digit in network.predict(held_back)],
        "probabilities": [dict(zip(names, row, strict=True)) for row in network.predict_proba(held_back)],
    }
    print("largest difference to scikit-learn:", record_score(folder, "coreml", held_back, answer))


def core_ml(network: MLPClassifier) -> coremltools.models.MLModel:
    """The network as Core ML's own file format has it."""
    names = [str(digit) for digit in network.classes_]
    builder = NeuralNetworkBuilder(
        [("pixels", datatypes.Array(64))], [("probabilities", datatypes.Array(len(names)))], mode="classifier"
    )
    sizes = [(64, HIDDEN), (HIDDEN, len(names))]
    flow = "pixels"
    for number, (width, height) in enumerate(sizes, 1):
        weights, bias = network.coefs_[number - 1].T, network.intercepts_[number - 1]
        builder.add_inner_product(f"dense{number}", weights, bias, width, height, True, flow, f"dense{number}")
        flow = f"dense{number}"
        if number < len(sizes):
            builder.add_activation(f"relu{number}", "RELU", flow, f"relu{number}")
            flow = f"relu{number}"
    builder.add_softmax("softmax", flow, "probabilities")
    builder.set_class_labels(names, predicted_feature_name="digit")
    return coremltools.models.MLModel(builder.spec)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
