"""A convolutional network trained and exported by PyTorch that reads handwritten digits of 28 × 28 pixels.

The notebook trains on MNIST, which must be downloaded; here scikit-learn's own digits of 8 × 8 pixels are blown up.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from examples.recording import record

HELD_BACK = 300


class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 5)
        self.second = nn.Conv2d(8, 16, 5)
        self.last = nn.Linear(256, 10)

    def forward(self, pixels):
        found = functional.relu(functional.max_pool2d(self.first(pixels), 2))
        found = functional.relu(functional.max_pool2d(self.second(found), 2))
        return functional.log_softmax(self.last(found.view(-1, 256)), dim=1)


def main(folder):
    torch.manual_seed(1)
    torch.set_num_threads(1)
    digits = load_digits()
    pixels = np.kron(digits.images / 16, np.ones((3, 3)))
    pixels = np.pad(pixels, [(0, 0), (2, 2), (2, 2)])[:, np.newaxis].astype(np.float32)
    images, targets = torch.from_numpy(pixels), torch.from_numpy(digits.target)
    network = Digits()
    train(network, images[HELD_BACK:], targets[HELD_BACK:])
    network.eval()
    with torch.no_grad():
        right = (network(images[:HELD_BACK]).argmax(1) == targets[:HELD_BACK]).float().mean()
        print(f"accuracy on {HELD_BACK} digits held back: {float(right):.3f}")
        shown = images[:1]
        names = {"input_names": ["image"], "output_names": ["log_probabilities"]}
        torch.onnx.export(network, shown, str(folder / "mnist-pytorch.onnx"), **names)
        answer = {"log_probabilities": network(shown).numpy()}
    print("largest difference to PyTorch:", record(folder, "mnist-pytorch", {"image": shown.numpy()}, answer))


def train(network, images, targets):
    optimizer = torch.optim.Adam(network.parameters(), lr=0.002)
    for _ in range(8):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            functional.nll_loss(network(images[batch]), targets[batch]).backward()
            optimizer.step()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
