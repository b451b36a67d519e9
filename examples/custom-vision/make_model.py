"""A classifier of fruit with the interface of a Custom Vision export, made the way such exports were.

Those of 2018 and 2019 are Core ML networks that were converted to ONNX: an image `data`, its name `classLabel`, and a
map `loss` with the probability of each name. Here the weights are a logistic regression on drawn pictures.
"""

import sys
import zipfile
from pathlib import Path

import coremltools
import numpy as np
from coremltools.models import datatypes
from coremltools.models.neural_network import NeuralNetworkBuilder
from onnxmltools import convert_coreml
from PIL import Image, ImageDraw
from sklearn.linear_model import LogisticRegression

from examples.recording import compare, write_answer

SIZE, POOL = 224, 28
CELLS = SIZE // POOL
FRUIT = ["apple", "banana", "cucumber"]


def main(folder: Path) -> None:
    random = np.random.default_rng(1)
    named = [(fruit, draw(fruit, random)) for _ in range(80) for fruit in FRUIT]
    pictures = np.stack([pixels(picture) for _, picture in named])
    names = [fruit for fruit, _ in named]
    seen = LogisticRegression(max_iter=2000, C=1.0).fit(features(pictures[3:]), names[3:])

    export(convert(seen), folder)
    fruit, picture = named[1]
    picture.save(folder / "picture.png", optimize=True)
    label = seen.predict(features(pictures[1:2]))[0]
    assert label == fruit
    (probabilities,) = seen.predict_proba(features(pictures[1:2]))
    answer = {"classLabel": [[label]], "loss": [dict(zip(seen.classes_.tolist(), probabilities, strict=True))]}
    with zipfile.ZipFile(folder / "custom-vision.zip") as archive:
        model = archive.read("model.onnx")
    print("largest difference to scikit-learn:", compare(model, {"data": pictures[1:2]}, answer, tolerance=1e-4))
    write_answer(folder, answer)


def draw(fruit: str, random: np.random.Generator) -> Image.Image:
    """A picture of a fruit somewhere before something light."""
    picture = Image.new("RGB", (SIZE, SIZE), tuple(random.integers(190, 256, 3).tolist()))
    pen = ImageDraw.Draw(picture)
    x, y = random.integers(20, 84, 2).tolist()
    size = int(random.integers(90, 120))
    if fruit == "apple":
        pen.ellipse((x, y, x + size, y + size), fill=(200, 30, 40))
        pen.line((x + size // 2, y + 8, x + size // 2 + 10, y - 14), fill=(90, 60, 30), width=6)
    elif fruit == "banana":
        pen.arc((x, y, x + size, y + size), 20, 170, fill=(240, 210, 60), width=size // 4)
    else:
        pen.rounded_rectangle((x, y + size // 3, x + size, y + size // 3 + size // 4), size // 8, fill=(60, 130, 50))
    return picture


def pixels(picture: Image.Image) -> np.ndarray:
    """As the export wants them: blue, green and red planes, 0 to 255."""
    return np.asarray(picture, np.float32)[:, :, ::-1].transpose(2, 0, 1)


def features(pictures: np.ndarray) -> np.ndarray:
    cells = pictures.reshape(len(pictures), 3, CELLS, POOL, CELLS, POOL).mean((3, 5))
    return cells.reshape(len(pictures), -1) / 255


def convert(seen: LogisticRegression):
    builder = NeuralNetworkBuilder(
        [("data", datatypes.Array(3, SIZE, SIZE))], [("loss", datatypes.Array(len(FRUIT)))], mode="classifier"
    )
    builder.set_pre_processing_parameters(["data"], is_bgr=True)
    builder.add_pooling("pool", POOL, POOL, POOL, POOL, "AVERAGE", "VALID", "data", "pooled")
    builder.add_flatten("flat", 0, "pooled", "features")
    width = 3 * CELLS * CELLS
    builder.add_inner_product("dense", seen.coef_ / 255, seen.intercept_, width, len(FRUIT), True, "features", "logits")
    builder.add_softmax("softmax", "logits", "loss")
    builder.set_class_labels(seen.classes_.tolist(), predicted_feature_name="classLabel")
    model = convert_coreml(coremltools.models.MLModel(builder.spec), "custom-vision", target_opset=7)
    told = {entry.key for entry in model.metadata_props}
    for key, value in {
        "Image.BitmapPixelFormat": "Bgr8",
        "Image.ColorSpaceGamma": "SRGB",
        "Image.NominalPixelRange": "NominalRange_0_255",
    }.items():
        if key not in told:
            model.metadata_props.add(key=key, value=value)
    return model


def export(model, folder: Path) -> None:
    """The zip that Custom Vision's page `Performance` gives, with the same bytes each time."""
    with zipfile.ZipFile(folder / "custom-vision.zip", "w") as archive:
        for name, content in (("model.onnx", model.SerializeToString()), ("labels.txt", "\n".join(FRUIT) + "\n")):
            archive.writestr(zipfile.ZipInfo(name, (2018, 12, 4, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
