"""ResNet-50 as the onnx package brings it, with seeded weights: a picture in, 1000 classes out.

The Model Zoo's weights must be downloaded; with these what it says of a picture means nothing. The file takes 100
MB and is made anew where it is needed.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test

from examples.demo.weights import calibrate, randomize


def main(folder: Path) -> None:
    model = onnx.load(Path(onnx.backend.test.__file__).parent / "data" / "light" / "light_resnet50.onnx")
    randomize(model, 50)
    random = np.random.default_rng(50)
    # As pictures are once they are normalised; smooth, as pictures are.
    coarse = [random.standard_normal((1, 3, 7, 7)).astype(np.float32) for _ in range(8)]
    calibrate(model, [{"gpu_0/data_0": np.kron(each, np.ones((1, 1, 32, 32), np.float32))} for each in coarse])
    onnx.save(model, folder / "resnet50.onnx")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
