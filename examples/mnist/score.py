"""Reads one handwritten digit: grey pixels of any size in, the digit and how sure the model is of each out."""

import json
import time

import numpy as np
import onnxruntime
from azureml.core.model import Model


def init():
    global session
    session = onnxruntime.InferenceSession(Model.get_model_path("mnist"))


def preprocess(pixels):
    """Cut to a square and bring to 28 × 28, light on dark, as the model was trained."""
    image = np.array(pixels, dtype=np.float32)
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"expected rows of grey pixels, got the shape {list(image.shape)}")
    side = min(image.shape)
    image = image[:side, :side]
    places = np.arange(28) * side // 28
    return image[places][:, places][np.newaxis, np.newaxis]


def postprocess(scores):
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def run(raw_data):
    started = time.perf_counter()
    image = preprocess(json.loads(raw_data)["data"])
    (scores,) = session.run(["Plus214_Output_0"], {"Input3": image})
    probabilities = postprocess(scores[0])
    return {
        "digit": int(probabilities.argmax()),
        "probabilities": [round(float(p), 6) for p in probabilities],
        "seconds": time.perf_counter() - started,
    }
