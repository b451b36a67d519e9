"""A convolutional network of Chainer that reads handwritten digits, exported by ONNX-Chainer."""

import sys
from pathlib import Path

import chainer
import numpy as np
import onnx_chainer
from chainer import functions, links
from sklearn.datasets import load_digits

from examples.recording import record


class Network(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.conv1 = links.Convolution2D(1, 8, 3, pad=1)
            self.norm1 = links.BatchNormalization(8)
            self.conv2 = links.Convolution2D(8, 16, 3, pad=1)
            self.dense = links.Linear(64, 10)

    def logits(self, image):
        hidden = functions.max_pooling_2d(functions.relu(self.norm1(self.conv1(image))), 2)
        return self.dense(functions.max_pooling_2d(functions.relu(self.conv2(hidden)), 2))

    def __call__(self, image):
        return functions.softmax(self.logits(image))


def main(folder):
    np.random.seed(1)
    digits = load_digits()
    images = (digits.images[:, np.newaxis] / 16).astype(np.float32)
    network = train(images[1:], digits.target[1:].astype(np.int32))

    held_back = images[:1]
    with chainer.using_config("train", False):
        onnx_chainer.export(network, held_back, filename=str(folder / "chainer.onnx"), opset_version=7)
        answer = {"Softmax_0": network(held_back).array}
    print("largest difference to Chainer:", record(folder, "chainer", {"Input_0": held_back}, answer))


def train(images, targets):
    network = Network()
    optimizer = chainer.optimizers.Adam().setup(network)

    def loss(image, target):
        return functions.softmax_cross_entropy(network.logits(image), target)

    for _ in range(15):
        for batch in np.array_split(np.random.permutation(len(images)), len(images) // 64):
            optimizer.update(loss, images[batch], targets[batch])
    with chainer.using_config("train", False):
        print("accuracy while training:", functions.accuracy(network(images), targets).array)
    return network


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
