"""A convolutional network of Apache MXNet that reads handwritten digits, exported by MXNet itself."""

import sys
import tempfile
from pathlib import Path

import mxnet as mx
import numpy as np
import onnx
from mxnet.contrib import onnx as onnx_mxnet
from mxnet.gluon import nn
from sklearn.datasets import load_digits

from examples.recording import record


def main(folder):
    mx.random.seed(1)
    np.random.seed(1)
    digits = load_digits()
    images = (digits.images[:, np.newaxis] / 16).astype(np.float32)
    network = train(images[1:], digits.target[1:].astype(np.float32))

    with tempfile.TemporaryDirectory() as own:
        network.export(own + "/digits")
        onnx_mxnet.export_model(
            own + "/digits-symbol.json",
            own + "/digits-0000.params",
            [(1, 1, 8, 8)],
            np.float32,
            str(folder / "mxnet.onnx"),
        )

    repair(folder / "mxnet.onnx")

    held_back = images[:1]
    answer = {"digits_dense0_fwd": network(mx.nd.array(held_back)).asnumpy()}
    print("largest difference to MXNet:", record(folder, "mxnet", {"data": held_back}, answer))


def repair(file):
    """Say of each BatchNormalization that it is per channel, as MXNet computes it.

    MXNet's exporter, up to 1.6, says `spatial=0` by mistake; ONNX Runtime takes it at its word and fails.
    """
    model = onnx.load(str(file))
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            for attribute in node.attribute:
                if attribute.name == "spatial":
                    attribute.i = 1
    onnx.save(model, str(file))


def train(images, targets):
    network = nn.HybridSequential(prefix="digits_")
    with network.name_scope():
        network.add(
            nn.Conv2D(8, 3, padding=1, activation="relu"),
            nn.BatchNorm(),
            nn.MaxPool2D(),
            nn.Conv2D(16, 3, padding=1, activation="relu"),
            nn.MaxPool2D(),
            nn.Flatten(),
            nn.Dense(10),
        )
    network.initialize(mx.init.Xavier())
    network.hybridize()
    trainer = mx.gluon.Trainer(network.collect_params(), "adam")
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    for _ in range(15):
        for batch in np.array_split(np.random.permutation(len(images)), len(images) // 64):
            with mx.autograd.record():
                losses = loss(network(mx.nd.array(images[batch])), mx.nd.array(targets[batch]))
            losses.backward()
            trainer.step(len(batch))
    guesses = network(mx.nd.array(images)).asnumpy().argmax(1)
    print("accuracy while training:", (guesses == targets).mean())
    return network


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
