"""A convolutional network of Caffe2 that reads handwritten digits, exported by Caffe2's ONNX frontend."""

import sys
from pathlib import Path

import numpy as np
import onnx
from caffe2.python import brew, core, optimizer, workspace
from caffe2.python.model_helper import ModelHelper
from caffe2.python.onnx import frontend
from caffe2.python.predictor import mobile_exporter
from sklearn.datasets import load_digits

from examples.recording import record


def main(folder):
    digits = load_digits()
    images = (digits.images[:, np.newaxis] / 16).astype(np.float32)
    train(images[1:], digits.target[1:].astype(np.int32))

    held_back = images[:1]
    model = ModelHelper("digits", init_params=False)
    brew.softmax(model, add_network(model), "probabilities")
    init, predict = mobile_exporter.Export(workspace, model.net, model.params)
    predict.name = "digits"
    shapes = {"data": (onnx.TensorProto.FLOAT, held_back.shape)}
    exported = frontend.caffe2_net_to_onnx_model(predict, init, shapes)
    onnx.save(exported, str(folder / "caffe2.onnx"))

    workspace.FeedBlob("data", held_back)
    workspace.RunNetOnce(predict)
    answer = {"probabilities": workspace.FetchBlob("probabilities")}
    print("largest difference to Caffe2:", record(folder, "caffe2", {"data": held_back}, answer))


def add_network(model):
    brew.conv(model, "data", "conv1", 1, 8, 3, pad=1)
    brew.relu(model, "conv1", "relu1")
    brew.max_pool(model, "relu1", "pool1", kernel=2, stride=2)
    brew.conv(model, "pool1", "conv2", 8, 16, 3, pad=1)
    brew.relu(model, "conv2", "relu2")
    brew.max_pool(model, "relu2", "pool2", kernel=2, stride=2)
    return brew.fc(model, "pool2", "logits", 64, 10)


def train(images, targets):
    model = ModelHelper("training")
    probabilities = brew.softmax(model, add_network(model), "probabilities")
    entropy = model.net.LabelCrossEntropy([probabilities, "target"], "entropy")
    loss = model.net.AveragedLoss(entropy, "loss")
    model.net.Accuracy([probabilities, "target"], "accuracy")
    model.AddGradientOperators([loss])
    optimizer.build_adam(model, base_learning_rate=0.005)
    # Filled with the same random numbers each time.
    model.param_init_net.Proto().device_option.CopyFrom(core.DeviceOption(0, random_seed=1))

    workspace.RunNetOnce(model.param_init_net)
    order = np.random.RandomState(1)
    created = False
    for _ in range(20):
        for batch in np.array_split(order.permutation(len(images)), len(images) // 64):
            workspace.FeedBlob("data", images[batch])
            workspace.FeedBlob("target", targets[batch])
            if not created:
                created = workspace.CreateNet(model.net)
            workspace.RunNet(model.net)
    print("accuracy in the last batch:", workspace.FetchBlob("accuracy"))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
