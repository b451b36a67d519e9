"""A convolutional network of Microsoft's CNTK that reads handwritten digits, as CNTK itself saves it in ONNX."""

import sys
from pathlib import Path

import cntk
import numpy as np
from cntk.layers import BatchNormalization, Convolution2D, Dense, MaxPooling, Sequential
from sklearn.datasets import load_digits

from examples.recording import record


def main(folder):
    cntk.cntk_py.set_fixed_random_seed(1)
    cntk.cntk_py.force_deterministic_algorithms()
    digits = load_digits()
    images = (digits.images[:, np.newaxis] / 16).astype(np.float32)
    network = train(images[1:], np.eye(10, dtype=np.float32)[digits.target[1:]])

    network.save(str(folder / "cntk.onnx"), format=cntk.ModelFormat.ONNX)

    # In the file CNTK's batch axis has the size 1, and tensors have the names of CNTK's own making.
    (image,) = network.arguments
    held_back = images[:1]
    answer = {network.output.uid: network.eval({image: held_back})}
    print("largest difference to CNTK:", record(folder, "cntk", {image.uid: held_back}, answer))


def train(images, targets):
    image, target = cntk.input_variable((1, 8, 8)), cntk.input_variable(10)
    logits = Sequential(
        [
            Convolution2D((3, 3), 8, pad=True, activation=cntk.relu),
            BatchNormalization(map_rank=1),
            MaxPooling((2, 2), strides=2),
            Convolution2D((3, 3), 16, pad=True, activation=cntk.relu),
            MaxPooling((2, 2), strides=2),
            Dense(10),
        ]
    )(image)
    loss = cntk.cross_entropy_with_softmax(logits, target)
    learner = cntk.adam(logits.parameters, cntk.learning_parameter_schedule_per_sample(0.002), momentum=0.9)
    trainer = cntk.Trainer(logits, (loss, cntk.classification_error(logits, target)), [learner])
    order = np.random.RandomState(1)
    for _ in range(15):
        for batch in np.array_split(order.permutation(len(images)), len(images) // 64):
            trainer.train_minibatch({image: images[batch], target: targets[batch]})
    print("error in the last batch:", trainer.previous_minibatch_evaluation_average)
    return cntk.softmax(logits)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
