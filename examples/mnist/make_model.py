"""A network of CNTK that reads handwritten digits of 28 × 28 pixels, with the interface of the Model Zoo's MNIST file.

That file takes `Input3` [1, 1, 28, 28] with pixels from 0 to 255 and gives `Plus214_Output_0` [1, 10]; so does this
one, which CNTK trains here on scikit-learn's own digits, blown up.
"""

import sys
from pathlib import Path

import cntk
import numpy as np
import onnx
from cntk.layers import Convolution2D, Dense, MaxPooling, Sequential
from sklearn.datasets import load_digits

from examples.recording import compare

HELD_BACK = 300
NAMES = ("Input3", "Plus214_Output_0")


def main(folder):
    cntk.cntk_py.set_fixed_random_seed(1)
    cntk.cntk_py.force_deterministic_algorithms()
    digits = load_digits()
    pixels = np.kron(np.round(digits.images * 255 / 16), np.ones((3, 3)))
    pixels = np.pad(pixels, [(0, 0), (2, 2), (2, 2)], "constant")[:, np.newaxis].astype(np.float32)
    logits, image = train(pixels[HELD_BACK:], np.eye(10, dtype=np.float32)[digits.target[HELD_BACK:]])
    right = (logits.eval({image: pixels[:HELD_BACK]}).argmax(1) == digits.target[:HELD_BACK]).mean()
    print(f"accuracy on {HELD_BACK} digits held back: {right:.3f}")
    file = str(folder / "mnist.onnx")
    logits.save(file, format=cntk.ModelFormat.ONNX)
    rename(file)
    shown = pixels[:1]
    difference = compare(file, {NAMES[0]: shown}, {NAMES[1]: logits.eval({image: shown})}, 1e-2)
    print("largest difference to CNTK:", difference)


def train(pixels, targets):
    image, target = cntk.input_variable((1, 28, 28)), cntk.input_variable(10)
    logits = Sequential(
        [
            Convolution2D((5, 5), 8, pad=True, activation=cntk.relu),
            MaxPooling((2, 2), strides=2),
            Convolution2D((5, 5), 16, pad=True, activation=cntk.relu),
            MaxPooling((3, 3), strides=3),
            Dense(10),
        ]
    )(image / 255)
    loss = cntk.cross_entropy_with_softmax(logits, target)
    learner = cntk.adam(logits.parameters, cntk.learning_parameter_schedule_per_sample(0.001), momentum=0.9)
    trainer = cntk.Trainer(logits, (loss, cntk.classification_error(logits, target)), [learner])
    order = np.random.RandomState(1)
    for _ in range(8):
        for batch in np.array_split(order.permutation(len(pixels)), len(pixels) // 64):
            trainer.train_minibatch({image: pixels[batch], target: targets[batch]})
    return logits, image


def rename(file):
    model = onnx.load(file)
    weights = {tensor.name for tensor in model.graph.initializer}
    (image,) = [value.name for value in model.graph.input if value.name not in weights]
    before = [image, model.graph.output[0].name]
    names = dict(zip(before, NAMES))  # noqa: B905 - zip(strict=…) came with Python 3.10
    for value in list(model.graph.input) + list(model.graph.output):
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    onnx.save(model, file)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
