"""Finds things in a picture: bytes of RGB pixels in, boxes with names out.

The body is {"width": W, "height": H, "rgb": base64 of W × H × 3 bytes}; boxes are in pixels of that picture.
"""

import base64
import json

import numpy as np
import onnxruntime
from azureml.core.model import Model

SIDE, CELLS, LEAST_SCORE, MOST_OVERLAP = 416, 13, 0.3, 0.3
ANCHORS = np.array([[1.08, 1.19], [3.42, 4.41], [6.63, 11.38], [9.42, 5.11], [16.62, 10.52]])
NAMES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]


def init():
    global session
    session = onnxruntime.InferenceSession(Model.get_model_path("tinyyolo"))


def preprocess(body):
    width, height = int(body["width"]), int(body["height"])
    pixels = np.frombuffer(base64.b64decode(body["rgb"]), np.uint8)
    if pixels.size != width * height * 3 or pixels.size == 0:
        raise ValueError(f"expected {width} x {height} x 3 bytes of pixels, got {pixels.size}")
    picture = pixels.reshape(height, width, 3)
    rows, columns = np.arange(SIDE) * height // SIDE, np.arange(SIDE) * width // SIDE
    return picture[rows][:, columns].transpose(2, 0, 1)[np.newaxis].astype(np.float32), width, height


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def boxes_of(grid):
    """Every box of the grid: corners as parts of the picture, its best class, and how sure the model is."""
    cells = grid.reshape(5, 25, CELLS, CELLS).transpose(2, 3, 0, 1)
    rows, columns = np.mgrid[:CELLS, :CELLS]
    centre_x = (sigmoid(cells[..., 0]) + columns[..., np.newaxis]) / CELLS
    centre_y = (sigmoid(cells[..., 1]) + rows[..., np.newaxis]) / CELLS
    half = np.exp(np.clip(cells[..., 2:4], None, 8)) * ANCHORS / CELLS / 2
    classes = np.exp(cells[..., 5:] - cells[..., 5:].max(-1, keepdims=True))
    classes /= classes.sum(-1, keepdims=True)
    scores = (sigmoid(cells[..., 4])[..., np.newaxis] * classes).reshape(-1, len(NAMES))
    corners = np.stack(
        [centre_x - half[..., 0], centre_y - half[..., 1], centre_x + half[..., 0], centre_y + half[..., 1]], axis=-1
    )
    return np.clip(corners.reshape(-1, 4), 0, 1), scores.argmax(1), scores.max(1)


def overlap(box, others):
    size = np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return size / np.maximum(areas - size, 1e-9)


def postprocess(grid, width, height):
    """The boxes that are sure enough, without those that say the same as a surer one."""
    corners, classes, scores = boxes_of(grid)
    order = [index for index in np.argsort(-scores, kind="stable") if scores[index] >= LEAST_SCORE]
    found = []
    while order:
        best, order = order[0], order[1:]
        found.append(best)
        if order:
            others = np.array(order)
            same = (classes[others] == classes[best]) & (overlap(corners[best], corners[others]) > MOST_OVERLAP)
            order = list(others[~same])
    scale = np.array([width, height, width, height])
    return [
        {
            "name": NAMES[classes[index]],
            "score": round(float(scores[index]), 4),
            "box": [round(float(value), 1) for value in corners[index] * scale],
        }
        for index in found[:10]
    ]


def run(raw_data):
    image, width, height = preprocess(json.loads(raw_data))
    (grid,) = session.run(["grid"], {"image": image})
    return {"boxes": postprocess(grid[0], width, height)}
