"""The demonstration's models, made on this machine and kept in `.cluster/demo`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import skl2onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from examples.demo import weights
from tests.cluster.layout import STATE

FOLDER = STATE / "demo"
Feed = dict[str, np.ndarray]
_LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
_CALIBRATION_SEEDS = range(100, 108)


@dataclass(frozen=True)
class Model:
    """A model file, and two inputs to which it gives different answers."""

    name: str
    content: bytes
    inputs: tuple[Feed, Feed]
    # What an answer's tensor of scores is called, and its classes where they have names.
    scores: str
    classes: tuple[str, ...] = ()


def make_models() -> list[Model]:
    """SqueezeNet, ResNet-50 and a classifier of irises."""
    iris = load_iris()
    flowers = [{"X": iris.data[row : row + 1].astype(np.float32)} for row in (0, 100)]
    return [
        _image_model("squeezenet", "data_0", "softmaxout_1"),
        _image_model("resnet50", "gpu_0/data_0", "gpu_0/softmax_1"),
        Model("iris", _cached("iris", _iris), (flowers[0], flowers[1]), "probabilities", tuple(iris.target_names)),
    ]


def make_broken() -> bytes:
    """SqueezeNet with a node that no runtime knows."""
    model = onnx.load_from_string(_cached("squeezenet", lambda: _light("squeezenet", "data_0")))
    node = [n for n in model.graph.node if n.op_type == "Relu"][-1]
    node.name = node.name or "activation_of_the_last_layer"
    node.op_type = "ReluWithTypo"
    return bytes(model.SerializeToString())


def _image_model(name: str, source: str, scores: str) -> Model:
    content = _cached(name, lambda: _light(name, source))
    return Model(name, content, ({source: _image(1)}, {source: _image(2)}), scores)


def _light(name: str, source: str) -> bytes:
    model = onnx.load(_LIGHT / f"light_{name}.onnx")
    weights.randomize(model, seed=7)
    weights.calibrate(model, [{source: _image(seed)} for seed in _CALIBRATION_SEEDS])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _iris() -> bytes:
    data = load_iris()
    classifier = LogisticRegression(max_iter=500).fit(data.data, data.target)
    # Without the map around the probabilities, which the Open Inference Protocol cannot carry.
    options = {id(classifier): {"zipmap": False}}
    signature = [("X", FloatTensorType([None, 4]))]
    model = skl2onnx.to_onnx(classifier, initial_types=signature, options=options, target_opset=17)
    return bytes(model.SerializeToString())


def _image(seed: int) -> np.ndarray:
    """A picture of waves: unlike noise, two of them differ to a network as well."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:224, 0:224] / 224

    def channel() -> np.ndarray:
        waves = [
            random.normal() * np.sin(2 * np.pi * (f * x * random.random() + f * y * random.random() + random.random()))
            for f in (1, 2, 4, 8, 16)
        ]
        return np.asarray(np.sum(waves, axis=0) + random.normal())

    return np.stack([channel() for _ in range(3)])[np.newaxis].astype(np.float32)


def _cached(name: str, make: Callable[[], bytes]) -> bytes:
    """The file of a name, made again when what makes it has changed."""
    recipe = b"".join(Path(file).read_bytes() for file in (__file__, weights.__file__))
    version = hashlib.sha256(recipe + f"{onnx.__version__} {skl2onnx.__version__}".encode()).hexdigest()[:12]
    file = FOLDER / f"{name}-{version}.onnx"
    if not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        for old in FOLDER.glob(f"{name}-*.onnx"):
            old.unlink(missing_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_bytes(make())
        fresh.replace(file)
    return file.read_bytes()
