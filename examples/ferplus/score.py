"""Names the emotion of a face: grey pixels of any size in, the emotions from the likeliest to the least out."""

import json

import numpy as np
import onnxruntime
from azureml.core.model import Model

EMOTIONS = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"]


def init():
    global session
    session = onnxruntime.InferenceSession(Model.get_model_path("ferplus"))


def preprocess(pixels):
    image = np.array(pixels, dtype=np.float32)
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"expected rows of grey pixels, got the shape {list(image.shape)}")
    rows, columns = (np.arange(64) * size // 64 for size in image.shape)
    return image[rows][:, columns][np.newaxis, np.newaxis]


def postprocess(scores):
    powers = np.exp(scores - scores.max())
    probabilities = powers / powers.sum()
    order = np.argsort(-probabilities, kind="stable")
    return [{"emotion": EMOTIONS[index], "probability": round(float(probabilities[index]), 6)} for index in order]


def run(raw_data):
    image = preprocess(json.loads(raw_data)["data"])
    (scores,) = session.run(["Plus692_Output_0"], {"Input3": image})
    return {"emotions": postprocess(scores[0])}
