"""Asks for the classes of a drawn picture, as raw bytes: `python client.py http://localhost:8080`. Needs numpy."""

import json
import sys
import urllib.request

import numpy as np

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


def picture() -> np.ndarray:
    """A red ball on a field, 224 × 224."""
    rows, columns = np.mgrid[:224, :224]
    pixels = np.zeros((224, 224, 3), np.uint8)
    pixels[..., 2] = 200 - rows // 2
    pixels[112:, :, 1] = 140
    pixels[(rows - 120) ** 2 + (columns - 130) ** 2 < 40**2] = (220, 30, 30)
    return pixels


def main(url: str) -> None:
    image = ((picture().astype(np.float32) / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)[np.newaxis]
    raw = np.ascontiguousarray(image).tobytes()
    tensor = {"name": "gpu_0/data_0", "shape": list(image.shape), "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    output = {"name": "gpu_0/softmax_1", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    request = urllib.request.Request(f"{url}/v2/models/resnet50/infer", data=head + raw, headers=headers)
    with urllib.request.urlopen(request) as response:
        length = int(response.headers["Inference-Header-Content-Length"])
        probabilities = np.frombuffer(response.read()[length:], np.float32)
    top = np.argsort(-probabilities, kind="stable")[:5]
    print(json.dumps({"classes": top.tolist(), "probabilities": [float(probabilities[index]) for index in top]}))


if __name__ == "__main__":
    main(sys.argv[1])
